//! What a read tells about an event that may have been stored without an acknowledgement.

use std::time::Duration;

use crate::error::{Certainty, ReadBack, Uncertainty};

/// What a consistent read found under an event's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The event, with its body.
    Event,
    /// Something else.
    Other,
    Nothing,
    /// The read left this key out.
    Unread,
}

/// What is known of the event now.
#[derive(Debug)]
pub(crate) enum Resolution {
    Stored,
    Failed(Certainty, ReadBack),
}

/// Decides for an event in `uncertainty`, read `after` its acceptance. `None` where the read told nothing
/// of it.
///
/// | found | every doubtful call is over | one may still be under way |
/// |---|---|---|
/// | the event | stored | stored |
/// | nothing | not stored | maybe: it can be applied after the read |
/// | another body under the key | maybe: the event may have been overwritten | maybe |
///
/// A consistent read reflects every write that was acknowledged before it
/// ([read consistency](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.ReadConsistency.html)),
/// so it tells about a call to which the service has given its 200, whatever of that answer was lost
/// on the way. It cannot tell about a call without an answer: no document bounds how long such a
/// call can take. Nor about a 5xx, which says that the operation may have succeeded or failed, and
/// not that it has ended.
pub(crate) fn resolve(
    uncertainty: Uncertainty,
    found: Found,
    after: Duration,
) -> Option<Resolution> {
    let (certainty, read_back) = match (found, uncertainty) {
        (Found::Event, _) => return Some(Resolution::Stored),
        (Found::Unread, _) => return None,
        (Found::Nothing, Uncertainty::None | Uncertainty::Past) => {
            (Certainty::NotStored, ReadBack::NotFound { after })
        }
        (Found::Nothing, Uncertainty::Open) => {
            (Certainty::MaybeStored, ReadBack::NotFound { after })
        }
        (Found::Other, _) => (Certainty::MaybeStored, ReadBack::OtherBody { after }),
    };
    Some(Resolution::Failed(certainty, read_back))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The certainty that is left, or `None` where the event is stored or still unread.
    fn certainty(uncertainty: Uncertainty, found: Found) -> Option<Certainty> {
        match resolve(uncertainty, found, Duration::from_secs(1)) {
            Some(Resolution::Failed(certainty, _)) => Some(certainty),
            Some(Resolution::Stored) | None => None,
        }
    }

    #[test]
    fn what_is_found_is_stored_whatever_the_doubt() {
        for uncertainty in [Uncertainty::Past, Uncertainty::Open] {
            let resolution = resolve(uncertainty, Found::Event, Duration::ZERO);
            assert!(matches!(resolution, Some(Resolution::Stored)));
        }
    }

    #[test]
    fn what_is_not_found_is_not_stored_only_when_no_call_can_still_be_applied() {
        assert_eq!(certainty(Uncertainty::Past, Found::Nothing), Some(Certainty::NotStored));
        assert_eq!(certainty(Uncertainty::Open, Found::Nothing), Some(Certainty::MaybeStored));
    }

    #[test]
    fn another_body_under_the_key_leaves_the_doubt() {
        for uncertainty in [Uncertainty::Past, Uncertainty::Open] {
            assert_eq!(certainty(uncertainty, Found::Other), Some(Certainty::MaybeStored));
        }
    }

    #[test]
    fn a_key_that_was_left_out_is_asked_for_again() {
        for uncertainty in [Uncertainty::Past, Uncertainty::Open] {
            let resolution = resolve(uncertainty, Found::Unread, Duration::ZERO);
            assert!(resolution.is_none());
        }
    }
}
