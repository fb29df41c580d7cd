//! The one task that waits: it moves events from the channel through the policies to the edge and
//! settles them.

mod channel;
mod in_flight;
mod outcome;
mod pacing;
mod read_back;
mod settle;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::sleep_until;

pub(crate) use channel::{CloseDeadlines, Command, WorkerChannels, WorkerExit};

use crate::clock::now;
use crate::dynamodb::{BatchReading, BatchReceipt, BatchWriter};
use crate::event::Event;
use crate::pending::PendingEvent;
use crate::policy::Waiting;
use crate::policy::batch::BatchLimits;
use crate::policy::buffer::Buffer;
use crate::policy::concurrency::Concurrency;
use crate::policy::pace::Pace;
use crate::policy::refusal::Refusals;
use crate::policy::retry::RetryPolicy;
use channel::{CommandReceiver, ExitGuard};
use in_flight::{Completed, InFlight};
use read_back::ReadBacks;
use settle::Settlement;

/// Commands taken from the channel at one go.
const RECEIVED: usize = 256;

/// How late an attempt may come back: a timer's own lateness, several times over.
const LATENESS: Duration = Duration::from_millis(20);

/// Long beside what a put needs to hand over its event once it has room, short beside a call.
const ARRIVAL_TIME: Duration = Duration::from_millis(1);

/// What the worker goes by, out of the store's configuration.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) limits: BatchLimits,
    pub(crate) linger: Duration,
    pub(crate) max_batches_in_flight: usize,
    pub(crate) max_write_units_per_second: Option<u32>,
    pub(crate) max_buffered_events: usize,
    /// With so many bytes on the wire no further call begins.
    pub(crate) enough_bytes_in_flight: usize,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retry: RetryPolicy,
    /// How long a refusal that no event would escape stands before it is final.
    pub(crate) refusal_timeout: Duration,
    /// Whether events in doubt are read back before they are answered.
    pub(crate) read_back: bool,
    /// How many failed events whose tickets were dropped are kept for the close report.
    pub(crate) max_unreported_events: usize,
    /// How many bytes of such events are kept for it.
    pub(crate) max_unreported_bytes: usize,
}

/// The worker's state. Fields are dropped in this order, which matters when the task ends before
/// its time: `exit_guard` publishes the cause and refuses newcomers first, so that whoever finds
/// the channel closed, or gets a lost event's answer, also finds the cause.
pub(crate) struct Worker {
    exit_guard: ExitGuard,
    inbox: CommandReceiver,
    close_deadlines: watch::Receiver<Option<CloseDeadlines>>,
    writer: Arc<dyn BatchWriter>,
    attempt_timeout: Duration,
    retry: RetryPolicy,
    read_back: bool,
    jitter: StdRng,
    limits: BatchLimits,
    buffer: Buffer<PendingEvent>,
    in_flight: InFlight<PendingEvent, BatchReceipt>,
    pace: Pace,
    /// When the pace lets the next batch leave that is due.
    next_turn: Option<Instant>,
    /// When the next event may leave that the table had no capacity for more than once.
    next_repeated: Option<Instant>,
    concurrency: Concurrency,
    refusals: Refusals,
    max_buffered_events: usize,
    read_backs: ReadBacks,
    settlement: Settlement,
    /// False once the channel is closed and empty: nothing more will come.
    open: bool,
    /// False once the last handle is gone, and with it whoever could call close.
    handles_left: bool,
    closing: Option<CloseDeadlines>,
    /// Since when nothing has come although the buffer has no room.
    full_since: Option<Instant>,
}

/// Why the loop woke up.
enum Wake {
    Attempt(Vec<PendingEvent>, Completed<BatchReceipt>),
    Read(Vec<PendingEvent>, Completed<BatchReading>),
    Close(Result<(), watch::error::RecvError>),
    Commands(usize),
    PutWaits,
    Deadline,
}

impl Worker {
    pub(crate) fn new(
        links: WorkerChannels,
        writer: Arc<dyn BatchWriter>,
        settings: &WorkerSettings,
        jitter: StdRng,
    ) -> Self {
        let WorkerChannels { commands, close_deadlines, exit, accounting } = links;
        let &WorkerSettings {
            limits,
            linger,
            max_batches_in_flight,
            max_write_units_per_second,
            max_buffered_events,
            enough_bytes_in_flight,
            attempt_timeout,
            retry,
            refusal_timeout,
            read_back,
            max_unreported_events,
            max_unreported_bytes,
        } = settings;
        Self {
            inbox: CommandReceiver { commands, accounting: Arc::clone(&accounting) },
            close_deadlines,
            settlement: Settlement::new(
                Arc::clone(&accounting),
                max_unreported_events,
                max_unreported_bytes,
            ),
            exit_guard: ExitGuard { accounting, exit },
            attempt_timeout,
            retry,
            read_back,
            jitter,
            limits,
            buffer: Buffer::new(limits, linger),
            in_flight: InFlight::new(max_batches_in_flight, enough_bytes_in_flight),
            pace: Pace::new(max_write_units_per_second, limits.max_events),
            next_turn: None,
            next_repeated: None,
            concurrency: Concurrency::new(max_batches_in_flight),
            refusals: Refusals::new(refusal_timeout),
            max_buffered_events,
            // As many reads as writes: calls that hang do not keep each other's places.
            read_backs: ReadBacks::new(
                Arc::clone(&writer),
                attempt_timeout,
                retry.backoff,
                limits,
                max_batches_in_flight,
            ),
            writer,
            open: true,
            handles_left: true,
            closing: None,
            full_since: None,
        }
    }

    /// Runs until the channel is closed (by close, or because the last handle is gone) and every
    /// event is settled, or until the deadline of close.
    ///
    /// Each turn first does what is due now and then waits for the next thing to happen. Nothing
    /// in the loop but the `select!` waits, and no branch of it does more than tell what happened.
    pub(crate) async fn run(mut self) {
        let mut received = Vec::with_capacity(RECEIVED);
        self.limit_buffer();
        let timer = sleep_until(tokio_instant(now()));
        tokio::pin!(timer);
        loop {
            let turn = now();
            self.fail_expired(turn);
            self.notice_fullness(turn);
            self.forget_pace(turn);
            self.send_due(turn);
            self.publish_limits(turn);
            self.read_backs.read_due(turn);
            self.settlement.answer_flushes();
            if self.is_done() {
                break;
            }
            let deadline = self.next_deadline(turn);
            if let Some(deadline) = deadline.map(tokio_instant)
                && timer.deadline() != deadline
            {
                timer.as_mut().reset(deadline);
            }
            // Finished attempts come first: they give back room and a place in flight. Commands
            // stand behind close, which closes their channel. The timer is last because every turn
            // compares the deadlines with the clock, whatever woke it.
            let wake = tokio::select! {
                biased;
                Some((batch, attempt)) = self.in_flight.next() => Wake::Attempt(batch, attempt),
                Some((batch, completed)) = self.read_backs.reads.next() => Wake::Read(batch, completed),
                changed = self.close_deadlines.changed(), if self.handles_left => Wake::Close(changed),
                count = self.inbox.commands.recv_many(&mut received, RECEIVED), if self.open => {
                    Wake::Commands(count)
                }
                () = self.exit_guard.accounting.flow_control.waiter_added() => Wake::PutWaits,
                () = &mut timer, if deadline.is_some() => Wake::Deadline,
            };
            let turn = now();
            match wake {
                Wake::Attempt(batch, attempt) => self.conclude(batch, attempt, turn),
                Wake::Read(batch, completed) => self.conclude_read(batch, completed, turn),
                Wake::Close(changed) => self.close(changed.is_ok()),
                Wake::Commands(count) => {
                    self.open = count > 0;
                    self.full_since = None;
                    self.admit(received.drain(..), turn);
                }
                // The next turn sees that the room is pressed, or that something is due.
                Wake::PutWaits | Wake::Deadline => {}
            }
        }
        self.exit_guard.publish(WorkerExit::Closed(self.settlement.report()));
    }

    fn is_done(&self) -> bool {
        !self.open
            && self.buffer.is_empty()
            && self.in_flight.is_empty()
            && self.read_backs.is_empty()
    }

    /// When the next turn is due if nothing happens before.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        // Without a place in flight nothing can be sent, however due it is.
        // What is due already waits for its turn.
        let next_due = || self.buffer.next_due().into_iter().chain(self.next_repeated).min();
        let send = if self.has_place(now) {
            self.next_turn.or_else(next_due)
        } else {
            // A refusal takes places for as long as it stands.
            self.refusals.lapses_at(now)
        };
        // Past the deadlines of close there is only the channel to wait for, which will say that it is
        // empty.
        let is_sending = !(self.buffer.is_empty() && self.in_flight.is_empty());
        let settle_failed = self.closing.filter(|_| is_sending).map(|closing| closing.fail_at);
        let answer =
            self.closing.filter(|_| !self.read_backs.is_empty()).map(|closing| closing.answer_by);
        send.into_iter()
            .chain(self.buffer.next_expiry())
            .chain(self.pace.forgets_at())
            .chain(
                self.full_since
                    .filter(|_| self.next_turn.is_none())
                    .map(|since| since + ARRIVAL_TIME),
            )
            .chain(self.read_backs.next_deadline())
            .chain(settle_failed)
            .chain(answer)
            .min()
    }

    fn admit(&mut self, commands: impl Iterator<Item = Command>, now: Instant) {
        for command in commands {
            match command {
                Command::Put(mut event) => {
                    let expires_at = now + self.retry.event_deadline;
                    self.settlement.admit(&mut event, now, expires_at);
                    self.buffer.push(event);
                }
                Command::Flush(reply) => {
                    self.settlement.flush(reply);
                    self.buffer.flush_now();
                }
            }
        }
    }

    fn send_due(&mut self, now: Instant) {
        // Nobody is to sit out the linger when no company can come any more: none at all, or none until
        // something is sent.
        if !self.open || self.full_since.is_some_and(|since| since + ARRIVAL_TIME <= now) {
            self.buffer.flush_now();
        }
        self.next_turn = None;
        self.next_repeated = self.buffer.next_repeated();
        while self.has_place(now) && !self.buffer.is_empty() {
            if let Some(turn) = self.refusals.next_attempt(now).filter(|turn| now < *turn) {
                self.next_turn = Some(turn);
                break;
            }
            let Some(max_units) = self.allow(now) else { break };
            let Some(batch) = self.buffer.take_ready_within(now, max_units) else { break };
            self.send(batch.into_items(), now);
        }
    }

    fn has_place(&self, now: Instant) -> bool {
        if !self.in_flight.has_place() {
            return false;
        }
        let Some(since) = self.refusals.since(now) else {
            return self.in_flight.len() < self.concurrency.limit();
        };
        // While all is refused, one call is enough to learn whether it still is. Those that began before do not
        // stand in its way: they may hang.
        let began =
            |batch: &[PendingEvent]| batch.first().and_then(|event| event.in_flight_since());
        !self.in_flight.batches().any(|batch| began(batch).is_some_and(|began| began > since))
    }

    /// Notes since when the buffer is full: puts wait for room while events wait for company.
    ///
    /// A put that has just been given room needs a moment to hand its event over. So the buffer is only
    /// taken for full when for that long nothing has come: to send the first that comes back into a buffer
    /// of which a call has just been settled would cost a call each.
    fn notice_fullness(&mut self, now: Instant) {
        let is_full = self.exit_guard.accounting.flow_control.has_waiters()
            && self.buffer.has_fresh()
            && self.has_place(now);
        if is_full {
            self.full_since.get_or_insert(now);
        } else {
            self.full_since = None;
        }
    }

    fn send(&mut self, mut batch: Vec<PendingEvent>, now: Instant) {
        let retried = batch.iter().filter(|event| event.attempts() > 0).count();
        self.exit_guard.accounting.counters.send(batch.len(), retried);
        self.pace_sent(&batch);
        let limit = self.attempt_limit(&batch, now);
        let events: Vec<Event> = batch
            .iter_mut()
            .map(|event| {
                event.begin_attempt(now);
                event.event().clone()
            })
            .collect();
        let bytes = events.iter().map(Event::wire_bytes).sum();
        let writer = Arc::clone(&self.writer);
        // The limit is the writer's to keep; this one is for writers that do not.
        let at_the_latest = limit + LATENESS;
        self.in_flight.start(batch, bytes, at_the_latest, async move {
            writer.write_batch_within(&events, limit).await
        });
    }

    /// How long an attempt may take. One that begins just before an event's deadline leaves half of
    /// the time after it to read the event back.
    fn attempt_limit(&self, batch: &[PendingEvent], now: Instant) -> Duration {
        let until_deadline =
            batch.iter().map(|event| event.expires_at().saturating_duration_since(now)).min();
        match until_deadline {
            Some(until_deadline) if self.read_back => {
                self.attempt_timeout.min(until_deadline + self.attempt_timeout / 2)
            }
            _ => self.attempt_timeout,
        }
    }

    /// Takes no more from now on, and notes until when to go on with what there is.
    fn close(&mut self, handles_left: bool) {
        self.handles_left = handles_left;
        if let Some(order) = *self.close_deadlines.borrow_and_update() {
            self.closing = Some(order);
            self.exit_guard.accounting.flow_control.close();
            // What was sent before this is still received.
            self.inbox.commands.close();
        }
    }
}

fn tokio_instant(instant: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(instant)
}
