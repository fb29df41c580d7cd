//! Whether an event is sent again after a failed attempt, and when.

use std::time::Duration;

use crate::error::{FailureClass, FailureReason};

/// Exponential backoff with full jitter, between a floor and a ceiling.
///
/// The wait after failed attempt *n* is drawn uniformly between `floor` and the smaller of `base` · 2ⁿ⁻¹ and `ceiling`.
/// Without the floor a draw near zero would waste an attempt.
///
/// The default is a floor of 25 ms, a base of 50 ms and a ceiling of 5 s. AWS advises to begin with 50 ms and to double
/// the wait ([error
/// handling](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html#Programming.Errors.RetryAndBackoff)).
/// With a ceiling of 5 s an event gets a dozen attempts or more within the default deadline of 60 s.
///
/// Throttled attempts do not follow this backoff: the store paces them by the table's capacity.
///
/// ```
/// use std::time::Duration;
///
/// use dynamodb_eventstore::Backoff;
///
/// let patient = Backoff { ceiling: Duration::from_secs(20), ..Backoff::default() };
/// assert_eq!(patient.floor, Duration::from_millis(25));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest wait. At most `base`.
    pub floor: Duration,
    /// The longest wait after the first failed attempt. 1 ms to `ceiling`.
    pub base: Duration,
    /// The longest wait after any attempt. 1 ms to 1 hour.
    pub ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            floor: Duration::from_millis(25),
            base: Duration::from_millis(50),
            ceiling: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// The wait after `attempts` failed attempts, for a `jitter` of 0 (shortest) to 1 (longest).
    pub(crate) fn delay(&self, attempts: u32, jitter: f64) -> Duration {
        let doublings = attempts.saturating_sub(1);
        let longest = 2_u32
            .checked_pow(doublings)
            .and_then(|factor| self.base.checked_mul(factor))
            .map_or(self.ceiling, |longest| longest.min(self.ceiling))
            .max(self.floor);
        self.floor + (longest - self.floor).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

/// How many times and for how long one event is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    pub(crate) backoff: Backoff,
    pub(crate) max_attempts: u32,
    /// Time from an event's acceptance until it fails.
    pub(crate) event_deadline: Duration,
}

/// What to do with an event after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it again after this delay.
    After(Duration),
    /// Fail it.
    Fail(FailureReason),
}

/// How many attempts of an event have failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempts {
    pub(crate) all: u32,
    /// With [`FailureClass::Refused`].
    pub(crate) refused: u32,
    /// Because the table had no capacity.
    pub(crate) throttled: u32,
}

impl RetryPolicy {
    /// Decides for an event that was accepted `elapsed` ago and whose last attempt failed with `class`. `jitter` is a
    /// random number from 0 to 1.
    ///
    /// The delay grows with the attempts of the same kind: refused, throttled, or all but the refused ones.
    /// `max_attempts` does not limit refused attempts: a refusal says nothing about the event, and comes within
    /// milliseconds.
    pub(crate) fn decide(
        &self,
        attempts: Attempts,
        elapsed: Duration,
        class: FailureClass,
        jitter: f64,
    ) -> Decision {
        if !class.is_retryable() {
            return Decision::Fail(FailureReason::NotRetryable);
        }
        let counted = attempts.all.saturating_sub(attempts.refused);
        if class != FailureClass::Refused && counted >= self.max_attempts {
            return Decision::Fail(FailureReason::Attempts);
        }
        let delay = match class {
            FailureClass::Refused => self.backoff.delay(attempts.refused, jitter),
            _ if class.is_throttled() => throttled_delay(attempts.throttled, jitter),
            _ => self.backoff.delay(counted, jitter),
        };
        // If the next attempt cannot begin before the deadline, the event fails now.
        if elapsed.saturating_add(delay) >= self.event_deadline {
            return Decision::Fail(FailureReason::Deadline);
        }
        Decision::After(delay)
    }
}

/// The backoff of an event that was throttled more than once. Without it, if one partition accepts less than the
/// others, its events would fill every batch.
const THROTTLED_BACKOFF: Backoff = Backoff {
    floor: Duration::from_millis(10),
    base: Duration::from_millis(10),
    ceiling: Duration::from_secs(1),
};

/// The delay of an event that was throttled this many times, the last attempt included. After the first time there is
/// no delay, because throttling already slows the pace of all calls.
fn throttled_delay(throttled: u32, jitter: f64) -> Duration {
    if throttled <= 1 {
        return Duration::ZERO;
    }
    THROTTLED_BACKOFF.delay(throttled - 1, jitter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Attempts that failed, but were neither refused nor throttled.
    const fn failed(attempts: u32) -> Attempts {
        Attempts { all: attempts, refused: 0, throttled: 0 }
    }

    const fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const BACKOFF: Backoff =
        Backoff { floor: milliseconds(25), base: milliseconds(50), ceiling: milliseconds(5_000) };

    const POLICY: RetryPolicy =
        RetryPolicy { backoff: BACKOFF, max_attempts: 10, event_deadline: milliseconds(60_000) };

    #[test]
    fn longest_delay_doubles_up_to_the_ceiling() {
        let longest: Vec<_> =
            (1..=9).map(|attempts| BACKOFF.delay(attempts, 1.0).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(BACKOFF.delay(u32::MAX, 1.0), milliseconds(5_000));
    }

    #[test]
    fn shortest_delay_is_the_floor_at_every_attempt() {
        for attempts in [0, 1, 5, 40, u32::MAX] {
            assert_eq!(BACKOFF.delay(attempts, 0.0), milliseconds(25));
        }
    }

    #[test]
    fn attempt_due_at_the_deadline_fails_the_event() {
        let decide =
            |elapsed| POLICY.decide(failed(1), milliseconds(elapsed), FailureClass::Transient, 1.0);
        assert_eq!(decide(59_949), Decision::After(milliseconds(50)));
        assert_eq!(decide(59_950), Decision::Fail(FailureReason::Deadline));
    }

    #[test]
    fn event_fails_after_max_attempts() {
        let decide = |attempts| {
            POLICY.decide(failed(attempts), Duration::ZERO, FailureClass::Transient, 0.0)
        };
        assert_eq!(decide(9), Decision::After(milliseconds(25)));
        assert_eq!(decide(10), Decision::Fail(FailureReason::Attempts));
    }

    #[test]
    fn only_the_deadline_limits_refusals() {
        let decide = |attempts, elapsed| {
            let attempts = Attempts { refused: attempts, ..failed(attempts) };
            POLICY.decide(attempts, milliseconds(elapsed), FailureClass::Refused, 1.0)
        };
        assert_eq!(decide(1, 0), Decision::After(milliseconds(50)));
        assert_eq!(decide(10, 0), Decision::After(milliseconds(5_000)));
        assert_eq!(decide(10, 55_000), Decision::Fail(FailureReason::Deadline));
    }

    #[test]
    fn throttled_event_is_delayed_from_the_second_time_on() {
        // It does not matter how often it failed in other ways.
        let decide = |throttled| {
            let attempts = Attempts { throttled, all: 9, refused: 0 };
            POLICY.decide(attempts, Duration::ZERO, FailureClass::Throttled, 1.0)
        };
        let waits = [0, 10, 20, 40, 80, 160, 320, 640, 1_000];
        for (attempts, wait) in (1..).zip(waits) {
            assert_eq!(decide(attempts), Decision::After(milliseconds(wait)), "{attempts}");
        }
    }

    #[test]
    fn failure_that_is_not_retryable_fails_at_once() {
        for class in [FailureClass::Invalid, FailureClass::Fatal, FailureClass::Panicked] {
            let decision = POLICY.decide(failed(1), Duration::ZERO, class, 0.0);
            assert_eq!(decision, Decision::Fail(FailureReason::NotRetryable));
        }
    }

    proptest! {
        #[test]
        fn every_delay_lies_between_floor_and_ceiling(
            floor in 0..1_000_u64,
            base in 0..1_000_u64,
            ceiling in 0..100_000_u64,
            attempts in any::<u32>(),
            jitter in 0.0..=1.0_f64,
        ) {
            let ceiling = ceiling.max(floor);
            let backoff = Backoff {
                floor: milliseconds(floor),
                base: milliseconds(base),
                ceiling: milliseconds(ceiling),
            };
            let delay = backoff.delay(attempts, jitter);
            prop_assert!(backoff.floor <= delay && delay <= backoff.ceiling);
        }
    }
}
