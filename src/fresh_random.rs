//! [`FreshRandom`]: random bits that two copies of one process do not share.

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

/// Draws random bits, each time from the system. A generator in memory is part of a snapshot: every process that is
/// restored from it would draw the same.
#[derive(Debug)]
pub(crate) struct FreshRandom {
    /// The generator that is used if the system has no randomness.
    fallback: StdRng,
    /// Whether everything is drawn from `fallback`, so that a seed decides it.
    is_deterministic: bool,
}

impl FreshRandom {
    pub(crate) fn new(fallback: StdRng, is_deterministic: bool) -> Self {
        Self { fallback, is_deterministic }
    }

    pub(crate) fn draw(&mut self) -> u64 {
        if !self.is_deterministic
            && let Ok(fresh) = StdRng::try_from_rng(&mut SysRng)
        {
            self.fallback = fresh;
        }
        self.fallback.next_u64()
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        self.draw() as f64 / u64::MAX as f64
    }
}
