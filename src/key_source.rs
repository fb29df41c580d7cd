//! [`KeySource`]: where a store's keys come from.

use std::sync::{Mutex, PoisonError};

use crate::clock::KeyClock;
use crate::event::key::{EventKey, KeyGenerator, WriterId};

/// Makes the keys of one store, from any thread. Each key is greater than all keys before it.
#[derive(Debug)]
pub(crate) struct KeySource {
    generator: Mutex<KeyGenerator>,
    clock: KeyClock,
}

impl KeySource {
    pub(crate) fn new(writer_id: WriterId, clock: KeyClock) -> Self {
        Self { generator: Mutex::new(KeyGenerator::new(writer_id)), clock }
    }

    /// Makes all later keys greater than `key`.
    #[cfg(feature = "journal")]
    pub(crate) fn start_after(&self, key: &EventKey) {
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        generator.start_after(key);
    }

    /// The next key. `None` when no key is left: at the end of the year 9999.
    pub(crate) fn next(&self) -> Option<EventKey> {
        // A panic cannot leave the generator inconsistent, so a poisoned lock does not matter.
        let mut generator = self.generator.lock().unwrap_or_else(PoisonError::into_inner);
        generator.next(self.clock.unix_milliseconds())
    }
}
