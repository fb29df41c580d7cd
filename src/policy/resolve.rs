//! What a consistent read proves about an event that may have been stored without an acknowledgement.

use std::time::Duration;

use crate::error::{Certainty, ReadBack, Uncertainty};
use crate::write_mode::WriteMode;

/// What a consistent read found under an event's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The event, with its body.
    Event,
    /// An item with another body, or with none.
    Other,
    /// No item.
    Nothing,
    /// The service left this key unprocessed.
    Unread,
}

/// How the read decides the event.
#[derive(Debug)]
pub(crate) enum Resolution {
    Stored,
    Failed(Certainty, ReadBack),
}

/// Decides the outcome of an event with this `uncertainty` that was read `after` its acceptance. `None` if its key was
/// not read.
///
/// | found | every unconfirmed call is over (`None`, `CallsEnded`) | one may still be in progress (`CallsMayStillApply`) |
/// |---|---|---|
/// | the event | stored | stored |
/// | nothing | not stored | maybe stored: the call can be applied after the read |
/// | another body under the key, [`Put`](WriteMode::Put) | maybe stored: the event may have been overwritten | maybe stored |
/// | another body under the key, [`Insert`](WriteMode::Insert) | not stored | not stored: the call finds the key taken |
///
/// A consistent read reflects every write that was acknowledged before it ([read
/// consistency](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.ReadConsistency.html)). So
/// the read decides if the service answered the call with 200, even if part of that answer was lost. It does not
/// decide if the call had no answer, because AWS documents no limit on how long such a call can take. Nor does it
/// decide after a 5xx. A 5xx says that the operation may have succeeded or failed, but not that it has ended.
pub(crate) fn resolve(
    uncertainty: Uncertainty,
    found: Found,
    after: Duration,
    mode: WriteMode,
) -> Option<Resolution> {
    let (certainty, read_back) = match (found, uncertainty) {
        (Found::Event, _) => return Some(Resolution::Stored),
        (Found::Unread, _) => return None,
        (Found::Nothing, Uncertainty::None | Uncertainty::CallsEnded) => {
            (Certainty::NotStored, ReadBack::NotFound { after })
        }
        (Found::Nothing, Uncertainty::CallsMayStillApply) => {
            (Certainty::MaybeStored, ReadBack::NotFound { after })
        }
        (Found::Other, _) => {
            let certainty = match mode {
                WriteMode::Put => Certainty::MaybeStored,
                WriteMode::Insert => Certainty::NotStored,
            };
            (certainty, ReadBack::OtherBody { after })
        }
    };
    Some(Resolution::Failed(certainty, read_back))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The certainty of a failed event; `None` if the event is stored or unread.
    fn certainty(uncertainty: Uncertainty, found: Found) -> Option<Certainty> {
        certainty_in(WriteMode::Put, uncertainty, found)
    }

    fn certainty_in(mode: WriteMode, uncertainty: Uncertainty, found: Found) -> Option<Certainty> {
        match resolve(uncertainty, found, Duration::from_secs(1), mode) {
            Some(Resolution::Failed(certainty, _)) => Some(certainty),
            Some(Resolution::Stored) | None => None,
        }
    }

    #[test]
    fn found_event_is_stored_whatever_the_uncertainty() {
        for uncertainty in [Uncertainty::CallsEnded, Uncertainty::CallsMayStillApply] {
            let resolution = resolve(uncertainty, Found::Event, Duration::ZERO, WriteMode::Put);
            assert!(matches!(resolution, Some(Resolution::Stored)));
        }
    }

    #[test]
    fn missing_event_is_not_stored_only_if_every_call_ended() {
        assert_eq!(certainty(Uncertainty::CallsEnded, Found::Nothing), Some(Certainty::NotStored));
        assert_eq!(
            certainty(Uncertainty::CallsMayStillApply, Found::Nothing),
            Some(Certainty::MaybeStored)
        );
    }

    #[test]
    fn other_body_leaves_the_event_maybe_stored() {
        for uncertainty in [Uncertainty::CallsEnded, Uncertainty::CallsMayStillApply] {
            assert_eq!(certainty(uncertainty, Found::Other), Some(Certainty::MaybeStored));
        }
    }

    #[test]
    fn other_body_proves_an_inserted_event_not_stored() {
        for uncertainty in [Uncertainty::CallsEnded, Uncertainty::CallsMayStillApply] {
            let certainty = certainty_in(WriteMode::Insert, uncertainty, Found::Other);
            assert_eq!(certainty, Some(Certainty::NotStored));
        }
    }

    #[test]
    fn unread_key_decides_nothing() {
        for uncertainty in [Uncertainty::CallsEnded, Uncertainty::CallsMayStillApply] {
            let resolution = resolve(uncertainty, Found::Unread, Duration::ZERO, WriteMode::Put);
            assert!(resolution.is_none());
        }
    }
}
