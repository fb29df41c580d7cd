//! The one task that waits: it moves events from the channel through the policies to the edge and
//! settles them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep_until, timeout};

use crate::error::{BatchError, Certainty, FailureClass, GiveUp, WorkerLost};
use crate::event::Event;
use crate::policy::Waiting;
use crate::policy::barrier::{Barrier, Epoch};
use crate::policy::batch::BatchLimits;
use crate::policy::buffer::Buffer;
use crate::policy::reconcile::reconcile;
use crate::policy::retry::{Decision, RetryPolicy};
use crate::report::{CloseReport, FlushReport};
use crate::room::Room;
use crate::stats::Counters;
use crate::ticket::{Answered, Pending};
use crate::writer::{BatchReceipt, BatchWriter};

/// Commands taken from the channel at one go.
const INBOX: usize = 256;

/// What a handle asks of the worker. Puts and flushes share a queue, so that a flush stands behind
/// the puts that came before it.
#[derive(Debug)]
pub(crate) enum Command {
    Put(Pending),
    Flush(oneshot::Sender<FlushReport>),
}

/// How the worker ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Closed(Arc<CloseReport>),
    Lost(WorkerLost),
}

/// What the worker goes by, out of the store's configuration.
#[derive(Debug, Clone)]
pub(crate) struct WorkerPolicy {
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

/// An accepted event in the worker's hands.
#[derive(Debug)]
struct Held {
    pending: Pending,
    epoch: Epoch,
    expires_at: Instant,
}

impl Waiting for Held {
    fn event(&self) -> &Event {
        self.pending.event()
    }

    fn expires_at(&self) -> Instant {
        self.expires_at
    }
}

type Attempt = Result<BatchReceipt, BatchError>;

/// The worker's state. Fields are dropped in this order, which matters when the task ends before
/// its time: `epitaph` publishes the cause and refuses newcomers first, so that whoever finds
/// the channel closed, or gets a lost event's answer, also finds the cause.
pub(crate) struct Worker {
    epitaph: Epitaph,
    commands: mpsc::UnboundedReceiver<Command>,
    close_at: watch::Receiver<Option<Instant>>,
    writer: Arc<dyn BatchWriter>,
    policy: WorkerPolicy,
    counters: Arc<Counters>,
    jitter: StdRng,
    buffer: Buffer<Held>,
    barrier: Barrier<oneshot::Sender<FlushReport>>,
    attempts: JoinSet<Attempt>,
    in_flight: HashMap<Id, Vec<Held>>,
    /// False once the channel is closed and empty: nothing more will come.
    open: bool,
    /// False once the last handle is gone, and with it whoever could call close.
    handles_left: bool,
    close_deadline: Option<Instant>,
    report: CloseReport,
    unheard_bytes: usize,
}

/// The worker's ends of what it shares with the handles.
#[derive(Debug)]
pub(crate) struct WorkerLinks {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) close_at: watch::Receiver<Option<Instant>>,
    pub(crate) ending: watch::Sender<Option<Ending>>,
    pub(crate) room: Arc<Room>,
    pub(crate) counters: Arc<Counters>,
}

/// Why the loop woke up.
enum Wake {
    Attempt(Result<(Id, Attempt), JoinError>),
    Close(Result<(), watch::error::RecvError>),
    Commands(usize),
    Pressed,
    Deadline,
}

impl Worker {
    pub(crate) fn new(
        links: WorkerLinks,
        writer: Arc<dyn BatchWriter>,
        policy: WorkerPolicy,
        jitter: StdRng,
    ) -> Self {
        let WorkerLinks { commands, close_at, ending, room, counters } = links;
        Self {
            epitaph: Epitaph { room, ending },
            commands,
            close_at,
            writer,
            counters,
            jitter,
            buffer: Buffer::new(policy.limits, policy.linger),
            policy,
            barrier: Barrier::new(),
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            open: true,
            handles_left: true,
            close_deadline: None,
            report: CloseReport::default(),
            unheard_bytes: 0,
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
            self.answer_flushes();
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
                Some(done) = self.attempts.join_next_with_id() => Wake::Attempt(done),
                changed = self.close_at.changed(), if self.handles_left => Wake::Close(changed),
                count = self.commands.recv_many(&mut inbox, INBOX), if self.open => {
                    Wake::Commands(count)
                }
                () = self.epitaph.room.pressed() => Wake::Pressed,
                () = &mut timer, if deadline.is_some() => Wake::Deadline,
            };
            let turn = now();
            match wake {
                Wake::Attempt(done) => self.conclude(done, turn),
                Wake::Close(changed) => self.close(changed.is_ok()),
                Wake::Commands(count) => {
                    self.open = count > 0;
                    self.admit(inbox.drain(..), turn);
                }
                // The next turn sees that the room is pressed, or that something is due.
                Wake::Pressed | Wake::Deadline => {}
            }
        }
        self.finish();
    }

    fn is_done(&self) -> bool {
        !self.open && self.buffer.is_empty() && self.in_flight.is_empty()
    }

    /// When the next turn is due if nothing happens before.
    fn next_deadline(&self) -> Option<Instant> {
        // Without a place in flight nothing can be sent, however due it is.
        let send = if self.has_place_in_flight() { self.buffer.next_due() } else { None };
        send.into_iter().chain(self.buffer.next_expiry()).chain(self.close_deadline).min()
    }

    fn has_place_in_flight(&self) -> bool {
        self.in_flight.len() < self.policy.max_batches_in_flight
    }

    fn admit(&mut self, commands: impl Iterator<Item = Command>, now: Instant) {
        for command in commands {
            match command {
                Command::Put(mut pending) => {
                    pending.arrive(now);
                    let expires_at = now + self.policy.retry.event_deadline;
                    let epoch = self.barrier.accept();
                    self.buffer.push(Held { pending, epoch, expires_at }, now);
                }
                Command::Flush(reply) => {
                    self.barrier.flush(reply);
                    self.buffer.rush();
                }
            }
        }
    }

    fn send_due(&mut self, now: Instant) {
        // Nobody is to sit out the linger while others wait for its room, or when no company for
        // it can come any more.
        if self.epitaph.room.is_pressed() || !self.open {
            self.buffer.rush();
        }
        while self.has_place_in_flight()
            && let Some(batch) = self.buffer.take_ready(now)
        {
            self.send(batch.into_items());
        }
    }

    fn send(&mut self, mut batch: Vec<Held>) {
        let retried = batch.iter().filter(|held| held.pending.attempts() > 0).count();
        self.counters.send(batch.len(), retried);
        let events: Vec<Event> = batch
            .iter_mut()
            .map(|held| {
                held.pending.attempt();
                held.pending.event().clone()
            })
            .collect();
        let writer = Arc::clone(&self.writer);
        let limit = self.policy.attempt_timeout;
        let attempt = self.attempts.spawn(async move {
            timeout(limit, writer.write_batch(&events))
                .await
                .unwrap_or_else(|_| Err(BatchError::timed_out(limit)))
        });
        self.in_flight.insert(attempt.id(), batch);
    }

    fn conclude(&mut self, done: Result<(Id, Attempt), JoinError>, now: Instant) {
        let (id, attempt) = match done {
            Ok(done) => done,
            Err(error) => (
                error.id(),
                Err(BatchError::new(
                    FailureClass::Fatal,
                    Certainty::MaybeStored,
                    "the batch writer panicked",
                )),
            ),
        };
        let Some(batch) = self.in_flight.remove(&id) else {
            return;
        };
        match attempt {
            Ok(receipt) => self.apply(batch, &receipt, now),
            Err(error) => self.fail(batch, error, now),
        }
    }

    fn apply(&mut self, batch: Vec<Held>, receipt: &BatchReceipt, now: Instant) {
        let reconciled = reconcile(batch, receipt.unprocessed());
        if reconciled.foreign > 0 {
            let foreign = BatchError::new(
                FailureClass::Transient,
                Certainty::MaybeStored,
                format!("the answer hands back {} keys that were not sent", reconciled.foreign),
            );
            self.fail(reconciled.stored, foreign, now);
        } else {
            for held in reconciled.stored {
                held.pending.stored();
                self.barrier.settle(held.epoch, true);
            }
        }
        if !reconciled.remaining.is_empty() {
            self.fail(reconciled.remaining, BatchError::unprocessed(receipt.request_id()), now);
        }
    }

    /// Sends events again, or gives them up, after a failed attempt.
    fn fail(&mut self, batch: Vec<Held>, cause: BatchError, now: Instant) {
        tracing::warn!(events = batch.len(), class = ?cause.class(), error = %cause, "attempt failed");
        let cause = Arc::new(cause);
        // One draw for all: what failed together may go together again.
        let jitter = self.jitter.random::<f64>();
        for mut held in batch {
            held.pending.fail(&cause);
            let (attempts, elapsed) = (held.pending.attempts(), held.pending.elapsed(now));
            match self.policy.retry.decide(attempts, elapsed, cause.class(), jitter) {
                Decision::After(delay) => self.buffer.requeue(held, now + delay),
                Decision::GiveUp(reason) => self.give_up(held, reason, now),
            }
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
        let item_bytes = held.event().item_bytes();
        let Answered { error, heard } = held.pending.give_up(reason, now);
        self.barrier.settle(held.epoch, false);
        if self.close_deadline.is_some() {
            self.report.not_stored.push(error);
        } else if !heard {
            let has_room = self.report.not_stored.len() < self.policy.max_unheard_events
                && self.unheard_bytes + item_bytes <= self.policy.max_unheard_bytes;
            if has_room {
                self.unheard_bytes += item_bytes;
                self.report.not_stored.push(error);
            } else {
                self.report.not_listed += 1;
            }
        }
    }

    fn answer_flushes(&mut self) {
        while let Some((reply, report)) = self.barrier.pop_done() {
            // Whoever asked may have gone.
            let _ = reply.send(report);
        }
    }

    /// Takes no more from now on, and notes until when to go on with what there is.
    fn close(&mut self, handles_left: bool) {
        self.handles_left = handles_left;
        if let Some(deadline) = *self.close_at.borrow_and_update() {
            self.close_deadline = Some(deadline);
            self.epitaph.room.close();
            // What was sent before this is still received.
            self.commands.close();
        }
    }

    /// The deadline of close has passed: everything is given up, and what is in flight may have
    /// been stored.
    fn abandon(&mut self, now: Instant) {
        self.attempts.abort_all();
        let mut left = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            left.push(command);
        }
        self.admit(left.into_iter(), now);
        self.open = false;
        let in_flight = std::mem::take(&mut self.in_flight);
        for held in in_flight.into_values().flatten() {
            self.give_up(held, GiveUp::CloseDeadline, now);
        }
        while let Some(held) = self.buffer.pop() {
            self.give_up(held, GiveUp::CloseDeadline, now);
        }
    }

    fn finish(mut self) {
        let (stored, failed) = self.counters.settled();
        self.report.stored = stored;
        self.report.failed = failed;
        // Also where the last handle is gone and nobody will read it: the log has it then.
        if failed > 0 {
            tracing::warn!(stored, failed, "closed with events that were not stored");
        } else {
            tracing::debug!(stored, "closed");
        }
        let report = Arc::new(std::mem::take(&mut self.report));
        self.epitaph.publish(Ending::Closed(report));
    }
}

/// Says how the worker ended, if it does not come to say so itself.
#[derive(Debug)]
struct Epitaph {
    room: Arc<Room>,
    ending: watch::Sender<Option<Ending>>,
}

impl Epitaph {
    fn publish(&self, ending: Ending) {
        // The cause first, then the door: whoever is refused finds the cause.
        self.ending.send_replace(Some(ending));
        self.room.close();
    }
}

impl Drop for Epitaph {
    fn drop(&mut self) {
        if self.ending.borrow().is_none() {
            let lost =
                if std::thread::panicking() { WorkerLost::Panicked } else { WorkerLost::Stopped };
            self.publish(Ending::Lost(lost));
        }
    }
}

/// The runtime's clock, which tests can stop.
#[expect(clippy::disallowed_methods, reason = "the worker is the one who reads the clock")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn tokio_instant(instant: Instant) -> tokio::time::Instant {
    tokio::time::Instant::from_std(instant)
}
