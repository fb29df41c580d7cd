//! What the endpoint does wrong, and when: all of it drawn from one seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What becomes of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// Applied and acknowledged.
    Answer,
    /// Applied, and acknowledged later.
    AnswerLate(Duration),
    Throttle,
    /// Each item is handed back with this probability, and applied otherwise.
    Unprocessed(f64),
    /// An internal error: before the items are applied, or after that.
    Error {
        applied: bool,
    },
    /// No answer ever.
    Hang {
        applied: bool,
    },
    /// The connection is reset.
    Reset {
        applied: bool,
    },
}

/// Draws the fates of calls.
#[derive(Debug)]
pub(crate) struct Fates(StdRng);

impl Fates {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// Of a hundred calls some forty have bad luck.
    pub(crate) fn draw(&mut self) -> Fate {
        let random = &mut self.0;
        let applied = random.random();
        match random.random_range(0..100) {
            0..62 => Fate::Answer,
            62..70 => Fate::AnswerLate(Duration::from_millis(random.random_range(20..1_000))),
            70..77 => Fate::Throttle,
            77..86 => Fate::Unprocessed(random.random()),
            86..92 => Fate::Error { applied },
            92..95 => Fate::Hang { applied },
            _ => Fate::Reset { applied },
        }
    }

    /// Whether an item is among those handed back with this probability.
    pub(crate) fn hands_back(&mut self, probability: f64) -> bool {
        self.0.random_bool(probability)
    }
}

/// How long the endpoint answers and how long it then says nothing, again and again.
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
        // The longest of a minute's first rounds still leaves ten seconds to recover in.
        let calm = Duration::from_secs(self.0.random_range(10..=20));
        let silent = Duration::from_secs(self.0.random_range(10..=30));
        Some((calm, silent))
    }
}
