//! Stores events in a DynamoDB table, fast, and reports the outcome of every event.
//!
//! [`EventStore::put`] serialises an event, reserves space for it in a bounded buffer, gives it a key and
//! sends it to a background worker. It returns a [`PutTicket`], a future. The worker collects events into
//! `BatchWriteItem` calls of up to 25, retries what is unprocessed, throttled or lost, and answers
//! every ticket with [`Stored`] or with a [`WriteError`].
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
//! // A table in this process. In AWS: EventStore::builder().table("all-events").
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
//! The [`guide`] has what a program needs to know beyond this page: [failures](guide::failures),
//! [throttling](guide::capacity), [shutdown and Lambda](guide::shutdown), [reading back](guide::reading),
//! [tests](guide::testing), [writer ids](guide::writer_ids), [permissions](guide::permissions) and more.
//!
//! # The way of an event
//!
//! ```text
//!   caller              handle               one task                      transport
//!  put(&event) ──▶ EventStore ──mpsc──▶ worker ─▶ buffer ─▶ batch ──▶ BatchWriter ──▶ DynamoDB
//!  PutTicket ◀──────oneshot─────────── settle ◀─ reconcile(sent, unprocessed) ◀──────────┘
//!                                        └── remaining ─▶ backoff ─▶ wait ─▶ buffer
//! ```
//!
//! # The table
//!
//! The table has one hash key, `key`, a String, and no range key. An item has two attributes: `key`, for example
//! `20130927T005240652508858176` ([`EventKey`]), and `body`, the event as JSON text. [`Table`]
//! creates and checks it. The npm module `dynamodb-eventstore` 0.1.0 uses the same table, and both can
//! write to it at the same time.
//!
//! # What is promised
//!
//! | promise | because |
//! |---|---|
//! | Every accepted event gets one answer, at the latest one attempt timeout after its deadline. | A pending event can only be consumed by settling it. If it is dropped, its `Drop` settles it. |
//! | `Ok(Stored)`: the service acknowledged a call with the event, or a consistent read found it. | Answers are matched by key. A 200 that is empty, unreadable or about other keys is no answer. |
//! | [`NotStored`](Certainty::NotStored): no attempt was applied, and none can still be applied. [`MaybeStored`](Certainty::MaybeStored): an attempt may have been applied, or may still be applied. | An uncertain event stays uncertain until an attempt is acknowledged or a [read](EventStoreBuilder::read_back) settles it. |
//! | A retry changes nothing that is stored. | Same key, same body. An insert gets a new key only if another item has the old one. |
//! | With [`WriteMode::Insert`]: no event replaces another item. | A key is used only if it is free. An event whose key another item has gets a new one, or fails ([`OnDuplicate`]). |
//! | The keys of one store are in the order of its puts, whatever the clock does, except keys that [inserts](guide::inserting) have replaced. | The generator never repeats a key and never steps back. |
//! | With the feature `journal`: an event that is `journalled` is stored sooner or later, even if its process is killed, or is kept in `failed.ndjson` if it is invalid or another item has its key. | Records with checksums in a directory. The next process reads each event back, and puts the rest; a store that inserts puts all of them. |
//! | Memory is bounded, in events and in bytes. | Space is reserved before an event is accepted, and released when it is settled. |
//! | `accepted = stored + failed + pending`, at every moment. | [`EventStore::stats`] shows it. |
//! | Two stores that [lease](WriterIds::leased) their writer ids never make the same key, even if their clocks are wrong. The exception is a copied process of which [both clocks hide the copy](guide::writer_ids). | A lease is a range of key times, and the table of leases lets no two ranges of one id overlap. |
//!
//! Not promised: that events reach the table in the order of their keys; that two stores with the same drawn or
//! assigned [`WriterId`] have different keys, so that events are not replaced, unless they [insert](guide::inserting);
//! that an accepted event survives the end of its process without a [journal](guide::journal); that a read finds an
//! event that somebody has deleted.
//!
//! # Three ways to end
//!
//! | | pending events | who learns of the outcome |
//! |---|---|---|
//! | [`close`](EventStore::close)`(deadline)` | are sent until the deadline, then fail | the tickets and the [`CloseReport`] |
//! | the last handle is dropped | are sent, each until its own deadline | the tickets and the log |
//! | the runtime is shut down | fail at once | the tickets; later calls fail with [`WorkerLost`] |
//!
//! # Tracing
//!
//! The store emits [`tracing`] events of the target `dynamodb_eventstore`: `put` at TRACE with `key` and `body`, `ok`
//! at DEBUG with `key`, `error` at ERROR with `key` and the cause. Bodies appear at TRACE only, credentials
//! never. The AWS SDK's own TRACE events show whole requests.
//!
//! Each write call is a span `write_batch` at DEBUG, with the field names of OpenTelemetry's conventions:
//!
//! | field | value |
//! |---|---|
//! | `db.system.name`, `otel.kind` | `aws.dynamodb`, `client` |
//! | `db.operation.name`, `otel.name` | `BatchWriteItem`, or `BatchExecuteStatement` for inserts |
//! | `db.operation.batch.size` | events of the call |
//! | `aws.dynamodb.table_names` | the table, unless the store has its own [`BatchWriter`] |
//! | `bytes`, `attempt` | the size of the items in the request; the highest number of attempts of its events, 1 for new ones |
//! | `unprocessed`, `consumed_write_units` | from the answer |
//! | `aws.request_id` | from the answer, also from an error |
//! | `error.type`, `otel.status_code` | the error code, or the [`FailureClass`] without one, or `cancelled` by the deadline of close; `ERROR` |
//!
//! The span is a root, as a call carries events of many callers. It [follows from](tracing::Span::follows_from) the span
//! in which each of its events was put, which OpenTelemetry's layers export as links. So a caller's span stays open until
//! its events are settled, also if their tickets are dropped. Callers and store need the same subscriber. If it does not
//! want the span of a call, that costs a comparison per put and per call, and later puts keep no caller's span.
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none, the default | the library |
//! | `journal` | [`Journal`](guide::journal): accepted events on disk; after a crash the next process stores them |
//! | `test-util` | `test_util::FakeTable`: a fake table for your tests that fails as scripted, or at random from a seed |
//! | `local` | `LocalTable`: an embedded table, in memory or in a SQLite file |
//! | `metrics` | [metrics](guide::metrics) of the store, for any exporter of the crate `metrics` |
//! | `reader` | `EventReader`: reads a table back by a parallel scan, sorted if asked for |
//! | `tail` | `EventTail`: follows a table with DynamoDB Streams; and `reader` |
//! | `sso` | credentials of AWS profiles with an SSO session |
//! | `credentials-process` | credentials of AWS profiles with a `credential_process` |
//! | `cli` | the command-line tool `dynamodb-eventstore`, and `journal`, `local`, `reader`, `tail`, `sso` and `credentials-process` |

// docs.rs shows which feature each item needs. That takes a nightly rustdoc.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accounting;
#[cfg(feature = "bench-internals")]
pub mod bench_internals;
mod clock;
mod dynamodb;
mod error;
mod event;
mod flow_control;
mod fresh_random;
#[cfg(any(doc, all(doctest, feature = "local", feature = "test-util")))]
#[cfg_attr(
    not(all(feature = "local", feature = "test-util")),
    allow(rustdoc::broken_intra_doc_links, reason = "it names items of all features")
)]
pub mod guide;
#[cfg(feature = "journal")]
mod journal;
mod key_source;
mod lease;
mod lease_keeper;
#[cfg(feature = "local")]
mod local;
#[cfg(feature = "metrics")]
mod metrics;
mod pending;
mod policy;
#[cfg(feature = "reader")]
mod reader;
mod report;
mod settled;
mod stats;
mod store;
mod sync;
#[cfg(feature = "tail")]
mod tail;
#[cfg(feature = "test-util")]
pub mod test_util;
mod worker;
#[cfg(any(feature = "local", feature = "test-util"))]
mod write_capacity;
mod write_mode;

pub use dynamodb::inspection::{Finding, Inspected, Inspection, Outcome};
pub use dynamodb::table::{Capacity, Table, TableError};
pub use dynamodb::target::Transport;
pub use dynamodb::{BatchReading, BatchReceipt, BatchWriter, SdkBatchWriter};
#[cfg(feature = "journal")]
pub use error::JournalError;
pub use error::{
    Attempt, BatchError, Certainty, CloseError, ConfigError, FailureClass, FailureReason,
    FlushError, LeaseError, PutError, ReadBack, SinkError, ThrottlingLimit, ThrottlingReason,
    WorkerLost, WriteError,
};
pub use event::key::{EventKey, ParseKeyError, WriterId};
#[cfg(feature = "reader")]
pub use event::scanned_item::{
    ItemDefect, ItemLineError, ScannedItem, StoredEvent, UnexpectedItem,
};
pub use event::{
    BODY_ATTRIBUTE, Event, EventTooLarge, KEY_ATTRIBUTE, MAX_BATCH_EVENTS, MAX_BATCH_WIRE_BYTES,
    MAX_BODY_BYTES, MAX_ITEM_BYTES,
};
#[cfg(feature = "journal")]
pub use journal::{Damage, Journal, JournalOptions, RecoveryReport, SyncPolicy};
#[cfg(feature = "local")]
pub use local::{LocalError, LocalTable, LocalTableBuilder};
pub use pending::PutTicket;
pub use policy::retry::Backoff;
#[cfg(feature = "reader")]
pub use reader::EventReader;
#[cfg(feature = "reader")]
pub use reader::builder::EventReaderBuilder;
#[cfg(feature = "reader")]
pub use reader::error::ReadError;
#[cfg(feature = "reader")]
pub use reader::position::ReadPosition;
#[cfg(feature = "reader")]
pub use reader::progress::ReadProgress;
#[cfg(feature = "reader")]
pub use reader::sort::item_sorter::{ItemSorter, SortedItems};
pub use report::{CloseReport, FlushReport};
pub use settled::{Proof, Settled, Stored};
pub use stats::{Stats, ThrottledBatches};
pub use store::EventStore;
pub use store::builder::EventStoreBuilder;
pub use store::key_generator::EventKeyGenerator;
pub use store::puts::put_all::{FailedPut, NotAccepted, PutAllReport, PutAllTicket};
pub use store::puts::sink::EventSink;
#[cfg(feature = "journal")]
pub use store::replay::ReplayReport;
pub use store::start_error::StartError;
pub use store::writer_ids::{LeasedWriterIds, WriterIds};
#[cfg(feature = "tail")]
pub use tail::builder::EventTailBuilder;
#[cfg(feature = "tail")]
pub use tail::error::TailError;
#[cfg(feature = "tail")]
pub use tail::position::TailPosition;
#[cfg(feature = "tail")]
pub use tail::record::{RecordLoss, TailRecord};
#[cfg(feature = "tail")]
pub use tail::{EventTail, TailStart};
#[cfg(any(feature = "local", feature = "test-util"))]
pub use write_capacity::WriteCapacity;
pub use write_mode::{OnDuplicate, WriteMode};

/// The snippets of the README, run as doc tests.
#[cfg(all(doctest, feature = "local", feature = "test-util"))]
#[doc = include_str!("../README.md")]
struct Readme;
