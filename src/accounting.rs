//! What an accepted event is counted in until it is settled.

use std::time::Instant;

use crate::flow_control::FlowControl;
use crate::stats::Counters;

/// A store's flow control and counters, which its handles, its worker and its events share.
#[derive(Debug)]
pub(crate) struct Accounting {
    pub(crate) flow_control: FlowControl,
    pub(crate) counters: Counters,
    /// Bytes of the whole buffer, which one event takes at most.
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

    /// Bytes of the permit for an event that takes so many. An event that is larger than the whole buffer takes the
    /// whole buffer.
    pub(crate) fn permit_bytes(&self, buffered_bytes: u32) -> u32 {
        buffered_bytes.min(self.max_event_bytes)
    }

    /// Counts events as settled and releases their permits. This comes before their answers, so whoever receives one
    /// finds the counters and the buffer as they should be.
    pub(crate) fn settle(&self, usage: Usage, stored: bool) {
        self.counters.settle(usage.events, stored);
        self.flow_control.release(usage.events, usage.bytes);
    }
}

/// What some events use of the buffer.
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
