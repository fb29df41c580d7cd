//! How fast calls may leave: as fast as the table takes write units, once it has refused some.
//!
//! A table is a token bucket. It gains units at a constant rate, keeps some of those that nobody uses, and refuses
//! while it is empty. So a refusal says that the bucket is empty now. Between two refusals it goes from empty to
//! empty: the units accepted in between, divided by the time in between, are its capacity, however much it keeps.
//!
//! After a refusal the rate steps back below the measured capacity, and then rises past it until the next one.
//! What is not used below the capacity stays in the bucket and is used above it, so nothing is lost on the way.
//! [`limit`] has the curve.

mod limit;
mod recent;
mod repeated;

use std::time::{Duration, Instant};

use limit::Limit;
use recent::Recent;
use repeated::Repeated;

/// A share of fewer units than leave in this time says too little.
const LEAST_SAMPLE: Duration = Duration::from_millis(50);

/// The part of a second's units that leaves at once, beyond a full batch; and that a batch waits for.
const BURST: Duration = Duration::from_millis(100);

/// A store that sends little shows little of the table: the first guess, in units per second, is not below this.
const LEAST_GUESS: f64 = 250.0;

/// How long nothing may be refused, nor held back, before the table counts as unlimited again.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The longest wait that jitter adds after the first refusal.
const JITTER: Duration = Duration::from_millis(25);

/// Shorter waits than a timer keeps would only wake the worker.
const SHORTEST_WAIT: Duration = Duration::from_micros(500);

/// From this share of refused units on they are not of one partition among many.
const SEVERAL_PARTITIONS: f64 = 0.25;

/// How much one batch counts for the mean size of events.
const MEAN_WEIGHT: f64 = 0.1;

/// Sums of many small numbers come out a little below the whole.
const ROUNDING: f64 = 1e-6;

/// One answer of the service to a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// When the call began.
    pub(crate) began: Instant,
    /// Of events that were sent for the first time.
    pub(crate) first: Units,
    /// Of events that were sent for the second time.
    pub(crate) second: Units,
    /// Of events that had been refused more than once.
    pub(crate) repeated: Units,
    /// Whether it may be one partition alone that had no capacity for them.
    pub(crate) is_of_one_partition: bool,
}

/// Write units of a call's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// Of the events that were stored.
    pub(crate) accepted: u64,
    /// Of the events that were refused for the table's capacity.
    pub(crate) refused: u64,
}

/// What may leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Allowance {
    /// A batch of so many units. An event that has more goes alone, and is paid for afterwards.
    Units(u64),
    /// Nothing before this moment.
    NotBefore(Instant),
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// The table refused for the first time: from now on calls leave at its pace.
    Began,
    /// For a long time the table has refused nothing, and not been used up.
    Ended,
}

/// The pace of one store's calls.
#[derive(Debug)]
pub(crate) struct Pace {
    budget: Option<f64>,
    max_batch_events: f64,
    /// Mean size of the events that were sent, in units.
    mean_event_units: f64,
    recent: Recent,
    limit: Option<Limit>,
    repeated: Repeated,
    /// Units that may leave now, below zero after an event that had more.
    tokens: f64,
    filled_at: Option<Instant>,
    /// When an event last waited for its turn.
    held_back_at: Option<Instant>,
}

impl Pace {
    /// A pace without a limit but the `budget`, in units per second.
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
            held_back_at: None,
        }
    }

    /// Units per second that may leave at `now`; `None` without a limit.
    pub(crate) fn rate(&self, now: Instant) -> Option<f64> {
        self.within_budget(self.limit.as_ref().map(|limit| limit.rate(now)))
    }

    /// Units per second that the table takes, as far as is known; `None` without a limit.
    pub(crate) fn capacity(&self) -> Option<f64> {
        self.within_budget(self.limit.as_ref().map(|limit| limit.capacity))
    }

    fn within_budget(&self, rate: Option<f64>) -> Option<f64> {
        match (rate, self.budget) {
            (Some(rate), Some(budget)) => Some(rate.min(budget)),
            (rate, budget) => rate.or(budget),
        }
    }

    /// How many events the table takes within `time`; `None` without a limit.
    pub(crate) fn events_within(&self, time: Duration) -> Option<u64> {
        let units = self.capacity()? * time.as_secs_f64();
        Some((units / self.mean_event_units) as u64)
    }

    /// What may leave at `now`, with so many events waiting to.
    pub(crate) fn allow(&mut self, waiting_events: usize, now: Instant) -> Allowance {
        let Some(rate) = self.rate(now) else { return Allowance::Units(u64::MAX) };
        let burst = rate * BURST.as_secs_f64();
        let full_batch = self.max_batch_events * self.mean_event_units;
        let batch = self.batch_units(rate);
        // A budget counts every unit; a table has a bucket of its own.
        let most = if self.budget.is_some() { batch.max(burst) } else { full_batch.max(burst) };
        self.fill(rate, most, now);
        let wanted = batch.min(waiting_events as f64 * self.mean_event_units);
        if self.tokens + ROUNDING >= wanted {
            return Allowance::Units((self.tokens + ROUNDING).max(1.0) as u64);
        }
        self.held_back_at = Some(now);
        let wait = Duration::from_secs_f64(((wanted - self.tokens) / rate).min(3_600.0));
        Allowance::NotBefore(now + wait.max(SHORTEST_WAIT))
    }

    /// Units that a batch waits for: it can be full then, unless that takes longer than a burst.
    fn batch_units(&self, rate: f64) -> f64 {
        let full = self.max_batch_events * self.mean_event_units;
        full.min(rate * BURST.as_secs_f64()).max(self.mean_event_units)
    }

    /// What may leave at `now` of events that were refused more than once, with so many waiting to.
    pub(crate) fn allow_repeated(&mut self, waiting_events: usize, now: Instant) -> Allowance {
        let Some(rate) = self.rate(now) else { return Allowance::Units(u64::MAX) };
        let wanted = self.batch_units(rate).min(waiting_events as f64 * self.mean_event_units);
        match self.repeated.allow(rate, wanted, now) {
            Ok(units) => Allowance::Units(units.max(1.0) as u64),
            Err(wait) => Allowance::NotBefore(now + wait.max(SHORTEST_WAIT)),
        }
    }

    /// Notes that a batch leaves, so many of whose units are of events that were refused more than once.
    pub(crate) fn sent(&mut self, units: u64, repeated_units: u64, events: usize) {
        self.repeated.sent(repeated_units as f64);
        let mean = units as f64 / events.max(1) as f64;
        self.mean_event_units += (mean - self.mean_event_units) * MEAN_WEIGHT;
        if self.filled_at.is_some() {
            self.tokens -= units as f64;
        }
    }

    /// Learns from an answer. `jitter` is a random number from 0 to 1: by it the next call of one writer waits longer
    /// than that of another, so that those who were refused together do not come again together.
    pub(crate) fn observe(&mut self, answer: Answer, now: Instant, jitter: f64) -> Change {
        let Answer { began, first, second, repeated, .. } = answer;
        self.repeated.observe(repeated.accepted as f64, repeated.refused as f64);
        let accepted = (first.accepted + second.accepted + repeated.accepted) as f64;
        // Events that were refused more than once tell of their partition.
        let refused = (first.refused + second.refused) as f64;
        let least_share = if answer.is_of_one_partition { SEVERAL_PARTITIONS } else { 0.0 };
        let Some(limit) = &mut self.limit else {
            self.recent.add(first, second, now);
            let noise = limit::noise(self.mean_event_units).max(least_share);
            if refused == 0.0 || self.recent.refused_share() < noise {
                return Change::None;
            }
            // What the table has accepted until now may have come out of its reserve.
            let share = accepted / (accepted + refused);
            let guess = self.recent.units_per_second().max(LEAST_GUESS);
            self.limit = Some(Limit::guessed(guess, share, self.mean_event_units, now));
            self.recent = Recent::default();
            self.tokens = -guess * JITTER.as_secs_f64() * jitter;
            self.filled_at = Some(now);
            return Change::Began;
        };
        limit.count(began, accepted, now);
        // Calls that began before the rate stepped back tell what is known already.
        if began < limit.since {
            return Change::None;
        }
        self.recent.add(first, second, now);
        limit.count_below_capacity(first, now);
        if refused > 0.0 {
            limit.last_refusal = now;
            let mut share = self.recent.refused_share();
            let mut noise = limit.noise(now);
            if self.recent.has_busy_partition()
                && let Some(refused_anyway) = limit.refused_anyway(now)
            {
                share = self.recent.first_refused_share();
                noise += refused_anyway;
                // What a busy partition has refused has not used the table's capacity.
                self.tokens += refused;
            }
            let sample = limit.rate(now) * LEAST_SAMPLE.as_secs_f64();
            if share >= noise.max(least_share) && self.recent.units() >= sample {
                *limit = limit.after_refusal(share, self.mean_event_units, now);
                self.recent = Recent::default();
                self.tokens = self.tokens.min(0.0);
            }
        }
        Change::None
    }

    /// When the table counts as unlimited again, if it refuses nothing and nothing waits for it until then.
    pub(crate) fn forgets_at(&self) -> Option<Instant> {
        let last_refusal = self.limit.as_ref()?.last_refusal;
        let last = self.held_back_at.map_or(last_refusal, |at| at.max(last_refusal));
        Some(last + FORGET_AFTER)
    }

    /// Forgets the table's limit when it is time to.
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

    fn fill(&mut self, rate: f64, most: f64, now: Instant) {
        let filled_at = self.filled_at.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(filled_at);
        self.tokens += rate * passed.as_secs_f64();
        if self.tokens > most {
            self.tokens = most;
            // Nothing waited for the pace, so nothing was learned of the table.
            if let Some(limit) = &mut self.limit {
                limit.unused += passed;
            }
        }
    }
}
