//! Settling events: their tickets, the flushes that wait for them, and the close report.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::accounting::Accounting;
use crate::error::{Certainty, FailureReason, ReadBack};
use crate::pending::{CallTimes, PendingEvent, SettledError};
use crate::policy::BufferedEvent;
use crate::policy::barrier::Barrier;
use crate::report::{CloseReport, FlushReport};

/// Settles events, answers flushes, and collects the close report.
#[derive(Debug)]
pub(super) struct Settlement {
    accounting: Arc<Accounting>,
    barrier: Barrier<oneshot::Sender<FlushReport>>,
    report: CloseReport,
    /// Until close is called, failed events with dropped tickets are kept for the report up to these limits.
    max_unreported_events: usize,
    max_unreported_bytes: usize,
    unreported_bytes: usize,
}

impl Settlement {
    pub(super) fn new(
        accounting: Arc<Accounting>,
        max_unreported_events: usize,
        max_unreported_bytes: usize,
    ) -> Self {
        Self {
            accounting,
            barrier: Barrier::new(),
            report: CloseReport::default(),
            max_unreported_events,
            max_unreported_bytes,
            unreported_bytes: 0,
        }
    }

    /// Admits an accepted event.
    pub(super) fn admit(&mut self, event: &mut PendingEvent, now: Instant) {
        event.admit(&self.accounting, self.barrier.accept(), now);
    }

    /// Settles the events of an acknowledged call. `charge` is what the service charged for each of its write units, if
    /// it is known.
    pub(super) fn acknowledged(
        &mut self,
        mut batch: Vec<PendingEvent>,
        call: CallTimes,
        charge: Option<f64>,
    ) {
        PendingEvent::release_stored(&mut batch, &self.accounting);
        // Events that arrived together were accepted at the same time.
        #[cfg(feature = "metrics")]
        for events in batch.chunk_by(|event, next| event.accepted_at() == next.accepted_at()) {
            let latency = events.first().map(|event| event.elapsed(call.ended));
            self.accounting.metrics.stored_after(latency.unwrap_or_default(), events.len());
        }
        for event in batch {
            let epoch = event.epoch();
            event.settle_acknowledged(call, charge);
            self.barrier.settle(epoch, true);
        }
    }

    /// Settles an event that a read has found.
    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "metrics measure the time")
    )]
    pub(super) fn found(&mut self, event: PendingEvent, now: Instant) {
        #[cfg(feature = "metrics")]
        self.accounting.metrics.stored_after(event.elapsed(now), 1);
        let epoch = event.epoch();
        event.settle_found();
        self.barrier.settle(epoch, true);
    }

    /// Settles an event that failed. `read_back` is the result of its read-back, if there was one.
    ///
    /// The close report lists every failure since close was called, and those earlier failures whose tickets were
    /// dropped.
    pub(super) fn failed(
        &mut self,
        event: PendingEvent,
        reason: FailureReason,
        read_back: Option<(Certainty, ReadBack)>,
        now: Instant,
        is_closing: bool,
    ) {
        let (epoch, bytes) = (event.epoch(), event.event().buffered_bytes() as usize);
        let SettledError { error, was_received } = event.settle_failed(reason, read_back, now);
        self.barrier.settle(epoch, false);
        if is_closing {
            self.report.errors.push(error);
        } else if !was_received {
            let fits = self.report.errors.len() < self.max_unreported_events
                && self.unreported_bytes + bytes <= self.max_unreported_bytes;
            if fits {
                self.unreported_bytes += bytes;
                self.report.errors.push(error);
            } else {
                self.report.not_listed += 1;
            }
        }
    }

    /// Reports an event that has failed without the worker, as its record in the journal cannot be read.
    #[cfg(feature = "journal")]
    pub(super) fn unreadable(&mut self, was_received: bool, is_closing: bool) {
        let epoch = self.barrier.accept();
        self.barrier.settle(epoch, false);
        if is_closing || !was_received {
            self.report.not_listed += 1;
        }
    }

    /// Begins a flush: it waits for every event admitted until now.
    pub(super) fn flush(&mut self, reply: oneshot::Sender<FlushReport>) {
        self.barrier.flush(reply);
    }

    /// Answers the flushes whose events are all settled.
    pub(super) fn answer_flushes(&mut self) {
        while let Some((reply, report)) = self.barrier.pop_done() {
            // The caller may have dropped the flush.
            let _ = reply.send(report);
        }
    }

    /// The report. To be called once everything is settled.
    pub(super) fn report(&mut self) -> Arc<CloseReport> {
        let (stored, failed) = self.accounting.counters.settled();
        // If the last handle was dropped, nobody receives the report, and the log is the only trace of failures.
        if failed > 0 {
            tracing::warn!(stored, failed, "closed with failed events");
        } else {
            tracing::debug!(stored, "closed");
        }
        Arc::new(CloseReport { stored, failed, ..std::mem::take(&mut self.report) })
    }
}
