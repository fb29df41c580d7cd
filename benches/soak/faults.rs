//! The faults of the endpoint and their times, all drawn from one seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How one call is handled.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    /// Applied and acknowledged.
    Answer,
    /// Applied, and acknowledged later.
    AnswerLate(Duration),
    Throttle,
    /// Each item is unprocessed with this probability, and applied otherwise.
    Unprocessed(f64),
    /// An internal error, before or after the items are applied.
    Error {
        applied: bool,
    },
    /// No answer ever comes.
    Hang {
        applied: bool,
    },
    /// The connection is reset.
    Reset {
        applied: bool,
    },
}

/// Draws the replies to calls.
#[derive(Debug)]
pub(crate) struct Replies(StdRng);

impl Replies {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// About 40 % of the calls fail or are late.
    pub(crate) fn draw(&mut self) -> Reply {
        let random = &mut self.0;
        let applied = random.random();
        match random.random_range(0..100) {
            0..62 => Reply::Answer,
            62..70 => Reply::AnswerLate(Duration::from_millis(random.random_range(20..1_000))),
            70..77 => Reply::Throttle,
            77..86 => Reply::Unprocessed(random.random()),
            86..92 => Reply::Error { applied },
            92..95 => Reply::Hang { applied },
            _ => Reply::Reset { applied },
        }
    }

    /// Draws whether an item is unprocessed.
    pub(crate) fn is_unprocessed(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability)
    }
}

/// An endless sequence of pairs: for how long the endpoint answers, and for how long it then does not.
#[derive(Debug)]
pub(crate) struct Stalls(StdRng);

impl Stalls {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed.wrapping_add(1)))
    }
}

impl Iterator for Stalls {
    type Item = (Duration, Duration);

    fn next(&mut self) -> Option<Self::Item> {
        // Even after the longest first stall, ten seconds of the first minute are left to recover.
        let answering = Duration::from_secs(self.0.random_range(10..=20));
        let silent = Duration::from_secs(self.0.random_range(10..=30));
        Some((answering, silent))
    }
}
