//! The store's counters: [`Counters`], which the handles and the worker update, and [`Stats`], a snapshot of them.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::ThrottlingLimit;

/// The store's counters at one moment; see [`EventStore::stats`](crate::EventStore::stats).
///
/// In every snapshot `accepted == stored + failed + pending`. All other counts are totals since the start, unless they
/// say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Events for which a put returned a ticket.
    pub accepted: u64,
    /// Events stored: acknowledged by the service, or found by a read.
    pub stored: u64,
    /// Events that failed: their tickets answer a [`WriteError`](crate::WriteError).
    pub failed: u64,
    /// Events not yet settled.
    pub pending: u64,
    /// Those of the pending events that wait on disk, in the journal, until the buffer has room for them; see
    #[cfg_attr(feature = "journal", doc = "[`overflow`](crate::JournalOptions::overflow).")]
    #[cfg_attr(not(feature = "journal"), doc = "the feature `journal`.")]
    pub waiting_on_disk: u64,
    /// Bytes of the journal: of its segment files, and of the events that are not written yet. 0 without a journal.
    pub journal_bytes: u64,
    /// Attempts beyond the first one of each event, summed over all events.
    pub retried: u64,
    /// Events that got a new key, as another item had theirs. Only with
    /// [`WriteMode::Insert`](crate::WriteMode::Insert).
    pub replaced_keys: u64,
    /// Write calls to the service, or to the store's [`BatchWriter`](crate::BatchWriter).
    pub batches: u64,
    /// Mean number of events per call, as a share of
    /// [`max_batch_events`](crate::EventStoreBuilder::max_batch_events), 0 to 1; 0 before the first call.
    pub fill_ratio: f64,
    /// Write units that may be sent per second now, limited by the table's capacity or the store's
    /// [budget](crate::EventStoreBuilder::max_write_units_per_second). `None` while neither limits them.
    pub write_units_per_second: Option<f64>,
    /// Write units of events that the table has throttled, summed over all attempts.
    pub throttled_units: u64,
    /// Calls that the table has throttled as a whole.
    pub throttled_batches: u64,
    /// The same calls, by the limit that the service named.
    pub throttled_batches_by_limit: ThrottledBatches,
    /// Write units that the service reports as consumed; 0 unless
    /// [`return_consumed_capacity`](crate::EventStoreBuilder::return_consumed_capacity) is set.
    pub consumed_write_units: f64,
    /// Accepted events of more than one write unit whose last unit holds at most 64 bytes. If there are many, slightly
    /// shorter events would save a unit each.
    pub just_over_write_unit: u64,
    /// How many calls may be in flight now: at most
    /// [`max_batches_in_flight`](crate::EventStoreBuilder::max_batches_in_flight).
    pub batches_in_flight_limit: u64,
    /// The time since the acceptance of the oldest event that waits to be sent, for the first time or again; zero if
    /// none waits.
    pub oldest_waiting: Duration,
}

/// Calls that the table has throttled as a whole, by the limit that the service named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ThrottledBatches {
    /// The limit of one partition, for its range of keys.
    pub key_range: u64,
    /// The table's provisioned capacity.
    pub provisioned: u64,
    /// The maximum throughput that is set on an on-demand table.
    pub max_on_demand: u64,
    /// The account's quota for a table.
    pub account: u64,
    /// No limit, or one that this crate does not know.
    pub unknown: u64,
}

impl ThrottledBatches {
    fn total(&self) -> u64 {
        let Self { key_range, provisioned, max_on_demand, account, unknown } = self;
        key_range + provisioned + max_on_demand + account + unknown
    }
}

/// The counters behind [`Stats`]. Handles and worker share them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    accepted: OwnCacheLine<AtomicU64>,
    waiting_on_disk: AtomicU64,
    stored: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    replaced_keys: AtomicU64,
    batches: AtomicU64,
    batched_events: AtomicU64,
    throttled_units: AtomicU64,
    throttled_batches: ThrottledCounters,
    /// The bits of a float. Only the worker writes it.
    consumed_write_units: AtomicU64,
    just_over_write_unit: AtomicU64,
    batches_in_flight_limit: AtomicU64,
    /// The bits of a float; 0 without a limit.
    write_units_per_second: AtomicU64,
    /// When the oldest waiting event was accepted, in nanoseconds since the store's start, plus one; 0 if none waits.
    oldest_accepted: AtomicU64,
}

/// The counters behind [`ThrottledBatches`].
#[derive(Debug, Default)]
struct ThrottledCounters {
    key_range: AtomicU64,
    provisioned: AtomicU64,
    max_on_demand: AtomicU64,
    account: AtomicU64,
    unknown: AtomicU64,
}

impl ThrottledCounters {
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

/// What limits the store's calls now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) write_units_per_second: Option<f64>,
    pub(crate) batches_in_flight: usize,
    /// When the oldest waiting event was accepted, as the time since the store's start.
    pub(crate) oldest_accepted: Option<Duration>,
}

/// A value in a cache line of its own. Every put writes the counter of accepted events, and the worker all others; in a
/// shared cache line the two would slow each other down (false sharing).
#[derive(Debug, Default)]
#[repr(align(128))]
struct OwnCacheLine<T>(T);

impl Counters {
    /// Counts an accepted event.
    pub(crate) fn accept(&self) {
        self.accepted.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets how many events wait on disk.
    #[cfg(feature = "journal")]
    pub(crate) fn set_waiting_on_disk(&self, events: u64) {
        self.waiting_on_disk.store(events, Ordering::Relaxed);
    }

    /// Undoes an [`accept`](Self::accept), because the event could not be sent to the worker.
    pub(crate) fn undo_accept(&self) {
        self.accepted.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts settled events.
    // Release ordering: a snapshot that counts an event as settled also counts it as accepted.
    pub(crate) fn settle(&self, events: u64, stored: bool) {
        let counter = if stored { &self.stored } else { &self.failed };
        counter.fetch_add(events, Ordering::Release);
    }

    /// Counts a call that carries this many events, `retried` of which were sent before.
    pub(crate) fn send(&self, events: usize, retried: usize) {
        self.batched_events.fetch_add(events as u64, Ordering::Relaxed);
        self.retried.fetch_add(retried as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that gets a new key.
    pub(crate) fn replace_key(&self) {
        self.replaced_keys.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts throttled write units.
    pub(crate) fn throttle(&self, units: u64) {
        self.throttled_units.fetch_add(units, Ordering::Relaxed);
    }

    /// Counts a call that was throttled as a whole for this limit.
    pub(crate) fn throttle_batch(&self, limit: ThrottlingLimit) {
        self.throttled_batches.counter(limit).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts consumed write units. Only the worker may call this, as it is not one atomic step.
    pub(crate) fn consume(&self, write_units: f64) {
        let before = f64::from_bits(self.consumed_write_units.load(Ordering::Relaxed));
        self.consumed_write_units.store((before + write_units).to_bits(), Ordering::Relaxed);
    }

    /// Counts accepted events whose last write unit holds only a few bytes.
    pub(crate) fn admit_just_over_write_unit(&self, events: u64) {
        if events > 0 {
            self.just_over_write_unit.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// Sets what limits the calls now.
    pub(crate) fn set_limits(&self, limits: Limits) {
        let Limits { write_units_per_second, batches_in_flight, oldest_accepted } = limits;
        let write_units_per_second = write_units_per_second.map_or(0, f64::to_bits);
        self.write_units_per_second.store(write_units_per_second, Ordering::Relaxed);
        self.batches_in_flight_limit.store(batches_in_flight as u64, Ordering::Relaxed);
        let oldest_accepted = oldest_accepted.map_or(0, |since| since.as_nanos() as u64 + 1);
        self.oldest_accepted.store(oldest_accepted, Ordering::Relaxed);
    }

    /// Stored and failed events.
    pub(crate) fn settled(&self) -> (u64, u64) {
        (self.stored.load(Ordering::Acquire), self.failed.load(Ordering::Acquire))
    }

    /// The counters at `age` after the store's start.
    pub(crate) fn snapshot(&self, max_batch_events: NonZeroUsize, age: Duration) -> Stats {
        // Settled events are read first. Until accepted events are read, only further events can be accepted, so
        // `accepted` includes all that are settled.
        let (stored, failed) = self.settled();
        let accepted = self.accepted.0.load(Ordering::Acquire);
        let batches = self.batches.load(Ordering::Relaxed);
        let max_batched_events = batches as f64 * max_batch_events.get() as f64;
        let throttled = self.throttled_batches.snapshot();
        let batched_events = self.batched_events.load(Ordering::Relaxed) as f64;
        Stats {
            accepted,
            stored,
            failed,
            pending: accepted - stored - failed,
            waiting_on_disk: self.waiting_on_disk.load(Ordering::Relaxed),
            journal_bytes: 0,
            retried: self.retried.load(Ordering::Relaxed),
            replaced_keys: self.replaced_keys.load(Ordering::Relaxed),
            batches,
            fill_ratio: if batches == 0 {
                0.0
            } else {
                (batched_events / max_batched_events).min(1.0)
            },
            write_units_per_second: match self.write_units_per_second.load(Ordering::Relaxed) {
                0 => None,
                bits => Some(f64::from_bits(bits)),
            },
            throttled_units: self.throttled_units.load(Ordering::Relaxed),
            throttled_batches: throttled.total(),
            throttled_batches_by_limit: throttled,
            consumed_write_units: f64::from_bits(self.consumed_write_units.load(Ordering::Relaxed)),
            just_over_write_unit: self.just_over_write_unit.load(Ordering::Relaxed),
            batches_in_flight_limit: self.batches_in_flight_limit.load(Ordering::Relaxed),
            oldest_waiting: match self.oldest_accepted.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                since => age.saturating_sub(Duration::from_nanos(since - 1)),
            },
        }
    }
}
