//! Everything that knows AWS: the trait at the edge, its two implementations, and the table.

mod batch_writer;
mod chunked_body;
mod classify;
mod client;
mod connection_pool;
mod direct;
mod identities;
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
