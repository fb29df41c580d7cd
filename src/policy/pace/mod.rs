//! The pace: how fast the worker may send write units. It is unlimited until the table throttles, and then follows the
//! table's capacity, which it measures.
//!
//! # The model
//!
//! A table is a token bucket. It gains write units at a constant rate, its capacity. It keeps a limited number of
//! unused units, and throttles while it is empty. So the bucket is empty at each throttled answer. The units accepted
//! between two throttled answers, divided by the time, are the capacity. The size of the bucket does not matter.
//!
//! # The control loop
//!
//! 1. The first throttled answer gives a guess of the capacity: the units sent per second, times the share that was
//!    accepted.
//! 2. From then on batches take their units from a token bucket of the pace, which fills at [`Limit::rate`].
//! 3. After a throttled answer the rate steps back below the capacity, and then rises past it until the next one. Units
//!    that are not used below the capacity stay in the table's bucket and are used above it, so the steps cost no
//!    throughput. [`limit`] has the curve, and measures the capacity between two such answers.
//! 4. A few throttled units need not mean that the whole table is at its limit. [`limit`] has the share below which
//!    they are noise. [`recent`] finds out whether a single busy partition throttles. A throttled answer counts only
//!    with a [minimum](MIN_SAMPLE) of recent units, and needs a [higher share](SEVERAL_PARTITIONS) if a single
//!    partition may have throttled it.
//! 5. Repeated events, those that were throttled more than once, say more about their partition than about the table.
//!    When they are throttled, that counts neither as noise nor as the table's limit. They get their own share of the
//!    pace: [`repeated`].
//! 6. The limit is dropped after [`FORGET_AFTER`] without a throttled answer and without a batch that the pace delayed.
//!
//! If the store has a budget, the budget limits the rate at all times.

mod limit;
mod recent;
mod repeated;

use std::time::{Duration, Instant};

use limit::Limit;
use recent::Recent;
use repeated::Repeated;

/// The throttled share counts only if the recent units are at least as many as are sent in this time at the current
/// rate.
const MIN_SAMPLE: Duration = Duration::from_millis(50);

/// The bucket of the pace holds the units of this time, or the units of a full batch if those are more. With a budget
/// it holds the units of this time, or the units for which a batch waits if those are more. A batch waits at most for
/// the units of this time, or for those of one event.
const BURST: Duration = Duration::from_millis(100);

/// The lowest rate from which the first guess is made, in units per second: the rate of a store with few events does
/// not show the table's capacity.
const MIN_GUESSED_RATE: f64 = 250.0;

/// The limit is dropped after this time without a throttled answer and without a delayed batch.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The longest wait that jitter adds after the first throttled answer.
const MAX_JITTER: Duration = Duration::from_millis(25);

/// The shortest wait: a timer is not more precise, so a shorter one would only wake the worker.
const MIN_WAIT: Duration = Duration::from_micros(500);

/// The longest wait that `allow` returns, in seconds.
const MAX_WAIT_SECONDS: f64 = 3_600.0;

/// If at least this share of units is throttled, more than one partition throttles.
const SEVERAL_PARTITIONS: f64 = 0.25;

/// The weight of one batch in the moving mean of the size of events.
const MEAN_WEIGHT: f64 = 0.1;

/// Tolerance for the rounding of sums of many small numbers, in units.
const ROUNDING: f64 = 1e-6;

/// What one answered call shows of the table's capacity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    /// When the call began.
    pub(crate) began: Instant,
    /// Units of events that were never throttled before this call.
    pub(crate) first: Units,
    /// Units of events that were throttled once before.
    pub(crate) second: Units,
    /// Units of events that were throttled more than once before.
    pub(crate) repeated: Units,
    /// Whether a single partition may have caused the throttling.
    pub(crate) is_of_one_partition: bool,
}

/// Write units of some of a call's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// Of the events that were stored.
    pub(crate) accepted: u64,
    /// Of the events that the table had no capacity for.
    pub(crate) throttled: u64,
}

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Allowance {
    /// A batch of at most this many units. A single event that has more may be sent alone. The pace then waits longer
    /// afterwards.
    Units(u64),
    /// Nothing may be sent before this moment.
    NotBefore(Instant),
}

/// What an observation has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// The table has throttled for the first time, and limits the pace from now on.
    Began,
    /// The table no longer limits the pace.
    Ended,
}

/// The pace of one store's calls.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The store's own limit, in units per second.
    budget: Option<f64>,
    max_batch_events: f64,
    /// Moving mean of the size of the events sent, in units.
    mean_event_units: f64,
    recent: Recent,
    /// The table's limit; `None` until it throttles.
    limit: Option<Limit>,
    repeated: Repeated,
    /// Units that may be sent now. Negative after a single event that had more.
    tokens: f64,
    /// When `tokens` was last updated; `None` while nothing limits the pace.
    filled_at: Option<Instant>,
    /// When the pace last delayed a batch.
    delayed_at: Option<Instant>,
}

impl Pace {
    /// A pace without a limit other than `budget`, in units per second.
    pub(crate) fn new(budget: Option<u32>, max_batch_events: usize) -> Self {
        Self {
            budget: budget.map(f64::from),
            max_batch_events: max_batch_events as f64,
            mean_event_units: 1.0,
            recent: Recent::default(),
            limit: None,
            repeated: Repeated::default(),
            tokens: 0.0,
            filled_at: None,
            delayed_at: None,
        }
    }

    /// Units per second that may be sent at `now`; `None` without a limit.
    pub(crate) fn rate(&self, now: Instant) -> Option<f64> {
        self.within_budget(self.limit.as_ref().map(|limit| limit.rate(now)))
    }

    /// The table's capacity as far as it is known, or the budget if that is less, in units per second; `None` without a
    /// limit.
    pub(crate) fn capacity(&self) -> Option<f64> {
        self.within_budget(self.limit.as_ref().map(|limit| limit.capacity))
    }

    fn within_budget(&self, rate: Option<f64>) -> Option<f64> {
        match (rate, self.budget) {
            (Some(rate), Some(budget)) => Some(rate.min(budget)),
            (rate, budget) => rate.or(budget),
        }
    }

    /// How many events can be stored within `time`; `None` without a limit.
    pub(crate) fn events_within(&self, time: Duration) -> Option<u64> {
        let units = self.capacity()? * time.as_secs_f64();
        Some((units / self.mean_event_units) as u64)
    }

    /// What may be sent at `now`, while this many events wait.
    pub(crate) fn allow(&mut self, waiting_events: usize, now: Instant) -> Allowance {
        let Some(rate) = self.rate(now) else { return Allowance::Units(u64::MAX) };
        let burst = rate * BURST.as_secs_f64();
        let full_batch = self.max_batch_events * self.mean_event_units;
        let batch = self.batch_units(rate);
        // A budget limits bursts as well. Without a budget the bucket always has room for a full batch, because the
        // table has a bucket of its own.
        let max_tokens =
            if self.budget.is_some() { batch.max(burst) } else { full_batch.max(burst) };
        self.fill(rate, max_tokens, now);
        let required = batch.min(waiting_events as f64 * self.mean_event_units);
        if self.tokens + ROUNDING >= required {
            return Allowance::Units((self.tokens + ROUNDING).max(1.0) as u64);
        }
        self.delayed_at = Some(now);
        let wait = ((required - self.tokens) / rate).min(MAX_WAIT_SECONDS);
        Allowance::NotBefore(now + Duration::from_secs_f64(wait).max(MIN_WAIT))
    }

    /// Units that a batch waits for: those of a full batch, or of a burst if they are fewer, but at least one event's.
    fn batch_units(&self, rate: f64) -> f64 {
        let full_batch = self.max_batch_events * self.mean_event_units;
        full_batch.min(rate * BURST.as_secs_f64()).max(self.mean_event_units)
    }

    /// What may be sent of repeated events at `now`, while this many of them wait.
    pub(crate) fn allow_repeated(&mut self, waiting_events: usize, now: Instant) -> Allowance {
        let Some(rate) = self.rate(now) else { return Allowance::Units(u64::MAX) };
        let required = self.batch_units(rate).min(waiting_events as f64 * self.mean_event_units);
        match self.repeated.allow(rate, required, now) {
            Ok(units) => Allowance::Units(units.max(1.0) as u64),
            Err(wait) => Allowance::NotBefore(now + wait.max(MIN_WAIT)),
        }
    }

    /// Charges a batch that is sent. `repeated_units` are the part of its `units` that belongs to repeated events.
    pub(crate) fn charge(&mut self, units: u64, repeated_units: u64, events: usize) {
        self.repeated.charge(repeated_units as f64);
        let mean = units as f64 / events.max(1) as f64;
        self.mean_event_units += (mean - self.mean_event_units) * MEAN_WEIGHT;
        if self.filled_at.is_some() {
            self.tokens -= units as f64;
        }
    }

    /// Updates the limit from an answered call. `jitter` is a random number from 0 to 1. It delays the first call
    /// after the first throttled answer, so that writers that were throttled together do not send together again.
    pub(crate) fn observe(
        &mut self,
        observation: Observation,
        now: Instant,
        jitter: f64,
    ) -> Change {
        let Observation { began, first, second, repeated, .. } = observation;
        self.repeated.observe(repeated.accepted as f64, repeated.throttled as f64);
        let accepted = (first.accepted + second.accepted + repeated.accepted) as f64;
        // Repeated events are throttled because of their partition, so only the others count for the table.
        let throttled = (first.throttled + second.throttled) as f64;
        let min_share = if observation.is_of_one_partition { SEVERAL_PARTITIONS } else { 0.0 };
        let Some(limit) = &mut self.limit else {
            self.recent.add(first, second, now);
            let noise = limit::noise(self.mean_event_units).max(min_share);
            if throttled == 0.0 || self.recent.throttled_share() < noise {
                return Change::None;
            }
            // The recent rate can be above the capacity, as the table's bucket was not empty until now. So it is
            // multiplied by the accepted share of this answer.
            let share = accepted / (accepted + throttled);
            let guess = self.recent.units_per_second().max(MIN_GUESSED_RATE);
            self.limit = Some(Limit::guessed(guess, share, self.mean_event_units, now));
            self.recent = Recent::default();
            self.tokens = -guess * MAX_JITTER.as_secs_f64() * jitter;
            self.filled_at = Some(now);
            return Change::Began;
        };
        limit.count_accepted(began, accepted, now);
        // Calls that began before the rate stepped back are no news: they only confirm the step.
        if began < limit.stepped_back_at {
            return Change::None;
        }
        self.recent.add(first, second, now);
        limit.count_below_capacity(first, now);
        if throttled > 0.0 {
            limit.last_throttled = now;
            let mut share = self.recent.throttled_share();
            let mut noise = limit.noise(now);
            if self.recent.has_busy_partition()
                && let Some(busy_share) = limit.busy_partition_share(now)
            {
                share = self.recent.first_throttled_share();
                noise += busy_share;
                // Units that a busy partition has throttled have not used any of the table's capacity.
                self.tokens += throttled;
            }
            let sample = limit.rate(now) * MIN_SAMPLE.as_secs_f64();
            if share >= noise.max(min_share) && self.recent.units() >= sample {
                *limit = limit.after_throttling(share, self.mean_event_units, now);
                self.recent = Recent::default();
                self.tokens = self.tokens.min(0.0);
            }
        }
        Change::None
    }

    /// When the table's limit is dropped, if nothing is throttled or delayed until then; `None` without one.
    pub(crate) fn forgets_at(&self) -> Option<Instant> {
        let last_throttled = self.limit.as_ref()?.last_throttled;
        let last = self.delayed_at.map_or(last_throttled, |at| at.max(last_throttled));
        Some(last + FORGET_AFTER)
    }

    /// Drops the table's limit, if that is due at `now`.
    pub(crate) fn forget(&mut self, now: Instant) -> Change {
        if self.forgets_at().is_none_or(|at| now < at) {
            return Change::None;
        }
        self.limit = None;
        self.recent = Recent::default();
        if self.budget.is_none() {
            self.filled_at = None;
        }
        Change::Ended
    }

    fn fill(&mut self, rate: f64, max_tokens: f64, now: Instant) {
        let filled_at = self.filled_at.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(filled_at);
        self.tokens += rate * passed.as_secs_f64();
        if self.tokens > max_tokens {
            self.tokens = max_tokens;
            // In this time the store sent less than the pace allowed, so it says nothing about the table's capacity.
            if let Some(limit) = &mut self.limit {
                limit.unused += passed;
            }
        }
    }
}
