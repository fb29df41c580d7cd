//! The two clocks: the runtime's, by which the store waits, and the wall's, by which keys are made.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far off a deadline is that no clock will reach.
pub(crate) const FAR_OFF: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The runtime's clock, which tests can stop.
#[expect(clippy::disallowed_methods, reason = "the worker and the shells around it ask here")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Where the time in the keys comes from.
#[derive(Debug)]
pub(crate) enum KeyClock {
    Wall,
    /// The runtime's clock, since this moment.
    Runtime(Instant),
}

/// 2026-01-01T00:00:00Z, when the time of a deterministic store begins.
const RUNTIME_EPOCH: u64 = 1_767_225_600_000;

impl KeyClock {
    /// Milliseconds since the Unix epoch.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock, for keys"
    )]
    pub(crate) fn unix_milliseconds(&self) -> u64 {
        let (epoch, since) = match self {
            // A clock before 1970: keys increase from there all the same.
            Self::Wall => {
                (0, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
            }
            Self::Runtime(start) => (RUNTIME_EPOCH, now().saturating_duration_since(*start)),
        };
        epoch + since.as_secs() * 1_000 + u64::from(since.subsec_millis())
    }
}
