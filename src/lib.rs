#![doc = "Stores events in a DynamoDB table, fast, and says of every single one what became of it."]

mod builder;
mod config;
mod error;
mod event;
#[cfg(feature = "bench-internals")]
pub mod internals;
mod key;
#[cfg(feature = "local")]
mod local;
mod policy;
mod report;
mod room;
mod stats;
mod store;
mod table;
mod ticket;
mod worker;
mod writer;

pub use builder::{EventStoreBuilder, StartError};
pub use config::ConfigError;
pub use error::{
    BatchError, Certainty, CloseError, FailureClass, FlushError, GiveUp, PutError, WorkerLost,
    WriteError,
};
pub use event::{
    BODY_ATTRIBUTE, Event, EventTooLarge, KEY_ATTRIBUTE, MAX_BATCH_EVENTS, MAX_BATCH_WIRE_BYTES,
    MAX_BODY_BYTES, MAX_ITEM_BYTES,
};
pub use key::{EventKey, ParseKeyError, WriterId};
#[cfg(feature = "local")]
pub use local::{LocalError, LocalTable, LocalTableBuilder};
pub use policy::retry::Backoff;
pub use report::{CloseReport, FlushReport};
pub use stats::Stats;
pub use store::EventStore;
pub use table::{Capacity, Table, TableError};
pub use ticket::{PutTicket, Stored};
pub use writer::{BatchReceipt, BatchWriter, SdkBatchWriter};
