//! What has become of the events so far, in numbers.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

/// The store's counters at one moment; see [`EventStore::stats`](crate::EventStore::stats).
///
/// `accepted == stored + failed + pending`, in every snapshot.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Events for which a put returned a ticket.
    pub accepted: u64,
    /// Events stored: acknowledged by the service, or found by a read.
    pub stored: u64,
    /// Events given up: their ticket holds a [`WriteError`](crate::WriteError).
    pub failed: u64,
    /// Events not yet settled.
    pub pending: u64,
    /// Attempts beyond an event's first, summed over all events.
    pub retried: u64,
    /// Calls made to the service (or to the store's [`BatchWriter`](crate::BatchWriter)).
    pub batches: u64,
    /// Events per call, as a share of the largest batch allowed; 0 before the first call.
    pub fill_ratio: f64,
}

/// The counters behind [`Stats`], shared by the handles and the worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    accepted: Apart<AtomicU64>,
    stored: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    batches: AtomicU64,
    batched_events: AtomicU64,
}

/// What every put writes, apart in memory from what the worker writes: what lies together is fetched
/// together by a processor, each time that another has written any of it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl Counters {
    pub(crate) fn accept(&self) {
        self.accepted.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes an [`accept`](Self::accept) back: the event could not be handed to the worker.
    pub(crate) fn refuse(&self) {
        self.accepted.0.fetch_sub(1, Ordering::Relaxed);
    }

    // Release, so that whoever sees events settled has also seen them accepted.
    pub(crate) fn settle(&self, events: u64, stored: bool) {
        let counter = if stored { &self.stored } else { &self.failed };
        counter.fetch_add(events, Ordering::Release);
    }

    pub(crate) fn send(&self, events: usize, retried: usize) {
        self.batched_events.fetch_add(events as u64, Ordering::Relaxed);
        self.retried.fetch_add(retried as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Events stored and events failed so far.
    pub(crate) fn settled(&self) -> (u64, u64) {
        (self.stored.load(Ordering::Acquire), self.failed.load(Ordering::Acquire))
    }

    pub(crate) fn snapshot(&self, max_batch_events: NonZeroUsize) -> Stats {
        // The settled are read first: an event can be accepted in between, never unaccepted.
        let (stored, failed) = self.settled();
        let accepted = self.accepted.0.load(Ordering::Acquire);
        let batches = self.batches.load(Ordering::Relaxed);
        let room = batches as f64 * max_batch_events.get() as f64;
        let batched_events = self.batched_events.load(Ordering::Relaxed) as f64;
        Stats {
            accepted,
            stored,
            failed,
            pending: accepted - stored - failed,
            retried: self.retried.load(Ordering::Relaxed),
            batches,
            fill_ratio: if batches == 0 { 0.0 } else { (batched_events / room).min(1.0) },
        }
    }
}
