//! What the worker does after an attempt, a read or a deadline: it settles events, queues them again or fails them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::Worker;
use super::in_flight::CompletedCall;
use super::pacing::{Answer, Call, Processed};
use super::read_back::ReadBackOutcome;
use super::span::record_outcome;
use crate::dynamodb::{BatchReading, BatchReceipt};
use crate::error::{BatchError, Certainty, FailureClass, FailureReason, ReadBack, Uncertainty};
use crate::event::key::EventKey;
use crate::key_source::SharedWriterId;
use crate::pending::{CallTimes, PendingEvent};
use crate::policy::BufferedEvent;
use crate::policy::reconcile::{Reconciled, reconcile};
use crate::policy::refusal::Refusal;
use crate::policy::resolve::Resolution;
use crate::policy::retry::{Attempts, Decision};

/// The error codes for a table that does not exist: of a call, and of a statement.
const NO_SUCH_TABLE: [&str; 2] = ["ResourceNotFoundException", "ResourceNotFound"];

impl Worker {
    /// Handles a completed attempt.
    pub(super) fn conclude(
        &mut self,
        completed: CompletedCall<PendingEvent, BatchReceipt>,
        now: Instant,
    ) {
        let CompletedCall { began, span, batch, result } = completed;
        record_outcome(span, &result);
        let call = Call::new(&batch, CallTimes { began, ended: now });
        #[cfg(feature = "metrics")]
        self.accounting.metrics.complete(now.saturating_duration_since(began));
        match result {
            Ok(receipt) => self.apply_receipt(batch, &receipt, call, now),
            Err(error) => {
                let class = error.class();
                // The service throttles and validates only calls of an authorized caller. An error without a code may
                // be a proxy's.
                if matches!(class, FailureClass::Throttled | FailureClass::Invalid)
                    && error.code().is_some()
                {
                    self.refusals.authorized(now);
                }
                match class {
                    FailureClass::Throttled => {
                        self.observe_answer(call, Answer::Throttled(&error), now);
                    }
                    FailureClass::Refused => return self.handle_refusal(batch, error, call, now),
                    _ => {}
                }
                self.retry_or_fail(batch, Arc::new(error), call.times);
            }
        }
    }

    fn apply_receipt(
        &mut self,
        batch: Vec<PendingEvent>,
        receipt: &BatchReceipt,
        call: Call,
        now: Instant,
    ) {
        let reconciled = reconcile(batch, receipt.unprocessed(), receipt.failed());
        if reconciled.unknown_keys > 0 {
            // The receipt belongs to another batch, so nothing in it counts.
            let unknown_keys = reconciled.unknown_keys;
            let error = BatchError::new(
                FailureClass::Transient,
                Certainty::MaybeStored,
                format!("the answer lists as unprocessed {unknown_keys} keys that were not sent"),
            );
            return self.retry_or_fail(reconciled.into_sent(), Arc::new(error), call.times);
        }
        let Reconciled { stored, unprocessed, failed, .. } = reconciled;
        if let Some(write_units) = receipt.consumed_write_units() {
            self.accounting.counters.consume(write_units);
        }
        self.refusals.succeeded(now);
        let processed = Processed::of(&stored, &unprocessed, &failed);
        self.observe_answer(call, Answer::Processed(processed), now);
        let charge = receipt.consumed_write_units().map(|units| processed.charge(units));
        self.settlement.acknowledged(stored, call.times, charge);
        if !unprocessed.is_empty() {
            let cause = BatchError::unprocessed(receipt.request_id());
            self.retry_or_fail(unprocessed, Arc::new(cause), call.times);
        }
        for (failure, events) in by_failure(failed) {
            match failure.class() {
                FailureClass::Duplicate => {
                    for event in events {
                        self.handle_duplicate(event, &failure, call.times);
                    }
                }
                // Each is known to be invalid by itself.
                FailureClass::Invalid => {
                    for event in events {
                        self.retry_or_fail(vec![event], Arc::clone(&failure), call.times);
                    }
                }
                _ => self.retry_or_fail(events, failure, call.times),
            }
        }
    }

    /// Queues events again after a failed attempt, or fails them, as the retry policy decides.
    fn retry_or_fail(
        &mut self,
        mut batch: Vec<PendingEvent>,
        cause: Arc<BatchError>,
        call: CallTimes,
    ) {
        let now = call.ended;
        let class = cause.class();
        let is_throttled = class.is_throttled();
        if is_throttled {
            tracing::debug!(events = batch.len(), ?class, error = %cause, "attempt throttled");
        } else {
            tracing::warn!(events = batch.len(), ?class, error = %cause, "attempt failed");
        }
        for event in &mut batch {
            event.fail_attempt(&cause, call);
        }
        if class == FailureClass::Invalid && batch.len() > 1 {
            // One invalid event fails its whole batch. Smaller batches find it and let the others be stored.
            return self.buffer.isolate(batch, now);
        }
        // All events of the batch get the same jitter, so that they can share a batch again.
        let jitter = self.jitter.random::<f64>();
        for event in batch {
            match self.settings.retry.decide(attempts(&event), event.elapsed(now), class, jitter) {
                Decision::After(Duration::ZERO) if is_throttled => {
                    let accepted_at = event.accepted_at();
                    self.buffer.requeue_in_order(event, accepted_at);
                }
                Decision::After(delay) if is_throttled => {
                    self.buffer.requeue_repeated(event, now + delay);
                }
                Decision::After(delay) => self.buffer.requeue(event, now + delay),
                Decision::Fail(reason) => self.fail_event(event, reason, now),
            }
        }
        if class == FailureClass::Fatal {
            self.fail_queued(&cause, now);
        }
    }

    /// Queues the events of a refused call again. A final refusal fails them, and every queued event.
    fn handle_refusal(
        &mut self,
        mut batch: Vec<PendingEvent>,
        cause: BatchError,
        call: Call,
        now: Instant,
    ) {
        let (began, jitter) = (call.times.began, self.jitter.random::<f64>());
        let is_missing_table = cause.code().is_some_and(|code| NO_SUCH_TABLE.contains(&code));
        let refusal = self.refusals.refused(began, is_missing_table, now, jitter);
        tracing::warn!(events = batch.len(), ?refusal, error = %cause, "refused");
        let cause = Arc::new(cause);
        for event in &mut batch {
            event.fail_attempt(&cause, call.times);
        }
        // All events of the batch get the same jitter, so that they can share a batch again.
        let jitter = self.jitter.random::<f64>();
        for event in batch {
            match refusal {
                Refusal::Final => self.fail_event(event, FailureReason::NotRetryable, now),
                // The refusal delays the next call, so the events need no delay of their own.
                Refusal::OfEveryCall => {
                    let accepted_at = event.accepted_at();
                    self.buffer.requeue_in_order(event, accepted_at);
                }
                Refusal::OfOneCall => {
                    let (attempts, elapsed) = (attempts(&event), event.elapsed(now));
                    match self.settings.retry.decide(
                        attempts,
                        elapsed,
                        FailureClass::Refused,
                        jitter,
                    ) {
                        Decision::After(delay) => self.buffer.requeue(event, now + delay),
                        Decision::Fail(reason) => self.fail_event(event, reason, now),
                    }
                }
            }
        }
        if refusal == Refusal::Final {
            self.fail_queued(&cause, now);
        }
    }

    /// Fails every queued event after a fatal error or a final refusal, which the next call would meet as well. Events
    /// in flight get the answers of their own calls.
    fn fail_queued(&mut self, cause: &Arc<BatchError>, now: Instant) {
        while let Some(mut event) = self.buffer.pop() {
            event.set_cause(cause);
            self.fail_event(event, FailureReason::NotRetryable, now);
        }
    }

    /// Fails the events whose deadline has passed and, when the deadlines of close have passed, all that are left.
    pub(super) fn fail_expired(&mut self, now: Instant) {
        while let Some(event) = self.buffer.pop_expired(now) {
            self.fail_event(event, FailureReason::Deadline, now);
        }
        if let Some(closing) = self.closing {
            if closing.fail_at <= now {
                self.fail_unsettled(now);
            }
            if closing.answer_by <= now {
                self.end_read_backs(now);
            }
        }
        while let Some(outcome) = self.read_backs.pop_expired(now) {
            self.settle_read_back(outcome, now);
        }
    }

    /// Fails an event, after a read-back if it may be stored.
    pub(super) fn fail_event(
        &mut self,
        mut event: PendingEvent,
        reason: FailureReason,
        now: Instant,
    ) {
        if !self.settings.read_back || event.uncertainty() == Uncertainty::None {
            return self.settlement.failed(event, reason, None, now, self.closing.is_some());
        }
        let answer_by = now.min(event.expires_at()) + self.settings.attempt_timeout;
        let answer_by = self.closing.map_or(answer_by, |closing| answer_by.min(closing.answer_by));
        event.begin_read_back(reason, answer_by);
        self.read_backs.add(event, now);
    }

    /// Handles a completed read.
    pub(super) fn conclude_read(
        &mut self,
        completed: CompletedCall<PendingEvent, BatchReading>,
        now: Instant,
    ) {
        let CompletedCall { batch, result, .. } = completed;
        let jitter = self.jitter.random::<f64>();
        for outcome in self.read_backs.conclude(batch, result, now, jitter) {
            self.settle_read_back(outcome, now);
        }
    }

    fn settle_read_back(&mut self, outcome: ReadBackOutcome, now: Instant) {
        let ReadBackOutcome { event, resolution } = outcome;
        if event.read_back_reason() == Some(FailureReason::DuplicateKey) {
            return self.resolve_duplicate(event, resolution, now);
        }
        if let Resolution::Failed(_, ReadBack::OtherBody { .. }) = resolution {
            self.abandon_shared_writer_id(event.event().key());
        }
        match resolution {
            Resolution::Stored => self.settlement.found(event, now),
            Resolution::Failed(certainty, read_back) => {
                let is_of_another = matches!(read_back, ReadBack::OtherBody { .. });
                let reason = match event.read_back_reason() {
                    // What to do next depends on it: an earlier put may have stored the event under a new key.
                    _ if is_of_another
                        && event.was_put_before()
                        && self.read_backs.are_of_inserts() =>
                    {
                        FailureReason::DuplicateKey
                    }
                    Some(reason) => reason,
                    // Every event that is read back has a reason, so this is never used.
                    None => FailureReason::Deadline,
                };
                let read_back = Some((certainty, read_back));
                self.settlement.failed(event, reason, read_back, now, self.closing.is_some());
            }
        }
    }

    /// Warns that another writer has the writer id of `key`, and replaces the id, unless the program has assigned it.
    pub(super) fn abandon_shared_writer_id(&self, key: &EventKey) {
        match self.keys.abandon_shared_writer_id(key) {
            Some(SharedWriterId::Replaced) => tracing::warn!(
                %key,
                "another event is stored under this key, so another writer has this store's writer id; later keys have \
                 another id. Lease the ids (WriterIds::leased), or assign each writer its own: writers with the same \
                 id overwrite each other's events, unless they insert"
            ),
            Some(SharedWriterId::Kept) => tracing::warn!(
                %key,
                "another event is stored under this key, so another writer has this store's writer id; the program has \
                 assigned the id, so it is kept. Assign each writer its own id, or lease the ids (WriterIds::leased): \
                 writers with the same id overwrite each other's events, unless they insert"
            ),
            None => {}
        }
    }

    /// Fails every event, queued or in flight, as the deadline of close has passed. Those in flight may be stored.
    ///
    /// Events that are still in the channel fail in later iterations. A put may be about to send, so the channel is
    /// empty only when it reports that it is closed and empty.
    fn fail_unsettled(&mut self, now: Instant) {
        // Calls that have completed by now count with their answers.
        while let Some(call) = self.in_flight.next_done() {
            self.conclude(call, now);
        }
        let dropped = Arc::new(BatchError::new(
            FailureClass::Transient,
            Certainty::MaybeStored,
            "the deadline of close came before the answer",
        ));
        for (began, mut event) in self.in_flight.abort() {
            event.drop_attempt(&dropped, CallTimes { began, ended: now });
            self.fail_event(event, FailureReason::CloseDeadline, now);
        }
        while let Some(event) = self.buffer.pop() {
            self.fail_event(event, FailureReason::CloseDeadline, now);
        }
    }

    /// Ends every read-back and answers the tickets, as the last deadline of close has passed.
    fn end_read_backs(&mut self, now: Instant) {
        while let Some(call) = self.read_backs.reads.next_done() {
            self.conclude_read(call, now);
        }
        for outcome in self.read_backs.abort() {
            self.settle_read_back(outcome, now);
        }
    }
}

/// The events that share a failure, together.
fn by_failure(
    failed: Vec<(PendingEvent, Arc<BatchError>)>,
) -> Vec<(Arc<BatchError>, Vec<PendingEvent>)> {
    let mut groups: Vec<(Arc<BatchError>, Vec<PendingEvent>)> = Vec::new();
    for (event, failure) in failed {
        match groups.iter_mut().find(|(shared, _)| Arc::ptr_eq(shared, &failure)) {
            Some((_, events)) => events.push(event),
            None => groups.push((failure, vec![event])),
        }
    }
    groups
}

pub(super) fn attempts(event: &PendingEvent) -> Attempts {
    Attempts { all: event.attempts(), refused: event.refusals(), throttled: event.throttled() }
}
