//! Counters with one more label, whose values are known: one handle for each value.

use metrics::{Counter, Label, counter};

use crate::error::{FailureClass, FailureReason};
use crate::stats::ThrottledBatches;

use super::names;

/// Registers a counter with one more label.
fn labelled(name: &'static str, common: &[Label], label: &'static str, value: &str) -> Counter {
    let mut labels = common.to_vec();
    labels.push(Label::new(label, value.to_owned()));
    counter!(name, labels)
}

/// Failed events, by their reason.
#[derive(Debug)]
pub(super) struct Failed {
    not_retryable: Counter,
    deadline: Counter,
    attempts: Counter,
    close_deadline: Counter,
    duplicate_key: Counter,
    unreadable: Counter,
    worker_lost: Counter,
}

impl Failed {
    pub(super) fn register(common: &[Label]) -> Self {
        let counter = |reason| labelled(names::EVENTS_FAILED, common, "reason", reason);
        Self {
            not_retryable: counter("not_retryable"),
            deadline: counter("deadline"),
            attempts: counter("attempts"),
            close_deadline: counter("close_deadline"),
            duplicate_key: counter("duplicate_key"),
            unreadable: counter("unreadable"),
            worker_lost: counter("worker_lost"),
        }
    }

    pub(super) fn of(&self, reason: FailureReason) -> &Counter {
        match reason {
            FailureReason::NotRetryable => &self.not_retryable,
            FailureReason::Deadline => &self.deadline,
            FailureReason::Attempts => &self.attempts,
            FailureReason::CloseDeadline => &self.close_deadline,
            FailureReason::DuplicateKey => &self.duplicate_key,
            FailureReason::Unreadable => &self.unreadable,
            FailureReason::WorkerLost(_) => &self.worker_lost,
        }
    }
}

/// Events sent again, by the class of the failure before.
#[derive(Debug)]
pub(super) struct Retried {
    unprocessed: Counter,
    throttled: Counter,
    transient: Counter,
    expired_credentials: Counter,
    clock_skew: Counter,
    invalid: Counter,
    duplicate: Counter,
    refused: Counter,
    fatal: Counter,
    panicked: Counter,
}

impl Retried {
    pub(super) fn register(common: &[Label]) -> Self {
        let counter = |class| labelled(names::EVENTS_RETRIED, common, "class", class);
        Self {
            unprocessed: counter("unprocessed"),
            throttled: counter("throttled"),
            transient: counter("transient"),
            expired_credentials: counter("expired_credentials"),
            clock_skew: counter("clock_skew"),
            invalid: counter("invalid"),
            duplicate: counter("duplicate"),
            refused: counter("refused"),
            fatal: counter("fatal"),
            panicked: counter("panicked"),
        }
    }

    pub(super) fn of(&self, class: FailureClass) -> &Counter {
        match class {
            FailureClass::Unprocessed => &self.unprocessed,
            FailureClass::Throttled => &self.throttled,
            FailureClass::Transient => &self.transient,
            FailureClass::ExpiredCredentials => &self.expired_credentials,
            FailureClass::ClockSkew => &self.clock_skew,
            FailureClass::Invalid => &self.invalid,
            FailureClass::Duplicate => &self.duplicate,
            FailureClass::Refused => &self.refused,
            FailureClass::Fatal => &self.fatal,
            FailureClass::Panicked => &self.panicked,
        }
    }
}

/// Calls that were throttled as a whole, by the limit.
#[derive(Debug)]
pub(super) struct Throttled {
    key_range: Counter,
    provisioned: Counter,
    max_on_demand: Counter,
    account: Counter,
    unknown: Counter,
}

impl Throttled {
    pub(super) fn register(common: &[Label]) -> Self {
        let counter = |limit| labelled(names::THROTTLED_BATCHES, common, "limit", limit);
        Self {
            key_range: counter("key_range"),
            provisioned: counter("provisioned"),
            max_on_demand: counter("max_on_demand"),
            account: counter("account"),
            unknown: counter("unknown"),
        }
    }

    /// Adds the increase from `before` to `after`.
    pub(super) fn add(&self, before: &ThrottledBatches, after: &ThrottledBatches) {
        for (counter, before, after) in [
            (&self.key_range, before.key_range, after.key_range),
            (&self.provisioned, before.provisioned, after.provisioned),
            (&self.max_on_demand, before.max_on_demand, after.max_on_demand),
            (&self.account, before.account, after.account),
            (&self.unknown, before.unknown, after.unknown),
        ] {
            if after > before {
                counter.increment(after - before);
            }
        }
    }
}
