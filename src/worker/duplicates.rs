//! What the worker does in [`WriteMode::Insert`](crate::WriteMode::Insert) with an event whose key another item has.
//!
//! The other item may be the event itself, stored by an earlier attempt whose answer was lost. In this case a read
//! decides. If no earlier attempt can have stored the event, nothing is read: the other item is another writer's.

use std::sync::Arc;
use std::time::Instant;

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
            self.fail_event(event, FailureReason::DuplicateKey, call.ended);
        }
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
    fn replace_key(&mut self, mut event: PendingEvent, found: Found, now: Instant) {
        let taken = *event.event().key();
        self.abandon_shared_writer_id(&taken);
        if self.on_duplicate == OnDuplicate::Fail {
            return self.fail_duplicate(event, FailureReason::DuplicateKey, found, now);
        }
        if self.is_past_close(now) {
            return self.fail_duplicate(event, FailureReason::CloseDeadline, found, now);
        }
        match self.keys.next() {
            Ok(key) => {
                #[cfg(feature = "journal")]
                if let Err(error) = event.replace_in_journal(key) {
                    tracing::warn!(%taken, %error, "the journal cannot take an event under a new key");
                    return self.insert_again(event, found, now);
                }
                tracing::debug!(%taken, %key, "another item has the key of this event; the event gets a new key");
                event.replace_key(key);
                self.accounting.counters.replace_key();
                let accepted_at = event.accepted_at();
                self.buffer.requeue_in_order(event, accepted_at);
            }
            Err(NoKey::NoLease) => self.insert_again(event, found, now),
            Err(NoKey::Closed | NoKey::YearOver) => {
                self.fail_duplicate(event, FailureReason::DuplicateKey, found, now);
            }
        }
    }

    /// Sends an event again under the same key, after a backoff.
    fn insert_again(&mut self, mut event: PendingEvent, found: Found, now: Instant) {
        if self.is_past_close(now) {
            return self.fail_duplicate(event, FailureReason::CloseDeadline, found, now);
        }
        let (class, jitter) = (FailureClass::Transient, self.jitter.random::<f64>());
        match self.retry.decide(attempts(&event), event.elapsed(now), class, jitter) {
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
