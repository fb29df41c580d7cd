//! Accepted events and how they end: which flush hears of them, and which report.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::accounting::Accounting;
use crate::error::{Certainty, FailureReason, ReadBack};
use crate::event::Event;
use crate::pending::{Accepted, Answered, Pending, Proof};
use crate::policy::Waiting;
use crate::policy::barrier::{Barrier, Epoch};
use crate::report::{CloseReport, FlushReport};

/// An accepted event in the worker's hands.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pending: Pending,
    epoch: Epoch,
    pub(super) expires_at: Instant,
}

impl Waiting for Held {
    fn event(&self) -> &Event {
        self.pending.event()
    }

    fn expires_at(&self) -> Instant {
        self.expires_at
    }
}

/// Settles events, answers flushes, and keeps what the close report will say.
#[derive(Debug)]
pub(super) struct Settlement {
    accounting: Arc<Accounting>,
    barrier: Barrier<oneshot::Sender<FlushReport>>,
    report: CloseReport,
    /// Failed events whose tickets were dropped are kept for the report up to these bounds.
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

    /// Takes an event over, to be given up at `expires_at`.
    pub(super) fn hold(&mut self, accepted: Accepted, now: Instant, expires_at: Instant) -> Held {
        let pending = Pending::new(accepted, &self.accounting, now);
        Held { pending, epoch: self.barrier.accept(), expires_at }
    }

    /// Settles what a call was acknowledged for.
    pub(super) fn acknowledged(&mut self, mut batch: Vec<Held>, now: Instant) {
        Pending::release_stored(batch.iter_mut().map(|held| &mut held.pending), &self.accounting);
        for held in batch {
            self.stored(held, Proof::Acknowledged, now);
        }
    }

    pub(super) fn stored(&mut self, held: Held, proof: Proof, now: Instant) {
        held.pending.stored(proof, now);
        self.barrier.settle(held.epoch, true);
    }

    /// Gives an event up, with what reading it back has left of the doubt, if it was read back. While
    /// the store is closing, the report lists every one; before that, those of which no ticket heard.
    pub(super) fn settle_failed(
        &mut self,
        held: Held,
        reason: FailureReason,
        read_back: Option<(Certainty, ReadBack)>,
        now: Instant,
        closing: bool,
    ) {
        let bytes = self.accounting.permit_bytes(held.event().buffered_bytes()) as usize;
        let Answered { error, was_received } = match read_back {
            Some((certainty, read_back)) => {
                held.pending.settle_failed_after_read(certainty, read_back, reason, now)
            }
            None => held.pending.settle_failed(reason, now),
        };
        self.barrier.settle(held.epoch, false);
        if closing {
            self.report.not_stored.push(error);
        } else if !was_received {
            let has_room = self.report.not_stored.len() < self.max_unreported_events
                && self.unreported_bytes + bytes <= self.max_unreported_bytes;
            if has_room {
                self.unreported_bytes += bytes;
                self.report.not_stored.push(error);
            } else {
                self.report.not_listed += 1;
            }
        }
    }

    /// Begins a flush of everything held until now.
    pub(super) fn flush(&mut self, reply: oneshot::Sender<FlushReport>) {
        self.barrier.flush(reply);
    }

    /// Answers the flushes that wait for nothing any more.
    pub(super) fn answer_flushes(&mut self) {
        while let Some((reply, report)) = self.barrier.pop_done() {
            // Whoever asked may have gone.
            let _ = reply.send(report);
        }
    }

    /// The report, once everything is settled.
    pub(super) fn report(&mut self) -> Arc<CloseReport> {
        let (stored, failed) = self.accounting.counters.settled();
        // Also where the last handle is gone and nobody will read it: the log has it then.
        if failed > 0 {
            tracing::warn!(stored, failed, "closed with events that were not stored");
        } else {
            tracing::debug!(stored, "closed");
        }
        Arc::new(CloseReport { stored, failed, ..std::mem::take(&mut self.report) })
    }
}
