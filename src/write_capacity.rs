//! The write capacity of local and fake tables: token buckets by DynamoDB's rules.
//!
//! The rules come from the developer guide's pages on
//! [capacity](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/provisioned-capacity-mode.html),
//! [burst and adaptive
//! capacity](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/burst-adaptive-capacity.html),
//! [on-demand](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html) and
//! [throttling](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/throttling-diagnosing-workflow.html):
//!
//! - a table gains units at a constant rate, and keeps unused units of up to 300 s;
//! - a partition gives 1,000 write units a second, and a hash of its key assigns an item to a partition;
//! - an item is accepted while each of its buckets holds more than zero units; it may take them below zero;
//! - a new on-demand table takes 4,000 units a second, and later twice its previous peak.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Write units that one partition gives a second.
const PARTITION_UNITS: f64 = 1_000.0;

/// The longest time for which a table keeps unused units.
const LONGEST_BURST: Duration = Duration::from_secs(300);

/// Write units a second of a new on-demand table.
const NEW_ON_DEMAND_UNITS: f64 = 4_000.0;

/// The time until a new peak of an on-demand table counts as its previous peak.
const PEAK_PERIOD: Duration = Duration::from_secs(30 * 60);

/// The write capacity of a table, and its latency. All times count from the start of the table.
///
/// ```
/// use std::time::Duration;
///
/// use dynamodb_eventstore::WriteCapacity;
///
/// // 4,000 write units a second on four partitions, with unused units kept for a second.
/// let capacity = WriteCapacity::provisioned(4_000).burst(Duration::from_secs(1));
/// // Half of it after a minute.
/// let capacity = capacity.changed_to(2_000, Duration::from_secs(60));
/// # let _ = capacity;
/// ```
#[derive(Debug, Clone)]
pub struct WriteCapacity {
    units: f64,
    is_on_demand: bool,
    partitions: Option<usize>,
    burst: Duration,
    saved: Duration,
    changes: Vec<(Duration, f64)>,
    busy: Option<BusyPartition>,
    max_on_demand: Option<f64>,
    account: Option<f64>,
    latency: Duration,
    latency_at_limit: Duration,
}

impl WriteCapacity {
    /// A provisioned table with this many write units a second. It has as many partitions as these units
    /// need, keeps unused units of 300 s, and starts with none.
    #[must_use]
    pub fn provisioned(write_units_per_second: u32) -> Self {
        Self {
            units: write_units_per_second.into(),
            is_on_demand: false,
            partitions: None,
            burst: LONGEST_BURST,
            saved: Duration::ZERO,
            changes: Vec::new(),
            busy: None,
            max_on_demand: None,
            account: None,
            latency: Duration::ZERO,
            latency_at_limit: Duration::ZERO,
        }
    }

    /// An on-demand table: 4,000 write units a second, or twice its previous peak if that is more. A new
    /// peak counts after half an hour.
    #[must_use]
    pub fn on_demand(previous_peak: u32) -> Self {
        let units = NEW_ON_DEMAND_UNITS.max(2.0 * f64::from(previous_peak));
        Self { units, is_on_demand: true, ..Self::provisioned(0) }
    }

    /// Sets the number of partitions, with 1,000 units a second each. At least 1.
    #[must_use]
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = Some(partitions.max(1));
        self
    }

    /// Sets how long unused units are kept, at most 300 s.
    #[must_use]
    pub fn burst(mut self, burst: Duration) -> Self {
        self.burst = burst.min(LONGEST_BURST);
        self
    }

    /// Starts with saved units, as if the table had been idle for this time.
    #[must_use]
    pub fn saved(mut self, saved: Duration) -> Self {
        self.saved = saved;
        self
    }

    /// Changes the units a second at the time `at`.
    #[must_use]
    pub fn changed_to(mut self, write_units_per_second: u32, at: Duration) -> Self {
        self.changes.push((at, write_units_per_second.into()));
        self.changes.sort_by_key(|(at, _)| *at);
        self
    }

    /// Other writers use one of the partitions: it gives only this many units a second from `from` until
    /// `until`.
    #[must_use]
    pub fn busy_partition(
        mut self,
        write_units_per_second: u32,
        from: Duration,
        until: Duration,
    ) -> Self {
        let units = f64::from(write_units_per_second).min(PARTITION_UNITS);
        self.busy = Some(BusyPartition { units, from, until });
        self
    }

    /// Sets the maximum throughput of an on-demand table.
    #[must_use]
    pub fn max_on_demand(mut self, write_units_per_second: u32) -> Self {
        self.max_on_demand = Some(write_units_per_second.into());
        self
    }

    /// Sets the account's quota for one table.
    #[must_use]
    pub fn account_limit(mut self, write_units_per_second: u32) -> Self {
        self.account = Some(write_units_per_second.into());
        self
    }

    /// Sets the time until an answer.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        (self.latency, self.latency_at_limit) = (latency, latency);
        self
    }

    /// Sets the time until an answer when the capacity is fully used. With less use it is shorter.
    #[must_use]
    pub fn latency_at_limit(mut self, latency: Duration) -> Self {
        self.latency_at_limit = latency;
        self
    }

    /// The latency of an idle table.
    #[cfg(feature = "local")]
    pub(crate) fn least_latency(&self) -> Duration {
        self.latency
    }

    fn units_at(&self, now: Duration) -> f64 {
        let changed = self.changes.iter().rev().find(|(at, _)| *at <= now);
        changed.map_or(self.units, |(_, units)| *units)
    }

    fn next_change(&self, after: Duration) -> Option<Duration> {
        let busy = self.busy.iter().flat_map(|busy| [busy.from, busy.until]);
        self.changes.iter().map(|(at, _)| *at).chain(busy).filter(|at| *at > after).min()
    }

    /// Units a second of the partition with this index.
    fn partition_units_at(&self, index: usize, now: Duration) -> f64 {
        let busy = self.busy.filter(|busy| index == 0 && (busy.from..busy.until).contains(&now));
        busy.map_or(PARTITION_UNITS, |busy| busy.units)
    }
}

/// A partition that other writers use for some time.
#[derive(Debug, Clone, Copy)]
struct BusyPartition {
    units: f64,
    from: Duration,
    until: Duration,
}

/// Why an item is throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    Provisioned,
    KeyRange,
    MaxOnDemand,
    Account,
}

impl Throttle {
    /// The exception of a call whose items are all throttled, and the reason in it.
    pub(crate) fn exception(self) -> (&'static str, &'static str) {
        const PROVISIONED: &str = "ProvisionedThroughputExceededException";
        const THROTTLING: &str = "ThrottlingException";
        match self {
            Self::Provisioned => (PROVISIONED, "TableWriteProvisionedThroughputExceeded"),
            Self::KeyRange => (PROVISIONED, "TableWriteKeyRangeThroughputExceeded"),
            Self::MaxOnDemand => (THROTTLING, "TableWriteMaxOnDemandThroughputExceeded"),
            Self::Account => (THROTTLING, "TableWriteAccountLimitExceeded"),
        }
    }
}

/// The token buckets of a table.
#[derive(Debug)]
pub(crate) struct Buckets {
    capacity: WriteCapacity,
    filled_at: Duration,
    table: Bucket,
    account: Bucket,
    partitions: Vec<Bucket>,
    /// Units accepted in each second with a write, the latest last.
    seconds: VecDeque<(u64, f64)>,
    peak: f64,
    peak_counts_from: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    units: f64,
}

impl Bucket {
    fn fill(&mut self, rate: f64, elapsed: Duration, burst: Duration) {
        // Without a burst the bucket still holds the units of one second.
        let capacity = rate * burst.as_secs_f64().max(1.0);
        self.units = (self.units + rate * elapsed.as_secs_f64()).min(capacity);
    }
}

impl Buckets {
    pub(crate) fn new(capacity: WriteCapacity) -> Self {
        let saved = capacity.saved.as_secs_f64();
        let partitions = capacity
            .partitions
            .unwrap_or_else(|| (capacity.units / PARTITION_UNITS).ceil().max(1.0) as usize);
        let filled = |rate: f64| Bucket { units: rate * saved };
        Self {
            table: filled(capacity.units),
            account: filled(capacity.account.unwrap_or_default()),
            partitions: vec![filled(PARTITION_UNITS); partitions],
            filled_at: Duration::ZERO,
            seconds: VecDeque::new(),
            peak: 0.0,
            peak_counts_from: PEAK_PERIOD,
            capacity,
        }
    }

    /// Takes the units of an item under `key`, or says what throttles it. `now` must not decrease.
    pub(crate) fn admit(&mut self, key: &str, units: u64, now: Duration) -> Result<(), Throttle> {
        self.fill(now);
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let index = hasher.finish() as usize % self.partitions.len().max(1);
        let is_on_demand = self.capacity.is_on_demand;
        if self.capacity.account.is_some() && self.account.units <= 0.0 {
            return Err(Throttle::Account);
        }
        if self.table.units <= 0.0 {
            return Err(match (is_on_demand, self.capacity.max_on_demand) {
                (false, _) => Throttle::Provisioned,
                (true, Some(maximum)) if self.rate(now) >= maximum => Throttle::MaxOnDemand,
                // Without a maximum only the partitions of an on-demand table limit its rate.
                (true, _) => Throttle::KeyRange,
            });
        }
        let Some(partition) = self.partitions.get_mut(index) else { return Ok(()) };
        if partition.units <= 0.0 {
            return Err(Throttle::KeyRange);
        }
        let units = units as f64;
        partition.units -= units;
        self.table.units -= units;
        self.account.units -= units;
        self.count(units, now);
        Ok(())
    }

    /// The latency of a call at `now`.
    pub(crate) fn latency(&self, now: Duration) -> Duration {
        let second = now.as_secs();
        let last = second.saturating_sub(1);
        let used: f64 =
            self.seconds.iter().filter(|(at, _)| *at == last).map(|(_, units)| units).sum();
        let share = (used / self.rate(now).max(1.0)).min(1.0);
        let more = self.capacity.latency_at_limit.saturating_sub(self.capacity.latency);
        self.capacity.latency + more.mul_f64(share.powi(4))
    }

    fn rate(&self, now: Duration) -> f64 {
        let units = self.capacity.units_at(now);
        if !self.capacity.is_on_demand {
            return units;
        }
        units.max(2.0 * self.peak).min(self.capacity.max_on_demand.unwrap_or(f64::MAX))
    }

    fn fill(&mut self, now: Duration) {
        while self.filled_at < now {
            let until = self.capacity.next_change(self.filled_at).map_or(now, |at| at.min(now));
            let elapsed = until.saturating_sub(self.filled_at);
            let burst = self.capacity.burst;
            let rate = self.rate(self.filled_at);
            self.table.fill(rate, elapsed, burst);
            self.account.fill(self.capacity.account.unwrap_or_default(), elapsed, Duration::ZERO);
            for (index, partition) in self.partitions.iter_mut().enumerate() {
                let rate = self.capacity.partition_units_at(index, self.filled_at);
                partition.fill(rate, elapsed, burst);
            }
            self.filled_at = until;
        }
        if self.capacity.is_on_demand && now >= self.peak_counts_from {
            let best = self.seconds.iter().map(|(_, units)| *units).fold(0.0, f64::max);
            self.peak = self.peak.max(best);
            self.peak_counts_from = now + PEAK_PERIOD;
            self.seconds.clear();
        }
    }

    fn count(&mut self, units: f64, now: Duration) {
        let second = now.as_secs();
        match self.seconds.back_mut() {
            Some((at, sum)) if *at == second => *sum += units,
            _ => self.seconds.push_back((second, units)),
        }
        if self.seconds.len() > PEAK_PERIOD.as_secs() as usize {
            self.seconds.pop_front();
        }
    }
}
