//! [`PendingEvent`]: an accepted event, from its put to the answer of its ticket. The store creates it, and the worker
//! settles it.

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

/// An accepted event whose ticket is not answered.
///
/// [`settle_stored`](Self::settle_stored) and [`settle_failed`](Self::settle_failed) consume it, release its permit and
/// answer the ticket. An event that is dropped before that does the same by itself: it answers that the worker is lost.
/// So no answer and no permit can be forgotten, or be given twice.
///
/// Until the worker [admits](Self::admit) it, an event has no reference to anything shared. Threads that put at the
/// same time would otherwise contend for the reference count.
#[derive(Debug)]
pub(crate) struct PendingEvent {
    event: Event,
    /// Whether an earlier put may have stored the event, or still may.
    uncertainty_before: Uncertainty,
    /// Calls that carried the event, the one in flight included.
    attempts: u32,
    /// Bytes of its permit.
    permit_bytes: u32,
    /// Whether its permit is to be released, and the event to be counted as settled.
    holds_permit: bool,
    /// Whether it is counted as stored, and only its ticket is to be answered.
    is_stored: bool,
    /// `None` until the worker has admitted the event.
    accounting: Option<Arc<Accounting>>,
    accepted_at: Instant,
    expires_at: Instant,
    epoch: Epoch,
    /// When the call in flight began; `None` while there is none.
    in_flight_since: Option<Instant>,
    /// `None` until an attempt fails, so that an event that is stored at the first attempt costs no allocation.
    history: Option<Box<History>>,
    /// Only of a failed event that is read back before its ticket is answered.
    read_back: Option<Box<PendingReadBack>>,
    /// `None` after the answer.
    reply: Option<oneshot::Sender<Answer>>,
}

/// The read-back of a failed event that may be stored.
#[derive(Debug)]
struct PendingReadBack {
    /// Why the event failed.
    reason: FailureReason,
    reads: u32,
    /// Why the last read decided nothing.
    failure: Option<Arc<BatchError>>,
}

/// The answer of an event that failed.
#[derive(Debug)]
pub(crate) struct SettledError {
    pub(crate) error: WriteError,
    /// Whether the ticket received it. A dropped ticket does not.
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
    /// Accepts an event with its permit. `uncertainty_before` is that of earlier puts, [`Uncertainty::None`] without
    /// any.
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
            // Placeholders until the worker admits the event. Reading the clock in each put would cost too much.
            accepted_at: accounting.started_at,
            expires_at: accounting.started_at,
            epoch: Epoch::default(),
            in_flight_since: None,
            history: None,
            read_back: None,
            reply: Some(reply),
        };
        (pending, ticket)
    }

    /// Takes the acceptance back, for an event that could not be sent to the worker and whose ticket nobody has.
    pub(crate) fn undo_accept(mut self, accounting: &Accounting) {
        accounting.counters.undo_accept();
        let usage = self.take_usage();
        accounting.flow_control.release(usage.events, usage.bytes);
    }

    /// Marks the event as received by the worker. Its time counts from `now`, and it fails at `expires_at`.
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

    /// The epoch, which decides which flushes wait for the event.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many calls have carried the event, the one in flight included.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many of the attempts failed with [`FailureClass::Refused`](crate::FailureClass::Refused).
    pub(crate) fn refusals(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.refusals)
    }

    /// For how many of the attempts the table had no capacity.
    pub(crate) fn throttled(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.throttled)
    }

    /// Whether the event may be stored without an acknowledgement, or still may be.
    pub(crate) fn uncertainty(&self) -> Uncertainty {
        if self.in_flight_since.is_some() {
            return Uncertainty::Open;
        }
        let since = self.history.as_ref().map_or(Uncertainty::None, |history| history.uncertainty);
        since.max(self.uncertainty_before)
    }

    /// When the call in flight began; `None` while there is none.
    pub(crate) fn in_flight_since(&self) -> Option<Instant> {
        self.in_flight_since
    }

    /// The time since the worker admitted the event.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.accepted_at)
    }

    /// Bytes of its permit.
    pub(crate) fn permit_bytes(&self) -> u32 {
        self.permit_bytes
    }

    /// Begins an attempt.
    pub(crate) fn begin_attempt(&mut self, now: Instant) {
        self.attempts = self.attempts.saturating_add(1);
        self.in_flight_since = Some(now);
    }

    /// Ends the attempt in flight with a failure, which becomes the event's last cause.
    pub(crate) fn fail_attempt(&mut self, cause: &Arc<BatchError>, now: Instant) {
        self.end_attempt(Some(cause), now);
        self.set_cause(cause);
    }

    /// Ends the attempt in flight, whose call was cancelled. That becomes the event's last cause only if it has none.
    pub(crate) fn drop_attempt(&mut self, cause: &Arc<BatchError>, now: Instant) {
        self.end_attempt(Some(cause), now);
        self.history.get_or_insert_default().last_cause.get_or_insert_with(|| Arc::clone(cause));
    }

    /// Sets the last cause without an attempt. The certainty stays as it is.
    pub(crate) fn set_cause(&mut self, cause: &Arc<BatchError>) {
        self.history.get_or_insert_default().last_cause = Some(Arc::clone(cause));
    }

    fn end_attempt(&mut self, failure: Option<&Arc<BatchError>>, now: Instant) {
        let Some(since) = self.in_flight_since.take() else { return };
        let began = self.elapsed(since);
        self.history.get_or_insert_default().add(began, now.duration_since(since), failure);
    }

    /// Begins the read-back of an event that failed for `reason`. Its ticket is answered at `answer_by` at the latest.
    pub(crate) fn begin_read_back(&mut self, reason: FailureReason, answer_by: Instant) {
        self.expires_at = answer_by;
        self.read_back = Some(Box::new(PendingReadBack { reason, reads: 0, failure: None }));
    }

    /// Counts a read.
    pub(crate) fn begin_read(&mut self) {
        if let Some(read_back) = &mut self.read_back {
            read_back.reads += 1;
        }
    }

    /// How many reads have been made for the event.
    pub(crate) fn reads(&self) -> u32 {
        self.read_back.as_ref().map_or(0, |read_back| read_back.reads)
    }

    /// Sets why the last read decided nothing.
    pub(crate) fn fail_read(&mut self, failure: &Arc<BatchError>) {
        if let Some(read_back) = &mut self.read_back {
            read_back.failure = Some(Arc::clone(failure));
        }
    }

    /// The result of a read-back in which no read has decided the event.
    pub(crate) fn unread(&self) -> ReadBack {
        let failure = self.read_back.as_ref().and_then(|read_back| read_back.failure.as_ref());
        failure.map_or(ReadBack::NoTime, |failure| ReadBack::Failed(Arc::clone(failure)))
    }

    /// Why the event failed; `None` for an event that is not read back.
    pub(crate) fn read_back_reason(&self) -> Option<FailureReason> {
        self.read_back.as_ref().map(|read_back| read_back.reason)
    }

    /// Counts a whole batch as stored and releases its permits, in one step. The caller then settles each event with
    /// [`settle_stored`](Self::settle_stored).
    pub(crate) fn release_stored(batch: &mut [Self], accounting: &Accounting) {
        let mut usage = Usage::default();
        for pending in batch {
            pending.is_stored = true;
            usage += pending.take_usage();
        }
        accounting.settle(usage, true);
    }

    /// Settles the event as stored.
    pub(crate) fn settle_stored(mut self, proof: Proof, now: Instant) {
        if self.history.is_some() {
            self.end_attempt(None, now);
        }
        self.release(true);
        self.answer_stored(proof);
    }

    /// Settles the event as failed. `read_back` is the result of its read-back, if there was one; without it the
    /// certainty follows from the attempts.
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
            // Fails if the caller has dropped the ticket.
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

    /// Releases the permit and counts the event as settled, unless that is already done.
    fn release(&mut self, stored: bool) {
        let usage = self.take_usage();
        if usage.events > 0
            && let Some(accounting) = &self.accounting
        {
            accounting.settle(usage, stored);
        }
    }

    /// What the event uses of the buffer, for the caller to release. Nothing after the first call.
    fn take_usage(&mut self) -> Usage {
        if !std::mem::take(&mut self.holds_permit) {
            return Usage::default();
        }
        Usage { events: 1, bytes: self.permit_bytes.into() }
    }
}

impl Drop for PendingEvent {
    fn drop(&mut self) {
        // Until the worker has admitted the event, `undo_accept` releases its permit.
        if self.reply.is_none() || self.accounting.is_none() {
            return;
        }
        if self.is_stored {
            // A subscriber of tracing has panicked while another event of the batch was settled.
            self.answer_stored(Proof::Acknowledged);
        } else {
            let reason = FailureReason::WorkerLost(WorkerLost::while_dropping());
            self.answer_failed(reason, None, Duration::ZERO);
        }
    }
}
