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
mod insert_response;
pub(crate) mod inspection;
mod lease_table;
pub(crate) mod request;
mod response;
mod response_body;
#[cfg(feature = "reader")]
pub(crate) mod scan;
mod sdk;
mod signing_state;
#[cfg(feature = "tail")]
pub(crate) mod streams;
pub(crate) mod table;
mod table_key;
pub(crate) mod target;

pub use batch_writer::{BatchReading, BatchReceipt, BatchWriter};
pub(crate) use direct::DirectBatchWriter;
pub(crate) use lease_table::{DynamoDbLeaseTable, LeaseTable};
pub use sdk::SdkBatchWriter;
