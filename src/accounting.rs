//! A store's flow control, counters, deadline, journal, hook and metrics, which its handles, its worker and its pending
//! events share.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::FailureReason;
use crate::flow_control::FlowControl;
#[cfg(feature = "journal")]
use crate::journal::ActiveJournal;
#[cfg(feature = "metrics")]
use crate::metrics::StoreMetrics;
use crate::settled::Settled;
use crate::settled::hook::SettledSender;
use crate::stats::{Counters, Stats};

/// Every accepted event is counted here until it is settled.
#[derive(Debug)]
pub(crate) struct Accounting {
    pub(crate) flow_control: FlowControl,
    pub(crate) counters: Counters,
    /// The limit of the buffer in bytes: no permit takes more.
    max_event_bytes: u32,
    /// How long after its acceptance an event fails.
    pub(crate) event_deadline: Duration,
    /// When the store was started.
    pub(crate) started_at: Instant,
    /// Whether the subscriber wanted the span of the last call, so that calls are linked to the callers' spans. True
    /// until the first call. `span_enabled!` in each put would tell it sooner, but then the per-layer filters of
    /// `tracing-subscriber` can lose the caller's next span: they remember the answer for it.
    pub(crate) links_calls: AtomicBool,
    #[cfg(feature = "journal")]
    pub(crate) journal: Option<ActiveJournal>,
    /// To the hook that learns of each event, if there is one.
    pub(crate) hook: Option<SettledSender>,
    #[cfg(feature = "metrics")]
    pub(crate) metrics: StoreMetrics,
}

impl Accounting {
    pub(crate) fn new(
        max_buffered_events: usize,
        max_buffered_bytes: usize,
        event_deadline: Duration,
        started_at: Instant,
        #[cfg(feature = "metrics")] metrics: StoreMetrics,
    ) -> Self {
        let flow_control = FlowControl::new(max_buffered_events, max_buffered_bytes);
        let max_event_bytes = u32::try_from(max_buffered_bytes).unwrap_or(u32::MAX);
        Self {
            flow_control,
            counters: Counters::default(),
            max_event_bytes,
            event_deadline,
            started_at,
            links_calls: AtomicBool::new(true),
            #[cfg(feature = "journal")]
            journal: None,
            hook: None,
            #[cfg(feature = "metrics")]
            metrics,
        }
    }

    /// The bytes of the permit for an event that takes `buffered_bytes` of memory. An event that is larger than the
    /// buffer's limit takes the whole buffer.
    pub(crate) fn permit_bytes(&self, buffered_bytes: u32) -> u32 {
        buffered_bytes.min(self.max_event_bytes)
    }

    /// Counts events as failed if there is a reason, else as stored, and releases their permits. To be called before
    /// their tickets are answered, so that a caller who receives an answer finds it in the counters.
    pub(crate) fn settle(&self, usage: Usage, failure: Option<FailureReason>) {
        self.counters.settle(usage.events, failure.is_none());
        #[cfg(feature = "metrics")]
        self.metrics.settle(usage.events, usage.bytes, failure);
        self.flow_control.release(usage.events, usage.bytes);
    }

    /// Counts events that waited on disk as failed. They have no permits.
    #[cfg(feature = "journal")]
    pub(crate) fn settle_waiting(&self, events: u64, reason: FailureReason) {
        self.counters.settle(events, false);
        #[cfg(feature = "metrics")]
        {
            self.metrics.accept(events, 0);
            self.metrics.settle(events, 0, Some(reason));
        }
        #[cfg(not(feature = "metrics"))]
        let _ = reason;
    }

    /// The counters at this time.
    pub(crate) fn stats(&self, max_batch_events: NonZeroUsize, now: Instant) -> Stats {
        let age = now.saturating_duration_since(self.started_at);
        let stats = self.counters.snapshot(max_batch_events, age);
        #[cfg(feature = "journal")]
        let stats = Stats {
            journal_bytes: self.journal.as_ref().map_or(0, ActiveJournal::total_bytes),
            ..stats
        };
        stats
    }

    /// Sets whether calls are linked to the callers' spans. It is written only if it changes, as every put reads it.
    pub(crate) fn link_calls(&self, links_calls: bool) {
        if self.links_calls.load(Ordering::Relaxed) != links_calls {
            self.links_calls.store(links_calls, Ordering::Relaxed);
        }
    }

    /// Reports a settled event to the hook, if there is one.
    pub(crate) fn report_settled(&self, settled: impl FnOnce() -> Settled) {
        if let Some(hook) = &self.hook {
            hook.send(settled());
        }
    }
}

/// How much of the buffer some events use.
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
