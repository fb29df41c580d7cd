//! Refusals that no event would escape: access denied, unknown credentials, no such table.

use std::time::{Duration, Instant};

use super::retry::Backoff;

/// Between two attempts while a refusal stands. One call is enough to learn whether it still does.
const BETWEEN_ATTEMPTS: Backoff = Backoff {
    floor: Duration::from_millis(50),
    base: Duration::from_millis(100),
    ceiling: Duration::from_secs(1),
};

/// A refusal stands no longer when no other has followed for so long: several times the longest wait between two
/// attempts. What is refused after that is refused for the first time.
const LAPSES_AFTER: Duration = Duration::from_secs(5);

/// A refusal is final only when so many later calls were refused as well.
const LEAST_REPEATED: u32 = 2;

/// Decides when such a refusal is final. Fresh roles, keys and permissions refuse for seconds; so it is final when it
/// has stood for a time in which the service let no call in.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// How long a refusal stands before it is final.
    timeout: Duration,
    /// Since when it is known that the service lets this caller in.
    let_in: Option<Instant>,
    has_succeeded: bool,
    standing: Option<Standing>,
}

#[derive(Debug)]
struct Standing {
    since: Instant,
    last: Instant,
    /// Refused calls that began after the first refusal. Those that were under way with the first one add nothing to
    /// what it says.
    repeated: u32,
    /// Later than `since`: a call that begins after `since` is an attempt to learn whether the refusal still stands.
    next_attempt: Instant,
    is_final: bool,
}

impl Standing {
    fn new(now: Instant) -> Self {
        Self { since: now, last: now, repeated: 0, next_attempt: now, is_final: false }
    }

    fn lapses_at(&self) -> Instant {
        self.last + LAPSES_AFTER
    }

    /// Whether the refusal at `now` of a call that began at `began` belongs to this one. An attempt counts from its
    /// beginning, so that one that is answered late does not part them.
    fn is_followed(&self, began: Instant, now: Instant) -> bool {
        let made = if began > self.since { began } else { now };
        made < self.lapses_at()
    }
}

impl Refusals {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, let_in: None, has_succeeded: false, standing: None }
    }

    /// Notes that a call was taken.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.has_succeeded = true;
        self.let_in(now);
    }

    /// Notes that a call failed as only a caller's can who is let in: throttled, or invalid.
    pub(crate) fn let_in(&mut self, now: Instant) {
        self.let_in = Some(now);
        self.standing = None;
    }

    /// Notes the refusal of a call that began at `began`. `is_wrong_table` is for one that time does not mend as long
    /// as nothing has succeeded: a wrong name of the table. `jitter` is from 0 to 1.
    pub(crate) fn refused(
        &mut self,
        began: Instant,
        is_wrong_table: bool,
        now: Instant,
        jitter: f64,
    ) -> Refusal {
        // The service has let others in since: one refusal says nothing of the next call.
        if self.let_in.is_some_and(|let_in| began <= let_in) {
            return Refusal::OfOneCall;
        }
        if is_wrong_table && !self.has_succeeded {
            return Refusal::Final;
        }
        let standing = match self.standing.take() {
            Some(standing) if standing.is_followed(began, now) => standing,
            _ => Standing::new(now),
        };
        let standing = self.standing.insert(standing);
        standing.last = now;
        standing.repeated += u32::from(began > standing.since);
        standing.next_attempt = now + BETWEEN_ATTEMPTS.delay(standing.repeated + 1, jitter);
        let is_repeated = standing.repeated >= LEAST_REPEATED || self.timeout.is_zero();
        let has_stood = now.saturating_duration_since(standing.since) >= self.timeout;
        // While it stands it stays final: events to come are told by their first attempt.
        standing.is_final |= is_repeated && has_stood;
        if standing.is_final { Refusal::Final } else { Refusal::OfAll }
    }

    /// The refusal that stands and is not final yet.
    fn open(&self, now: Instant) -> Option<&Standing> {
        self.standing.as_ref().filter(|standing| !standing.is_final && now < standing.lapses_at())
    }

    /// When the next call may begin, while a refusal stands.
    pub(crate) fn next_attempt(&self, now: Instant) -> Option<Instant> {
        self.open(now).map(|standing| standing.next_attempt)
    }

    /// Since when a refusal stands. Of the calls that begin after it, one at a time may be under way.
    pub(crate) fn since(&self, now: Instant) -> Option<Instant> {
        self.open(now).map(|standing| standing.since)
    }

    /// When the refusal stands no longer, if no other follows.
    pub(crate) fn lapses_at(&self, now: Instant) -> Option<Instant> {
        self.open(now).map(Standing::lapses_at)
    }
}

/// What a refusal says of other events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing: the service has let others in.
    OfOneCall,
    /// They would be refused as well, for now.
    OfAll,
    /// They will be refused as well.
    Final,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
    fn start() -> Instant {
        Instant::now()
    }

    fn milliseconds(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Repeats a refused call each half second, from `from` on and for `period`, and says what the last was.
    fn refuse(refusals: &mut Refusals, from: Instant, period: Duration) -> Refusal {
        let mut last = refusals.refused(from, false, from, 0.0);
        for step in 1..=period.as_millis() / 500 {
            let now = from + milliseconds(step as u64 * 500);
            last = refusals.refused(now, false, now, 0.0);
        }
        last
    }

    #[test]
    fn a_refusal_is_final_when_it_has_stood_for_its_time() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert_eq!(refuse(&mut refusals, start, milliseconds(4_500)), Refusal::OfAll);
        let now = start + 5 * SECOND;
        assert!(refusals.next_attempt(now).is_some());
        assert_eq!(refusals.refused(now, false, now, 0.0), Refusal::Final);
        assert_eq!(refusals.next_attempt(now), None, "there is nothing left to wait for");
        let later = start + 9 * SECOND;
        assert_eq!(refusals.refused(later, false, later, 0.0), Refusal::Final);
    }

    #[test]
    fn a_success_in_between_begins_the_time_anew() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        refuse(&mut refusals, start, 4 * SECOND);
        refusals.succeeded(start + 4 * SECOND);
        let before = refusals.refused(start + 3 * SECOND, false, start + 6 * SECOND, 0.0);
        assert_eq!(before, Refusal::OfOneCall);
        assert_eq!(refuse(&mut refusals, start + 7 * SECOND, 4 * SECOND), Refusal::OfAll);
        assert_eq!(refuse(&mut refusals, start + 11 * SECOND, SECOND), Refusal::Final);
    }

    #[test]
    fn a_throttled_call_begins_the_time_anew_and_proves_no_table() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        refuse(&mut refusals, start, 4 * SECOND);
        refusals.let_in(start + 4 * SECOND);
        assert_eq!(refusals.next_attempt(start + 4 * SECOND), None);
        assert_eq!(refuse(&mut refusals, start + 5 * SECOND, 4 * SECOND), Refusal::OfAll);
        let now = start + 10 * SECOND;
        assert_eq!(refusals.refused(now, true, now, 0.0), Refusal::Final);
    }

    #[test]
    fn a_call_that_began_before_a_success_says_nothing() {
        let (start, mut refusals) = (start(), Refusals::new(Duration::ZERO));
        refusals.succeeded(start + SECOND);
        let (now, before) = (start + 2 * SECOND, start);
        assert_eq!(refusals.refused(before, false, now, 0.0), Refusal::OfOneCall);
        assert_eq!(refusals.next_attempt(now), None);
        // Without any time to stand, the first is final.
        assert_eq!(refusals.refused(now, false, now, 0.0), Refusal::Final);
    }

    #[test]
    fn a_wrong_table_is_final_at_once_unless_it_was_there_before() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert_eq!(refusals.refused(start, true, start, 0.0), Refusal::Final);
        refusals.succeeded(start + SECOND);
        let now = start + 2 * SECOND;
        assert_eq!(refusals.refused(now, true, now, 0.0), Refusal::OfAll);
    }

    #[test]
    fn a_wrong_table_does_not_make_the_next_refusal_final() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert_eq!(refusals.refused(start, true, start, 0.0), Refusal::Final);
        let now = start + SECOND;
        assert_eq!(refusals.refused(now, false, now, 0.0), Refusal::OfAll);
    }

    #[test]
    fn a_refusal_long_after_the_last_is_the_first_again() {
        for timeout in [Duration::ZERO + SECOND, 5 * SECOND, 3_600 * SECOND] {
            let (start, mut refusals) = (start(), Refusals::new(timeout));
            refuse(&mut refusals, start, 10 * SECOND);
            let later = start + 7_200 * SECOND;
            assert_eq!(refusals.next_attempt(later), None);
            assert_eq!(refusals.refused(later, false, later, 0.0), Refusal::OfAll, "{timeout:?}");
            assert_eq!(refusals.since(later), Some(later));
        }
    }

    #[test]
    fn refusals_of_calls_that_began_together_are_one() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        for late in 0..=8 {
            let told = refusals.refused(start, false, start + late * SECOND, 0.0);
            assert_eq!(told, Refusal::OfAll, "{late}");
        }
    }

    #[test]
    fn an_attempt_that_is_refused_late_still_counts() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        refusals.refused(start, false, start, 0.0);
        let (first, second) = (start + SECOND, start + 10 * SECOND);
        assert_eq!(refusals.refused(first, false, start + 9 * SECOND, 0.0), Refusal::OfAll);
        assert_eq!(refusals.refused(second, false, start + 18 * SECOND, 0.0), Refusal::Final);
    }

    #[test]
    fn a_refusal_that_none_follows_holds_nothing_up() {
        let (start, mut refusals) = (start(), Refusals::new(3_600 * SECOND));
        refusals.refused(start, false, start, 0.0);
        let lapses_at = refusals.lapses_at(start).unwrap();
        assert!(lapses_at <= start + 5 * SECOND);
        assert_eq!((refusals.since(lapses_at), refusals.next_attempt(lapses_at)), (None, None));
        assert_eq!(refusals.lapses_at(lapses_at), None);
    }

    #[test]
    fn attempts_while_a_refusal_stands_are_rare() {
        let (start, mut refusals) = (start(), Refusals::new(60 * SECOND));
        let (mut now, mut attempts) = (start, 0);
        while refusals.refused(now, false, now, 1.0) != Refusal::Final {
            now = refusals.next_attempt(now).unwrap();
            attempts += 1;
        }
        assert!((55..70).contains(&attempts), "{attempts}");
    }
}
