//! An accepted event, from its put to the answer of its ticket.

mod ticket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use ticket::{Proof, PutTicket, Stored};

use crate::accounting::{Accounting, Usage};
use crate::error::{
    BatchError, Certainty, Failure, FailureReason, History, ReadBack, Uncertainty, WorkerLost,
    WriteError,
};
use crate::event::Event;
use crate::flow_control::Permit;
use crate::policy::Waiting;
use crate::policy::barrier::Epoch;
use ticket::Answer;

/// An accepted event, which owes its ticket an answer.
///
/// It is answered once, by [`settle_stored`](Self::settle_stored) or [`settle_failed`](Self::settle_failed). A dropped
/// event answers by itself that the worker is lost. Its permit is released just before the answer, so an answer and a
/// permit cannot be forgotten, and cannot be given twice.
///
/// Until the worker [admits](Self::admit) it, an event has no reference to anything shared: reference counts that several
/// threads write are what puts from several threads cost each other.
#[derive(Debug)]
pub(crate) struct PendingEvent {
    event: Event,
    /// What an earlier put may have left of the event in the table, or may yet.
    uncertainty_before: Uncertainty,
    /// Calls that carried the event, the one in flight included.
    attempts: u32,
    /// Bytes of its permit.
    permit_bytes: u32,
    /// Whether the event still has its permit, and is yet to be counted as settled.
    holds_permit: bool,
    /// Whether it is counted as stored, and only the answer is left.
    is_stored: bool,
    /// `None` until the worker has the event.
    accounting: Option<Arc<Accounting>>,
    accepted_at: Instant,
    expires_at: Instant,
    epoch: Epoch,
    /// When the call began that is in flight.
    in_flight_since: Option<Instant>,
    /// `None` until something goes wrong: an event that is stored at the first attempt pays nothing.
    history: Option<Box<History>>,
    /// Of an event that failed and is read back before it is answered.
    read_back: Option<Box<PendingReadBack>>,
    /// `None` once answered.
    reply: Option<oneshot::Sender<Answer>>,
}

/// A failed event may be stored all the same: what is known of it until a read says more.
#[derive(Debug)]
struct PendingReadBack {
    reason: FailureReason,
    reads: u32,
    /// Why the last read gave no answer.
    failure: Option<Arc<BatchError>>,
}

/// The error that an event was settled with.
#[derive(Debug)]
pub(crate) struct SettledError {
    pub(crate) error: WriteError,
    /// Whether the ticket was still there to receive it.
    pub(crate) was_received: bool,
}

impl Waiting for PendingEvent {
    fn event(&self) -> &Event {
        &self.event
    }

    fn accepted_at(&self) -> Instant {
        self.accepted_at
    }

    fn expires_at(&self) -> Instant {
        self.expires_at
    }
}

impl PendingEvent {
    /// Accepts an event that has a permit. `uncertainty_before` is [`Uncertainty::None`] for an event that was never put
    /// before.
    pub(crate) fn new(
        event: Event,
        uncertainty_before: Uncertainty,
        permit: Permit<'_>,
        accounting: &Accounting,
    ) -> (Self, PutTicket) {
        let permit_bytes = permit.forget();
        accounting.counters.accept();
        let (reply, answer) = oneshot::channel();
        let ticket = PutTicket { key: *event.key(), answer };
        let pending = Self {
            event,
            uncertainty_before,
            attempts: 0,
            permit_bytes,
            holds_permit: true,
            is_stored: false,
            accounting: None,
            // Until the worker has it: to read the clock for each put would cost too much.
            accepted_at: accounting.began,
            expires_at: accounting.began,
            epoch: Epoch::default(),
            in_flight_since: None,
            history: None,
            read_back: None,
            reply: Some(reply),
        };
        (pending, ticket)
    }

    /// Takes the acceptance back: the worker never got the event, and nobody has its ticket.
    pub(crate) fn refuse(mut self, accounting: &Accounting) {
        accounting.counters.refuse();
        let usage = self.take_usage();
        accounting.flow_control.release(usage.events, usage.bytes);
    }

    /// The worker has the event now; its deadline counts from `now`.
    pub(crate) fn admit(
        &mut self,
        accounting: &Arc<Accounting>,
        epoch: Epoch,
        now: Instant,
        expires_at: Instant,
    ) {
        self.accounting = Some(Arc::clone(accounting));
        self.epoch = epoch;
        self.accepted_at = now;
        self.expires_at = expires_at;
    }

    /// Which flushes wait for the event.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many of the attempts were refused as every event's would be.
    pub(crate) fn refusals(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.refusals)
    }

    /// Whether the event may be in the table without an acknowledgement, or may still come there.
    pub(crate) fn uncertainty(&self) -> Uncertainty {
        if self.in_flight_since.is_some() {
            return Uncertainty::Open;
        }
        let since = self.history.as_ref().map_or(Uncertainty::None, |history| history.uncertainty);
        since.max(self.uncertainty_before)
    }

    /// When the call began that is in flight with the event.
    pub(crate) fn in_flight_since(&self) -> Option<Instant> {
        self.in_flight_since
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.accepted_at)
    }

    /// Bytes that its permit takes of the buffer.
    pub(crate) fn permit_bytes(&self) -> u32 {
        self.permit_bytes
    }

    /// Begins an attempt: a call now carries the event.
    pub(crate) fn begin_attempt(&mut self, now: Instant) {
        self.attempts = self.attempts.saturating_add(1);
        self.in_flight_since = Some(now);
    }

    /// Ends the attempt in flight with its failure.
    pub(crate) fn fail_attempt(&mut self, cause: &Arc<BatchError>, now: Instant) {
        self.end_attempt(Some(cause), now);
        self.set_cause(cause);
    }

    /// Ends the attempt in flight, whose call was dropped. That is the cause only where there is no other.
    pub(crate) fn drop_attempt(&mut self, cause: &Arc<BatchError>, now: Instant) {
        self.end_attempt(Some(cause), now);
        self.history.get_or_insert_default().last_cause.get_or_insert_with(|| Arc::clone(cause));
    }

    /// Sets why the event will not be sent. Nothing was sent, so its certainty stays as it is.
    pub(crate) fn set_cause(&mut self, cause: &Arc<BatchError>) {
        self.history.get_or_insert_default().last_cause = Some(Arc::clone(cause));
    }

    fn end_attempt(&mut self, failure: Option<&Arc<BatchError>>, now: Instant) {
        let Some(since) = self.in_flight_since.take() else { return };
        let began = self.elapsed(since);
        self.history.get_or_insert_default().add(began, now.duration_since(since), failure);
    }

    /// The event failed for `reason`, and is read back before its ticket is answered, by `answer_by` at the latest.
    pub(crate) fn begin_read_back(&mut self, reason: FailureReason, answer_by: Instant) {
        self.expires_at = answer_by;
        self.read_back = Some(Box::new(PendingReadBack { reason, reads: 0, failure: None }));
    }

    /// Counts a read that begins now.
    pub(crate) fn begin_read(&mut self) {
        if let Some(read_back) = &mut self.read_back {
            read_back.reads += 1;
        }
    }

    /// Reads of the event so far.
    pub(crate) fn reads(&self) -> u32 {
        self.read_back.as_ref().map_or(0, |read_back| read_back.reads)
    }

    /// Sets why the last read gave no answer.
    pub(crate) fn fail_read(&mut self, failure: &Arc<BatchError>) {
        if let Some(read_back) = &mut self.read_back {
            read_back.failure = Some(Arc::clone(failure));
        }
    }

    /// What the reads of the event come to where none of them gave an answer.
    pub(crate) fn unread(&self) -> ReadBack {
        let failure = self.read_back.as_ref().and_then(|read_back| read_back.failure.as_ref());
        failure.map_or(ReadBack::NoTime, |failure| ReadBack::Failed(Arc::clone(failure)))
    }

    /// Why the event failed that is read back.
    pub(crate) fn read_back_reason(&self) -> Option<FailureReason> {
        self.read_back.as_ref().map(|read_back| read_back.reason)
    }

    /// Releases the permits of events that are all stored, at once. Each is then to be answered by
    /// [`settle_stored`](Self::settle_stored).
    pub(crate) fn release_stored(batch: &mut [Self], accounting: &Accounting) {
        let mut usage = Usage::default();
        for pending in batch {
            pending.is_stored = true;
            usage += pending.take_usage();
        }
        accounting.settle(usage, true);
    }

    /// Answers that the event is stored.
    pub(crate) fn settle_stored(mut self, proof: Proof, now: Instant) {
        if self.history.is_some() {
            self.end_attempt(None, now);
        }
        self.release(true);
        self.answer_stored(proof);
    }

    /// Answers that the event failed: not stored, or maybe stored. `read_back` is what reads have left of the
    /// uncertainty.
    pub(crate) fn settle_failed(
        mut self,
        reason: FailureReason,
        read_back: Option<(Certainty, ReadBack)>,
        now: Instant,
    ) -> SettledError {
        let elapsed = self.elapsed(now);
        self.answer_failed(reason, read_back, elapsed)
    }

    fn certainty(&self) -> Certainty {
        match self.uncertainty() {
            Uncertainty::None => Certainty::NotStored,
            Uncertainty::Past | Uncertainty::Open => Certainty::MaybeStored,
        }
    }

    fn answer_stored(&mut self, proof: Proof) {
        let history = self.history.take().map(|history| history.attempts).unwrap_or_default();
        let stored = Stored { key: *self.event.key(), attempts: self.attempts, proof, history };
        tracing::debug!(key = %stored.key, attempts = stored.attempts, ?proof, "ok");
        if let Some(reply) = self.reply.take() {
            // The caller may have dropped the ticket; the event is stored all the same.
            let _ = reply.send(Ok(stored));
        }
    }

    fn answer_failed(
        &mut self,
        reason: FailureReason,
        read_back: Option<(Certainty, ReadBack)>,
        elapsed: Duration,
    ) -> SettledError {
        let (certainty, read_back) = match read_back {
            Some((certainty, read_back)) => (certainty, Some(read_back)),
            None => (self.certainty(), None),
        };
        let History { attempts, last_cause, .. } =
            self.history.take().map(|history| *history).unwrap_or_default();
        let error = WriteError::from(Failure {
            key: *self.event.key(),
            event: Some(self.event.clone()),
            certainty,
            attempts: self.attempts,
            elapsed,
            reason,
            last_cause,
            history: attempts,
            read_back,
        });
        tracing::error!(
            key = %error.key(),
            attempts = error.attempts(),
            certainty = %certainty,
            error = %error,
            "error"
        );
        self.release(false);
        let was_received =
            self.reply.take().is_some_and(|reply| reply.send(Err(error.clone())).is_ok());
        SettledError { error, was_received }
    }

    /// Releases the permit and counts the event as settled, unless that is done.
    fn release(&mut self, stored: bool) {
        let usage = self.take_usage();
        if usage.events > 0
            && let Some(accounting) = &self.accounting
        {
            accounting.settle(usage, stored);
        }
    }

    /// What the event uses of the buffer. Whoever takes it has to release it.
    fn take_usage(&mut self) -> Usage {
        if !std::mem::take(&mut self.holds_permit) {
            return Usage::default();
        }
        Usage { events: 1, bytes: self.permit_bytes.into() }
    }
}

impl Drop for PendingEvent {
    fn drop(&mut self) {
        // Before the worker has it, whoever drops it has the permit to release.
        if self.reply.is_none() || self.accounting.is_none() {
            return;
        }
        if self.is_stored {
            // A listener of another event of the batch has panicked.
            self.answer_stored(Proof::Acknowledged);
        } else {
            let reason = FailureReason::WorkerLost(WorkerLost::while_dropping());
            self.answer_failed(reason, None, Duration::ZERO);
        }
    }
}
