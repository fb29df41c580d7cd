//! The recently answered units: the share of them that was throttled, and whether a single busy partition throttles.
//! The [pace](super) uses both at each throttled answer.

use std::time::{Duration, Instant};

use super::Units;

/// The time constant of the exponential decay: after this time units count 1/e.
const MEMORY: Duration = Duration::from_millis(200);

/// A partition is busy only if at least this share of second attempts is throttled,
const MIN_SECOND_SHARE: f64 = 0.5;

/// and if that share is at least this many times the share of first attempts.
const MIN_SHARE_RATIO: f64 = 2.0;

/// With fewer units of second attempts than this, their share says nothing.
const MIN_SECOND_UNITS: f64 = 5.0;

/// Accepted and throttled units of first and second attempts, which decay exponentially.
#[derive(Debug, Default)]
pub(super) struct Recent {
    first: Tally,
    second: Tally,
    /// When units were last added.
    updated_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    accepted: f64,
    throttled: f64,
}

impl Tally {
    fn add(&mut self, units: Units, kept: f64) {
        self.accepted = self.accepted * kept + units.accepted as f64;
        self.throttled = self.throttled * kept + units.throttled as f64;
    }

    fn units(self) -> f64 {
        self.accepted + self.throttled
    }

    fn throttled_share(self) -> f64 {
        if self.units() > 0.0 { self.throttled / self.units() } else { 0.0 }
    }
}

impl Recent {
    /// Adds the units of a call that was answered at `now`.
    pub(super) fn add(&mut self, first: Units, second: Units, now: Instant) {
        let age = self.updated_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let kept = (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.first.add(first, kept);
        self.second.add(second, kept);
        self.updated_at = Some(now);
    }

    /// Recent units, accepted or throttled.
    pub(super) fn units(&self) -> f64 {
        self.first.units() + self.second.units()
    }

    /// The recent rate of units, accepted or throttled.
    pub(super) fn units_per_second(&self) -> f64 {
        self.units() / MEMORY.as_secs_f64()
    }

    /// Whether some partition is busy: it accepts less than the others.
    ///
    /// The events of a busy partition are throttled again and again, at whatever rate they are sent. Where the whole
    /// table is at its limit, second attempts are throttled no more often than first ones, as they go first in their
    /// batches.
    pub(super) fn has_busy_partition(&self) -> bool {
        let second_share = self.second.throttled_share();
        self.second.units() >= MIN_SECOND_UNITS
            && second_share >= MIN_SECOND_SHARE
            && second_share >= MIN_SHARE_RATIO * self.first.throttled_share()
    }

    /// The share of units that were throttled.
    pub(super) fn throttled_share(&self) -> f64 {
        (self.first.throttled + self.second.throttled) / self.units().max(f64::MIN_POSITIVE)
    }

    /// The share of the units of first attempts that were throttled.
    pub(super) fn first_throttled_share(&self) -> f64 {
        self.first.throttled_share()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
    fn recent(first: (u64, u64), second: (u64, u64)) -> Recent {
        let units = |(accepted, throttled)| Units { accepted, throttled };
        let mut recent = Recent::default();
        recent.add(units(first), units(second), Instant::now());
        recent
    }

    #[test]
    fn equal_shares_of_both_attempts_show_no_busy_partition() {
        let recent = recent((900, 100), (90, 10));
        assert!(!recent.has_busy_partition());
        assert!((recent.throttled_share() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn throttled_second_attempts_show_a_busy_partition() {
        for (first, second) in [((875, 125), (0, 125)), ((900, 100), (20, 80))] {
            let recent = recent(first, second);
            assert!(recent.has_busy_partition(), "{recent:?}");
        }
    }

    #[test]
    fn table_that_throttles_everything_has_no_busy_partition() {
        let recent = recent((0, 100), (0, 100));
        assert!(!recent.has_busy_partition());
        assert_eq!(recent.throttled_share(), 1.0);
    }
}
