//! Everything that knows AWS: the [`BatchWriter`] trait, its two implementations, and the table.
//!
//! The store's builder chooses the writer. The worker knows the trait only.

mod batch_writer;
mod chunked_body;
mod classify;
mod client;
mod connection_pool;
mod direct;
mod identity_cache;
pub(crate) mod inspection;
pub(crate) mod request;
mod response;
mod response_body;
mod sdk;
mod signing_state;
pub(crate) mod table;
pub(crate) mod target;

pub use batch_writer::{BatchReading, BatchReceipt, BatchWriter};
pub(crate) use direct::DirectBatchWriter;
pub use sdk::SdkBatchWriter;
