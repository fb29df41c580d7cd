//! What an event went through before it was answered.

use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct;

use super::{BatchError, Certainty, FailureClass};

/// Attempts that are kept of an event's beginning, and as many of its end. With the default
/// settings an event rarely has more than both; without a bound, a small backoff and a far deadline
/// would let a full buffer grow with every round of retries.
const KEPT_AT_EACH_END: usize = 8;

/// One call that carried an event.
#[derive(Debug, Clone)]
pub struct Attempt {
    began: Duration,
    took: Duration,
    failure: Option<Arc<BatchError>>,
}

impl Attempt {
    /// When the call began, counted from the moment at which the store's worker took the event over. For
    /// an event that got its key from the put, that is about the key's
    /// [`timestamp`](crate::EventKey::timestamp).
    #[must_use]
    pub fn began(&self) -> Duration {
        self.began
    }

    /// How long the call took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Why the event was sent again, or given up: class, AWS code and request id. `None` for the
    /// call that was acknowledged, which is always the last.
    #[must_use]
    pub fn failure(&self) -> Option<&BatchError> {
        self.failure.as_deref()
    }
}

impl serde::Serialize for Attempt {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Attempt", 3)?;
        fields.serialize_field("began_seconds", &self.began.as_secs_f64())?;
        fields.serialize_field("took_seconds", &self.took.as_secs_f64())?;
        fields.serialize_field("failure", &self.failure())?;
        fields.end()
    }
}

/// Whether an event may be in the table without an acknowledgement, and may yet come there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Uncertainty {
    /// No attempt was applied.
    #[default]
    None,
    /// An attempt may have been applied, and all such are over: a read tells.
    Past,
    /// An attempt may have been applied, or may still be.
    Open,
}

impl Uncertainty {
    pub(crate) fn after(failure: &BatchError) -> Self {
        match failure.certainty() {
            Certainty::NotStored => Self::None,
            Certainty::MaybeStored if failure.is_call_over() => Self::Past,
            Certainty::MaybeStored => Self::Open,
        }
    }
}

/// Everything about an event that was not stored at the first try.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) attempts: Vec<Attempt>,
    /// Attempts that were refused as every event's would be.
    pub(crate) refusals: u32,
    /// Once there is doubt, it stays until an attempt is acknowledged.
    pub(crate) uncertainty: Uncertainty,
    pub(crate) last_cause: Option<Arc<BatchError>>,
}

impl History {
    /// Adds an attempt, `None` for one that was acknowledged. Those in the middle of a long story go.
    pub(crate) fn add(
        &mut self,
        began: Duration,
        took: Duration,
        failure: Option<&Arc<BatchError>>,
    ) {
        if self.attempts.len() == 2 * KEPT_AT_EACH_END {
            self.attempts.remove(KEPT_AT_EACH_END);
        }
        self.attempts.push(Attempt { began, took, failure: failure.map(Arc::clone) });
        if let Some(failure) = failure {
            self.refusals += u32::from(failure.class() == FailureClass::Refused);
            self.uncertainty = self.uncertainty.max(Uncertainty::after(failure));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(certainty: Certainty) -> BatchError {
        BatchError::new(FailureClass::Transient, certainty, "as scripted")
    }

    #[test]
    fn doubt_only_grows_and_a_call_that_is_over_leaves_less_of_it() {
        let mut history = History::default();
        let mut read_backs = Vec::new();
        for failure in [
            failure(Certainty::NotStored),
            failure(Certainty::MaybeStored).with_call_over(),
            failure(Certainty::NotStored),
            failure(Certainty::MaybeStored),
            failure(Certainty::MaybeStored).with_call_over(),
        ] {
            history.add(Duration::ZERO, Duration::ZERO, Some(&Arc::new(failure)));
            read_backs.push(history.uncertainty);
        }
        assert_eq!(
            read_backs,
            [
                Uncertainty::None,
                Uncertainty::Past,
                Uncertainty::Past,
                Uncertainty::Open,
                Uncertainty::Open
            ]
        );
    }

    #[test]
    fn a_long_story_keeps_its_beginning_and_its_end() {
        let mut history = History::default();
        for number in 0..100 {
            history.add(Duration::from_secs(number), Duration::ZERO, None);
        }
        let kept: Vec<u64> =
            history.attempts.iter().map(|attempt| attempt.began().as_secs()).collect();
        assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7, 92, 93, 94, 95, 96, 97, 98, 99]);
    }
}
