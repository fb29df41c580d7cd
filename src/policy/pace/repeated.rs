//! The share of the [pace](super) for repeated events: those that were throttled more than once.
//!
//! If the whole table is at its limit, repeated events are like any other. If one partition accepts less than the
//! others, the repeated events belong to it. Without a limit they would fill every batch, and would be throttled again.
//! So their share shrinks while most of them are throttled, and grows while nearly all are accepted.

use std::time::{Duration, Instant};

/// The least share: enough attempts to notice when the partition accepts more again.
const MIN_SHARE: f64 = 1.0 / 16.0;

/// The share is multiplied by this when more than [`MANY_THROTTLED`] of a call's repeated units are throttled.
const SHRINK_FACTOR: f64 = 0.7;
const MANY_THROTTLED: f64 = 0.5;

/// The share is multiplied by this, up to 1, when less than [`FEW_THROTTLED`] of a call's repeated units are throttled.
const GROWTH_FACTOR: f64 = 1.5;
const FEW_THROTTLED: f64 = 0.1;

/// The bucket holds the units of this time, or the units for which a batch waits if those are more.
const BURST: Duration = Duration::from_millis(100);

/// The longest wait that `allow` returns, in seconds.
const MAX_WAIT_SECONDS: f64 = 3_600.0;

/// Tolerance for the rounding of sums of many small numbers, in units.
const ROUNDING: f64 = 1e-6;

/// The share of the pace for repeated events, and a token bucket that fills at that rate.
#[derive(Debug)]
pub(super) struct Repeated {
    /// From [`MIN_SHARE`] to 1.
    share: f64,
    /// Units that may be sent now.
    tokens: f64,
    /// When `tokens` was last updated.
    filled_at: Option<Instant>,
}

impl Default for Repeated {
    fn default() -> Self {
        Self { share: 1.0, tokens: 0.0, filled_at: None }
    }
}

impl Repeated {
    /// How many units may be sent at `now`, if at least `required` units may. Otherwise how long to wait for them.
    /// `rate` is that of the whole pace, in units per second.
    pub(super) fn allow(
        &mut self,
        rate: f64,
        required: f64,
        now: Instant,
    ) -> Result<f64, Duration> {
        let rate = rate * self.share;
        let filled_at = self.filled_at.replace(now).unwrap_or(now);
        self.tokens += rate * now.saturating_duration_since(filled_at).as_secs_f64();
        self.tokens = self.tokens.min((rate * BURST.as_secs_f64()).max(required));
        if self.tokens + ROUNDING >= required {
            return Ok(self.tokens + ROUNDING);
        }
        Err(Duration::from_secs_f64(((required - self.tokens) / rate).min(MAX_WAIT_SECONDS)))
    }

    /// Charges repeated units that are sent.
    pub(super) fn charge(&mut self, units: f64) {
        if self.filled_at.is_some() {
            self.tokens -= units;
        }
    }

    /// Adapts the share to the repeated units of one answered call.
    pub(super) fn observe(&mut self, accepted: f64, throttled: f64) {
        let all = accepted + throttled;
        if all <= 0.0 {
            return;
        }
        let throttled_share = throttled / all;
        if throttled_share > MANY_THROTTLED {
            self.share = (self.share * SHRINK_FACTOR).max(MIN_SHARE);
        } else if throttled_share < FEW_THROTTLED {
            self.share = (self.share * GROWTH_FACTOR).min(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 1_000.0;

    #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Units sent in a second, if `allow` is called every millisecond.
    fn units_in_a_second(repeated: &mut Repeated, from: Instant) -> f64 {
        let mut sent = 0.0;
        for millisecond in 0..1_000 {
            let now = from + Duration::from_millis(millisecond);
            if let Ok(units) = repeated.allow(RATE, 5.0, now) {
                repeated.charge(units);
                sent += units;
            }
        }
        sent
    }

    #[test]
    fn throttled_events_keep_the_least_share() {
        let (start, mut repeated) = (start(), Repeated::default());
        for _ in 0..100 {
            repeated.observe(0.0, 25.0);
        }
        let sent = units_in_a_second(&mut repeated, start);
        assert!((0.9..1.1).contains(&(sent / (RATE * MIN_SHARE))), "{sent}");
    }

    #[test]
    fn accepted_events_get_the_whole_pace_again() {
        let (start, mut repeated) = (start(), Repeated::default());
        repeated.observe(0.0, 25.0);
        for _ in 0..10 {
            repeated.observe(25.0, 0.0);
        }
        let sent = units_in_a_second(&mut repeated, start);
        assert!((0.9..1.1).contains(&(sent / RATE)), "{sent}");
    }
}
