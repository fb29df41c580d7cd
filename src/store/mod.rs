//! The face of the crate.

pub(crate) mod builder;
pub(crate) mod config;
mod put_again;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::accounting::Accounting;
use crate::clock::{FAR_OFF, KeyClock, now};
use crate::dynamodb::BatchWriter;
use crate::error::Uncertainty;
use crate::error::{CloseError, FlushError, PutError, WorkerLost};
use crate::event::encoded_body::EncodedBody;
use crate::event::key::{KeyGenerator, WriterId};
use crate::event::{Event, check_body};
use crate::flow_control::{AcquireError, Permit};
use crate::pending::{PendingEvent, PutTicket};
use crate::report::{CloseReport, FlushReport};
use crate::stats::Stats;
use crate::store::builder::EventStoreBuilder;
use crate::store::config::Config;
use crate::worker::{CloseDeadlines, Command, Worker, WorkerChannels, WorkerExit};

/// Stores events in a DynamoDB table and says of each what became of it.
///
/// A handle to a background worker. Clones are cheap and share the worker. When the last one is
/// dropped the worker goes on by itself until every event is settled, as long as its runtime
/// lives; [`close`](Self::close) is the way to wait for that and to see the outcome.
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

/// What the handles share. The worker holds none of it, so the last handle takes the sending end
/// of the channel with it.
struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    close_deadlines: watch::Sender<Option<CloseDeadlines>>,
    exit: watch::Receiver<Option<WorkerExit>>,
    accounting: Arc<Accounting>,
    keys: Mutex<KeyGenerator>,
    key_clock: KeyClock,
    config: Config,
}

impl EventStore {
    /// Begins a store; [`EventStoreBuilder`] has the settings.
    pub fn builder() -> EventStoreBuilder {
        EventStoreBuilder::default()
    }

    pub(crate) fn spawn(
        runtime: &Handle,
        writer: Arc<dyn BatchWriter>,
        config: Config,
        writer_id: WriterId,
        jitter: StdRng,
    ) -> Self {
        // Unbounded, because room is taken before anything is sent: the bounds are the room's.
        let (commands, received) = mpsc::unbounded_channel();
        let (close_deadlines, close_deadlines_seen) = watch::channel(None);
        let (exit, exit_seen) = watch::channel(None);
        let accounting =
            Accounting::new(config.max_buffered_events, config.max_buffered_bytes, now());
        let accounting = Arc::new(accounting);
        let links = WorkerChannels {
            commands: received,
            close_deadlines: close_deadlines_seen,
            exit,
            accounting: Arc::clone(&accounting),
        };
        runtime.spawn(Worker::new(links, writer, &config.worker_settings(), jitter).run());
        Self {
            shared: Arc::new(Shared {
                commands,
                close_deadlines,
                exit: exit_seen,
                accounting,
                keys: Mutex::new(KeyGenerator::new(writer_id)),
                key_clock: config.seed.map_or(KeyClock::Wall, |_| KeyClock::Runtime(now())),
                config,
            }),
        }
    }

    /// Puts an event: serialises it to JSON, waits for room in the buffer, and hands it to the
    /// worker.
    ///
    /// `Ok` means that the event is accepted: it has its key, and its [`PutTicket`] will be
    /// answered. It does not mean that it is stored; that is what the ticket says. Keys are in the
    /// order of the puts; the order in which events arrive in the table is not promised.
    ///
    /// The event is serialised within the call itself, and the future holds nothing of it.
    ///
    /// # Errors
    ///
    /// [`PutError`]: the event is too large or not serialisable, or the store is closed or lost its
    /// worker. It was not accepted and nothing of it is left behind.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is done leaves nothing behind: no event, no room taken.
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
    /// let key = *ticket.key();
    /// match ticket.await {
    ///     Ok(stored) => println!("{key} is stored, at attempt {}", stored.attempts),
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

    /// Puts a JSON text, byte for byte as it is: like [`put`](Self::put) without the serialising.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), and cancel safe as well; [`PutError::NotJson`] when the text is not one
    /// JSON value.
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

    /// Puts an event if there is room for it now.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put); [`PutError::Full`] when the buffer has no room.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::{EventStore, PutError};
    /// # fn example(store: EventStore) -> Result<(), PutError> {
    /// match store.try_put(&serde_json::json!({ "level": "debug" })) {
    ///     Ok(ticket) => drop(ticket), // it is written all the same
    ///     Err(PutError::Full { .. }) => println!("shedding load"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_put<E: Serialize + ?Sized>(&self, event: &E) -> Result<PutTicket, PutError> {
        let body = EncodedBody::from_value(event)?;
        let accounting = &self.shared.accounting;
        let bytes = accounting.permit_bytes(body.buffered_bytes());
        let permit = accounting.flow_control.try_acquire(bytes).map_err(|no| self.refusal(no))?;
        self.accept(body, permit)
    }

    /// Waits until everything accepted before the call is settled, retries included, and says how
    /// many events were stored and how many failed.
    ///
    /// Events that wait for company are sent at once. Events accepted during the flush are not waited
    /// for. It takes at most the events' own deadline plus one attempt time-out.
    ///
    /// # Errors
    ///
    /// [`FlushError`]: the store is closed, or its worker is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the waiting and nothing else. Its events count as reported.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// // At the end of each invocation of a function that is frozen in between:
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

    /// Takes no more events, goes on with those accepted until they are settled or `deadline` has
    /// passed, and reports.
    ///
    /// `Ok` means that every accepted event is settled, not that every one is stored:
    /// [`CloseReport`] counts those of the store's whole life, and lists each that was given up since
    /// the call or whose failure no ticket had heard of.
    ///
    /// At the deadline what is still waiting is given up as it stands: not stored, or maybe stored
    /// where a call with it was under way. The latter is read back first
    /// ([`read_back`](EventStoreBuilder::read_back)), for which there is one attempt time-out more, or as
    /// much as a quarter of `deadline` if that is less: a deadline of zero is one. Tickets get the
    /// same answers as the report. Every clone may call it; all get the same report, and the earliest
    /// deadline counts.
    ///
    /// Choose a deadline that is shorter, by that time-out, than what your platform grants after
    /// `SIGTERM`: Kubernetes and ECS wait 30 s unless told otherwise.
    ///
    /// # Errors
    ///
    /// [`CloseError`]: the worker was lost before it could report; tickets have the answers.
    ///
    /// # Cancel safety
    ///
    /// Once polled the store is closing; dropping the future only stops the waiting.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let report = store.close(std::time::Duration::from_secs(20)).await?;
    /// for error in &report.not_stored {
    ///     eprintln!("{error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, deadline: Duration) -> Result<CloseReport, CloseError> {
        let (start, patience) = (now(), deadline.min(FAR_OFF));
        let fail_at = start + patience;
        let answer_by = fail_at + self.shared.config.time_to_read_back(patience);
        let order = CloseDeadlines { fail_at, answer_by };
        self.shared.accounting.flow_control.close();
        self.shared.close_deadlines.send_if_modified(|set| {
            let sooner = set.map_or(order, |set| set.earliest(order));
            set.replace(sooner) != Some(sooner)
        });
        let mut exit = self.shared.exit.clone();
        match exit.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(WorkerExit::Closed(report))) => Ok(CloseReport::clone(report)),
            Ok(Some(WorkerExit::Lost(lost))) => Err(CloseError::from(*lost)),
            Ok(None) | Err(_) => Err(CloseError::from(WorkerLost::Stopped)),
        }
    }

    /// The store's counters at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let accounting = &self.shared.accounting;
        let age = now().saturating_duration_since(accounting.began);
        accounting.counters.snapshot(self.shared.config.batch_capacity(), age)
    }

    async fn put_body(&self, body: EncodedBody) -> Result<PutTicket, PutError> {
        let permit = self.acquire(body.buffered_bytes()).await?;
        self.accept(body, permit)
    }

    pub(crate) async fn acquire(&self, buffered_bytes: u32) -> Result<Permit<'_>, PutError> {
        let accounting = &self.shared.accounting;
        let bytes = accounting.permit_bytes(buffered_bytes);
        accounting.flow_control.acquire(bytes).await.map_err(|no| self.refusal(no))
    }

    /// Gives an event that has room its key and hands it to the worker.
    fn accept(&self, body: EncodedBody, permit: Permit<'_>) -> Result<PutTicket, PutError> {
        let key = {
            // A generator is whole after each of its steps, so a poisoned lock does not matter.
            let mut keys = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.next(self.shared.key_clock.unix_milliseconds()).ok_or(PutError::NoKeyLeft)?
        };
        self.send(Event::with_body(key, body)?, Uncertainty::None, permit)
    }

    pub(crate) fn send(
        &self,
        event: Event,
        uncertainty_before: Uncertainty,
        permit: Permit<'_>,
    ) -> Result<PutTicket, PutError> {
        tracing::trace!(key = %event.key(), body = &*event.body(), "put");
        let accounting = &self.shared.accounting;
        let (pending, ticket) = PendingEvent::new(event, uncertainty_before, permit, accounting);
        match self.shared.commands.send(Command::Put(pending)) {
            Ok(()) => Ok(ticket),
            Err(mpsc::error::SendError(command)) => {
                if let Command::Put(pending) = command {
                    pending.refuse(accounting);
                }
                Err(self.refusal(AcquireError::Closed))
            }
        }
    }

    fn refusal(&self, error: AcquireError) -> PutError {
        match (error, self.lost()) {
            (AcquireError::Full, _) => self
                .shared
                .config
                .full(&self.stats(), self.shared.accounting.flow_control.is_limit_reduced()),
            (AcquireError::Closed, Some(lost)) => PutError::WorkerLost(lost),
            (AcquireError::Closed, None) => PutError::Closed,
        }
    }

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
