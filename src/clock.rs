//! The two clocks: the runtime's for all waits, and the wall clock for the time in keys.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The longest deadline, 30 years. An [`Instant`] that is this much later does not overflow.
pub(crate) const MAX_DEADLINE: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The runtime's clock, which tests can pause.
#[expect(clippy::disallowed_methods, reason = "everything that is not pure reads the clock here")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The source of the time in keys.
#[derive(Debug)]
pub(crate) enum KeyClock {
    Wall,
    /// The runtime's clock, which was at [`RUNTIME_EPOCH`] at this moment.
    Runtime(Instant),
}

/// The first time in the keys of a deterministic store: 2026-01-01T00:00:00Z, in milliseconds since the Unix epoch.
const RUNTIME_EPOCH: u64 = 1_767_225_600_000;

impl KeyClock {
    /// Milliseconds since the Unix epoch.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock, for keys"
    )]
    pub(crate) fn unix_milliseconds(&self) -> u64 {
        let (epoch, since) = match self {
            // A wall clock before 1970 counts as 1970. Keys increase all the same.
            Self::Wall => {
                (0, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
            }
            Self::Runtime(start) => (RUNTIME_EPOCH, now().saturating_duration_since(*start)),
        };
        epoch + since.as_secs() * 1_000 + u64::from(since.subsec_millis())
    }
}
