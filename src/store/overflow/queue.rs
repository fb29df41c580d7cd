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
        let event = self.entries.pop_front();
        if self.entries.is_empty() {
            // Gives the memory back. And the next events are searched for dropped tickets as early as the first ones.
            *self = Self::default();
        }
        event
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

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::accounting::Accounting;
    use crate::error::Uncertainty;
    use crate::event::Event;
    use crate::journal::{ActiveJournal, Journal};
    use crate::pending::PutTicket;
    use crate::store::config::Config;

    const KEY: &str = "20130927T005240652508858176";

    /// A queue, and what its events are made of.
    struct Fixture {
        queue: WaitingQueue,
        journal: ActiveJournal,
        accounting: Accounting,
        _folder: tempfile::TempDir,
    }

    impl Fixture {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (journal, _) = Journal::open(folder.path()).await.unwrap().start().unwrap();
            let accounting = Config::default().accounting(&Handle::current());
            let queue = WaitingQueue::default();
            Self { queue, journal, accounting, _folder: folder }
        }

        /// Adds an event whose record counts as durable.
        fn push(&mut self, uncertainty_before: Uncertainty) -> (NonZeroU64, PutTicket) {
            let event = Event::new(KEY.parse().unwrap(), "1").unwrap();
            let room = self.journal.try_reserve(event.encoded_body().len()).unwrap();
            let position = self.journal.append(&event, room);
            let sequence = position.sequence();
            let accounting = &self.accounting;
            let (event, ticket) =
                WaitingEvent::new(event, uncertainty_before, position, accounting);
            self.queue.push(event, |_| Durability::Durable, true);
            (sequence, ticket)
        }
    }

    #[tokio::test]
    async fn events_without_tickets_take_no_memory_after_a_long_queue_too() {
        let mut fixture = Fixture::new().await;
        let pushed: Vec<_> = (0..10_000).map(|_| fixture.push(Uncertainty::None)).collect();
        assert_eq!(fixture.queue.entries.len(), 10_000);
        for (sequence, _) in pushed {
            assert!(fixture.queue.pop(sequence).is_some());
        }
        assert_eq!(fixture.queue.entries.capacity(), 0);
        for _ in 0..MIN_LENGTH_TO_MERGE {
            drop(fixture.push(Uncertainty::None));
        }
        assert_eq!(fixture.queue.len(), MIN_LENGTH_TO_MERGE as u64);
        // A run, and the last one, whose ticket was not dropped when it was put.
        assert_eq!(fixture.queue.entries.len(), 2);
    }

    #[tokio::test]
    async fn event_that_an_earlier_put_may_have_stored_is_not_merged() {
        let mut fixture = Fixture::new().await;
        for number in 0..MIN_LENGTH_TO_MERGE {
            let is_put_again = number == 1_000;
            let uncertainty =
                if is_put_again { Uncertainty::CallsMayStillApply } else { Uncertainty::None };
            drop(fixture.push(uncertainty));
        }
        let [Entry::Run { events: 1_000, .. }, Entry::Event(event), Entry::Run { .. }, _last] =
            &*fixture.queue.entries.make_contiguous()
        else {
            panic!("the event is part of a run");
        };
        assert_eq!(event.sequence().get(), 1_001);
    }

    #[tokio::test]
    async fn run_has_no_event_that_did_not_wait() {
        let mut fixture = Fixture::new().await;
        for number in 0..MIN_LENGTH_TO_MERGE {
            if number == 1_000 {
                // A put that found room in the buffer.
                let event = Event::new(KEY.parse().unwrap(), "1").unwrap();
                let room = fixture.journal.try_reserve(event.encoded_body().len()).unwrap();
                fixture.journal.append(&event, room);
            }
            drop(fixture.push(Uncertainty::None));
        }
        let [Entry::Run { events: 1_000, .. }, Entry::Run { first, .. }, _last] =
            &*fixture.queue.entries.make_contiguous()
        else {
            panic!("the event is part of a run");
        };
        assert_eq!(first.get(), 1_002);
    }

    #[tokio::test]
    async fn event_leaves_memory_after_others_are_sent() {
        let mut fixture = Fixture::new().await;
        let pushed: Vec<_> = (0..10).map(|_| fixture.push(Uncertainty::None)).collect();
        for (sequence, _) in pushed.iter().take(9) {
            assert!(fixture.queue.pop(*sequence).is_some());
        }
        let _ticket = fixture.push(Uncertainty::None);
        assert!(fixture.queue.entries.iter().all(Entry::is_on_disk));
    }
}
