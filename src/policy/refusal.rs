//! Refusals of every call: access denied, unknown credentials, no such table. Decides when such a refusal is final,
//! so that the worker fails every queued event.

use std::time::{Duration, Instant};

use super::retry::Backoff;

/// The wait before the next attempt while a refusal lasts. One call at a time is enough to find out whether it has
/// ended.
const ATTEMPT_BACKOFF: Backoff = Backoff {
    floor: Duration::from_millis(50),
    base: Duration::from_millis(100),
    ceiling: Duration::from_secs(1),
};

/// A refusal ends when no call was refused for this time, which is several times the longest wait between two
/// attempts. The next refused call then begins a new refusal.
const LAPSES_AFTER: Duration = Duration::from_secs(5);

/// A refusal is final only if at least this many calls that began after it were refused as well.
const MIN_REPEATED: u32 = 2;

/// Decides when a refusal of every call is final.
///
/// A call with a new role, key or permission can be refused for some seconds. So a refusal is final only when it has
/// lasted for the timeout, and the service has authorized no call in that time.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// How long a refusal lasts before it is final.
    timeout: Duration,
    /// When the service last answered a call in a way that shows an authorized caller.
    authorized_at: Option<Instant>,
    /// Whether a call was ever acknowledged.
    has_succeeded: bool,
    ongoing: Option<Ongoing>,
}

/// A refusal that has not ended.
#[derive(Debug)]
struct Ongoing {
    /// When the first call was refused.
    since: Instant,
    /// When the last call was refused.
    last: Instant,
    /// Refused calls that began after `since`. Calls that were already in flight at `since` confirm nothing.
    repeated: u32,
    /// When the next call may begin. It is later than `since`, so that this call counts as repeated if it is refused.
    next_attempt: Instant,
    is_final: bool,
}

impl Ongoing {
    fn new(now: Instant) -> Self {
        Self { since: now, last: now, repeated: 0, next_attempt: now, is_final: false }
    }

    fn lapses_at(&self) -> Instant {
        self.last + LAPSES_AFTER
    }

    /// Whether a call that began at `began` and was refused at `now` continues this refusal. The begin of the call
    /// counts, so that a late answer does not begin a new refusal.
    fn is_continued(&self, began: Instant, now: Instant) -> bool {
        let refused_from = if began > self.since { began } else { now };
        refused_from < self.lapses_at()
    }
}

impl Refusals {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, authorized_at: None, has_succeeded: false, ongoing: None }
    }

    /// Records that a call was acknowledged.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.has_succeeded = true;
        self.authorized(now);
    }

    /// Records that a call failed in a way that shows an authorized caller: it was throttled or invalid.
    pub(crate) fn authorized(&mut self, now: Instant) {
        self.authorized_at = Some(now);
        self.ongoing = None;
    }

    /// Records that a call that began at `began` was refused. `is_missing_table` says that the table does not exist.
    /// This is final at once, unless a call has succeeded before, which shows that the name is right. `jitter` is a
    /// random number from 0 to 1.
    pub(crate) fn refused(
        &mut self,
        began: Instant,
        is_missing_table: bool,
        now: Instant,
        jitter: f64,
    ) -> Refusal {
        // The service has authorized another call since this one began, so this refusal says nothing about the next.
        if self.authorized_at.is_some_and(|authorized_at| began <= authorized_at) {
            return Refusal::OfOneCall;
        }
        if is_missing_table && !self.has_succeeded {
            return Refusal::Final;
        }
        let ongoing = match self.ongoing.take() {
            Some(ongoing) if ongoing.is_continued(began, now) => ongoing,
            _ => Ongoing::new(now),
        };
        let ongoing = self.ongoing.insert(ongoing);
        ongoing.last = now;
        ongoing.repeated += u32::from(began > ongoing.since);
        ongoing.next_attempt = now + ATTEMPT_BACKOFF.delay(ongoing.repeated + 1, jitter);
        let is_repeated = ongoing.repeated >= MIN_REPEATED || self.timeout.is_zero();
        let is_timed_out = now.saturating_duration_since(ongoing.since) >= self.timeout;
        // Once it is final, a refusal stays final as long as it lasts: later events fail at their first attempt.
        ongoing.is_final |= is_repeated && is_timed_out;
        if ongoing.is_final { Refusal::Final } else { Refusal::OfEveryCall }
    }

    /// The ongoing refusal, if it is not final.
    fn undecided(&self, now: Instant) -> Option<&Ongoing> {
        self.ongoing.as_ref().filter(|ongoing| !ongoing.is_final && now < ongoing.lapses_at())
    }

    /// When the next call may begin. `None` while no refusal delays it.
    pub(crate) fn next_attempt(&self, now: Instant) -> Option<Instant> {
        self.undecided(now).map(|ongoing| ongoing.next_attempt)
    }

    /// When the ongoing refusal began, if it is not final. Of the calls that begin after it, only one at a time may be
    /// in flight.
    pub(crate) fn since(&self, now: Instant) -> Option<Instant> {
        self.undecided(now).map(|ongoing| ongoing.since)
    }

    /// When the ongoing refusal ends if no other call is refused; `None` if it is final.
    pub(crate) fn lapses_at(&self, now: Instant) -> Option<Instant> {
        self.undecided(now).map(Ongoing::lapses_at)
    }
}

/// What the refusal of one call means for other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing: the service has authorized another call since this one began.
    OfOneCall,
    /// They are refused as well, for now.
    OfEveryCall,
    /// They are refused as well, and waiting will not help.
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

    /// Records a refused call every half second for `period`, beginning at `from`. Returns the last refusal.
    fn refuse(refusals: &mut Refusals, from: Instant, period: Duration) -> Refusal {
        let mut last = refusals.refused(from, false, from, 0.0);
        for step in 1..=period.as_millis() / 500 {
            let now = from + milliseconds(step as u64 * 500);
            last = refusals.refused(now, false, now, 0.0);
        }
        last
    }

    #[test]
    fn refusal_is_final_after_its_timeout() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert_eq!(refuse(&mut refusals, start, milliseconds(4_500)), Refusal::OfEveryCall);
        let now = start + 5 * SECOND;
        assert!(refusals.next_attempt(now).is_some());
        assert_eq!(refusals.refused(now, false, now, 0.0), Refusal::Final);
        assert_eq!(refusals.next_attempt(now), None, "a final refusal delays no call");
        let later = start + 9 * SECOND;
        assert_eq!(refusals.refused(later, false, later, 0.0), Refusal::Final);
    }

    #[test]
    fn success_restarts_the_timeout() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        refuse(&mut refusals, start, 4 * SECOND);
        refusals.succeeded(start + 4 * SECOND);
        let before = refusals.refused(start + 3 * SECOND, false, start + 6 * SECOND, 0.0);
        assert_eq!(before, Refusal::OfOneCall);
        assert_eq!(refuse(&mut refusals, start + 7 * SECOND, 4 * SECOND), Refusal::OfEveryCall);
        assert_eq!(refuse(&mut refusals, start + 11 * SECOND, SECOND), Refusal::Final);
    }

    #[test]
    fn throttled_call_restarts_the_timeout_but_proves_no_table() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        refuse(&mut refusals, start, 4 * SECOND);
        refusals.authorized(start + 4 * SECOND);
        assert_eq!(refusals.next_attempt(start + 4 * SECOND), None);
        assert_eq!(refuse(&mut refusals, start + 5 * SECOND, 4 * SECOND), Refusal::OfEveryCall);
        let now = start + 10 * SECOND;
        assert_eq!(refusals.refused(now, true, now, 0.0), Refusal::Final);
    }

    #[test]
    fn refusal_older_than_a_success_concerns_its_call_alone() {
        let (start, mut refusals) = (start(), Refusals::new(Duration::ZERO));
        refusals.succeeded(start + SECOND);
        let (now, before) = (start + 2 * SECOND, start);
        assert_eq!(refusals.refused(before, false, now, 0.0), Refusal::OfOneCall);
        assert_eq!(refusals.next_attempt(now), None);
        // With a timeout of zero the first refusal is final.
        assert_eq!(refusals.refused(now, false, now, 0.0), Refusal::Final);
    }

    #[test]
    fn missing_table_is_final_unless_a_call_succeeded_before() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert_eq!(refusals.refused(start, true, start, 0.0), Refusal::Final);
        refusals.succeeded(start + SECOND);
        let now = start + 2 * SECOND;
        assert_eq!(refusals.refused(now, true, now, 0.0), Refusal::OfEveryCall);
    }

    #[test]
    fn missing_table_does_not_make_the_next_refusal_final() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        assert_eq!(refusals.refused(start, true, start, 0.0), Refusal::Final);
        let now = start + SECOND;
        assert_eq!(refusals.refused(now, false, now, 0.0), Refusal::OfEveryCall);
    }

    #[test]
    fn refusal_long_after_the_last_is_a_new_one() {
        for timeout in [Duration::ZERO + SECOND, 5 * SECOND, 3_600 * SECOND] {
            let (start, mut refusals) = (start(), Refusals::new(timeout));
            refuse(&mut refusals, start, 10 * SECOND);
            let later = start + 7_200 * SECOND;
            assert_eq!(refusals.next_attempt(later), None);
            assert_eq!(
                refusals.refused(later, false, later, 0.0),
                Refusal::OfEveryCall,
                "{timeout:?}"
            );
            assert_eq!(refusals.since(later), Some(later));
        }
    }

    #[test]
    fn refused_calls_begun_together_do_not_repeat() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        for late in 0..=8 {
            let refusal = refusals.refused(start, false, start + late * SECOND, 0.0);
            assert_eq!(refusal, Refusal::OfEveryCall, "{late}");
        }
    }

    #[test]
    fn attempt_refused_late_still_counts() {
        let (start, mut refusals) = (start(), Refusals::new(5 * SECOND));
        refusals.refused(start, false, start, 0.0);
        let (first, second) = (start + SECOND, start + 10 * SECOND);
        assert_eq!(refusals.refused(first, false, start + 9 * SECOND, 0.0), Refusal::OfEveryCall);
        assert_eq!(refusals.refused(second, false, start + 18 * SECOND, 0.0), Refusal::Final);
    }

    #[test]
    fn single_refusal_lapses() {
        let (start, mut refusals) = (start(), Refusals::new(3_600 * SECOND));
        refusals.refused(start, false, start, 0.0);
        let lapses_at = refusals.lapses_at(start).unwrap();
        assert!(lapses_at <= start + 5 * SECOND);
        assert_eq!((refusals.since(lapses_at), refusals.next_attempt(lapses_at)), (None, None));
        assert_eq!(refusals.lapses_at(lapses_at), None);
    }

    #[test]
    fn attempts_during_a_refusal_come_about_once_a_second() {
        let (start, mut refusals) = (start(), Refusals::new(60 * SECOND));
        let (mut now, mut attempts) = (start, 0);
        while refusals.refused(now, false, now, 1.0) != Refusal::Final {
            now = refusals.next_attempt(now).unwrap();
            attempts += 1;
        }
        assert!((55..70).contains(&attempts), "{attempts}");
    }
}
