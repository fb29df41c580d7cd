//! Whether an event is sent again, and when.

use std::time::Duration;

use crate::error::{FailureClass, FailureReason};

/// Exponential backoff with full jitter, between a floor and a ceiling.
///
/// Before attempt *n* + 1 the wait is drawn evenly from `floor` to `base` · 2ⁿ⁻¹, the latter at most
/// `ceiling`. The floor keeps a draw near zero from burning an attempt at once.
///
/// The default is 25 ms, 50 ms and 5 s: AWS advises to begin with 50 ms and to double
/// ([error handling](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html#Programming.Errors.RetryAndBackoff)),
/// and with a ceiling of 5 s an event still gets a dozen attempts or more in its minute.
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
    /// The shortest wait.
    pub floor: Duration,
    /// The longest wait after the first failed attempt.
    pub base: Duration,
    /// The longest wait after any.
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

/// The store's rules for one event's attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPolicy {
    pub(crate) backoff: Backoff,
    pub(crate) max_attempts: u32,
    /// Time from acceptance to giving up.
    pub(crate) event_deadline: Duration,
}

/// What is to be done with an event after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it again, this much later.
    After(Duration),
    /// Tell its ticket.
    Fail(FailureReason),
}

impl RetryPolicy {
    /// Decides for an event that was accepted `elapsed` ago and has failed `attempts` times, the last
    /// time with a failure of `class`. `jitter` is a random number from 0 to 1.
    ///
    /// Refusals are told apart: `attempts` are those that were refused, or those that were not. Only the latter are
    /// bounded. A refusal says nothing of the event, and comes within milliseconds.
    pub(crate) fn decide(
        &self,
        attempts: u32,
        elapsed: Duration,
        class: FailureClass,
        jitter: f64,
    ) -> Decision {
        if !class.is_retryable() {
            return Decision::Fail(FailureReason::NotRetryable);
        }
        if class != FailureClass::Refused && attempts >= self.max_attempts {
            return Decision::Fail(FailureReason::Attempts);
        }
        let delay = match class {
            FailureClass::Throttled | FailureClass::Unprocessed => next_turn(attempts, jitter),
            _ => self.backoff.delay(attempts, jitter),
        };
        // An attempt that cannot begin in time is not worth waiting for.
        if elapsed.saturating_add(delay) >= self.event_deadline {
            return Decision::Fail(FailureReason::Deadline);
        }
        Decision::After(delay)
    }
}

/// The shortest and the longest wait of an event that the table had no capacity for more than once. Without
/// it one partition that takes less than the others would fill every batch with its events.
const SHORTEST_TURN: Duration = Duration::from_millis(10);
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// How long an event that was refused for the table's capacity leaves its turn to others: the first time not
/// at all, as the pace of all calls has become slower already.
fn next_turn(attempts: u32, jitter: f64) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let backoff = Backoff { floor: SHORTEST_TURN, base: SHORTEST_TURN, ceiling: LONGEST_TURN };
    backoff.delay(attempts - 1, jitter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    const BACKOFF: Backoff =
        Backoff { floor: milliseconds(25), base: milliseconds(50), ceiling: milliseconds(5_000) };

    const POLICY: RetryPolicy =
        RetryPolicy { backoff: BACKOFF, max_attempts: 10, event_deadline: milliseconds(60_000) };

    #[test]
    fn the_longest_wait_doubles_up_to_the_ceiling() {
        let longest: Vec<_> =
            (1..=9).map(|attempts| BACKOFF.delay(attempts, 1.0).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(BACKOFF.delay(u32::MAX, 1.0), milliseconds(5_000));
    }

    #[test]
    fn the_shortest_wait_is_the_floor_at_every_attempt() {
        for attempts in [0, 1, 5, 40, u32::MAX] {
            assert_eq!(BACKOFF.delay(attempts, 0.0), milliseconds(25));
        }
    }

    #[test]
    fn an_attempt_that_would_begin_at_the_deadline_is_not_waited_for() {
        let decide =
            |elapsed| POLICY.decide(1, milliseconds(elapsed), FailureClass::Transient, 1.0);
        assert_eq!(decide(59_949), Decision::After(milliseconds(50)));
        assert_eq!(decide(59_950), Decision::Fail(FailureReason::Deadline));
    }

    #[test]
    fn the_last_attempt_is_the_last() {
        let decide =
            |attempts| POLICY.decide(attempts, Duration::ZERO, FailureClass::Transient, 0.0);
        assert_eq!(decide(9), Decision::After(milliseconds(25)));
        assert_eq!(decide(10), Decision::Fail(FailureReason::Attempts));
    }

    #[test]
    fn refusals_are_bounded_by_the_deadline_alone() {
        let decide = |attempts, elapsed| {
            POLICY.decide(attempts, milliseconds(elapsed), FailureClass::Refused, 1.0)
        };
        assert_eq!(decide(1, 0), Decision::After(milliseconds(50)));
        assert_eq!(decide(10, 0), Decision::After(milliseconds(5_000)));
        assert_eq!(decide(10, 55_000), Decision::Fail(FailureReason::Deadline));
    }

    #[test]
    fn a_throttled_event_keeps_its_turn_once_and_then_waits_little() {
        let decide =
            |attempts| POLICY.decide(attempts, Duration::ZERO, FailureClass::Throttled, 1.0);
        let waits = [0, 10, 20, 40, 80, 160, 320, 640, 1_000];
        for (attempts, wait) in (1..).zip(waits) {
            assert_eq!(decide(attempts), Decision::After(milliseconds(wait)), "{attempts}");
        }
    }

    #[test]
    fn what_a_retry_would_only_repeat_is_given_up_at_once() {
        for class in [FailureClass::Poison, FailureClass::Fatal, FailureClass::Panicked] {
            let decision = POLICY.decide(1, Duration::ZERO, class, 0.0);
            assert_eq!(decision, Decision::Fail(FailureReason::NotRetryable));
        }
    }

    proptest! {
        #[test]
        fn every_wait_lies_between_floor_and_ceiling(
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
