//! The worker: a store's one background task. It takes events from the channel, sends them as the policies decide, and
//! settles them. [`EventStore`](crate::EventStore) spawns it.

mod channel;
mod duplicates;
mod in_flight;
#[cfg(feature = "metrics")]
mod measure;
mod outcome;
mod pacing;
mod read_back;
mod send;
mod settings;
mod settle;
mod span;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::sleep_until;

pub(crate) use channel::{CloseDeadlines, Command, WorkerChannels, WorkerExit};
pub(crate) use settings::WorkerSettings;

use crate::accounting::Accounting;
#[cfg(feature = "metrics")]
use crate::accounting::Usage;
use crate::clock;
use crate::dynamodb::{BatchReading, BatchReceipt, BatchWriter};
use crate::key_source::KeySource;
use crate::pending::PendingEvent;
use crate::policy::BufferedEvent;
use crate::policy::buffer::Buffer;
use crate::policy::concurrency::Concurrency;
use crate::policy::pace::Pace;
use crate::policy::refusal::Refusals;
use channel::{CommandReceiver, ExitGuard};
use in_flight::{CompletedCall, InFlight};
#[cfg(feature = "metrics")]
use measure::Publisher;
use read_back::ReadBacks;
use settle::Settlement;
use span::CallSpans;

/// The maximum number of commands that one iteration takes from the channel.
const MAX_COMMANDS: usize = 256;

/// How long the buffer has to be full, with no event arriving, before it is flushed. That is long compared with the
/// time between a put's permit and the arrival of its event, and short compared with a call.
const FULL_BUFFER_DELAY: Duration = Duration::from_millis(1);

/// The worker's state.
///
/// The order of the fields is the order in which they are dropped, which matters when the task is dropped before it
/// ends. `exit_guard` comes first: it publishes the cause and closes flow control. So a caller that finds the channel
/// closed, or receives the answer of a lost event, also finds the cause.
pub(crate) struct Worker {
    exit_guard: ExitGuard,
    accounting: Arc<Accounting>,
    commands: CommandReceiver,
    close_deadlines: watch::Receiver<Option<CloseDeadlines>>,
    writer: Arc<dyn BatchWriter>,
    settings: WorkerSettings,
    jitter: StdRng,
    keys: Arc<KeySource>,
    spans: CallSpans,
    buffer: Buffer<PendingEvent>,
    in_flight: InFlight<PendingEvent, BatchReceipt>,
    pace: Pace,
    /// When the pace, or a refusal of every call, permits the next batch. `None` while neither delays it.
    send_not_before: Option<Instant>,
    /// When the next [repeated event](Buffer) may be sent.
    next_repeated: Option<Instant>,
    concurrency: Concurrency,
    refusals: Refusals,
    read_backs: ReadBacks,
    settlement: Settlement,
    /// False once the channel is closed and empty: no further event can arrive.
    is_channel_open: bool,
    /// False once the last handle is dropped: close can no longer be called.
    has_handles: bool,
    /// `None` until close is called.
    closing: Option<CloseDeadlines>,
    /// Since when the buffer is full and no event has arrived.
    full_since: Option<Instant>,
    /// The last field, so that it publishes what the drop of the others has changed.
    #[cfg(feature = "metrics")]
    publisher: Publisher,
}

/// Why the loop woke up.
enum Wake {
    /// A write call has completed.
    Attempt(CompletedCall<PendingEvent, BatchReceipt>),
    /// A call that reads events back has completed.
    Read(CompletedCall<PendingEvent, BatchReading>),
    /// Close was called, or with an error the last handle was dropped.
    Close(Result<(), watch::error::RecvError>),
    /// This many commands have arrived. With 0 the channel is closed.
    Commands(usize),
    /// A put waits for a permit, so the buffer may be full.
    WaiterAdded,
    /// Something is due.
    Deadline,
}

impl Worker {
    pub(crate) fn new(
        channels: WorkerChannels,
        writer: Arc<dyn BatchWriter>,
        keys: Arc<KeySource>,
        settings: WorkerSettings,
        jitter: StdRng,
    ) -> Self {
        let WorkerChannels { commands, close_deadlines, exit, accounting } = channels;
        let limits = settings.batch_limits();
        Self {
            commands: CommandReceiver { receiver: commands, accounting: Arc::clone(&accounting) },
            close_deadlines,
            settlement: Settlement::new(
                Arc::clone(&accounting),
                settings.max_buffered_events,
                settings.max_buffered_bytes,
            ),
            exit_guard: ExitGuard { accounting: Arc::clone(&accounting), exit },
            #[cfg(feature = "metrics")]
            publisher: Publisher::new(Arc::clone(&accounting)),
            accounting,
            jitter,
            keys,
            spans: CallSpans::new(settings.table.clone(), settings.write_mode),
            buffer: Buffer::new(limits, settings.linger),
            in_flight: InFlight::new(
                settings.max_batches_in_flight,
                settings.bytes_in_flight_threshold(),
            ),
            pace: Pace::new(settings.max_write_units_per_second, settings.max_batch_events),
            send_not_before: None,
            next_repeated: None,
            concurrency: Concurrency::new(settings.max_batches_in_flight),
            refusals: Refusals::new(settings.refusal_timeout),
            // Reads and writes have a limit each, so that calls of one kind that hang do not block the other kind.
            read_backs: ReadBacks::new(
                Arc::clone(&writer),
                settings.write_mode,
                settings.attempt_timeout,
                settings.retry.backoff,
                limits,
                settings.max_batches_in_flight,
            ),
            writer,
            is_channel_open: true,
            has_handles: true,
            closing: None,
            full_since: None,
            settings,
        }
    }

    /// Runs until the channel is closed and every event is settled. The channel closes when close is called or the last
    /// handle is dropped; the deadlines of close settle the events that are left.
    ///
    /// Each iteration first does what is due and then waits for the next [`Wake`]. The `select!` is the only wait in
    /// the loop, and its branches only return what happened.
    pub(crate) async fn run(mut self) {
        let mut commands = Vec::with_capacity(MAX_COMMANDS);
        self.limit_buffer();
        let timer = sleep_until(tokio_instant(clock::now()));
        tokio::pin!(timer);
        loop {
            let now = clock::now();
            self.fail_expired(now);
            self.update_full_since(now);
            self.forget_pace(now);
            self.send_due(now);
            self.publish_limits(now);
            self.read_backs.read_due(now);
            self.settlement.answer_flushes();
            if self.is_done() {
                break;
            }
            let deadline = self.next_deadline(now);
            #[cfg(feature = "metrics")]
            let deadline = deadline.into_iter().chain(self.next_publication(now)).min();
            if let Some(deadline) = deadline.map(tokio_instant)
                && timer.deadline() != deadline
            {
                timer.as_mut().reset(deadline);
            }
            // Completed attempts come first, because they release permits and let another call begin. Close comes
            // before commands, because it closes their channel. The timer comes last, because every iteration compares
            // the deadlines with the clock.
            let wake = tokio::select! {
                biased;
                Some(call) = self.in_flight.next() => Wake::Attempt(call),
                Some(call) = self.read_backs.reads.next() => Wake::Read(call),
                changed = self.close_deadlines.changed(), if self.has_handles => Wake::Close(changed),
                count = self.commands.receiver.recv_many(&mut commands, MAX_COMMANDS),
                    if self.is_channel_open => Wake::Commands(count),
                () = self.accounting.flow_control.waiter_added() => Wake::WaiterAdded,
                () = &mut timer, if deadline.is_some() => Wake::Deadline,
            };
            let now = clock::now();
            match wake {
                Wake::Attempt(call) => self.conclude(call, now),
                Wake::Read(call) => self.conclude_read(call, now),
                Wake::Close(changed) => self.close(changed.is_ok()),
                Wake::Commands(count) => {
                    self.is_channel_open = count > 0;
                    self.full_since = None;
                    self.admit(commands.drain(..), now);
                }
                // The next iteration finds the waiter, or what is due.
                Wake::WaiterAdded | Wake::Deadline => {}
            }
        }
        self.exit_guard.publish(WorkerExit::Closed(self.settlement.report()));
    }

    /// Whether the channel is closed and every event is settled.
    fn is_done(&self) -> bool {
        !self.is_channel_open
            && self.buffer.is_empty()
            && self.in_flight.is_empty()
            && self.read_backs.is_empty()
    }

    /// When the next iteration is due, if nothing wakes the loop before.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let next_due = || self.buffer.next_due().into_iter().chain(self.next_repeated).min();
        let send = if self.can_send(now) {
            // While `send_not_before` is set, a batch is due already, and only waits for that moment.
            self.send_not_before.or_else(next_due)
        } else {
            // Only a completed call lets the next one begin, or the end of a refusal of every call.
            self.refusals.lapses_at(now)
        };
        // A deadline of close counts as long as it has events to settle. After both, the worker only waits for the
        // channel to be empty.
        let has_unsent = !(self.buffer.is_empty() && self.in_flight.is_empty());
        let has_unread = !self.read_backs.is_empty();
        let close_fail_at = self.closing.filter(|_| has_unsent).map(|closing| closing.fail_at);
        let close_answer_by = self.closing.filter(|_| has_unread).map(|closing| closing.answer_by);
        send.into_iter()
            .chain(self.buffer.next_expiry())
            .chain(self.pace.forgets_at())
            .chain(
                self.full_since
                    .filter(|_| self.send_not_before.is_none())
                    .map(|since| since + FULL_BUFFER_DELAY),
            )
            .chain(self.read_backs.next_deadline())
            .chain(close_fail_at)
            .chain(close_answer_by)
            .min()
    }

    /// Takes events into the buffer, and begins flushes.
    fn admit(&mut self, commands: impl Iterator<Item = Command>, now: Instant) {
        #[cfg(feature = "metrics")]
        let mut accepted = Usage::default();
        let mut just_over_write_unit = 0;
        for command in commands {
            match command {
                Command::Put(mut event) => {
                    just_over_write_unit += u64::from(event.event().is_just_over_write_unit());
                    self.settlement.admit(&mut event, now);
                    #[cfg(feature = "metrics")]
                    {
                        accepted += event.usage(&self.accounting);
                    }
                    self.buffer.push(event);
                }
                Command::Flush(reply) => {
                    self.settlement.flush(reply);
                    self.buffer.flush_now();
                }
                #[cfg(feature = "journal")]
                Command::Unreadable { was_received } => {
                    self.settlement.unreadable(was_received, self.closing.is_some());
                }
            }
        }
        self.accounting.counters.admit_just_over_write_unit(just_over_write_unit);
        #[cfg(feature = "metrics")]
        self.accounting.metrics.accept(accepted.events, accepted.bytes);
    }

    /// Sends every batch that is due, as far as the pace, the concurrency limit and refusals permit.
    fn send_due(&mut self, now: Instant) {
        // The linger is pointless when no event can arrive: the channel is closed, or every put waits for a permit.
        if !self.is_channel_open
            || self.full_since.is_some_and(|since| since + FULL_BUFFER_DELAY <= now)
        {
            self.buffer.flush_now();
        }
        self.send_not_before = None;
        self.next_repeated = self.buffer.next_repeated();
        while self.can_send(now) && !self.buffer.is_empty() {
            if let Some(next_attempt) = self.refusals.next_attempt(now).filter(|at| now < *at) {
                self.send_not_before = Some(next_attempt);
                break;
            }
            let Some(max_units) = self.allow(now) else { break };
            let Some(batch) = self.buffer.take_ready_within(now, max_units) else { break };
            self.send(batch.into_items(), now);
        }
    }

    /// Whether another call may begin.
    fn can_send(&self, now: Instant) -> bool {
        if !self.in_flight.has_capacity() {
            return false;
        }
        let Some(since) = self.refusals.since(now) else {
            return self.in_flight.len() < self.concurrency.limit();
        };
        // While every call is refused, one call in flight is enough to find out whether that is still so. Calls that
        // began before the refusal do not count, as they may hang.
        !self.in_flight.has_call_after(since)
    }

    /// Updates `full_since`. The buffer is full while puts wait for permits and unsent events wait for their linger
    /// to end.
    ///
    /// A put that has just got its permit needs a moment to send its event to the worker. So the buffer is flushed only
    /// after it was full for [`FULL_BUFFER_DELAY`] and no event arrived. Without that delay, each of the first events
    /// to arrive after a batch is settled would be sent in a call of its own.
    fn update_full_since(&mut self, now: Instant) {
        let is_full = self.accounting.flow_control.has_waiters()
            && self.buffer.has_fresh()
            && self.can_send(now);
        if is_full {
            self.full_since.get_or_insert(now);
        } else {
            self.full_since = None;
        }
    }

    /// Accepts no more events, and takes over the deadlines for those accepted, if close was called.
    fn close(&mut self, has_handles: bool) {
        self.has_handles = has_handles;
        if let Some(deadlines) = *self.close_deadlines.borrow_and_update() {
            self.closing = Some(deadlines);
            self.accounting.flow_control.close();
            // Commands that were sent before this are still received.
            self.commands.receiver.close();
        }
    }
}

fn tokio_instant(instant: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(instant)
}
