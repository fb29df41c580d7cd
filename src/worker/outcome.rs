//! What follows from an attempt, a read or a deadline: events are settled, sent again or given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::Worker;
use super::in_flight::Completed;
use super::pacing::{Call, Share};
use super::read_back::ReadBackOutcome;
use crate::dynamodb::{BatchReading, BatchReceipt};
use crate::error::{BatchError, Certainty, FailureClass, FailureReason, Uncertainty};
use crate::pending::{PendingEvent, Proof};
use crate::policy::Waiting;
use crate::policy::reconcile::reconcile;
use crate::policy::refusal::Refusal;
use crate::policy::resolve::Resolution;
use crate::policy::retry::Decision;

/// What the service says where there is no table of this name.
const NO_SUCH_TABLE: &str = "ResourceNotFoundException";

impl Worker {
    pub(super) fn conclude(
        &mut self,
        batch: Vec<PendingEvent>,
        attempt: Completed<BatchReceipt>,
        now: Instant,
    ) {
        let call = Call::of(&batch);
        match attempt {
            Ok(receipt) => self.apply(batch, &receipt, call, now),
            Err(error) => {
                let class = error.class();
                // These are the service's answers to a caller whom it has let in. Without a code they may be a proxy's.
                if matches!(class, FailureClass::Throttled | FailureClass::Poison)
                    && error.code().is_some()
                {
                    self.refusals.let_in(now);
                }
                match class {
                    FailureClass::Throttled => self.learn(call, Share::Refused(&error), now),
                    FailureClass::Refused => return self.refuse(batch, error, call, now),
                    _ => {}
                }
                self.fail(batch, error, now);
            }
        }
    }

    fn apply(
        &mut self,
        batch: Vec<PendingEvent>,
        receipt: &BatchReceipt,
        call: Call,
        now: Instant,
    ) {
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
        if let Some(write_units) = receipt.consumed_write_units() {
            self.exit_guard.accounting.counters.consume(write_units);
        }
        self.refusals.succeeded(now);
        self.learn(call, Share::Stored(&reconciled.stored), now);
        self.settlement.acknowledged(reconciled.stored, now);
        if !reconciled.remaining.is_empty() {
            self.fail(reconciled.remaining, BatchError::unprocessed(receipt.request_id()), now);
        }
    }

    /// Sends events again, or gives them up, after a failed attempt.
    fn fail(&mut self, mut batch: Vec<PendingEvent>, cause: BatchError, now: Instant) {
        let class = cause.class();
        let throttled = matches!(class, FailureClass::Throttled | FailureClass::Unprocessed);
        if throttled {
            tracing::debug!(events = batch.len(), ?class, error = %cause, "attempt throttled");
        } else {
            tracing::warn!(events = batch.len(), ?class, error = %cause, "attempt failed");
        }
        let cause = Arc::new(cause);
        for event in &mut batch {
            event.fail_attempt(&cause, now);
        }
        if class == FailureClass::Poison && batch.len() > 1 {
            // One event can be at fault for all; those that are not are stored with fewer suspects.
            return self.buffer.isolate(batch, now);
        }
        // One draw for all: what failed together may go together again.
        let jitter = self.jitter.random::<f64>();
        for event in batch {
            let (refusals, elapsed) = (event.refusals(), event.elapsed(now));
            let attempts = event.attempts() - refusals;
            match self.retry.decide(attempts, elapsed, class, jitter) {
                Decision::After(Duration::ZERO) if throttled => {
                    let accepted_at = event.accepted_at();
                    self.buffer.requeue_in_turn(event, accepted_at);
                }
                Decision::After(delay) if throttled => {
                    self.buffer.requeue_repeated(event, now + delay);
                }
                Decision::After(delay) => self.buffer.requeue(event, now + delay),
                Decision::Fail(reason) => self.settle_failed(event, reason, now),
            }
        }
        if class == FailureClass::Fatal {
            self.fail_queued(&cause, now);
        }
    }

    /// Sends events again that were refused as every event would be, until that is final; then gives up all that
    /// waits.
    fn refuse(
        &mut self,
        mut batch: Vec<PendingEvent>,
        cause: BatchError,
        call: Call,
        now: Instant,
    ) {
        let (began, jitter) = (call.began.unwrap_or(now), self.jitter.random::<f64>());
        let is_wrong_table = cause.code() == Some(NO_SUCH_TABLE);
        let refusal = self.refusals.refused(began, is_wrong_table, now, jitter);
        tracing::warn!(events = batch.len(), ?refusal, error = %cause, "refused");
        let cause = Arc::new(cause);
        for event in &mut batch {
            event.fail_attempt(&cause, now);
        }
        // One draw for all: what failed together may go together again.
        let jitter = self.jitter.random::<f64>();
        for event in batch {
            match refusal {
                Refusal::Final => self.settle_failed(event, FailureReason::NotRetryable, now),
                // The next attempt of all waits, so none has to wait by itself.
                Refusal::OfAll => {
                    let accepted_at = event.accepted_at();
                    self.buffer.requeue_in_turn(event, accepted_at);
                }
                Refusal::OfOneCall => {
                    let (refusals, elapsed) = (event.refusals(), event.elapsed(now));
                    match self.retry.decide(refusals, elapsed, FailureClass::Refused, jitter) {
                        Decision::After(delay) => self.buffer.requeue(event, now + delay),
                        Decision::Fail(reason) => self.settle_failed(event, reason, now),
                    }
                }
            }
        }
        if refusal == Refusal::Final {
            self.fail_queued(&cause, now);
        }
    }

    /// Gives up what waits to be sent: it would fail as the last batch did. What is in flight gets
    /// its own answer.
    fn fail_queued(&mut self, cause: &Arc<BatchError>, now: Instant) {
        while let Some(mut event) = self.buffer.pop() {
            event.set_cause(cause);
            self.settle_failed(event, FailureReason::NotRetryable, now);
        }
    }

    pub(super) fn fail_expired(&mut self, now: Instant) {
        while let Some(event) = self.buffer.pop_expired(now) {
            self.settle_failed(event, FailureReason::Deadline, now);
        }
        if let Some(closing) = self.closing {
            if closing.fail_at <= now {
                self.abandon(now);
            }
            if closing.answer_by <= now {
                self.abandon_doubts(now);
            }
        }
        while let Some(outcome) = self.read_backs.pop_expired(now) {
            self.settle(outcome, now);
        }
    }

    /// Fails an event. It is read back first if it may be stored.
    fn settle_failed(&mut self, mut event: PendingEvent, reason: FailureReason, now: Instant) {
        if !self.read_back || event.uncertainty() == Uncertainty::None {
            return self.settlement.failed(event, reason, None, now, self.closing.is_some());
        }
        let soon = now + self.attempt_timeout;
        let answer_by = soon.min(event.expires_at() + self.attempt_timeout);
        let answer_by = self.closing.map_or(answer_by, |closing| answer_by.min(closing.answer_by));
        event.begin_read_back(reason, answer_by);
        self.read_backs.add(event, now);
    }

    pub(super) fn conclude_read(
        &mut self,
        batch: Vec<PendingEvent>,
        completed: Completed<BatchReading>,
        now: Instant,
    ) {
        let jitter = self.jitter.random::<f64>();
        for outcome in self.read_backs.conclude(batch, completed, now, jitter) {
            self.settle(outcome, now);
        }
    }

    fn settle(&mut self, outcome: ReadBackOutcome, now: Instant) {
        let ReadBackOutcome { event, resolution } = outcome;
        match resolution {
            Resolution::Stored => self.settlement.stored(event, Proof::ReadBack, now),
            Resolution::Failed(certainty, read_back) => {
                // An event is only read back after it failed.
                let reason = event.read_back_reason().unwrap_or(FailureReason::Deadline);
                let read_back = Some((certainty, read_back));
                self.settlement.failed(event, reason, read_back, now, self.closing.is_some());
            }
        }
    }

    /// The deadline of close has passed: everything is given up, and what is in flight may have
    /// been stored. What is still in the channel follows, as it comes out: that the channel is empty
    /// is only known when it says so, for a sender can be half-way.
    fn abandon(&mut self, now: Instant) {
        // What has come back by now is known.
        while let Some((batch, attempt)) = self.in_flight.next_done() {
            self.conclude(batch, attempt, now);
        }
        let dropped = Arc::new(BatchError::new(
            FailureClass::Transient,
            Certainty::MaybeStored,
            "the deadline of close came before the answer",
        ));
        for mut event in self.in_flight.abort() {
            event.drop_attempt(&dropped, now);
            self.settle_failed(event, FailureReason::CloseDeadline, now);
        }
        while let Some(event) = self.buffer.pop() {
            self.settle_failed(event, FailureReason::CloseDeadline, now);
        }
    }

    /// The last moment for an answer has come.
    fn abandon_doubts(&mut self, now: Instant) {
        while let Some((batch, completed)) = self.read_backs.reads.next_done() {
            self.conclude_read(batch, completed, now);
        }
        for outcome in self.read_backs.abandon() {
            self.settle(outcome, now);
        }
    }
}
