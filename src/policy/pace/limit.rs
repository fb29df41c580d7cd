//! The table's limit: its capacity, as measured from throttled answers, and the rate at which the [pace](super)
//! therefore sends.
//!
//! *C* is the capacity in units per second, and *e* the mean units of an event. *r* is the time in seconds during which
//! the rate has risen since it last stepped back. It does not include time in which the store sent less than the pace
//! allowed.
//!
//! # The rate
//!
//! - While *C* is guessed, the rate is 0.85 *C* · 2^(*r* / 0.5): it doubles twice a second until the table throttles.
//! - Once *C* is measured, the rate is 0.85 *C* + *g* *C* *r* + max(0.008 *C*, 0.1) · max(*r* − 2, 0)³: it rises
//!   linearly past *C*, and after 2 s ever faster, because the table may have more capacity than before.
//! - The growth *g* is 0.3 · √(100 / *C*), at least 0.01, and at most 0.15 (*C* / *e*) / 8. With this maximum at least
//!   8 events are sent before the rate is back at *C*, as each step back costs at least one throttled event.
//! - After the first measurement, and after an early throttled answer, the rate *dips*: 0.25 *C* · exp(−*r* / 0.3) is
//!   subtracted.
//! - The rate is at least 0.2 and at most 10⁹ units per second.
//!
//! The rate takes 0.15 / *g* seconds to rise back to *C*. An answer is *early* if *r* is less than half of that time,
//! or less than 1.5 if that is shorter.
//!
//! # The capacity
//!
//! A *cycle* counts the accepted units since a step back. When an answer is throttled by more than the noise, the next
//! limit is ([`Limit::after_throttling`]):
//!
//! | capacity so far | throttled answer | next capacity | dips |
//! |---|---|---|---|
//! | guessed | ends a cycle that is long enough | units of the cycle / its time, measured | yes |
//! | guessed | otherwise | the rate times the accepted share (at least 0.4), guessed; the cycle goes on | no |
//! | measured | ends a cycle that is long enough, is not early, and *r* is at most 8 s | units of the cycle / its
//! time | no |
//! | measured | otherwise | the rate that was reached | if early |
//!
//! A cycle begins at the first answer of a call that began after the step back. It is *long enough* after 500 ms with
//! the units of 4 events, or after 150 ms with 150 units.
//!
//! # The noise
//!
//! A throttled answer counts only if the throttled share of the recent units is at least the noise. The noise is 0.005
//! · √*e*, where √*e* is limited to 1 to 4. It is 20 times as high while answers are early, and 10 times while *C* is
//! guessed. A [busy partition](Limit::busy_partition_share) adds the share that it throttles by itself.

use std::time::{Duration, Instant};

use super::Units;

/// Throttled units are noise if their share is below this. A hash spreads keys over partitions, so the buckets of
/// single partitions are empty at different times.
const NOISE: f64 = 0.005;

/// The noise is this many times as high while answers are early: just after a step back the buckets of many partitions
/// are nearly empty.
const NOISE_BELOW_CAPACITY: f64 = 20.0;

/// The noise is this many times as high while the capacity is guessed.
const NOISE_OF_GUESS: f64 = 10.0;

/// The noise grows with the size of events, as fewer of them empty a full bucket. It grows at most by this factor.
const MAX_NOISE_BY_SIZE: f64 = 4.0;

/// A partition is busy if at least this share of all first attempts is throttled below the capacity.
const MIN_BUSY_SHARE: f64 = 0.015;

/// A busy partition may throttle this many times the share that it has throttled below the capacity.
const BUSY_MARGIN: f64 = 1.5;

/// While answers are early, a busy partition may throttle up to this share.
const MAX_BUSY_SHARE: f64 = 0.5;

/// This many standard deviations count as chance. The deviation of a count *n* is √*n*.
const CHANCE: f64 = 3.0;

/// The share below which throttled units are noise at and above the capacity, for events of this mean size.
pub(super) fn noise(event_units: f64) -> f64 {
    NOISE * event_units.sqrt().clamp(1.0, MAX_NOISE_BY_SIZE)
}

/// How far the rate steps back after a throttled answer, as a share of the capacity.
const STEP_BACK: f64 = 0.15;

/// How much further the rate dips where many partitions may be nearly empty, as a share of the capacity.
const DIP: f64 = 0.25;

/// The time constant of the exponential decay of a dip, in seconds.
const DIP_SECONDS: f64 = 0.3;

/// The growth of the rate per second, as a share of the capacity, at a capacity of 100 units per second.
const GROWTH: f64 = 0.3;

/// The growth falls with this power of the capacity. So if several writers share a table, those with smaller shares
/// gain on those with larger ones, until all shares are equal.
const GROWTH_EXPONENT: f64 = 0.5;
const MIN_GROWTH: f64 = 0.01;

/// At least this many events are sent before the rate is back at the capacity, as each step back costs at least one
/// throttled event.
const EVENTS_PER_RETURN: f64 = 8.0;

/// After this many seconds the rate rises ever faster, because the table may have a new capacity. [`ACCELERATION`] of
/// the capacity is added, times the cube of the seconds since then.
const ACCELERATES_AFTER_SECONDS: f64 = 2.0;
const ACCELERATION: f64 = 0.008;

/// The least acceleration in units, so that more is soon tried at a table that seemed to have hardly any capacity.
const MIN_ACCELERATION: f64 = 0.1;

/// The seconds in which the rate doubles while the capacity is guessed.
const DOUBLING_SECONDS: f64 = 0.5;

/// One throttled answer reduces a guess at most to this share of the rate.
const MIN_GUESS_SHARE: f64 = 0.4;

/// The longest cycle. In a longer time the table's bucket may have been full. Then the table has lost units, and the
/// accepted units are less than its capacity.
const MAX_CYCLE: Duration = Duration::from_secs(8);

/// A cycle measures the capacity if it took this time and the table accepted the units of [`ENOUGH_EVENTS`].
const ENOUGH_TIME: Duration = Duration::from_millis(500);
const ENOUGH_EVENTS: f64 = 4.0;

/// A cycle also measures the capacity if it took this time and the table accepted [`ENOUGH_UNITS`].
const MIN_CYCLE: Duration = Duration::from_millis(150);
const ENOUGH_UNITS: f64 = 150.0;

/// The lowest rate, in units per second: one unit in five seconds, even if the table throttles all of them.
const MIN_RATE: f64 = 0.2;

/// The highest rate, in units per second. It is above the capacity of any table, and keeps the curve finite.
const MAX_RATE: f64 = 1e9;

/// If the rate takes longer than this to return to the capacity, this time decides whether an answer is early.
const MAX_RETURN: Duration = Duration::from_secs(3);

/// The table's limit, as far as it is known.
#[derive(Debug)]
pub(super) struct Limit {
    /// Units per second.
    pub(super) capacity: f64,
    /// Whether the capacity was measured in a cycle. If not, it is guessed.
    is_measured: bool,
    dips: bool,
    /// When the rate last stepped back.
    pub(super) stepped_back_at: Instant,
    /// How much of the time since then the store sent less than the pace allowed. In that time the rate does not rise.
    pub(super) unused: Duration,
    cycle: Option<Cycle>,
    /// When an answer was last throttled, noise included.
    pub(super) last_throttled: Instant,
    /// Mean size of an event, in units.
    event_units: f64,
    /// Units of first attempts in early answers.
    below_capacity: Units,
}

/// The units accepted since a step back.
#[derive(Debug, Clone, Copy)]
struct Cycle {
    began: Instant,
    units: f64,
}

impl Limit {
    /// A guess, after units were sent at `rate` and this share of the last ones was accepted.
    pub(super) fn guessed(rate: f64, share: f64, event_units: f64, now: Instant) -> Self {
        Self::new(rate * share.max(MIN_GUESS_SHARE), event_units, now)
    }

    fn new(capacity: f64, event_units: f64, now: Instant) -> Self {
        Self {
            capacity: capacity.max(MIN_RATE),
            is_measured: false,
            dips: false,
            stepped_back_at: now,
            unused: Duration::ZERO,
            cycle: None,
            last_throttled: now,
            event_units,
            below_capacity: Units::default(),
        }
    }

    /// Counts the accepted units of an answered call.
    pub(super) fn count_accepted(&mut self, call_began: Instant, accepted: f64, now: Instant) {
        match &mut self.cycle {
            Some(cycle) => cycle.units += accepted,
            // The first answer begins the cycle. Its own units were accepted before that, so they do not count.
            None if call_began >= self.stepped_back_at => {
                self.cycle = Some(Cycle { began: now, units: 0.0 });
            }
            None => {}
        }
    }

    /// Counts the units of first attempts, if the answer is early.
    pub(super) fn count_below_capacity(&mut self, first: Units, now: Instant) {
        if self.is_early(now) {
            self.below_capacity.accepted += first.accepted;
            self.below_capacity.throttled += first.throttled;
        }
    }

    /// The share of first attempts that a busy partition may throttle at any rate; `None` if no partition is busy.
    ///
    /// It is derived from the share that is throttled below the capacity. At the capacity, the buckets of partitions
    /// become empty one after the other, and each partition looks busy for a moment. So what is throttled there does
    /// not count.
    pub(super) fn busy_partition_share(&self, now: Instant) -> Option<f64> {
        if self.is_early(now) {
            return Some(MAX_BUSY_SHARE);
        }
        let Units { accepted, throttled } = self.below_capacity;
        let (accepted, throttled) = (accepted as f64, throttled as f64);
        let certain = throttled - CHANCE * throttled.sqrt();
        (certain >= MIN_BUSY_SHARE * (accepted + throttled))
            .then(|| BUSY_MARGIN * throttled / (accepted + throttled))
    }

    /// Units per second that may be sent at `now`.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let dip =
            if self.dips { DIP * (-self.rising_seconds(now) / DIP_SECONDS).exp() } else { 0.0 };
        (self.rate_without_dip(now) - self.capacity * dip).clamp(MIN_RATE, MAX_RATE)
    }

    fn rate_without_dip(&self, now: Instant) -> f64 {
        let (capacity, seconds) = (self.capacity, self.rising_seconds(now));
        let stepped_back = capacity * (1.0 - STEP_BACK);
        if !self.is_measured {
            return stepped_back * (seconds / DOUBLING_SECONDS).exp2();
        }
        let accelerated_seconds = (seconds - ACCELERATES_AFTER_SECONDS).max(0.0);
        let acceleration = (ACCELERATION * capacity).max(MIN_ACCELERATION);
        stepped_back
            + capacity * self.growth() * seconds
            + acceleration * accelerated_seconds.powi(3)
    }

    /// The seconds during which the rate has risen since it stepped back.
    fn rising_seconds(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.stepped_back_at);
        since.saturating_sub(self.unused).as_secs_f64()
    }

    /// The linear growth of the rate per second, as a share of the capacity.
    fn growth(&self) -> f64 {
        let growth = GROWTH * (100.0 / self.capacity).powf(GROWTH_EXPONENT);
        let events_per_second = self.capacity / self.event_units;
        growth.max(MIN_GROWTH).min(STEP_BACK * events_per_second / EVENTS_PER_RETURN)
    }

    /// Whether the rate has risen for less than half of the time that it takes to return to the capacity.
    fn is_early(&self, now: Instant) -> bool {
        let return_seconds = (STEP_BACK / self.growth()).min(MAX_RETURN.as_secs_f64());
        self.rising_seconds(now) < return_seconds / 2.0
    }

    /// The share of throttled units from which they show the limit of the whole table.
    pub(super) fn noise(&self, now: Instant) -> f64 {
        let factor = match (self.is_measured, self.is_early(now)) {
            (true, false) => 1.0,
            (true, true) => NOISE_BELOW_CAPACITY,
            (false, _) => NOISE_OF_GUESS,
        };
        noise(self.event_units) * factor
    }

    /// The next limit, after this share of the recent units was throttled.
    pub(super) fn after_throttling(&self, share: f64, event_units: f64, now: Instant) -> Self {
        let (rate, is_early) = (self.rate_without_dip(now), self.is_early(now));
        let next = |capacity| Self::new(capacity, event_units, now);
        match self.cycle.and_then(|cycle| cycle.measure(event_units, now)) {
            Some(capacity) if !self.is_measured => {
                Self { is_measured: true, dips: true, ..next(capacity) }
            }
            // The table's bucket was empty at both ends of the cycle, and cannot have been full in between.
            Some(capacity) if !is_early && self.rising_seconds(now) <= MAX_CYCLE.as_secs_f64() => {
                Self { is_measured: true, ..next(capacity) }
            }
            // Early: the table has less capacity than before, or other writers use more of it. Late: it may have more.
            _ if self.is_measured => Self { is_measured: true, dips: is_early, ..next(rate) },
            // The table's bucket is still empty, so the cycle goes on.
            _ => Self { cycle: self.cycle, ..Self::guessed(rate, 1.0 - share, event_units, now) },
        }
    }
}

impl Cycle {
    /// Units per second that were accepted until `now`; `None` if they are too few for a measurement.
    fn measure(&self, event_units: f64, now: Instant) -> Option<f64> {
        let took = now.saturating_duration_since(self.began);
        let is_long = took >= ENOUGH_TIME && self.units >= ENOUGH_EVENTS * event_units;
        let is_large = took >= MIN_CYCLE && self.units >= ENOUGH_UNITS;
        (is_long || is_large).then(|| self.units / took.as_secs_f64())
    }
}
