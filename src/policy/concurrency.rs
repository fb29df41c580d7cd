//! How many calls may be in flight: a hill climber that looks for the smallest number of calls with the highest rate of
//! stored events.
//!
//! The number of calls in flight is their rate times their latency. While the [pace](super::pace) limits the rate, it
//! limits the number of calls, too. Otherwise a table that answers slowly needs more calls in flight than one that
//! answers fast. Calls beyond that number only queue behind each other. So the limit rises as long as more calls store
//! more events, and falls if fewer calls store as many.
//!
//! 1. A *round* measures the events stored per second at the current limit. It takes at least [`ANSWERS_PER_CALL`]
//!    answers for each call in flight and at least [`MIN_ROUND`], and counts only while as many calls are in flight as
//!    the limit allows.
//! 2. A *trial* then changes the limit by [`STEP`], up or down, and the next round decides: a step up is kept if it
//!    stores [`GAIN`] times the events, a step down if it stores [`LOSS`] times the events. A kept step is followed by
//!    the next one in the same direction.
//! 3. A step that is not kept is undone, and the other direction is tried next. When neither was better, or the
//!    limit has reached a bound, it stays for [`HOLD`].

use std::time::{Duration, Instant};

/// The first limit, and the lowest: 8 calls of 25 events are 20,000 events/s at a latency of 10 ms.
const MIN_LIMIT: usize = 8;

/// The factor by which one step changes the limit.
const STEP: f64 = 1.25;

/// A step up is kept if it multiplies the stored events per second by at least this. A quarter more calls store at most
/// a quarter more.
const GAIN: f64 = 1.1;

/// A step down is kept if it multiplies the stored events per second by at least this.
const LOSS: f64 = 0.97;

/// A round takes at least this many answers for each call in flight.
const ANSWERS_PER_CALL: usize = 4;

/// A round takes at least this time.
const MIN_ROUND: Duration = Duration::from_millis(50);

/// How long the limit stays when neither more nor fewer calls were better.
const HOLD: Duration = Duration::from_secs(5);

/// The limit of calls in flight.
#[derive(Debug)]
pub(crate) struct Concurrency {
    limit: usize,
    min: usize,
    max: usize,
    round: Option<Round>,
    trial: Option<Trial>,
    hold_until: Option<Instant>,
    /// Whether the next trial tries fewer calls.
    tries_fewer: bool,
}

/// A measurement while as many calls are in flight as the limit allows.
#[derive(Debug)]
struct Round {
    began: Instant,
    answers: usize,
    events: usize,
}

/// A step that the next round decides on: the limit before the step, and the events stored per second at that limit.
#[derive(Debug, Clone, Copy)]
struct Trial {
    limit_before: usize,
    rate_before: f64,
}

impl Concurrency {
    /// A limit of at most `max` calls.
    pub(crate) fn new(max: usize) -> Self {
        let min = MIN_LIMIT.min(max);
        Self {
            limit: min,
            min,
            max,
            round: None,
            trial: None,
            hold_until: None,
            tries_fewer: false,
        }
    }

    /// How many calls may be in flight.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts a call that was answered at `now` and has stored this many events. `is_saturated` says whether a batch
    /// was due but had to wait because of the limit.
    pub(crate) fn observe(&mut self, stored_events: usize, is_saturated: bool, now: Instant) {
        if self.min == self.max {
            return;
        }
        if !is_saturated {
            self.round = None;
            return;
        }
        let round = self.round.get_or_insert(Round { began: now, answers: 0, events: 0 });
        let took = now.saturating_duration_since(round.began);
        if round.answers < ANSWERS_PER_CALL * self.limit || took < MIN_ROUND {
            round.answers += 1;
            round.events += stored_events;
            return;
        }
        let rate = round.events as f64 / took.as_secs_f64();
        self.round = None;
        self.conclude(rate, now);
    }

    /// Decides on the trial, if there is one, and begins the next. `rate` is the number of events stored per second in
    /// the last round.
    fn conclude(&mut self, rate: f64, now: Instant) {
        if let Some(Trial { limit_before, rate_before }) = self.trial.take() {
            let required = if self.limit > limit_before { GAIN } else { LOSS };
            if rate < rate_before * required {
                self.limit = limit_before;
                // Fewer calls were tried last, or cannot be tried: neither direction is better.
                if self.tries_fewer || self.limit == self.min {
                    self.hold_until = Some(now + HOLD);
                }
                self.tries_fewer = !self.tries_fewer && self.limit > self.min;
                return;
            }
        } else if self.hold_until.is_some_and(|until| now < until) {
            return;
        }
        self.hold_until = None;
        let limit = if self.tries_fewer { self.fewer() } else { self.more() };
        if limit == self.limit {
            self.tries_fewer = !self.tries_fewer && self.limit > self.min;
            self.hold_until = Some(now + HOLD);
        } else {
            self.trial = Some(Trial { limit_before: self.limit, rate_before: rate });
            self.limit = limit;
        }
    }

    fn more(&self) -> usize {
        ((self.limit as f64 * STEP).ceil() as usize).min(self.max)
    }

    fn fewer(&self) -> usize {
        ((self.limit as f64 / STEP).floor() as usize).max(self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturates `concurrency` for this many seconds. The service answers a call in `latency` seconds while at most
    /// `at_once` are in flight; each further call makes all of them slower.
    #[expect(clippy::disallowed_methods, reason = "an origin for the test's own time line")]
    fn saturate(concurrency: &mut Concurrency, seconds: u64, latency: f64, at_once: f64) {
        let start = Instant::now();
        let mut passed = 0.0;
        while passed < seconds as f64 {
            let in_flight = concurrency.limit() as f64;
            passed += latency * (in_flight / at_once).max(1.0) / in_flight;
            concurrency.observe(25, true, start + Duration::from_secs_f64(passed));
        }
    }

    #[test]
    fn limit_grows_while_more_calls_store_more_events() {
        let mut concurrency = Concurrency::new(64);
        assert_eq!(concurrency.limit(), 8);
        saturate(&mut concurrency, 4, 0.02, f64::INFINITY);
        assert_eq!(concurrency.limit(), 64);
    }

    #[test]
    fn limit_stays_when_more_calls_only_queue() {
        let mut concurrency = Concurrency::new(64);
        saturate(&mut concurrency, 60, 0.002, 8.0);
        assert!(concurrency.limit() <= 10, "{}", concurrency.limit());
    }

    #[test]
    fn limit_shrinks_when_the_service_takes_fewer_calls() {
        let mut concurrency = Concurrency::new(64);
        saturate(&mut concurrency, 20, 0.02, 64.0);
        assert_eq!(concurrency.limit(), 64);
        saturate(&mut concurrency, 120, 0.02, 16.0);
        assert!(concurrency.limit() <= 20, "{}", concurrency.limit());
    }

    #[test]
    fn unreached_limit_is_not_changed() {
        let mut concurrency = Concurrency::new(64);
        #[expect(clippy::disallowed_methods, reason = "an origin for the test's own time line")]
        let start = Instant::now();
        for number in 0..10_000 {
            concurrency.observe(25, false, start + Duration::from_millis(number));
        }
        assert_eq!(concurrency.limit(), 8);
    }

    #[test]
    fn maximum_below_the_first_limit_is_kept() {
        let mut concurrency = Concurrency::new(3);
        saturate(&mut concurrency, 4, 0.02, f64::INFINITY);
        assert_eq!(concurrency.limit(), 3);
    }
}
