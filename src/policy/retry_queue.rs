//! A queue of events that are sent again, each when it is ready. The [buffer](super::buffer) has two such queues.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::BufferedEvent;

/// Events in the order of the moments at which they become ready.
#[derive(Debug)]
pub(crate) struct RetryQueue<T> {
    retries: BTreeMap<Position, T>,
    /// The same events in the order of their deadlines.
    expiries: BTreeSet<(Instant, Position)>,
    next_number: u64,
}

/// An event's position in the queue. The number orders events that become ready at the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    ready_at: Instant,
    number: u64,
    /// If set, the event shares a batch only with events of this group. A group has consecutive positions.
    pub(crate) group: Option<u64>,
}

impl<T: BufferedEvent> RetryQueue<T> {
    pub(crate) fn new() -> Self {
        Self { retries: BTreeMap::new(), expiries: BTreeSet::new(), next_number: 0 }
    }

    /// Adds an event that is not to be sent before `ready_at`.
    pub(crate) fn push(&mut self, item: T, group: Option<u64>, ready_at: Instant) {
        let position = Position { ready_at, number: self.next_number, group };
        self.next_number += 1;
        self.insert(item, position);
    }

    /// Puts an event back at its position.
    pub(crate) fn insert(&mut self, item: T, position: Position) {
        self.expiries.insert((item.expires_at(), position));
        self.retries.insert(position, item);
    }

    /// The first event, if it may be sent at `now`.
    pub(crate) fn first_ready(&self, now: Instant) -> Option<(Position, &T)> {
        let (&position, item) = self.retries.first_key_value()?;
        (position.ready_at <= now).then_some((position, item))
    }

    pub(crate) fn remove(&mut self, position: Position) -> Option<T> {
        let item = self.retries.remove(&position)?;
        self.expiries.remove(&(item.expires_at(), position));
        Some(item)
    }

    /// Removes the first event, ready or not.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let position = *self.retries.keys().next()?;
        self.remove(position)
    }

    /// Removes an event whose deadline has passed at `now`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<T> {
        let (expires_at, position) = *self.expiries.first()?;
        if expires_at > now {
            return None;
        }
        self.remove(position)
    }

    /// When the first event becomes ready.
    pub(crate) fn next_ready(&self) -> Option<Instant> {
        self.retries.keys().next().map(|position| position.ready_at)
    }

    /// When the next event fails.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(expires_at, _)| *expires_at)
    }

    pub(crate) fn len(&self) -> usize {
        debug_assert_eq!(self.retries.len(), self.expiries.len());
        self.retries.len()
    }
}
