//! Stores events in a DynamoDB table, fast, and says of every single one what became of it.
//!
//! [`EventStore::put`] serialises an event, takes room for it in a bounded buffer, gives it a key
//! and hands it to a background worker; what comes back is a [`PutTicket`]. The worker gathers
//! events into `BatchWriteItem` calls of up to 25, sends again what the service hands back or
//! throttles, and answers every ticket with [`Stored`] or with a [`WriteError`].
//!
//! ```
//! # #[cfg(feature = "local")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use dynamodb_eventstore::{EventStore, LocalTable};
//! use serde_json::json;
//!
//! // A table in this process; for one in AWS: EventStore::builder().table("all-events").
//! let table = LocalTable::in_memory().await?;
//! let store: EventStore = table.store_builder().start().await?;
//!
//! let mut tickets = Vec::new();
//! for number in 0..100 {
//!     tickets.push(store.put(&json!({ "number": number })).await?);
//! }
//! for ticket in tickets {
//!     let stored = ticket.await?;
//!     println!("{} after {} attempts", stored.key, stored.attempts);
//! }
//! let report = store.close(Duration::from_secs(10)).await?;
//! assert_eq!((report.stored, report.failed), (100, 0));
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "local"))]
//! # fn main() {}
//! ```
//!
//! # The way of an event
//!
//! ```text
//!   caller              face                 one task                        edge
//!  put(&event) ──▶ EventStore ──mpsc──▶ worker ─▶ buffer ─▶ batch ──▶ BatchWriter ──▶ DynamoDB
//!  PutTicket ◀──────oneshot─────────── settle ◀─ reconcile(sent, unprocessed) ◀──────────┘
//!                                        └── remaining ─▶ backoff ─▶ wait ─▶ buffer
//! ```
//!
//! # The table
//!
//! One hash key `key`, a String, and no range key. An item has two attributes: `key`, for example
//! `20130927T005240652508858176` ([`EventKey`]), and `body`, the event as JSON text. [`Table`]
//! creates and checks it. It is the table of the npm module `dynamodb-eventstore` 0.1.0, and both can
//! write to it at the same time.
//!
//! # What is promised
//!
//! | promise | what it rests on |
//! |---|---|
//! | Every accepted event gets one answer, at the latest one attempt time-out after its deadline. | A pending event can only be consumed by settling it, and settles itself when dropped. |
//! | `Ok(Stored)`: the service acknowledged a call that carried the event, or a consistent read found it. | Answers are matched by key. A 200 that is empty, unreadable or about other keys is no answer. |
//! | [`NotStored`](Certainty::NotStored): no attempt was applied, and none can be any more. [`MaybeStored`](Certainty::MaybeStored): one may have been, or may yet be. | Once maybe, an event stays maybe until an attempt is acknowledged or a [read](EventStoreBuilder::read_back) settles it. |
//! | A retry changes nothing that is stored. | Same key, same body; a key is never changed, nor drawn again. |
//! | Keys that one store draws are in the order of its puts, whatever the clock does. | The generator never repeats or steps back. |
//! | Memory is bounded, in events and in bytes. | Room is taken before an event is accepted and given back when it is settled. |
//! | `accepted = stored + failed + pending`, at every moment. | [`EventStore::stats`] shows it. |
//!
//! Not promised: that a read back finds what somebody has deleted meanwhile; that events arrive in the table in key order; that two stores that share a
//! [`WriterId`] never clash; that an event survives the death of its process before it is stored.
//!
//! # Three ways to end
//!
//! | | events that are pending | who hears of it |
//! |---|---|---|
//! | [`close`](EventStore::close)`(deadline)` | are sent until the deadline, then given up | the tickets, and the [`CloseReport`] |
//! | the last handle is dropped | are sent, each until its own deadline | the tickets, and the log |
//! | the worker is lost: its runtime is shut down | are given up at once | the tickets; later calls fail with [`WorkerLost`] |
//!
//! # Tracing
//!
//! What the npm module told its `~trace` listeners are [`tracing`] events of the same names: `put`
//! at TRACE with `key` and `body`, `ok` at DEBUG with `key`, `error` at ERROR with `key` and the
//! cause. Bodies appear at TRACE only, credentials never. The AWS SDK's own TRACE events show whole
//! requests.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none, the default | the library |
//! | `test-util` | `test_util::FakeTable`: a table that fails as it is told, for your tests |
//! | `local` | `LocalTable`: an embedded table, in memory or in a SQLite file |
//! | `sso` | credentials of AWS profiles with an SSO session |
//! | `credentials-process` | credentials of AWS profiles with a `credential_process` |
//! | `cli` | the command-line tool `dynamodb-eventstore`, and `local`, `sso` and `credentials-process` |

mod accounting;
#[cfg(feature = "bench-internals")]
pub mod bench_internals;
mod clock;
mod dynamodb;
mod error;
mod event;
mod flow_control;
#[cfg(any(doc, all(doctest, feature = "local", feature = "test-util")))]
pub mod guide;
#[cfg(feature = "local")]
mod local;
mod pending;
mod policy;
mod report;
mod stats;
mod store;
mod sync;
#[cfg(feature = "test-util")]
pub mod test_util;
mod worker;
#[cfg(any(feature = "local", feature = "test-util"))]
mod write_capacity;

pub use dynamodb::table::{Capacity, Table, TableError};
pub use dynamodb::target::Transport;
pub use dynamodb::{BatchReading, BatchReceipt, BatchWriter, SdkBatchWriter};
pub use error::{
    Attempt, BatchError, Certainty, CloseError, ConfigError, FailureClass, FailureReason,
    FlushError, PutError, ReadBack, ThrottlingLimit, ThrottlingReason, WorkerLost, WriteError,
};
pub use event::key::{EventKey, ParseKeyError, WriterId};
pub use event::{
    BODY_ATTRIBUTE, Event, EventTooLarge, KEY_ATTRIBUTE, MAX_BATCH_EVENTS, MAX_BATCH_WIRE_BYTES,
    MAX_BODY_BYTES, MAX_ITEM_BYTES,
};
#[cfg(feature = "local")]
pub use local::{LocalError, LocalTable, LocalTableBuilder};
pub use pending::{Proof, PutTicket, Stored};
pub use policy::retry::Backoff;
pub use report::{CloseReport, FlushReport};
pub use stats::{Stats, ThrottledBatches};
pub use store::EventStore;
pub use store::builder::{EventStoreBuilder, StartError};
#[cfg(any(feature = "local", feature = "test-util"))]
pub use write_capacity::WriteCapacity;

/// The snippets of the README, run as doc tests.
#[cfg(all(doctest, feature = "local", feature = "test-util"))]
#[doc = include_str!("../README.md")]
struct Readme;
