//! [`EventStore`], the public handle: it accepts events and sends them to the [worker](crate::worker).

mod accept;
pub(crate) mod builder;
pub(crate) mod config;
mod distinct_keys;
pub(crate) mod key_generator;
mod labels;
mod limits;
mod next_key;
mod on_settled;
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
use std::time::Duration;

use rand::rngs::StdRng;
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::accounting::Accounting;
use crate::clock::{MAX_DEADLINE, now};
use crate::dynamodb::BatchWriter;
use crate::error::{CloseError, FlushError, PutError, WorkerLost};
use crate::event::check_body;
use crate::event::encoded_body::EncodedBody;
#[cfg(feature = "journal")]
use crate::journal::{ActiveJournal, Unsettled};
use crate::key_source::KeySource;
use crate::pending::PutTicket;
use crate::report::{CloseReport, FlushReport};
use crate::stats::Stats;
use crate::store::builder::EventStoreBuilder;
use crate::store::config::Config;
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
        store
    }

    /// Puts an event: serialises it to JSON, waits while the buffer is full, and sends the event to the worker.
    ///
    /// `Ok` means that the event is accepted: it has its key, and its [`PutTicket`] will be answered. The ticket says
    /// whether it is stored. The keys of tickets are in the order of the puts. The order in which events arrive in the table is not
    /// promised.
    ///
    /// The event is serialised in the call itself, before the future is first polled. The future does not borrow it.
    ///
    /// # Errors
    ///
    /// A [`PutError`] means that the event was not accepted. It is too large ([`TooLarge`](PutError::TooLarge)), cannot
    /// be serialised ([`NotSerializable`](PutError::NotSerializable)), or no key is left
    /// ([`NoKeyLeft`](PutError::NoKeyLeft)). The lease of the writer id has ended, and no new one was granted within
    /// [`max_wait`](crate::LeasedWriterIds::max_wait) ([`NoWriterId`](PutError::NoWriterId)). Or the store is closed
    /// ([`Closed`](PutError::Closed)) or has lost its worker ([`WorkerLost`](PutError::WorkerLost)).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready accepts no event, and gives back its place in the buffer.
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
    /// store's budget has reduced the limit of the buffer, else [`PutError::Full`].
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

    /// Waits until every event accepted before the call is settled, retries included, and returns how many were stored
    /// and how many failed.
    ///
    /// Events in the buffer are sent without waiting for the linger. Events accepted after the call are not waited for.
    /// A flush takes at most one [`event_deadline`](EventStoreBuilder::event_deadline) plus one
    /// [`attempt_timeout`](EventStoreBuilder::attempt_timeout).
    ///
    /// # Errors
    ///
    /// [`FlushError`]: the store is closed or has lost its worker.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only stops the wait: the events are flushed anyway. Later flushes do not report these events
    /// again.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// // In AWS Lambda, at the end of each invocation, as the function is frozen between them:
    /// let report = store.flush().await?;
    /// if report.failed > 0 {
    ///     eprintln!("{} of {} events failed", report.failed, report.failed + report.stored);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<FlushReport, FlushError> {
        let (reply, report) = oneshot::channel();
        if self.shared.commands.send(Command::Flush(reply)).is_err() {
            return Err(self.lost().map_or(FlushError::Closed, FlushError::WorkerLost));
        }
        report.await.map_err(|_| self.lost().map_or(FlushError::Closed, FlushError::WorkerLost))
    }

    /// Closes the store: accepts no more events, settles the accepted events, and returns a report. Events that are not
    /// settled `deadline` after the call fail.
    ///
    /// `Ok` means that every accepted event is settled, not that every event is stored. The [`CloseReport`] counts the
    /// events of the store's whole life. It lists those that failed since the call, and the earlier ones whose tickets
    /// were dropped.
    ///
    /// An event that fails at the deadline is maybe stored if a call with it is in flight, or if an earlier call may
    /// have stored it. It is then read back ([`read_back`](EventStoreBuilder::read_back)), which takes at most one
    /// attempt timeout more, and at most a quarter of `deadline`. So a `deadline` of zero leaves no time for it.
    /// Tickets and report have the same answers. Every clone may call close: all get the same report, and the earliest
    /// deadline counts.
    ///
    /// A leased writer id is given back while the last events are sent, and within the same time. If that fails, other
    /// stores can lease it one term after the end of its range.
    ///
    /// Choose a deadline that leaves this time before your platform kills the process: Kubernetes and ECS wait 30 s
    /// after `SIGTERM` by default.
    ///
    /// # Errors
    ///
    /// [`CloseError`]: the worker was lost before it could report. The tickets have the answers.
    ///
    /// # Cancel safety
    ///
    /// After the first poll the store closes. Dropping the future only stops the wait.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let report = store.close(std::time::Duration::from_secs(20)).await?;
    /// for error in &report.errors {
    ///     eprintln!("{error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, deadline: Duration) -> Result<CloseReport, CloseError> {
        let (start, deadline) = (now(), deadline.min(MAX_DEADLINE));
        let fail_at = start + deadline;
        let answer_by = fail_at + self.shared.config.time_to_read_back(deadline);
        let deadlines = CloseDeadlines { fail_at, answer_by };
        self.shared.accounting.flow_control.close();
        if let Some(lease) = &self.shared.lease {
            // No more keys are made, so the writer id is given back while the last events are sent.
            lease.handle.close();
        }
        self.shared.close_deadlines.send_if_modified(|set| {
            let earliest = set.map_or(deadlines, |set| set.earliest(deadlines));
            set.replace(earliest) != Some(earliest)
        });
        let mut exit = self.shared.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.map(|exit| exit.clone());
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.shared.accounting.journal {
            journal.close().await;
        }
        self.drain_hook(answer_by).await;
        let result = match exit {
            Ok(Some(WorkerExit::Closed(report))) => Ok(CloseReport::clone(&report)),
            Ok(Some(WorkerExit::Lost(lost))) => Err(CloseError::from(lost)),
            Ok(None) | Err(_) => Err(CloseError::from(WorkerLost::Stopped)),
        };
        if let Some(lease) = &self.shared.lease {
            // If it takes longer, the id becomes free one term after the end of its range.
            drop(timeout_at(Instant::from_std(answer_by), lease.handle.closed()).await);
        }
        result
    }

    /// The store's counters at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let accounting = &self.shared.accounting;
        let age = now().saturating_duration_since(accounting.started_at);
        accounting.counters.snapshot(self.shared.config.max_batch_events(), age)
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
