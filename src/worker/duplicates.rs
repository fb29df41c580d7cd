//! What the worker does with an event whose key another item has, in [`WriteMode::Insert`](crate::WriteMode::Insert).
//!
//! The other item may be the event itself, stored by an attempt whose answer was lost. Then a read decides. If no earlier
//! attempt can have stored the event, the item is another writer's, and nothing is read.
//!
//! An event that was put before its present put gets no new key: an earlier put may have stored it under one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::Worker;
use super::outcome::attempts;
use crate::error::{BatchError, Certainty, FailureClass, FailureReason, ReadBack, Uncertainty};
use crate::key_source::NoKey;
use crate::pending::{CallTimes, PendingEvent};
use crate::policy::BufferedEvent;
use crate::policy::resolve::Resolution;
use crate::policy::retry::Decision;
use crate::write_mode::OnDuplicate;

/// What a read has found. `None` if nothing was read.
type Found = Option<(Certainty, ReadBack)>;

impl Worker {
    /// Ends the attempt of an event that the service did not insert because its key is taken.
    pub(super) fn handle_duplicate(
        &mut self,
        mut event: PendingEvent,
        failure: &Arc<BatchError>,
        call: CallTimes,
    ) {
        event.fail_attempt(failure, call);
        if event.uncertainty() == Uncertainty::None {
            self.replace_key(event, None, call.ended);
        } else {
            self.read_duplicate(event, call.ended);
        }
    }

    /// Reads the item, also if failed events are not read back: nothing else can decide. The reads may be repeated until
    /// the event's deadline.
    fn read_duplicate(&mut self, mut event: PendingEvent, now: Instant) {
        let answer_by = event.expires_at() + self.settings.attempt_timeout;
        let answer_by = self.closing.map_or(answer_by, |closing| answer_by.min(closing.answer_by));
        event.begin_read_back(FailureReason::DuplicateKey, answer_by);
        self.read_backs.add(event, now);
    }

    /// Decides what happens to an event whose key is taken, after the item was read.
    pub(super) fn resolve_duplicate(
        &mut self,
        event: PendingEvent,
        resolution: Resolution,
        now: Instant,
    ) {
        match resolution {
            Resolution::Stored => self.settlement.found(event, now),
            Resolution::Failed(certainty, read_back @ ReadBack::OtherBody { .. }) => {
                self.replace_key(event, Some((certainty, read_back)), now);
            }
            // The other item was deleted in the meantime, so the key is free again.
            Resolution::Failed(certainty, read_back @ ReadBack::NotFound { .. }) => {
                self.insert_again(event, Some((certainty, read_back)), now);
            }
            Resolution::Failed(certainty, read_back) => {
                self.fail_duplicate(
                    event,
                    FailureReason::DuplicateKey,
                    Some((certainty, read_back)),
                    now,
                );
            }
        }
    }

    /// Gives an event a new key or fails it, because another writer's item has its key.
    fn replace_key(&mut self, event: PendingEvent, found: Found, now: Instant) {
        self.abandon_shared_writer_id(event.event().key());
        if event.was_put_before() {
            let found = found.map(|(_, read_back)| (Certainty::MaybeStored, read_back));
            return self.fail_duplicate(event, FailureReason::DuplicateKey, found, now);
        }
        if self.settings.on_duplicate == OnDuplicate::Fail {
            return self.fail_duplicate(event, FailureReason::DuplicateKey, found, now);
        }
        if self.is_past_close(now) {
            return self.fail_duplicate(event, FailureReason::CloseDeadline, found, now);
        }
        let (class, jitter) = (FailureClass::Transient, self.jitter.random::<f64>());
        match self.settings.retry.decide(attempts(&event), event.elapsed(now), class, jitter) {
            Decision::After(delay) => self.insert_under_new_key(event, found, delay, now),
            Decision::Fail(reason) => self.fail_duplicate(event, reason, found, now),
        }
    }

    /// Sends an event under a new key: at once after its first duplicate, after `delay` if it had more.
    fn insert_under_new_key(
        &mut self,
        mut event: PendingEvent,
        found: Found,
        delay: Duration,
        now: Instant,
    ) {
        let key = match self.keys.next() {
            Ok(key) => key,
            Err(NoKey::NoLease) => return self.insert_again(event, found, now),
            Err(NoKey::Closed) => {
                return self.fail_duplicate(event, FailureReason::CloseDeadline, found, now);
            }
            Err(NoKey::YearOver) => {
                return self.fail_duplicate(event, FailureReason::DuplicateKey, found, now);
            }
        };
        let taken = *event.event().key();
        if event.replace_key(key).is_err() {
            // The old key was one of the npm module's, which are shorter, and the body is as large as it may be.
            return self.fail_duplicate(event, FailureReason::DuplicateKey, found, now);
        }
        tracing::debug!(%taken, %key, "another item has the key of this event; the event gets a new key");
        self.accounting.counters.replace_key();
        if event.duplicates() == 1 {
            let accepted_at = event.accepted_at();
            self.buffer.requeue_in_order(event, accepted_at);
        } else {
            self.buffer.requeue(event, now + delay);
        }
    }

    /// Sends an event again under the same key, after a backoff.
    fn insert_again(&mut self, mut event: PendingEvent, found: Found, now: Instant) {
        if self.is_past_close(now) {
            return self.fail_duplicate(event, FailureReason::CloseDeadline, found, now);
        }
        let (class, jitter) = (FailureClass::Transient, self.jitter.random::<f64>());
        match self.settings.retry.decide(attempts(&event), event.elapsed(now), class, jitter) {
            Decision::After(delay) => {
                event.end_read_back();
                self.buffer.requeue(event, now + delay);
            }
            Decision::Fail(reason) => self.fail_duplicate(event, reason, found, now),
        }
    }

    fn fail_duplicate(
        &mut self,
        event: PendingEvent,
        reason: FailureReason,
        found: Found,
        now: Instant,
    ) {
        self.settlement.failed(event, reason, found, now, self.closing.is_some());
    }

    /// Whether the deadline of close has passed, after which nothing is sent.
    fn is_past_close(&self, now: Instant) -> bool {
        self.closing.is_some_and(|closing| closing.fail_at <= now)
    }
}
