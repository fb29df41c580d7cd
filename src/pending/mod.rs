//! [`PendingEvent`]: an accepted event, from its put to the answer of its ticket. The store creates it, and the worker
//! settles it.

mod caller;
mod duplicate;
#[cfg(feature = "journal")]
mod journalled;
mod read_back;
mod ticket;
mod usage;
#[cfg(feature = "journal")]
mod waiting;

#[cfg(feature = "journal")]
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::Span;

pub use ticket::PutTicket;
#[cfg(feature = "journal")]
pub(crate) use waiting::WaitingEvent;

use crate::accounting::{Accounting, Usage};
use crate::error::{
    BatchError, Certainty, Failure, FailureReason, History, ReadBack, Uncertainty, WorkerLost,
    WriteError,
};
use crate::event::Event;
use crate::flow_control::Permit;
use crate::policy::BufferedEvent;
use crate::policy::barrier::Epoch;
use crate::settled::{Proof, Settled, Stored};
use read_back::PendingReadBack;
use ticket::Answer;

/// An accepted event whose ticket is not answered.
///
/// [`settle_acknowledged`](Self::settle_acknowledged), [`settle_found`](Self::settle_found) and
/// [`settle_failed`](Self::settle_failed) consume it, release its permit and answer the ticket. An event that is
/// dropped before that does the same by itself: it answers that the worker is lost. So each ticket is answered once,
/// and each permit is released once.
///
/// Until the worker [admits](Self::admit) it, an event has no reference to anything shared. Threads that put at the
/// same time would otherwise contend for the reference count.
#[derive(Debug)]
pub(crate) struct PendingEvent {
    event: Event,
    /// Whether an earlier put may have stored the event, or still may.
    uncertainty_before: Uncertainty,
    /// Whether a call with the event is in flight.
    is_in_flight: bool,
    /// Calls that carried the event, the one in flight included.
    attempts: u32,
    /// Whether the permit is still held, and the event not yet counted as settled.
    holds_permit: bool,
    /// Whether the event is counted as stored and its permit released. Only its ticket is left to answer.
    is_stored: bool,
    /// `None` until the worker has admitted the event.
    accounting: Option<Arc<Accounting>>,
    accepted_at: Instant,
    epoch: Epoch,
    /// The event's number in the journal, if the store has one.
    #[cfg(feature = "journal")]
    journal_sequence: Option<NonZeroU64>,
    /// `None` until an attempt fails, unless calls are linked to the callers' spans. So an event that is stored at the
    /// first attempt costs no allocation.
    extra: Option<Box<Extra>>,
    /// `None` after the answer.
    reply: Option<oneshot::Sender<Answer>>,
}

/// The compiler copies up to 128 bytes in place, and calls `memmove` for more. Every event is copied from the put to
/// the channel, the buffer, the batch and the call.
const _: () = assert!(size_of::<PendingEvent>() <= 128);

/// What only some events have.
#[derive(Debug, Default)]
struct Extra {
    /// Empty until an attempt fails.
    history: History,
    /// Only of a failed event that is read back before its ticket is answered.
    read_back: Option<PendingReadBack>,
    /// The span in which the event was put, if calls are linked to it.
    caller: Option<Span>,
}

/// When a call began and ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallTimes {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

/// The answer of an event that failed.
#[derive(Debug)]
pub(crate) struct SettledError {
    pub(crate) error: WriteError,
    /// Whether the ticket received it. A dropped ticket does not.
    pub(crate) was_received: bool,
}

impl BufferedEvent for PendingEvent {
    fn event(&self) -> &Event {
        &self.event
    }

    fn accepted_at(&self) -> Instant {
        self.accepted_at
    }

    fn expires_at(&self) -> Instant {
        match (self.read_back(), &self.accounting) {
            (Some(read_back), _) => read_back.answer_by,
            (None, Some(accounting)) => self.accepted_at + accounting.event_deadline,
            (None, None) => self.accepted_at,
        }
    }
}

impl PendingEvent {
    /// Accepts an event with its permit. `uncertainty_before` is the uncertainty that earlier puts of the event have
    /// left; [`Uncertainty::None`] if there were none.
    pub(crate) fn new(
        event: Event,
        uncertainty_before: Uncertainty,
        permit: Permit<'_>,
        accounting: &Accounting,
    ) -> (Self, PutTicket) {
        accounting.counters.accept();
        let (reply, ticket) = PutTicket::new(*event.key());
        let extra = Extra::of_caller(accounting);
        let pending = Self::with_reply(event, uncertainty_before, permit, reply, extra, accounting);
        (pending, ticket)
    }

    /// An accepted event with its permit.
    fn with_reply(
        event: Event,
        uncertainty_before: Uncertainty,
        permit: Permit<'_>,
        reply: oneshot::Sender<Answer>,
        extra: Option<Box<Extra>>,
        accounting: &Accounting,
    ) -> Self {
        permit.forget();
        Self {
            event,
            uncertainty_before,
            is_in_flight: false,
            attempts: 0,
            holds_permit: true,
            is_stored: false,
            accounting: None,
            // A placeholder until the worker admits the event. Reading the clock in each put would cost too much.
            accepted_at: accounting.started_at,
            epoch: Epoch::default(),
            #[cfg(feature = "journal")]
            journal_sequence: None,
            extra,
            reply: Some(reply),
        }
    }

    /// Undoes the acceptance of an event that could not be sent to the worker and whose ticket nobody has.
    pub(crate) fn undo_accept(mut self, accounting: &Accounting) {
        accounting.counters.undo_accept();
        let usage = self.take_usage(accounting);
        accounting.flow_control.release(usage.events, usage.bytes);
    }

    /// Marks the event as received by the worker. Its deadline counts from `now`.
    pub(crate) fn admit(&mut self, accounting: &Arc<Accounting>, epoch: Epoch, now: Instant) {
        self.accounting = Some(Arc::clone(accounting));
        self.epoch = epoch;
        self.accepted_at = now;
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
        self.history().map_or(0, |history| history.refusals)
    }

    /// For how many of the attempts the table had no capacity.
    pub(crate) fn throttled(&self) -> u32 {
        self.history().map_or(0, |history| history.throttled)
    }

    /// Whether the event may be stored without an acknowledgement, or still may be.
    pub(crate) fn uncertainty(&self) -> Uncertainty {
        if self.is_in_flight {
            return Uncertainty::CallsMayStillApply;
        }
        let since = self.history().map_or(Uncertainty::None, |history| history.uncertainty);
        since.max(self.uncertainty_before)
    }

    /// The time since the worker admitted the event.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.accepted_at)
    }

    /// Begins an attempt.
    pub(crate) fn begin_attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        self.is_in_flight = true;
    }

    /// Ends the attempt in flight with a failure. The failure becomes the event's last cause.
    pub(crate) fn fail_attempt(&mut self, cause: &Arc<BatchError>, call: CallTimes) {
        self.end_attempt(Some(cause), call);
        self.set_cause(cause);
    }

    /// Ends the attempt in flight, whose call was cancelled. The cancellation becomes the event's last cause only if it
    /// has none.
    pub(crate) fn drop_attempt(&mut self, cause: &Arc<BatchError>, call: CallTimes) {
        self.end_attempt(Some(cause), call);
        let history = &mut self.extra.get_or_insert_default().history;
        history.last_cause.get_or_insert_with(|| Arc::clone(cause));
    }

    /// Sets the last cause without an attempt. The certainty stays as it is.
    pub(crate) fn set_cause(&mut self, cause: &Arc<BatchError>) {
        self.extra.get_or_insert_default().history.last_cause = Some(Arc::clone(cause));
    }

    fn end_attempt(&mut self, failure: Option<&Arc<BatchError>>, call: CallTimes) {
        if !std::mem::take(&mut self.is_in_flight) {
            return;
        }
        let began = self.elapsed(call.began);
        let took = call.ended.saturating_duration_since(call.began);
        self.extra.get_or_insert_default().history.add(began, took, failure);
    }

    fn history(&self) -> Option<&History> {
        self.extra.as_ref().map(|extra| &extra.history)
    }

    /// Counts a whole batch as stored and releases its permits, in one step. The caller then settles each event with
    /// [`settle_acknowledged`](Self::settle_acknowledged).
    pub(crate) fn release_stored(batch: &mut [Self], accounting: &Accounting) {
        #[cfg(feature = "journal")]
        Self::settle_batch_in_journal(batch, accounting);
        let mut usage = Usage::default();
        for pending in batch {
            pending.is_stored = true;
            usage += pending.take_usage(accounting);
        }
        accounting.settle(usage, None);
    }

    /// Settles the event as stored, by the attempt in flight. `charge` is what the service charged for each write unit
    /// of the call, if it is known.
    pub(crate) fn settle_acknowledged(mut self, call: CallTimes, charge: Option<f64>) {
        if self.history().is_some_and(|history| !history.attempts.is_empty()) {
            self.end_attempt(None, call);
        }
        self.release(None);
        let write_units = charge.map(|charge| charge * self.event.write_units() as f64);
        self.answer_stored(Proof::Acknowledged, write_units);
    }

    /// Settles the event as stored, by a read.
    pub(crate) fn settle_found(mut self) {
        self.release(None);
        self.answer_stored(Proof::ReadBack, None);
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
            Uncertainty::CallsEnded | Uncertainty::CallsMayStillApply => Certainty::MaybeStored,
        }
    }

    fn answer_stored(&mut self, proof: Proof, write_units: Option<f64>) {
        let history = self.extra.take().map(|extra| extra.history.attempts);
        let stored = Stored {
            key: *self.event.key(),
            attempts: self.attempts,
            proof,
            write_units: write_units.unwrap_or(f64::NAN),
            history: history.unwrap_or_default().into_boxed_slice(),
        };
        tracing::debug!(key = %stored.key, attempts = stored.attempts, ?proof, "ok");
        #[cfg(feature = "journal")]
        self.settle_in_journal(None);
        if let Some(accounting) = &self.accounting {
            accounting.report_settled(|| Settled::Stored(stored.clone()));
        }
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
            self.extra.take().map(|extra| extra.history).unwrap_or_default();
        #[cfg(feature = "journal")]
        let is_journalled = {
            let is_of_another = certainty == Certainty::NotStored
                || matches!(read_back, Some(ReadBack::OtherBody { .. }));
            self.stays_in_journal(reason, is_of_another, last_cause.as_deref())
        };
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
            #[cfg(feature = "journal")]
            is_journalled,
        });
        #[cfg(feature = "journal")]
        if is_journalled {
            self.keep_in_journal();
        } else {
            self.settle_in_journal(Some(&error));
        }
        tracing::error!(
            key = %error.key(),
            attempts = error.attempts(),
            certainty = %certainty,
            error = %error,
            "error"
        );
        self.release(Some(reason));
        if let Some(accounting) = &self.accounting {
            accounting.report_settled(|| Settled::Failed(error.clone()));
        }
        let was_received =
            self.reply.take().is_some_and(|reply| reply.send(Err(error.clone())).is_ok());
        SettledError { error, was_received }
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
            self.answer_stored(Proof::Acknowledged, None);
        } else {
            let reason = FailureReason::WorkerLost(WorkerLost::while_dropping());
            self.answer_failed(reason, None, Duration::ZERO);
        }
    }
}
