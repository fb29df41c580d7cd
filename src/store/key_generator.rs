//! [`EventKeyGenerator`]: keys for events that no store puts.

use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};

use crate::clock::KeyClock;
use crate::error::ConfigError;
use crate::event::key::{EventKey, WriterId};
use crate::fresh_random::FreshRandom;
use crate::key_source::{IdSource, KeySource};

/// Makes keys as a store makes them, for events that get into the table in another way: as files that `ImportTable` or
/// `StartBulkPutItems` reads, for example.
///
/// # Which keys are unique
///
/// - Each key of one generator is greater than all keys before it, whatever the clock does, on any thread.
/// - Two generators, or a generator and a store, make different keys if they have different writer ids, or if their
///   keys have different times. With the same id, and in the same millisecond, both make the same key. [`WriterId`]
///   has the odds that two ids drawn at random are the same.
/// - A process that restarts with the same id makes new keys, unless the clock was set back in between.
/// - A drawn id is replaced after the process was suspended, as it may be one of several copies.
///
/// A key has the time at which it was made, not that at which its event is stored. A generator knows nothing of
/// [leases](crate::WriterIds::leased): give it an id that no store leases
/// ([`LeasedWriterIds::ids`](crate::LeasedWriterIds::ids) keeps ids free).
///
/// ```
/// use dynamodb_eventstore::{Event, EventKeyGenerator, WriterId};
///
/// let id = WriterId::new(7).expect("it is not larger than WriterId::MAX");
/// let generator = EventKeyGenerator::new(id);
/// let keys: Vec<_> = std::iter::from_fn(|| generator.next_key()).take(3).collect();
/// assert!(keys.is_sorted_by(|earlier, later| earlier < later));
/// assert_eq!(&keys[0].as_str()[18..23], "00007");
/// let event = Event::new(keys[0], r#"{"foo":"bar"}"#)?;
/// # Ok::<(), dynamodb_eventstore::EventTooLarge>(())
/// ```
#[derive(Debug)]
pub struct EventKeyGenerator(KeySource);

impl EventKeyGenerator {
    /// A generator whose keys have this writer id.
    #[must_use]
    pub fn new(writer_id: WriterId) -> Self {
        Self(KeySource::new(IdSource::Assigned(writer_id), KeyClock::Wall))
    }

    /// A generator with a writer id that is drawn at random.
    ///
    /// # Errors
    ///
    /// The system has no randomness to draw an id from. Then assign one, with [`new`](Self::new).
    pub fn drawn() -> Result<Self, ConfigError> {
        let fallback = StdRng::try_from_rng(&mut SysRng).map_err(|error| {
            let limit =
                format!("be given, as the system has no randomness to draw it from ({error})");
            ConfigError::new("writer_id", "missing", limit)
        })?;
        let mut random = FreshRandom::new(fallback, false);
        let first = WriterId::from_random(random.draw());
        let ids = IdSource::Drawn { first, random: Box::new(random) };
        Ok(Self(KeySource::new(ids, KeyClock::Wall)))
    }

    /// The next key. `None` after the end of the year 9999, beyond which no key has a time.
    #[must_use]
    pub fn next_key(&self) -> Option<EventKey> {
        self.0.next().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_of_threads_are_distinct_and_increase_in_each_thread() {
        let generator = EventKeyGenerator::drawn().unwrap();
        let keys = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let keys = std::iter::from_fn(|| generator.next_key());
                        keys.take(20_000).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for keys in &keys {
            assert!(keys.is_sorted_by(|earlier, later| earlier < later));
        }
        let distinct: BTreeSet<EventKey> = keys.into_iter().flatten().collect();
        assert_eq!(distinct.len(), 80_000);
    }

    #[test]
    fn two_drawn_generators_seldom_have_the_same_id() {
        let ids: BTreeSet<String> = (0..20)
            .filter_map(|_| EventKeyGenerator::drawn().unwrap().next_key())
            .map(|key| key.as_str()[18..23].to_owned())
            .collect();
        // 20 of 100,000: two are the same with odds of 1 in 500.
        assert!(ids.len() >= 18, "{ids:?}");
    }
}
