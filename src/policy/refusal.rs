//! Refusals that no event would escape: access denied, unknown credentials, no such table.

use std::time::{Duration, Instant};

use super::retry::Backoff;

/// Between two attempts while a refusal stands. One call is enough to learn whether it still does.
const BETWEEN_ATTEMPTS: Backoff = Backoff {
    floor: Duration::from_millis(50),
    base: Duration::from_millis(100),
    ceiling: Duration::from_secs(1),
};

/// Decides when such a refusal is final. Fresh roles, keys and permissions refuse for seconds; so it is final when it
/// has stood for a time without a call that succeeded in between.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// How long a refusal stands before it is final.
    timeout: Duration,
    last_success: Option<Instant>,
    standing: Option<Standing>,
}

#[derive(Debug)]
struct Standing {
    since: Instant,
    refused: u32,
    next_attempt: Instant,
    is_final: bool,
}

impl Refusals {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, last_success: None, standing: None }
    }

    /// Notes that a call was taken.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.last_success = Some(now);
        self.standing = None;
    }

    /// Whether the refusal of a call that began at `began` is final for every event. `at_once` is for one that time
    /// does not mend as long as nothing has succeeded: a wrong name of the table. `jitter` is from 0 to 1.
    pub(crate) fn refused(
        &mut self,
        began: Instant,
        at_once: bool,
        now: Instant,
        jitter: f64,
    ) -> bool {
        // Others have succeeded since: one refusal says nothing of the next call.
        if self.last_success.is_some_and(|success| began <= success) {
            return false;
        }
        let at_once = at_once && self.last_success.is_none();
        let standing = self.standing.get_or_insert(Standing {
            since: now,
            refused: 0,
            next_attempt: now,
            is_final: false,
        });
        standing.refused += 1;
        standing.next_attempt = now + BETWEEN_ATTEMPTS.delay(standing.refused, jitter);
        // Once final it stays so until a call succeeds: events to come are told by the first attempt.
        standing.is_final |=
            at_once || now.saturating_duration_since(standing.since) >= self.timeout;
        standing.is_final
    }

    /// When the next call may begin, while a refusal stands; then it is the only one.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        self.standing.as_ref().filter(|standing| !standing.is_final).map(|at| at.next_attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_refusal_is_final_when_it_has_stood_for_its_time() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert!(!refusals.refused(start, false, start, 0.0));
        assert!(!refusals.refused(start + SECOND, false, start + 4 * SECOND, 0.0));
        assert!(refusals.refused(start + 4 * SECOND, false, start + 5 * SECOND, 0.0));
        assert_eq!(refusals.next_attempt(), None, "there is nothing left to wait for");
        assert!(refusals.refused(start + 9 * SECOND, false, start + 9 * SECOND, 0.0));
    }

    #[test]
    fn a_success_in_between_begins_the_time_anew() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert!(!refusals.refused(start, false, start, 0.0));
        refusals.succeeded(start + 4 * SECOND);
        assert!(!refusals.refused(start + 3 * SECOND, false, start + 6 * SECOND, 0.0));
        assert!(!refusals.refused(start + 7 * SECOND, false, start + 7 * SECOND, 0.0));
        assert!(refusals.refused(start + 8 * SECOND, false, start + 12 * SECOND, 0.0));
    }

    #[test]
    fn a_call_that_began_before_a_success_says_nothing() {
        let (start, mut refusals) = (start(), Refusals::new(Duration::ZERO));
        refusals.succeeded(start + SECOND);
        assert!(!refusals.refused(start, false, start + 2 * SECOND, 0.0));
        assert_eq!(refusals.next_attempt(), None);
        assert!(refusals.refused(start + 2 * SECOND, false, start + 2 * SECOND, 0.0));
    }

    #[test]
    fn a_wrong_table_is_final_at_once_unless_it_was_there_before() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert!(refusals.refused(start, true, start, 0.0));
        refusals.succeeded(start + SECOND);
        assert!(!refusals.refused(start + 2 * SECOND, true, start + 2 * SECOND, 0.0));
    }

    #[test]
    fn attempts_while_a_refusal_stands_are_rare() {
        let (start, mut refusals) = (start(), Refusals::new(60 * SECOND));
        let (mut now, mut attempts) = (start, 0);
        while !refusals.refused(now, false, now, 1.0) {
            now = refusals.next_attempt().unwrap();
            attempts += 1;
        }
        assert!((55..70).contains(&attempts), "{attempts}");
    }
}
