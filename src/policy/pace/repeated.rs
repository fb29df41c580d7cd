//! How much of the pace goes to events that the table has refused more than once.
//!
//! Where the whole table is at its limit, such events are as good as any other. Where one partition takes less
//! than the others, they are its events: sent again and again they would fill every batch, and be refused.
//! So their share of the pace shrinks while most of them are refused, and grows while nearly all are accepted.

use std::time::{Duration, Instant};

/// Never less than this share, or it would not be seen when the partition takes more.
const LEAST_SHARE: f64 = 1.0 / 16.0;

/// The share shrinks by this factor when more than this part of a call's repeated events is refused.
const SHRINKS: f64 = 0.7;
const MOST_REFUSED: f64 = 0.5;

/// The share grows by this factor when less than this part is.
const GROWS: f64 = 1.5;
const FEW_REFUSED: f64 = 0.1;

/// The part of a second's units that leaves at once.
const BURST: Duration = Duration::from_millis(100);

/// Sums of many small numbers come out a little below the whole.
const ROUNDING: f64 = 1e-6;

/// The share of the pace for repeated events, and what of it may leave now.
#[derive(Debug)]
pub(super) struct Repeated {
    share: f64,
    tokens: f64,
    filled_at: Option<Instant>,
}

impl Default for Repeated {
    fn default() -> Self {
        Self { share: 1.0, tokens: 0.0, filled_at: None }
    }
}

impl Repeated {
    /// How many units may leave at `now`, with the whole pace at `rate` units per second; or how long to wait for
    /// `wanted` of them.
    pub(super) fn allow(&mut self, rate: f64, wanted: f64, now: Instant) -> Result<f64, Duration> {
        let rate = rate * self.share;
        let filled_at = self.filled_at.replace(now).unwrap_or(now);
        self.tokens += rate * now.saturating_duration_since(filled_at).as_secs_f64();
        self.tokens = self.tokens.min((rate * BURST.as_secs_f64()).max(wanted));
        if self.tokens + ROUNDING >= wanted {
            return Ok(self.tokens + ROUNDING);
        }
        Err(Duration::from_secs_f64(((wanted - self.tokens) / rate).min(3_600.0)))
    }

    pub(super) fn sent(&mut self, units: f64) {
        if self.filled_at.is_some() {
            self.tokens -= units;
        }
    }

    /// Learns from what became of the repeated events of one call.
    pub(super) fn observe(&mut self, accepted: f64, refused: f64) {
        let all = accepted + refused;
        if all <= 0.0 {
            return;
        }
        let refused_part = refused / all;
        if refused_part > MOST_REFUSED {
            self.share = (self.share * SHRINKS).max(LEAST_SHARE);
        } else if refused_part < FEW_REFUSED {
            self.share = (self.share * GROWS).min(1.0);
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

    /// Units that leave in a second, asked for every millisecond.
    fn units_in_a_second(repeated: &mut Repeated, from: Instant) -> f64 {
        let mut sent = 0.0;
        for millisecond in 0..1_000 {
            let now = from + Duration::from_millis(millisecond);
            if let Ok(units) = repeated.allow(RATE, 5.0, now) {
                repeated.sent(units);
                sent += units;
            }
        }
        sent
    }

    #[test]
    fn refused_events_are_sent_less_often_and_never_not_at_all() {
        let (start, mut repeated) = (start(), Repeated::default());
        for _ in 0..100 {
            repeated.observe(0.0, 25.0);
        }
        let sent = units_in_a_second(&mut repeated, start);
        assert!((0.9..1.1).contains(&(sent / (RATE * LEAST_SHARE))), "{sent}");
    }

    #[test]
    fn accepted_events_have_the_whole_pace_again() {
        let (start, mut repeated) = (start(), Repeated::default());
        repeated.observe(0.0, 25.0);
        for _ in 0..10 {
            repeated.observe(25.0, 0.0);
        }
        let sent = units_in_a_second(&mut repeated, start);
        assert!((0.9..1.1).contains(&(sent / RATE)), "{sent}");
    }
}
