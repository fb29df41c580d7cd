//! [`KeySource`]: where a store's keys come from.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::clock::KeyClock;
use crate::event::key::{EventKey, KeyGenerator, WriterId};
use crate::fresh_random::FreshRandom;

/// After a longer time than this between two keys, in milliseconds, it is checked whether the process was suspended.
const GAP: u64 = 1_000;

/// How much more the wall clock may have advanced than the monotonic one, in milliseconds. Clocks that NTP adjusts
/// drift apart by some seconds a day. If a drift is mistaken for a suspension, the store only changes its id.
const MAX_DRIFT: u64 = 1_000;

/// Makes the keys of one store, from any thread. Each key is greater than all keys before it.
#[derive(Debug)]
pub(crate) struct KeySource {
    keys: Mutex<Keys>,
    clock: KeyClock,
    /// Notified when a lease is needed.
    lease_wanted: Notify,
}

/// Where the writer id in the keys comes from.
#[derive(Debug)]
pub(crate) enum IdSource {
    /// Set by the program. It cannot be replaced.
    Assigned(WriterId),
    /// Drawn at random, at first as `first`.
    Drawn { first: WriterId, random: Box<FreshRandom> },
    /// Held for a range of key times, and granted by the lease's keeper.
    Leased,
}

/// What happens to a writer id that another writer has as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SharedWriterId {
    /// It was drawn or leased, and is replaced by another.
    Replaced,
    /// It was assigned by the program, and is kept.
    Kept,
}

/// Why no key can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// The end of the year 9999 has come.
    YearOver,
    /// No lease covers the time. The keeper was notified.
    NoLease,
    /// The store is closed, and its writer id given back.
    Closed,
}

/// What a lease's keeper needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyTime {
    /// The earliest time of a key that is made now, in milliseconds since the Unix epoch.
    pub(crate) next: u64,
    /// False if no lease was granted, or the last one was abandoned.
    pub(crate) has_lease: bool,
}

impl KeySource {
    pub(crate) fn new(ids: IdSource, clock: KeyClock) -> Self {
        let keys = Keys::new(ids, clock.unix_milliseconds(), crate::clock::now());
        Self { keys: Mutex::new(keys), clock, lease_wanted: Notify::new() }
    }

    /// Makes all later keys greater than `key`.
    #[cfg(feature = "journal")]
    pub(crate) fn start_after(&self, key: &EventKey) {
        self.lock().generator.start_after(key);
    }

    /// The next key.
    pub(crate) fn next(&self) -> Result<EventKey, NoKey> {
        let mut keys = self.lock();
        let key = keys.next(self.clock.unix_milliseconds(), crate::clock::now);
        if let Err(none) = key {
            self.tell_keeper(none);
        }
        key
    }

    #[cold]
    fn tell_keeper(&self, none: NoKey) {
        if none == NoKey::NoLease {
            self.lease_wanted.notify_one();
        }
    }

    /// Stops making keys with the present writer id, because another process may have it. A drawn id is replaced at
    /// once, a leased one as soon as its keeper has another. Returns whether the id could be given up: one that the
    /// program has assigned cannot.
    pub(crate) fn abandon_writer_id(&self) -> bool {
        let is_abandoned = self.lock().abandon_writer_id();
        self.lease_wanted.notify_one();
        is_abandoned
    }

    /// To be called when the item of another writer is found under `key`. Abandons the writer id, unless the program has
    /// assigned it.
    ///
    /// `None` if there is nothing to do or to report. Then the key has another id than the present one, because the id
    /// was replaced before or an earlier process made the key. Or the id is assigned, and already known as shared.
    pub(crate) fn abandon_shared_writer_id(&self, key: &EventKey) -> Option<SharedWriterId> {
        let shared = self.lock().abandon_shared_writer_id(key);
        self.lease_wanted.notify_one();
        shared
    }

    /// Uses a new lease.
    pub(crate) fn grant(&self, id: WriterId, from: u64, until: u64) {
        self.lock().grant(id, from, until);
    }

    /// Moves the end of the present lease. Does nothing if it was abandoned meanwhile.
    pub(crate) fn extend(&self, until: u64) {
        self.lock().extend(until);
    }

    /// Makes no more keys, and returns the time after that of the last one.
    pub(crate) fn close(&self) -> u64 {
        self.lock().close()
    }

    pub(crate) fn time(&self) -> KeyTime {
        self.lock().time(self.clock.unix_milliseconds(), crate::clock::now)
    }

    /// Waits until a put has found no lease. Cancel safe.
    pub(crate) async fn lease_wanted(&self) {
        self.lease_wanted.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        // A panic cannot leave the keys inconsistent, so a poisoned lock does not matter.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a [`KeySource`]. Time is an argument.
#[derive(Debug)]
pub(crate) struct Keys {
    generator: KeyGenerator,
    ids: IdSource,
    has_lease: bool,
    is_closed: bool,
    /// Whether an assigned id was found to be shared.
    is_known_as_shared: bool,
    /// The time of the last call, in milliseconds since the Unix epoch.
    last_call: u64,
    /// Both clocks at one moment: when the source was made, at the last gap, or when the clock was set back.
    reference: (u64, Instant),
}

impl Keys {
    pub(crate) fn new(ids: IdSource, now: u64, monotonic: Instant) -> Self {
        let mut generator = KeyGenerator::new(match &ids {
            IdSource::Assigned(id) | IdSource::Drawn { first: id, .. } => *id,
            // Replaced by the first lease. There are no keys before it.
            IdSource::Leased => WriterId::from_random(0),
        });
        if matches!(ids, IdSource::Leased) {
            generator.set_range(0, 0);
        }
        Self {
            generator,
            ids,
            has_lease: false,
            is_closed: false,
            is_known_as_shared: false,
            last_call: now,
            reference: (now, monotonic),
        }
    }

    /// The next key, at `now` in milliseconds since the Unix epoch.
    pub(crate) fn next(
        &mut self,
        now: u64,
        monotonic: impl FnOnce() -> Instant,
    ) -> Result<EventKey, NoKey> {
        self.look_at_clock(now, monotonic);
        match self.generator.next(now) {
            Some(key) => Ok(key),
            None => Err(self.no_key(now)),
        }
    }

    /// A copy, as a snapshot of the process makes it.
    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> Self {
        Self { generator: self.generator.clone(), ids: IdSource::Leased, ..*self }
    }

    /// Checks whether the process was suspended, if enough time has passed since the last key.
    #[inline]
    fn look_at_clock(&mut self, now: u64, monotonic: impl FnOnce() -> Instant) {
        // This also holds if the clock was set back: then the difference wraps around.
        if now.wrapping_sub(self.last_call) > GAP {
            self.check_for_suspension(now, monotonic());
        }
        self.last_call = now;
    }

    #[cold]
    fn no_key(&self, now: u64) -> NoKey {
        if self.is_closed {
            NoKey::Closed
        } else if KeyGenerator::is_year_over(self.generator.next_time(now)) {
            NoKey::YearOver
        } else {
            NoKey::NoLease
        }
    }

    /// Abandons the writer id if the process was suspended: a laptop slept, or the process resumes from a snapshot.
    /// Other copies of the process may have the same id. A wall clock that was set forward cannot be told from a
    /// suspension.
    #[cold]
    fn check_for_suspension(&mut self, now: u64, monotonic: Instant) {
        let (then, then_monotonic) = self.reference;
        self.reference = (now, monotonic);
        let ran = monotonic.saturating_duration_since(then_monotonic).as_millis();
        let passed = now.saturating_sub(then);
        let was_suspended = u128::from(passed.saturating_sub(MAX_DRIFT)) > ran;
        if was_suspended && self.abandon_writer_id() {
            tracing::debug!(
                "the process seems to have been suspended, as its wall clock advanced further than its monotonic clock; later keys have another writer id"
            );
        }
    }

    pub(crate) fn abandon_writer_id(&mut self) -> bool {
        match &mut self.ids {
            IdSource::Assigned(_) => false,
            IdSource::Drawn { random, .. } => {
                self.generator.set_writer_id(WriterId::from_random(random.draw()));
                true
            }
            IdSource::Leased => {
                self.generator.set_range(0, 0);
                self.has_lease = false;
                true
            }
        }
    }

    fn abandon_shared_writer_id(&mut self, key: &EventKey) -> Option<SharedWriterId> {
        if !self.generator.has_writer_id_of(key) || self.is_known_as_shared {
            return None;
        }
        if !self.abandon_writer_id() {
            self.is_known_as_shared = true;
            return Some(SharedWriterId::Kept);
        }
        // One draw in 100,000 is the shared id again.
        while matches!(self.ids, IdSource::Drawn { .. }) && self.generator.has_writer_id_of(key) {
            self.abandon_writer_id();
        }
        Some(SharedWriterId::Replaced)
    }

    pub(crate) fn grant(&mut self, id: WriterId, from: u64, until: u64) {
        if !self.is_closed {
            self.generator.set_writer_id(id);
            self.generator.set_range(from, until);
            self.has_lease = true;
        }
    }

    pub(crate) fn extend(&mut self, until: u64) {
        if self.has_lease && !self.is_closed {
            self.generator.set_range_end(until);
        }
    }

    pub(crate) fn close(&mut self) -> u64 {
        let end = self.generator.next_time(0);
        self.generator.set_range(0, 0);
        self.is_closed = true;
        end
    }

    pub(crate) fn time(&mut self, now: u64, monotonic: impl FnOnce() -> Instant) -> KeyTime {
        // It is rarely called, so both clocks are read in any case.
        self.last_call = now;
        self.check_for_suspension(now, monotonic());
        KeyTime { next: self.generator.next_time(now), has_lease: self.has_lease }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const START: u64 = 1_800_000_000_000;

    fn id(id: u32) -> WriterId {
        WriterId::new(id).unwrap()
    }

    fn drawn() -> IdSource {
        let random = FreshRandom::new(StdRng::seed_from_u64(1), true);
        IdSource::Drawn { first: id(7), random: Box::new(random) }
    }

    /// The keys, with a wall clock and a monotonic one that tests move.
    struct Clocked {
        keys: Keys,
        wall: u64,
        monotonic: Instant,
    }

    impl Clocked {
        #[expect(clippy::disallowed_methods, reason = "an origin for the tests' own time line")]
        fn new(ids: IdSource) -> Self {
            let monotonic = Instant::now();
            Self { keys: Keys::new(ids, START, monotonic), wall: START, monotonic }
        }

        /// Lets `both` milliseconds pass on both clocks, and `wall` more on the wall clock.
        fn pass(&mut self, both: u64, wall: i64) -> &mut Self {
            self.wall = (self.wall + both).checked_add_signed(wall).unwrap();
            self.monotonic += Duration::from_millis(both);
            self
        }

        /// The five digits of the next key's writer id.
        fn next(&mut self) -> Result<String, NoKey> {
            let monotonic = self.monotonic;
            let key = self.keys.next(self.wall, || monotonic)?;
            Ok(key.as_str()[18..23].to_owned())
        }
    }

    #[test]
    fn drawn_id_is_replaced_after_a_suspension() {
        let mut keys = Clocked::new(drawn());
        assert_eq!(keys.next().unwrap(), "00007");
        assert_eq!(keys.pass(3_600_000, 900).next().unwrap(), "00007", "both clocks advanced");
        let second = keys.pass(0, 2_500).next().unwrap();
        assert_ne!(second, "00007");
        assert_eq!(keys.pass(5_000, 0).next().unwrap(), second);
    }

    #[test]
    fn clock_set_back_hides_no_later_suspension() {
        let mut keys = Clocked::new(drawn());
        keys.next().unwrap();
        assert_eq!(keys.pass(10, -3_600_000).next().unwrap(), "00007");
        assert_ne!(keys.pass(0, 2_500).next().unwrap(), "00007");
    }

    #[test]
    fn assigned_id_is_kept_after_a_suspension() {
        let mut keys = Clocked::new(IdSource::Assigned(id(3)));
        keys.next().unwrap();
        assert_eq!(keys.pass(0, 3_600_000).next().unwrap(), "00003");
        assert!(!keys.keys.abandon_writer_id());
    }

    #[test]
    fn shared_id_is_replaced_once_for_all_its_keys() {
        let mut keys = Clocked::new(drawn());
        let monotonic = keys.monotonic;
        let before = [(); 2].map(|()| keys.keys.next(START, || monotonic).unwrap());
        let replaced = keys.keys.abandon_shared_writer_id(&before[0]);
        assert_eq!(replaced, Some(SharedWriterId::Replaced));
        let after = keys.next().unwrap();
        assert_ne!(after, "00007");
        assert_eq!(keys.keys.abandon_shared_writer_id(&before[1]), None);
        assert_eq!(keys.next().unwrap(), after);
    }

    #[test]
    fn shared_assigned_id_is_kept_and_reported_once() {
        let mut keys = Clocked::new(IdSource::Assigned(id(7)));
        let key = keys.keys.next(START, || panic!("no gap")).unwrap();
        assert_eq!(keys.keys.abandon_shared_writer_id(&key), Some(SharedWriterId::Kept));
        assert_eq!(keys.keys.abandon_shared_writer_id(&key), None);
        assert_eq!(keys.next().unwrap(), "00007");
    }

    #[test]
    fn leased_keys_are_within_their_lease() {
        let mut keys = Clocked::new(IdSource::Leased);
        assert_eq!(keys.next(), Err(NoKey::NoLease));
        keys.keys.grant(id(4), START + 50, START + 100);
        assert_eq!(keys.next().unwrap(), "00004");
        assert_eq!(keys.pass(99, 0).next().unwrap(), "00004");
        assert_eq!(keys.pass(1, 0).next(), Err(NoKey::NoLease));
        keys.keys.extend(START + 200);
        assert_eq!(keys.next().unwrap(), "00004");
        assert_eq!(keys.keys.close(), START + 101);
        keys.keys.grant(id(5), START + 101, START + 200);
        assert_eq!(keys.next(), Err(NoKey::Closed));
    }

    #[test]
    fn lease_that_was_abandoned_is_not_extended() {
        let mut keys = Clocked::new(IdSource::Leased);
        keys.keys.grant(id(4), START, START + 60_000);
        keys.next().unwrap();
        assert_eq!(keys.pass(0, 2_500).next(), Err(NoKey::NoLease), "the process was suspended");
        keys.keys.extend(START + 60_000);
        assert_eq!(keys.next(), Err(NoKey::NoLease));
    }

    #[test]
    fn end_of_year_9999_differs_from_end_of_lease() {
        let mut keys = Clocked::new(IdSource::Leased);
        keys.keys.grant(id(4), START, START + 60_000);
        keys.wall = 253_402_300_800_000;
        keys.monotonic += Duration::from_millis(keys.wall - START);
        assert_eq!(keys.next(), Err(NoKey::YearOver));
    }
}
