//! [`EventStore`], the public handle: it accepts events and sends them to the [worker](crate::worker).

mod accept;
pub(crate) mod builder;
mod close;
pub(crate) mod config;
mod distinct_keys;
pub(crate) mod key_generator;
mod labels;
mod limits;
mod next_key;
mod on_settled;
#[cfg(feature = "journal")]
mod overflow;
mod put_again;
pub(crate) mod puts;
#[cfg(feature = "journal")]
pub(crate) mod replay;
pub(crate) mod start_error;
mod store_lease;
mod write_mode;
pub(crate) mod writer_ids;

use std::fmt;
use std::sync::Arc;

use rand::rngs::StdRng;
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::accounting::Accounting;
use crate::clock::now;
use crate::dynamodb::BatchWriter;
use crate::error::{PutError, WorkerLost};
use crate::event::check_body;
use crate::event::encoded_body::EncodedBody;
#[cfg(feature = "journal")]
use crate::journal::{ActiveJournal, Unsettled};
use crate::key_source::KeySource;
use crate::pending::PutTicket;
use crate::stats::Stats;
use crate::store::builder::EventStoreBuilder;
use crate::store::config::Config;
#[cfg(feature = "journal")]
use crate::store::overflow::{Loader, Overflow};
#[cfg(feature = "journal")]
use crate::store::replay::{Replay, ReplayReport};
use crate::store::store_lease::StoreLease;
use crate::worker::{CloseDeadlines, Command, Worker, WorkerChannels, WorkerExit};

/// Stores events in a DynamoDB table, and reports for each event whether it is stored.
///
/// This is a handle to a background worker. Clones are cheap and share the worker. After the last handle is dropped,
/// the worker continues until every event is settled, as long as its runtime runs. [`close`](Self::close) waits for
/// that and returns the outcome.
///
/// ```
/// # #[cfg(feature = "local")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use dynamodb_eventstore::LocalTable;
///
/// let table = LocalTable::in_memory().await?;
/// let store = table.store_builder().start().await?;
///
/// let ticket = store.put(&serde_json::json!({ "foo": "bar" })).await?;
/// let stored = ticket.await?;
/// println!("stored under {}", stored.key);
///
/// let report = store.close(Duration::from_secs(10)).await?;
/// assert!(report.is_complete());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "local"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct EventStore {
    shared: Arc<Shared>,
}

/// What the handles share. The worker has no reference to it, so dropping the last handle drops the sender of the
/// channel, which ends the worker.
struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    close_deadlines: watch::Sender<Option<CloseDeadlines>>,
    exit: watch::Receiver<Option<WorkerExit>>,
    accounting: Arc<Accounting>,
    keys: Arc<KeySource>,
    runtime: Handle,
    /// Dropped with the last handle, which gives the writer id back.
    lease: Option<StoreLease>,
    config: Config,
    /// Events that wait on disk until the buffer has room. `None` without a journal, and if it does not overflow.
    #[cfg(feature = "journal")]
    overflow: Option<Arc<Overflow>>,
    /// The outcome of the events that an earlier process left, once all are answered. `None` without a journal.
    #[cfg(feature = "journal")]
    replayed: Option<watch::Receiver<Option<ReplayReport>>>,
}

impl EventStore {
    /// Begins to set up a store. [`EventStoreBuilder`] has the settings.
    pub fn builder() -> EventStoreBuilder {
        EventStoreBuilder::default()
    }

    /// Starts the worker on `runtime`, and returns its first handle.
    pub(crate) fn spawn(
        runtime: &Handle,
        writer: Arc<dyn BatchWriter>,
        config: Config,
        keys: Arc<KeySource>,
        lease: Option<StoreLease>,
        jitter: StdRng,
        #[cfg(feature = "journal")] journal: Option<(ActiveJournal, Unsettled)>,
    ) -> Self {
        // The channel needs no limit of its own, as each event in it holds a permit of flow control.
        let (commands, commands_receiver) = mpsc::unbounded_channel();
        let (close_deadlines, close_deadlines_receiver) = watch::channel(None);
        let (exit, exit_receiver) = watch::channel(None);
        #[cfg_attr(not(feature = "journal"), expect(unused_mut, reason = "the journal changes it"))]
        let mut accounting = config.accounting(runtime);
        #[cfg(feature = "journal")]
        let unsettled = journal.map(|(journal, unsettled)| {
            accounting.journal = Some(journal);
            unsettled
        });
        #[cfg(feature = "journal")]
        let overflow = accounting.journal.as_ref().filter(|journal| journal.has_overflow());
        #[cfg(feature = "journal")]
        let overflow =
            overflow.map(|journal| (Arc::new(Overflow::new()), journal.reader().clone()));
        let accounting = Arc::new(accounting);
        let channels = WorkerChannels {
            commands: commands_receiver,
            close_deadlines: close_deadlines_receiver,
            exit,
            accounting: Arc::clone(&accounting),
        };
        #[cfg(feature = "journal")]
        let (replay_report, replayed) = watch::channel(None);
        #[cfg(feature = "journal")]
        let replay_writer = Arc::clone(&writer);
        runtime.spawn(
            Worker::new(channels, writer, Arc::clone(&keys), config.worker.clone(), jitter).run(),
        );
        let store = Self {
            shared: Arc::new(Shared {
                commands,
                close_deadlines,
                exit: exit_receiver,
                accounting,
                keys,
                runtime: runtime.clone(),
                lease,
                config,
                #[cfg(feature = "journal")]
                overflow: overflow.as_ref().map(|(overflow, _)| Arc::clone(overflow)),
                #[cfg(feature = "journal")]
                replayed: unsettled.is_some().then_some(replayed),
            }),
        };
        #[cfg(feature = "journal")]
        if let Some(unsettled) = unsettled {
            if let Some(last_key) = &unsettled.last_key {
                store.shared.keys.start_after(last_key);
            }
            let replay = Replay::new(&store.shared, replay_writer, unsettled, replay_report);
            runtime.spawn(replay.run());
        }
        #[cfg(feature = "journal")]
        if let Some((overflow, reader)) = overflow {
            runtime.spawn(Loader::new(&store.shared, overflow, reader).run());
        }
        store
    }

    /// Puts an event: serialises it to JSON, waits while the buffer is full, and sends the event to the worker. With a
    /// journal it waits only while the journal is full, because events for which the buffer has no room
    #[cfg_attr(feature = "journal", doc = "[wait on disk](crate::JournalOptions::overflow).")]
    #[cfg_attr(not(feature = "journal"), doc = "wait on disk.")]
    ///
    /// `Ok` means that the event is accepted: it has its key, and its [`PutTicket`] will be answered. The ticket says
    /// whether it is stored. The keys of tickets are in the order of the puts. The order in which events arrive in the
    /// table is not promised.
    ///
    /// The event is serialised in the call itself, before the future is first polled. The future does not borrow it.
    ///
    /// # Errors
    ///
    /// A [`PutError`] means that the event was not accepted. It is too large ([`TooLarge`](PutError::TooLarge)), cannot
    /// be serialised ([`NotSerializable`](PutError::NotSerializable)), or no key is left
    /// ([`NoKeyLeft`](PutError::NoKeyLeft)). The lease of the writer id has ended, and no new one was granted within
    /// [`max_wait`](crate::LeasedWriterIds::max_wait) ([`NoWriterId`](PutError::NoWriterId)). The journal cannot write
    /// (`PutError::Journal`, with that feature). Or the store is closed ([`Closed`](PutError::Closed)) or has lost its
    /// worker ([`WorkerLost`](PutError::WorkerLost)).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready accepts no event, and releases its place in the buffer.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::{EventStore, PutError};
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// #[derive(serde::Serialize)]
    /// struct Paid { order: u64, cents: u64 }
    ///
    /// let ticket = store.put(&Paid { order: 7, cents: 1999 }).await?;
    /// match ticket.await {
    ///     Ok(stored) => println!("{} is stored, at attempt {}", stored.key, stored.attempts),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn put<'store, E: Serialize + ?Sized>(
        &'store self,
        event: &E,
    ) -> impl Future<Output = Result<PutTicket, PutError>> + Send + use<'store, E> {
        let body = EncodedBody::from_value(event);
        async move { self.put_body(body?).await }
    }

    /// Puts a JSON text, stored byte for byte as it is. Otherwise like [`put`](Self::put).
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put), and [`PutError::NotJson`] if the text is not exactly one JSON value.
    ///
    /// # Cancel safety
    ///
    /// That of [`put`](Self::put).
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let ticket = store.put_json(r#"{ "foo": "bar" }"#).await?;
    /// ticket.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_json(&self, json: &str) -> Result<PutTicket, PutError> {
        check_body(json.len())?;
        serde_json::from_str::<IgnoredAny>(json).map_err(PutError::NotJson)?;
        self.put_body(EncodedBody::from_text(json)).await
    }

    /// Puts an event without waiting. Otherwise like [`put`](Self::put).
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put), and one of these if `put` would wait: [`PutError::Throttled`] if the table or the
    /// store's budget has reduced the limit of the buffer, else [`PutError::Full`]; with a journal the error for a full
    /// journal.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::{EventStore, PutError};
    /// # fn example(store: EventStore) -> Result<(), PutError> {
    /// match store.try_put(&serde_json::json!({ "level": "debug" })) {
    ///     Ok(ticket) => drop(ticket), // the event is written anyway
    ///     Err(PutError::Full { .. } | PutError::Throttled { .. }) => println!("shedding load"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_put<E: Serialize + ?Sized>(&self, event: &E) -> Result<PutTicket, PutError> {
        self.try_put_body(EncodedBody::from_value(event)?)
    }

    /// The store's counters at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.accounting.stats(self.shared.config.max_batch_events(), now())
    }

    /// Why the worker was lost, if it was.
    fn lost(&self) -> Option<WorkerLost> {
        match &*self.shared.exit.borrow() {
            Some(WorkerExit::Lost(lost)) => Some(*lost),
            Some(WorkerExit::Closed(_)) | None => None,
        }
    }
}

impl fmt::Debug for EventStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventStore").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
