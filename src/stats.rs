//! What has become of the events so far, in numbers.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::ThrottlingLimit;

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
    /// Write units that leave in a second, while the table's capacity or the store's
    /// [budget](crate::EventStoreBuilder::max_write_units_per_second) limits them. `None` while nothing does.
    pub write_units_per_second: Option<f64>,
    /// Write units of events that the table refused for its capacity, summed over all attempts.
    pub throttled_units: u64,
    /// Calls of which the table refused all for its capacity.
    pub throttled_batches: u64,
    /// The same calls, by the limit that the service named.
    pub throttled_batches_by_limit: ThrottledBatches,
    /// Write units that the service says it has charged for the calls it took; 0 unless
    /// [`return_consumed_capacity`](crate::EventStoreBuilder::return_consumed_capacity) is set.
    pub consumed_write_units: f64,
    /// Calls that may be in flight now: at most
    /// [`max_batches_in_flight`](crate::EventStoreBuilder::max_batches_in_flight).
    pub batches_in_flight_limit: u64,
    /// How long the oldest event has waited to be sent, of those that wait; zero where none does.
    pub oldest_waiting: Duration,
}

/// Calls of which the table refused all for its capacity, by the limit that the service named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ThrottledBatches {
    /// One range of keys was used more than a partition allows.
    pub key_range: u64,
    /// The table's provisioned capacity was used up.
    pub provisioned: u64,
    /// The maximum that the on-demand table was given was reached.
    pub max_on_demand: u64,
    /// The account's quota for one table was reached.
    pub account: u64,
    /// The service named no limit, or one that this crate does not know.
    pub unknown: u64,
}

impl ThrottledBatches {
    fn total(&self) -> u64 {
        let Self { key_range, provisioned, max_on_demand, account, unknown } = self;
        key_range + provisioned + max_on_demand + account + unknown
    }
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
    throttled_units: AtomicU64,
    throttled_by: ThrottledBy,
    /// The bits of a float, which the worker alone writes.
    consumed: AtomicU64,
    in_flight_limit: AtomicU64,
    /// The bits of a float; 0 without a limit.
    pace: AtomicU64,
    /// When the oldest event that waits was accepted, in nanoseconds after the store began, plus one; 0 where
    /// none waits.
    oldest: AtomicU64,
}

/// Calls refused as a whole, by the limit that the service named.
#[derive(Debug, Default)]
struct ThrottledBy {
    key_range: AtomicU64,
    provisioned: AtomicU64,
    max_on_demand: AtomicU64,
    account: AtomicU64,
    unknown: AtomicU64,
}

impl ThrottledBy {
    fn counter(&self, limit: ThrottlingLimit) -> &AtomicU64 {
        match limit {
            ThrottlingLimit::KeyRange => &self.key_range,
            ThrottlingLimit::Provisioned => &self.provisioned,
            ThrottlingLimit::MaxOnDemand => &self.max_on_demand,
            ThrottlingLimit::Account => &self.account,
            ThrottlingLimit::Unknown => &self.unknown,
        }
    }

    fn snapshot(&self) -> ThrottledBatches {
        ThrottledBatches {
            key_range: self.key_range.load(Ordering::Relaxed),
            provisioned: self.provisioned.load(Ordering::Relaxed),
            max_on_demand: self.max_on_demand.load(Ordering::Relaxed),
            account: self.account.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }
}

/// What limits the store's calls at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) write_units_per_second: Option<f64>,
    pub(crate) batches_in_flight: usize,
    /// When the oldest event that waits was accepted, counted from the store's beginning.
    pub(crate) oldest: Option<Duration>,
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

    /// Counts units that the table refused for its capacity.
    pub(crate) fn throttle(&self, units: u64) {
        self.throttled_units.fetch_add(units, Ordering::Relaxed);
    }

    /// Counts a call of which the table refused all, for this limit.
    pub(crate) fn throttle_batch(&self, limit: ThrottlingLimit) {
        self.throttled_by.counter(limit).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts write units that the service has charged. For the worker alone.
    pub(crate) fn consume(&self, write_units: f64) {
        let before = f64::from_bits(self.consumed.load(Ordering::Relaxed));
        self.consumed.store((before + write_units).to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn limit(&self, limits: Limits) {
        let Limits { write_units_per_second, batches_in_flight, oldest } = limits;
        self.pace.store(write_units_per_second.map_or(0, f64::to_bits), Ordering::Relaxed);
        self.in_flight_limit.store(batches_in_flight as u64, Ordering::Relaxed);
        let oldest = oldest.map_or(0, |since| since.as_nanos() as u64 + 1);
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Events stored and events failed so far.
    pub(crate) fn settled(&self) -> (u64, u64) {
        (self.stored.load(Ordering::Acquire), self.failed.load(Ordering::Acquire))
    }

    /// The counters, so long after the store's beginning.
    pub(crate) fn snapshot(&self, max_batch_events: NonZeroUsize, age: Duration) -> Stats {
        // The settled are read first: an event can be accepted in between, never unaccepted.
        let (stored, failed) = self.settled();
        let accepted = self.accepted.0.load(Ordering::Acquire);
        let batches = self.batches.load(Ordering::Relaxed);
        let room = batches as f64 * max_batch_events.get() as f64;
        let throttled = self.throttled_by.snapshot();
        let batched_events = self.batched_events.load(Ordering::Relaxed) as f64;
        Stats {
            accepted,
            stored,
            failed,
            pending: accepted - stored - failed,
            retried: self.retried.load(Ordering::Relaxed),
            batches,
            fill_ratio: if batches == 0 { 0.0 } else { (batched_events / room).min(1.0) },
            write_units_per_second: match self.pace.load(Ordering::Relaxed) {
                0 => None,
                bits => Some(f64::from_bits(bits)),
            },
            throttled_units: self.throttled_units.load(Ordering::Relaxed),
            throttled_batches: throttled.total(),
            throttled_batches_by_limit: throttled,
            consumed_write_units: f64::from_bits(self.consumed.load(Ordering::Relaxed)),
            batches_in_flight_limit: self.in_flight_limit.load(Ordering::Relaxed),
            oldest_waiting: match self.oldest.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                since => age.saturating_sub(Duration::from_nanos(since - 1)),
            },
        }
    }
}
