//! The attempts to write one event, and the uncertainty that they leave.
//!
//! The pending event records the attempts. The answer of its ticket shows them.

use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct;

use super::{BatchError, Certainty, FailureClass};

/// A history keeps this many of its first attempts, and as many of its last ones. With the default
/// settings an event rarely has more. Without a limit, a short backoff and a late deadline would
/// let the memory of a full buffer grow with every retry.
const KEPT_AT_EACH_END: usize = 8;

/// One attempt to write an event: a call that carried it.
#[derive(Debug, Clone)]
pub struct Attempt {
    began: Duration,
    took: Duration,
    failure: Option<Arc<BatchError>>,
}

impl Attempt {
    /// When the call began, as the time since the store's worker received the event. A new event is
    /// received at about the [`timestamp`](crate::EventKey::timestamp) of its key.
    #[must_use]
    pub fn began(&self) -> Duration {
        self.began
    }

    /// How long the call took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// How the call failed: class, AWS error code and request id. `None` for the call that was
    /// acknowledged, which is always the last one.
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

/// Whether an event that was not acknowledged may have been written, or may still be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Uncertainty {
    /// No attempt was applied.
    #[default]
    None,
    /// An attempt may have been applied, but none can still be applied. A read settles the event.
    CallsEnded,
    /// An attempt may have been applied, or may be applied later. A read that does not find the event
    /// proves nothing.
    CallsMayStillApply,
}

impl Uncertainty {
    fn after(failure: &BatchError) -> Self {
        match failure.certainty() {
            Certainty::NotStored => Self::None,
            Certainty::MaybeStored if failure.is_call_over() => Self::CallsEnded,
            Certainty::MaybeStored => Self::CallsMayStillApply,
        }
    }
}

/// The attempts of an event that was not stored by its first one.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) attempts: Vec<Attempt>,
    /// Number of attempts that failed as [`FailureClass::Refused`].
    pub(crate) refusals: u32,
    /// Number of attempts for which the table had no capacity.
    pub(crate) throttled: u32,
    /// Number of attempts that found the event's key taken.
    pub(crate) duplicates: u32,
    /// Never decreases: only an acknowledged attempt or a read settles the event.
    pub(crate) uncertainty: Uncertainty,
    pub(crate) last_cause: Option<Arc<BatchError>>,
}

impl History {
    /// Adds an attempt; `failure` is `None` for one that was acknowledged. The middle of a long history is
    /// dropped.
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
            self.throttled += u32::from(failure.class().is_throttled());
            self.duplicates += u32::from(failure.class() == FailureClass::Duplicate);
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
    fn uncertainty_never_decreases() {
        let mut history = History::default();
        let mut uncertainties = Vec::new();
        for failure in [
            failure(Certainty::NotStored),
            failure(Certainty::MaybeStored).with_call_over(),
            failure(Certainty::NotStored),
            failure(Certainty::MaybeStored),
            failure(Certainty::MaybeStored).with_call_over(),
        ] {
            history.add(Duration::ZERO, Duration::ZERO, Some(&Arc::new(failure)));
            uncertainties.push(history.uncertainty);
        }
        assert_eq!(
            uncertainties,
            [
                Uncertainty::None,
                Uncertainty::CallsEnded,
                Uncertainty::CallsEnded,
                Uncertainty::CallsMayStillApply,
                Uncertainty::CallsMayStillApply
            ]
        );
    }

    #[test]
    fn long_history_keeps_its_beginning_and_its_end() {
        let mut history = History::default();
        for number in 0..100 {
            history.add(Duration::from_secs(number), Duration::ZERO, None);
        }
        let kept: Vec<u64> =
            history.attempts.iter().map(|attempt| attempt.began().as_secs()).collect();
        assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7, 92, 93, 94, 95, 96, 97, 98, 99]);
    }
}
