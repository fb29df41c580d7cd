//! The two halves of an answer: the caller's ticket and the writer's pending event.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::accounting::{Accounting, Usage};
use crate::error::{Attempt, History, Uncertainty};
use crate::error::{
    BatchError, Certainty, Failure, FailureReason, ReadBack, WorkerLost, WriteError,
};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::flow_control::Permit;
use crate::stats::Counters;

/// An event is in the table.
///
/// Either a call carried the event's key, the service answered it, and did not list the key as
/// unprocessed; or the answers of its calls were lost, and a consistent read then found the event.
/// It does not mean that every reader sees the event at once: a read that is not consistent may be a
/// moment late.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Key of the event in the table.
    pub key: EventKey,
    /// How many calls carried the event, the acknowledged one included.
    pub attempts: u32,
    /// How the store knows.
    pub proof: Proof,
    history: Vec<Attempt>,
}

impl Stored {
    /// The attempts, oldest first, of an event that was not stored at the first try: when, how long, and
    /// how each but the acknowledged one failed. Of more than 16 the first and the last eight.
    ///
    /// Empty for an event that was stored at the first try.
    #[must_use]
    pub fn history(&self) -> &[Attempt] {
        &self.history
    }
}

/// How the store knows that an event is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// The service acknowledged a call that carried the event.
    Acknowledged,
    /// A consistent read found the event, with its body.
    ReadBack,
}

/// The answer to one put, to be awaited: what became of the event.
///
/// The future's output is `Ok(`[`Stored`]`)` when the event is in the table, and
/// `Err(`[`WriteError`]`)` when the store gave it up. It comes at the latest one attempt time-out
/// after the event's deadline ([`event_deadline`](crate::EventStoreBuilder::event_deadline)).
///
/// Dropping a ticket does not cancel the write; it only leaves its answer unheard.
///
/// # Cancel safety
///
/// A ticket can be polled, set aside and polled again. Like most futures it panics when it is
/// polled after it has given its output.
#[derive(Debug)]
#[must_use = "a put is only known to be stored when its ticket says so"]
pub struct PutTicket {
    key: EventKey,
    answer: oneshot::Receiver<Result<Stored, WriteError>>,
}

impl PutTicket {
    /// Key under which the event is being stored. Known from the start, and never changed.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.key
    }
}

impl Future for PutTicket {
    type Output = Result<Stored, WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(WriteError::unanswered(self.key))))
    }
}

/// An accepted event on its way to the worker, which makes a [`Pending`] of it.
///
/// It is small, and it shares nothing with other events that a processor would have to fetch from
/// another: that is what puts from several threads cost each other.
#[derive(Debug)]
pub(crate) struct Accepted {
    event: Event,
    /// What an earlier store may have left of the event in the table, or may yet.
    uncertainty_before: Uncertainty,
    reply: oneshot::Sender<Result<Stored, WriteError>>,
}

impl Accepted {
    /// Accepts an event that has room in the buffer. `uncertainty_before` is [`Uncertainty::None`] for an event that
    /// was never put before.
    pub(crate) fn new(
        event: Event,
        uncertainty_before: Uncertainty,
        permit: Permit<'_>,
        counters: &Counters,
    ) -> (Self, PutTicket) {
        permit.forget();
        counters.accept();
        let (reply, answer) = oneshot::channel();
        let ticket = PutTicket { key: *event.key(), answer };
        (Self { event, uncertainty_before, reply }, ticket)
    }

    /// Takes the acceptance back: the worker never got the event and nobody has its ticket.
    pub(crate) fn refuse(self, accounting: &Accounting) {
        accounting.counters.refuse();
        accounting
            .flow_control
            .release(1, accounting.permit_bytes(self.event.buffered_bytes()).into());
    }
}

/// The writer's half: an accepted event that owes its ticket an answer.
///
/// It is settled once, by [`stored`](Self::stored) or [`settle_failed`](Self::give_up). Where neither
/// happens, dropping it gives the answer that is true then: the worker is lost. The event's room in
/// the buffer goes back just before, by ownership.
#[derive(Debug)]
pub(crate) struct Pending {
    event: Event,
    attempts: u32,
    /// What an earlier store may have left of the event in the table, or may yet.
    uncertainty_before: Uncertainty,
    /// Whether the event still has its room, and is yet to be counted as settled.
    holds_permit: bool,
    /// Whether it was struck out as stored, and is only to be told.
    is_stored: bool,
    accepted_at: Instant,
    /// When the current attempt began, while its answer is out.
    in_flight_since: Option<Instant>,
    /// `None` until something goes wrong: an event that is stored at the first try pays nothing.
    history: Option<Box<History>>,
    accounting: Arc<Accounting>,
    /// `None` once settled.
    reply: Option<oneshot::Sender<Result<Stored, WriteError>>>,
}

impl Pending {
    /// Takes an event over; its deadline counts from `now`.
    pub(crate) fn new(accepted: Accepted, accounting: &Arc<Accounting>, now: Instant) -> Self {
        let Accepted { event, uncertainty_before, reply } = accepted;
        Self {
            event,
            attempts: 0,
            uncertainty_before,
            holds_permit: true,
            is_stored: false,
            accepted_at: now,
            in_flight_since: None,
            history: None,
            accounting: Arc::clone(accounting),
            reply: Some(reply),
        }
    }

    /// What the event takes up in its ledger. From now on whoever has asked owes it to the ledger.
    fn take_usage(&mut self) -> Usage {
        if !std::mem::take(&mut self.holds_permit) {
            return Usage::default();
        }
        Usage { events: 1, bytes: self.accounting.permit_bytes(self.event.buffered_bytes()).into() }
    }

    /// Strikes out events that are all stored, in one go; then each is to be told so by
    /// [`stored`](Self::stored).
    pub(crate) fn release_stored<'a>(
        batch: impl Iterator<Item = &'a mut Self>,
        accounting: &Accounting,
    ) {
        let mut entries = Usage::default();
        for pending in batch {
            pending.is_stored = true;
            entries += pending.take_usage();
        }
        accounting.settle(entries, true);
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many of the attempts were refused as every event's would be.
    pub(crate) fn refusals(&self) -> u32 {
        self.history.as_ref().map_or(0, |history| history.refusals)
    }

    /// Whether, and for how long yet, the event may come to be stored without an acknowledgement.
    pub(crate) fn uncertainty(&self) -> Uncertainty {
        if self.in_flight_since.is_some() {
            return Uncertainty::Open;
        }
        let since = self.history.as_ref().map_or(Uncertainty::None, |history| history.uncertainty);
        since.max(self.uncertainty_before)
    }

    pub(crate) fn accepted_at(&self) -> Instant {
        self.accepted_at
    }

    /// When the call under way began that carries the event.
    pub(crate) fn in_flight_since(&self) -> Option<Instant> {
        self.in_flight_since
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.accepted_at)
    }

    /// Notes that a call now carries the event.
    pub(crate) fn attempt(&mut self, now: Instant) {
        self.attempts = self.attempts.saturating_add(1);
        self.in_flight_since = Some(now);
    }

    /// Notes that the attempt under way failed, and how.
    pub(crate) fn fail(&mut self, cause: &Arc<BatchError>, now: Instant) {
        self.conclude(Some(cause), now);
        self.set_cause(cause);
    }

    /// Notes that the attempt under way was dropped. That is no cause to name, if there is a real one.
    pub(crate) fn abandon(&mut self, cause: &Arc<BatchError>, now: Instant) {
        self.conclude(Some(cause), now);
        self.history.get_or_insert_default().last_cause.get_or_insert_with(|| Arc::clone(cause));
    }

    /// Notes why the event will not be sent. Nothing was sent, so its certainty stays as it is.
    pub(crate) fn set_cause(&mut self, cause: &Arc<BatchError>) {
        self.history.get_or_insert_default().last_cause = Some(Arc::clone(cause));
    }

    fn conclude(&mut self, failure: Option<&Arc<BatchError>>, now: Instant) {
        let Some(since) = self.in_flight_since.take() else { return };
        let began = self.elapsed(since);
        self.history.get_or_insert_default().add(began, now.duration_since(since), failure);
    }

    /// Settles with yes.
    pub(crate) fn stored(mut self, proof: Proof, now: Instant) {
        if self.history.is_some() {
            self.conclude(None, now);
        }
        let entry = self.take_usage();
        if entry.events > 0 {
            self.accounting.settle(entry, true);
        }
        self.answer_stored(proof);
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

    /// Settles with no, or with maybe. Hands the error back where the ticket was dropped.
    pub(crate) fn settle_failed(mut self, reason: FailureReason, now: Instant) -> Answered {
        let (certainty, elapsed) = (self.certainty(), self.elapsed(now));
        self.settle_error(certainty, reason, elapsed, None)
    }

    /// Settles with what a read, or the lack of one, has left of the doubt.
    pub(crate) fn settle_failed_after_read(
        mut self,
        certainty: Certainty,
        read_back: ReadBack,
        reason: FailureReason,
        now: Instant,
    ) -> Answered {
        let elapsed = self.elapsed(now);
        self.settle_error(certainty, reason, elapsed, Some(read_back))
    }

    fn certainty(&self) -> Certainty {
        match self.uncertainty() {
            Uncertainty::None => Certainty::NotStored,
            Uncertainty::Past | Uncertainty::Open => Certainty::MaybeStored,
        }
    }

    fn settle_error(
        &mut self,
        certainty: Certainty,
        reason: FailureReason,
        elapsed: Duration,
        read_back: Option<ReadBack>,
    ) -> Answered {
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
        let entry = self.take_usage();
        self.accounting.settle(entry, false);
        let was_received =
            self.reply.take().is_some_and(|reply| reply.send(Err(error.clone())).is_ok());
        Answered { error, was_received }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.reply.is_none() {
            return;
        }
        if self.is_stored {
            // Somebody before it has panicked as he was told.
            self.answer_stored(Proof::Acknowledged);
        } else {
            let (certainty, reason) =
                (self.certainty(), FailureReason::WorkerLost(WorkerLost::now()));
            self.settle_error(certainty, reason, Duration::ZERO, None);
        }
    }
}

/// An error that a pending event was settled with.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) error: WriteError,
    /// Whether the ticket was still there to hear it.
    pub(crate) was_received: bool,
}
