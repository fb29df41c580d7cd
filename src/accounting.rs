//! What an accepted event is entered in until it is settled.

use std::time::Instant;

use crate::flow_control::FlowControl;
use crate::stats::Counters;

/// A store's room and counters, which its handles, its worker and its events share.
#[derive(Debug)]
pub(crate) struct Accounting {
    pub(crate) flow_control: FlowControl,
    pub(crate) counters: Counters,
    /// The most room that one event takes.
    max_event_bytes: u32,
    /// When the store began.
    pub(crate) began: Instant,
}

impl Accounting {
    pub(crate) fn new(
        max_buffered_events: usize,
        max_buffered_bytes: usize,
        began: Instant,
    ) -> Self {
        let flow_control = FlowControl::new(max_buffered_events, max_buffered_bytes);
        let max_event_bytes = u32::try_from(max_buffered_bytes).unwrap_or(u32::MAX);
        Self { flow_control, counters: Counters::default(), max_event_bytes, began }
    }

    /// FlowControl for an event of so many bytes. One that is larger than all room takes all of it.
    pub(crate) fn permit_bytes(&self, buffered_bytes: u32) -> u32 {
        buffered_bytes.min(self.max_event_bytes)
    }

    /// Strikes out events that are settled. This comes before their answers: whoever hears one finds the
    /// room, and the counters as they should be.
    pub(crate) fn settle(&self, entries: Usage, stored: bool) {
        self.counters.settle(entries.events, stored);
        self.flow_control.release(entries.events, entries.bytes);
    }
}

/// How much some events take up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.bytes += more.bytes;
    }
}
