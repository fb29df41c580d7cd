//! How many calls may be in flight: as many as the table answers more events with.
//!
//! Calls in flight are rate times latency. Where the pace is known it bounds them by itself. Where it is not,
//! a table that answers slowly needs more of them than one that answers fast, and more than enough of them only
//! wait for each other. So the limit climbs: it grows while more calls bring more events, and shrinks where
//! fewer bring as many.

use std::time::{Duration, Instant};

/// Calls in flight at the beginning, and never fewer while there is more to send: 20,000 events/s at 10 ms.
const LEAST: usize = 8;

/// By how much the limit changes in one step.
const STEP: f64 = 1.25;

/// A step up must bring this much more. A quarter more calls bring up to a quarter more.
const GAIN: f64 = 1.1;

/// A step down may cost this much.
const LOSS: f64 = 0.97;

/// A measurement takes so many answers for each call in flight, and at least so long.
const ANSWERS: usize = 4;
const LEAST_ROUND: Duration = Duration::from_millis(50);

/// How long a limit stays when neither more nor fewer calls were better.
const HOLD: Duration = Duration::from_secs(5);

/// The limit of calls in flight.
#[derive(Debug)]
pub(crate) struct Concurrency {
    limit: usize,
    least: usize,
    most: usize,
    round: Option<Round>,
    trial: Option<Trial>,
    hold_until: Option<Instant>,
    /// Whether the next trial is of fewer calls.
    tries_fewer: bool,
}

/// A time in which as many calls were in flight as may be.
#[derive(Debug)]
struct Round {
    began: Instant,
    answers: usize,
    events: usize,
}

/// A limit on trial: what it was before, and how many events were stored in a second then.
#[derive(Debug, Clone, Copy)]
struct Trial {
    limit_before: usize,
    rate_before: f64,
}

impl Concurrency {
    /// At most `most` calls.
    pub(crate) fn new(most: usize) -> Self {
        let least = LEAST.min(most);
        Self {
            limit: least,
            least,
            most,
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

    /// Learns from a call that was answered at `now` with so many events stored. `is_saturated` says whether as
    /// many calls were in flight as may be, and more would have left.
    pub(crate) fn observe(&mut self, stored_events: usize, is_saturated: bool, now: Instant) {
        if self.least == self.most {
            return;
        }
        if !is_saturated {
            self.round = None;
            return;
        }
        let round = self.round.get_or_insert(Round { began: now, answers: 0, events: 0 });
        let took = now.saturating_duration_since(round.began);
        if round.answers < ANSWERS * self.limit || took < LEAST_ROUND {
            round.answers += 1;
            round.events += stored_events;
            return;
        }
        let rate = round.events as f64 / took.as_secs_f64();
        self.round = None;
        self.conclude(rate, now);
    }

    fn conclude(&mut self, rate: f64, now: Instant) {
        if let Some(Trial { limit_before, rate_before }) = self.trial.take() {
            let wanted = if self.limit > limit_before { GAIN } else { LOSS };
            if rate < rate_before * wanted {
                self.limit = limit_before;
                // When neither way is better, the limit stays for a while.
                if self.tries_fewer || self.limit == self.least {
                    self.hold_until = Some(now + HOLD);
                }
                self.tries_fewer = !self.tries_fewer && self.limit > self.least;
                return;
            }
        } else if self.hold_until.is_some_and(|until| now < until) {
            return;
        }
        self.hold_until = None;
        let limit = if self.tries_fewer { self.fewer() } else { self.more() };
        if limit == self.limit {
            self.tries_fewer = !self.tries_fewer && self.limit > self.least;
            self.hold_until = Some(now + HOLD);
        } else {
            self.trial = Some(Trial { limit_before: self.limit, rate_before: rate });
            self.limit = limit;
        }
    }

    fn more(&self) -> usize {
        ((self.limit as f64 * STEP).ceil() as usize).min(self.most)
    }

    fn fewer(&self) -> usize {
        ((self.limit as f64 / STEP).floor() as usize).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps `concurrency` saturated for so many seconds before a service that takes `latency` for a call, and
    /// for so many calls at once; each further one makes all of them slower.
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
    fn the_limit_grows_while_more_calls_bring_more_events() {
        let mut concurrency = Concurrency::new(64);
        assert_eq!(concurrency.limit(), 8);
        saturate(&mut concurrency, 4, 0.02, f64::INFINITY);
        assert_eq!(concurrency.limit(), 64);
    }

    #[test]
    fn the_limit_stays_where_more_calls_only_wait_for_each_other() {
        let mut concurrency = Concurrency::new(64);
        saturate(&mut concurrency, 60, 0.002, 8.0);
        assert!(concurrency.limit() <= 10, "{}", concurrency.limit());
    }

    #[test]
    fn the_limit_shrinks_when_the_service_takes_fewer_calls_at_once() {
        let mut concurrency = Concurrency::new(64);
        saturate(&mut concurrency, 20, 0.02, 64.0);
        assert_eq!(concurrency.limit(), 64);
        saturate(&mut concurrency, 120, 0.02, 16.0);
        assert!(concurrency.limit() <= 20, "{}", concurrency.limit());
    }

    #[test]
    fn calls_that_are_not_saturated_change_nothing() {
        let mut concurrency = Concurrency::new(64);
        #[expect(clippy::disallowed_methods, reason = "an origin for the test's own time line")]
        let start = Instant::now();
        for number in 0..10_000 {
            concurrency.observe(25, false, start + Duration::from_millis(number));
        }
        assert_eq!(concurrency.limit(), 8);
    }

    #[test]
    fn a_bound_below_the_beginning_is_kept() {
        let mut concurrency = Concurrency::new(3);
        saturate(&mut concurrency, 4, 0.02, f64::INFINITY);
        assert_eq!(concurrency.limit(), 3);
    }
}
