//! What became of the units of the last moments, and whether their refusals say something of the whole table.

use std::time::{Duration, Instant};

use super::Units;

/// How far back it looks.
const MEMORY: Duration = Duration::from_millis(200);

/// From this share of refusals among the second attempts on, and this many times the share among the first, an event
/// that was refused is refused again because of its partition.
const REFUSED_AGAIN: f64 = 0.5;
const MORE_OFTEN: f64 = 2.0;

/// Fewer units say nothing of a share.
const ENOUGH: f64 = 5.0;

/// Accepted and refused units, older ones counting less.
#[derive(Debug, Default)]
pub(super) struct Recent {
    first: Tally,
    second: Tally,
    at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    accepted: f64,
    refused: f64,
}

impl Tally {
    fn add(&mut self, units: Units, kept: f64) {
        self.accepted = self.accepted * kept + units.accepted as f64;
        self.refused = self.refused * kept + units.refused as f64;
    }

    fn units(self) -> f64 {
        self.accepted + self.refused
    }

    fn refused_share(self) -> f64 {
        if self.units() > 0.0 { self.refused / self.units() } else { 0.0 }
    }
}

impl Recent {
    pub(super) fn add(&mut self, first: Units, second: Units, now: Instant) {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let kept = (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.first.add(first, kept);
        self.second.add(second, kept);
        self.at = Some(now);
    }

    pub(super) fn units(&self) -> f64 {
        self.first.units() + self.second.units()
    }

    pub(super) fn units_per_second(&self) -> f64 {
        self.units() / MEMORY.as_secs_f64()
    }

    /// Whether some partition takes less than the others.
    ///
    /// Its events are refused again and again, at whatever rate they are sent. Where the whole table is at its limit, a
    /// second attempt is not refused more often than a first one: it goes first in its batch.
    pub(super) fn has_busy_partition(&self) -> bool {
        let again = self.second.refused_share();
        self.second.units() >= ENOUGH
            && again >= REFUSED_AGAIN
            && again >= MORE_OFTEN * self.first.refused_share()
    }

    /// The share of units that were refused.
    pub(super) fn refused_share(&self) -> f64 {
        (self.first.refused + self.second.refused) / self.units().max(f64::MIN_POSITIVE)
    }

    /// The share of first attempts that was refused.
    pub(super) fn first_refused_share(&self) -> f64 {
        self.first.refused_share()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
    fn recent(first: (u64, u64), second: (u64, u64)) -> Recent {
        let units = |(accepted, refused)| Units { accepted, refused };
        let mut recent = Recent::default();
        recent.add(units(first), units(second), Instant::now());
        recent
    }

    #[test]
    fn events_refused_once_in_a_while_show_no_busy_partition() {
        let recent = recent((900, 100), (90, 10));
        assert!(!recent.has_busy_partition());
        assert!((recent.refused_share() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn events_refused_again_and_again_show_a_busy_partition() {
        for (first, second) in [((875, 125), (0, 125)), ((900, 100), (20, 80))] {
            let recent = recent(first, second);
            assert!(recent.has_busy_partition(), "{recent:?}");
        }
    }

    #[test]
    fn a_table_that_takes_nothing_has_no_busy_partition() {
        let recent = recent((0, 100), (0, 100));
        assert!(!recent.has_busy_partition());
        assert_eq!(recent.refused_share(), 1.0);
    }
}
