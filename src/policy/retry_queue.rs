//! Events that were sent and are to be sent again, each from some moment on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Waiting;

/// Events in the order of the moments from which they may be sent.
#[derive(Debug)]
pub(crate) struct RetryQueue<T> {
    retries: BTreeMap<Place, T>,
    /// Deadlines of `retries`, which are in another order.
    expiries: BTreeSet<(Instant, Place)>,
    next_number: u64,
}

/// Where an event stands in the queue. The number keeps those apart that are ready at the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    ready_at: Instant,
    number: u64,
    /// The event shares its batch with this group alone; `None` for any. A group has consecutive places.
    pub(crate) group: Option<u64>,
}

impl<T: Waiting> RetryQueue<T> {
    pub(crate) fn new() -> Self {
        Self { retries: BTreeMap::new(), expiries: BTreeSet::new(), next_number: 0 }
    }

    /// Adds an event that is not to be sent before `ready_at`.
    pub(crate) fn push(&mut self, item: T, group: Option<u64>, ready_at: Instant) {
        let place = Place { ready_at, number: self.next_number, group };
        self.next_number += 1;
        self.insert(item, place);
    }

    /// Puts an event back to where it stood.
    pub(crate) fn insert(&mut self, item: T, place: Place) {
        self.expiries.insert((item.expires_at(), place));
        self.retries.insert(place, item);
    }

    /// The first event, if it may be sent at `now`.
    pub(crate) fn first_ready(&self, now: Instant) -> Option<(Place, &T)> {
        let (&place, item) = self.retries.first_key_value()?;
        (place.ready_at <= now).then_some((place, item))
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<T> {
        let item = self.retries.remove(&place)?;
        self.expiries.remove(&(item.expires_at(), place));
        Some(item)
    }

    /// Removes any event.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let place = *self.retries.keys().next()?;
        self.remove(place)
    }

    /// Removes an event whose deadline has passed at `now`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<T> {
        let (expires_at, place) = *self.expiries.first()?;
        if expires_at > now {
            return None;
        }
        self.remove(place)
    }

    /// When the first event may be sent.
    pub(crate) fn next_ready(&self) -> Option<Instant> {
        self.retries.keys().next().map(|place| place.ready_at)
    }

    /// When the first event is to be given up.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(expires_at, _)| *expires_at)
    }

    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.retries.len(), self.expiries.len());
        self.retries.len()
    }
}
