//! [`WaitingQueue`]: the events that wait on disk, in their order.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use super::Next;
use crate::journal::Durability;
use crate::pending::WaitingEvent;

/// Below this length the queue is not searched for dropped tickets.
const MIN_LENGTH_TO_MERGE: usize = 4_096;

/// Waiting events in the order of their sequence numbers.
///
/// An event leaves memory when its record is durable. Durable events with consecutive numbers whose tickets are dropped
/// are merged into one [run](Entry::Run), which takes as much memory as one event.
pub(super) struct WaitingQueue {
    entries: VecDeque<Entry>,
    events: u64,
    /// The number of entries at the front whose records are known to be written, or lost.
    written: usize,
    /// The length at which the queue is searched for dropped tickets.
    merge_at: usize,
}

/// What the queue has of one event, or of several.
pub(super) enum Entry {
    Event(WaitingEvent),
    /// Durable events with consecutive numbers whose tickets are dropped.
    Run {
        first: NonZeroU64,
        events: u64,
    },
}

impl Default for WaitingQueue {
    fn default() -> Self {
        Self { entries: VecDeque::new(), events: 0, written: 0, merge_at: MIN_LENGTH_TO_MERGE }
    }
}

impl WaitingQueue {
    /// Number of events.
    pub(super) fn len(&self) -> u64 {
        self.events
    }

    /// Number of the last event.
    pub(super) fn last(&self) -> Option<NonZeroU64> {
        self.entries.back().map(Entry::last)
    }

    /// Adds an event. Drops the durable events from memory. If `can_merge`, also merges those whose tickets are dropped.
    pub(super) fn push(
        &mut self,
        event: WaitingEvent,
        durability: impl Fn(NonZeroU64) -> Durability,
        can_merge: bool,
    ) {
        self.entries.push_back(Entry::Event(event));
        self.events += 1;
        while let Some(Entry::Event(event)) = self.entries.get_mut(self.written) {
            match durability(event.sequence()) {
                Durability::Unwritten => break,
                Durability::Durable => event.keep_on_disk(),
                // Only memory has it.
                Durability::Lost => {}
            }
            self.written += 1;
        }
        if can_merge && self.entries.len() >= self.merge_at {
            self.merge();
            self.merge_at = (2 * self.entries.len()).max(MIN_LENGTH_TO_MERGE);
        }
    }

    /// Merges the entries whose records are written.
    fn merge(&mut self) {
        let mut merged: VecDeque<Entry> = VecDeque::new();
        let unwritten = self.entries.split_off(self.written);
        for waiting in self.entries.drain(..) {
            let run = waiting.into_run();
            match (merged.back_mut(), run) {
                (Some(Entry::Run { first, events }), Entry::Run { first: next, events: more })
                    if first.get() + *events == next.get() =>
                {
                    *events += more;
                }
                (_, waiting) => merged.push_back(waiting),
            }
        }
        self.written = merged.len();
        merged.extend(unwritten);
        self.entries = merged;
    }

    /// What is sent next: the first event if it is in memory, else at most `max_events` that are on disk.
    pub(super) fn first(&self, max_events: usize) -> Option<Next> {
        if let Entry::Event(first) = self.entries.front()?
            && let Some(event) = first.event()
        {
            return Some(Next::InMemory(first.sequence(), event.clone()));
        }
        let on_disk = self.entries.iter().take_while(|waiting| waiting.is_on_disk());
        let sequences = on_disk.flat_map(Entry::sequences).take(max_events);
        Some(Next::OnDisk(sequences.filter_map(NonZeroU64::new).collect()))
    }

    /// Takes out the event with this number, if it is the first.
    pub(super) fn pop(&mut self, sequence: NonZeroU64) -> Option<Entry> {
        let front = self.entries.front_mut()?;
        if front.first() != sequence {
            return None;
        }
        self.events -= 1;
        if let Entry::Run { first, events } = front
            && *events > 1
        {
            *first = first.saturating_add(1);
            *events -= 1;
            return Some(Entry::Run { first: sequence, events: 1 });
        }
        self.written = self.written.saturating_sub(1);
        self.entries.pop_front()
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.entries.into_iter()
    }
}

impl Entry {
    fn first(&self) -> NonZeroU64 {
        match self {
            Self::Event(event) => event.sequence(),
            Self::Run { first, .. } => *first,
        }
    }

    fn last(&self) -> NonZeroU64 {
        match self {
            Self::Event(event) => event.sequence(),
            Self::Run { first, events } => first.saturating_add(events.saturating_sub(1)),
        }
    }

    fn sequences(&self) -> std::ops::RangeInclusive<u64> {
        self.first().get()..=self.last().get()
    }

    fn is_on_disk(&self) -> bool {
        match self {
            Self::Event(event) => event.event().is_none(),
            Self::Run { .. } => true,
        }
    }

    /// A run of one event, if it is on disk and its ticket is dropped.
    fn into_run(self) -> Self {
        match self {
            Self::Event(event) if event.event().is_none() && event.is_without_ticket() => {
                Self::Run { first: event.sequence(), events: 1 }
            }
            other => other,
        }
    }
}
