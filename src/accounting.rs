//! What an accepted event is entered in until it is settled.

use std::time::Instant;

use crate::flow_control::Room;
use crate::stats::Counters;

/// A store's room and counters, which its handles, its worker and its events share.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) room: Room,
    pub(crate) counters: Counters,
    /// The most room that one event takes.
    max_event_bytes: u32,
    /// When the store began.
    pub(crate) began: Instant,
}

impl Ledger {
    pub(crate) fn new(
        max_buffered_events: usize,
        max_buffered_bytes: usize,
        began: Instant,
    ) -> Self {
        let room = Room::new(max_buffered_events, max_buffered_bytes);
        let max_event_bytes = u32::try_from(max_buffered_bytes).unwrap_or(u32::MAX);
        Self { room, counters: Counters::default(), max_event_bytes, began }
    }

    /// Room for an event of so many bytes. One that is larger than all room takes all of it.
    pub(crate) fn room_for(&self, buffered_bytes: u32) -> u32 {
        buffered_bytes.min(self.max_event_bytes)
    }

    /// Strikes out events that are settled. This comes before their answers: whoever hears one finds the
    /// room, and the counters as they should be.
    pub(crate) fn settle(&self, entries: Entries, stored: bool) {
        self.counters.settle(entries.events, stored);
        self.room.leave(entries.events, entries.bytes);
    }
}

/// How much some events take up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entries {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl std::ops::AddAssign for Entries {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.bytes += more.bytes;
    }
}
