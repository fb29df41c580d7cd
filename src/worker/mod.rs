//! The one task that waits: it moves events from the channel through the policies to the edge and
//! settles them.

mod flights;
mod links;
mod settlement;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::sleep_until;

pub(crate) use links::{Command, Ending, WorkerLinks};

use crate::error::{BatchError, Certainty, FailureClass, GiveUp};
use crate::policy::batch::BatchLimits;
use crate::policy::buffer::Buffer;
use crate::policy::reconcile::reconcile;
use crate::policy::retry::{Decision, RetryPolicy};
use crate::stats::Counters;
use crate::writer::{BatchReceipt, BatchWriter};
use flights::{Attempt, Flights};
use links::{Epitaph, Inbox};
use settlement::{Held, Settlement};

/// Commands taken from the channel at one go.
const INBOX: usize = 256;

/// What the worker goes by, out of the store's configuration.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) limits: BatchLimits,
    pub(crate) linger: Duration,
    pub(crate) max_batches_in_flight: usize,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retry: RetryPolicy,
    /// How many failed events whose tickets were dropped are kept for the close report.
    pub(crate) max_unheard_events: usize,
    /// How many bytes of such events are kept for it.
    pub(crate) max_unheard_bytes: usize,
}

/// The worker's state. Fields are dropped in this order, which matters when the task ends before
/// its time: `epitaph` publishes the cause and refuses newcomers first, so that whoever finds
/// the channel closed, or gets a lost event's answer, also finds the cause.
pub(crate) struct Worker {
    epitaph: Epitaph,
    commands: Inbox,
    close_at: watch::Receiver<Option<Instant>>,
    counters: Arc<Counters>,
    retry: RetryPolicy,
    jitter: StdRng,
    buffer: Buffer<Held>,
    flights: Flights,
    settlement: Settlement,
    /// False once the channel is closed and empty: nothing more will come.
    open: bool,
    /// False once the last handle is gone, and with it whoever could call close.
    handles_left: bool,
    close_deadline: Option<Instant>,
}

/// Why the loop woke up.
enum Wake {
    Attempt(Vec<Held>, Attempt),
    Close(Result<(), watch::error::RecvError>),
    Commands(usize),
    Pressed,
    Deadline,
}

impl Worker {
    pub(crate) fn new(
        links: WorkerLinks,
        writer: Arc<dyn BatchWriter>,
        settings: &WorkerSettings,
        jitter: StdRng,
    ) -> Self {
        let WorkerLinks { commands, close_at, ending, room, counters } = links;
        let &WorkerSettings {
            limits,
            linger,
            max_batches_in_flight,
            attempt_timeout,
            retry,
            max_unheard_events,
            max_unheard_bytes,
        } = settings;
        Self {
            epitaph: Epitaph { room, ending },
            commands: Inbox(commands),
            close_at,
            settlement: Settlement::new(
                Arc::clone(&counters),
                max_unheard_events,
                max_unheard_bytes,
            ),
            counters,
            retry,
            jitter,
            buffer: Buffer::new(limits, linger),
            flights: Flights::new(writer, attempt_timeout, max_batches_in_flight),
            open: true,
            handles_left: true,
            close_deadline: None,
        }
    }

    /// Runs until the channel is closed (by close, or because the last handle is gone) and every
    /// event is settled, or until the deadline of close.
    ///
    /// Each turn first does what is due now and then waits for the next thing to happen. Nothing
    /// in the loop but the `select!` waits, and no branch of it does more than tell what happened.
    pub(crate) async fn run(mut self) {
        let mut inbox = Vec::with_capacity(INBOX);
        let timer = sleep_until(tokio_instant(now()));
        tokio::pin!(timer);
        loop {
            let turn = now();
            self.give_up_expired(turn);
            self.send_due(turn);
            self.settlement.answer_flushes();
            if self.is_done() {
                break;
            }
            let deadline = self.next_deadline();
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
                Some((batch, attempt)) = self.flights.next() => Wake::Attempt(batch, attempt),
                changed = self.close_at.changed(), if self.handles_left => Wake::Close(changed),
                count = self.commands.0.recv_many(&mut inbox, INBOX), if self.open => {
                    Wake::Commands(count)
                }
                () = self.epitaph.room.pressed() => Wake::Pressed,
                () = &mut timer, if deadline.is_some() => Wake::Deadline,
            };
            let turn = now();
            match wake {
                Wake::Attempt(batch, attempt) => self.conclude(batch, attempt, turn),
                Wake::Close(changed) => self.close(changed.is_ok()),
                Wake::Commands(count) => {
                    self.open = count > 0;
                    self.admit(inbox.drain(..), turn);
                }
                // The next turn sees that the room is pressed, or that something is due.
                Wake::Pressed | Wake::Deadline => {}
            }
        }
        self.epitaph.publish(Ending::Closed(self.settlement.report()));
    }

    fn is_done(&self) -> bool {
        !self.open && self.buffer.is_empty() && self.flights.is_empty()
    }

    /// When the next turn is due if nothing happens before.
    fn next_deadline(&self) -> Option<Instant> {
        // Without a place in flight nothing can be sent, however due it is.
        let send = if self.flights.has_place() { self.buffer.next_due() } else { None };
        // Past the deadline of close there is only the channel to wait for, which will say that it is
        // empty.
        let is_waiting = !(self.buffer.is_empty() && self.flights.is_empty());
        let close = self.close_deadline.filter(|_| is_waiting);
        send.into_iter().chain(self.buffer.next_expiry()).chain(close).min()
    }

    fn admit(&mut self, commands: impl Iterator<Item = Command>, now: Instant) {
        for command in commands {
            match command {
                Command::Put(pending) => {
                    let expires_at = now + self.retry.event_deadline;
                    let held = self.settlement.hold(pending, now, expires_at);
                    self.buffer.push(held, now);
                }
                Command::Flush(reply) => {
                    self.settlement.flush(reply);
                    self.buffer.rush();
                }
            }
        }
    }

    fn send_due(&mut self, now: Instant) {
        // Nobody is to sit out the linger when no company can come any more, or while others wait
        // for room that nothing else will give back. What is in flight gives room back as well, and
        // rushing beside it would send each event by itself as soon as there is room for it.
        let is_stuck = self.epitaph.room.is_pressed() && self.flights.is_empty();
        if is_stuck || !self.open {
            self.buffer.rush();
        }
        while self.flights.has_place()
            && let Some(batch) = self.buffer.take_ready(now)
        {
            let batch = batch.into_items();
            let retried = batch.iter().filter(|held| held.pending.attempts() > 0).count();
            self.counters.send(batch.len(), retried);
            self.flights.start(batch);
        }
    }

    fn conclude(&mut self, batch: Vec<Held>, attempt: Attempt, now: Instant) {
        match attempt {
            Ok(receipt) => self.apply(batch, &receipt, now),
            Err(error) => self.fail(batch, error, now),
        }
    }

    fn apply(&mut self, batch: Vec<Held>, receipt: &BatchReceipt, now: Instant) {
        let reconciled = reconcile(batch, receipt.unprocessed());
        if reconciled.foreign > 0 {
            // It is not the answer to this batch, so nothing in it counts.
            let mut batch = reconciled.stored;
            batch.extend(reconciled.remaining);
            let foreign = BatchError::new(
                FailureClass::Transient,
                Certainty::MaybeStored,
                format!("the answer hands back {} keys that were not sent", reconciled.foreign),
            );
            return self.fail(batch, foreign, now);
        }
        for held in reconciled.stored {
            self.settlement.stored(held);
        }
        if !reconciled.remaining.is_empty() {
            self.fail(reconciled.remaining, BatchError::unprocessed(receipt.request_id()), now);
        }
    }

    /// Sends events again, or gives them up, after a failed attempt.
    fn fail(&mut self, mut batch: Vec<Held>, cause: BatchError, now: Instant) {
        tracing::warn!(events = batch.len(), class = ?cause.class(), error = %cause, "attempt failed");
        let class = cause.class();
        let cause = Arc::new(cause);
        for held in &mut batch {
            held.pending.fail(&cause);
        }
        if class == FailureClass::Poison && batch.len() > 1 {
            // One event can be at fault for all; those that are not are stored with fewer suspects.
            return self.buffer.isolate(batch, now);
        }
        // One draw for all: what failed together may go together again.
        let jitter = self.jitter.random::<f64>();
        for held in batch {
            let (attempts, elapsed) = (held.pending.attempts(), held.pending.elapsed(now));
            match self.retry.decide(attempts, elapsed, class, jitter) {
                Decision::After(delay) => self.buffer.requeue(held, now + delay),
                Decision::GiveUp(reason) => self.give_up(held, reason, now),
            }
        }
        if class == FailureClass::Fatal {
            self.give_up_waiting(&cause, now);
        }
    }

    /// Gives up what waits to be sent: it would fail as the last batch did. What is in flight gets
    /// its own answer.
    fn give_up_waiting(&mut self, cause: &Arc<BatchError>, now: Instant) {
        while let Some(mut held) = self.buffer.pop() {
            held.pending.blame(cause);
            self.give_up(held, GiveUp::NotRetryable, now);
        }
    }

    fn give_up_expired(&mut self, now: Instant) {
        while let Some(held) = self.buffer.pop_expired(now) {
            self.give_up(held, GiveUp::Deadline, now);
        }
        if self.close_deadline.is_some_and(|deadline| deadline <= now) {
            self.abandon(now);
        }
    }

    fn give_up(&mut self, held: Held, reason: GiveUp, now: Instant) {
        self.settlement.give_up(held, reason, now, self.close_deadline.is_some());
    }

    /// Takes no more from now on, and notes until when to go on with what there is.
    fn close(&mut self, handles_left: bool) {
        self.handles_left = handles_left;
        if let Some(deadline) = *self.close_at.borrow_and_update() {
            self.close_deadline = Some(deadline);
            self.epitaph.room.close();
            // What was sent before this is still received.
            self.commands.0.close();
        }
    }

    /// The deadline of close has passed: everything is given up, and what is in flight may have
    /// been stored. What is still in the channel follows, as it comes out: that the channel is empty
    /// is only known when it says so, for a sender can be half-way.
    fn abandon(&mut self, now: Instant) {
        // What has come back by now is known.
        while let Some((batch, attempt)) = self.flights.next_done() {
            self.conclude(batch, attempt, now);
        }
        for held in self.flights.abort() {
            self.give_up(held, GiveUp::CloseDeadline, now);
        }
        while let Some(held) = self.buffer.pop() {
            self.give_up(held, GiveUp::CloseDeadline, now);
        }
    }
}

/// How far off a deadline is that no clock will reach.
pub(crate) const FAR_OFF: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The runtime's clock, which tests can stop.
#[expect(clippy::disallowed_methods, reason = "the worker is the one who reads the clock")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn tokio_instant(instant: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(instant)
}
