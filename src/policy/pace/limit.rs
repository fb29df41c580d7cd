//! The capacity of a table, as its refusals show it, and the rate at which calls leave because of it.

use std::time::{Duration, Instant};

use super::Units;

/// A smaller share of refused units is the noise of single partitions: keys spread over them by a hash, and their
/// buckets are not empty at the same time.
const NOISE: f64 = 0.005;

/// So many times the noise there is while the rate is below the measured capacity: just after a refusal the
/// buckets of many partitions are nearly empty.
const NOISE_BELOW_CAPACITY: f64 = 20.0;

/// And so many times while the capacity is only guessed.
const NOISE_OF_GUESS: f64 = 10.0;

/// A busy partition is one of whose events at least such a part of all is refused below the capacity. It is
/// believed to refuse more by this factor, and while the rate is below the capacity any share up to the most.
const LEAST_BUSY: f64 = 0.015;
const BUSY_MARGIN: f64 = 1.5;
const MOST_BUSY: f64 = 0.5;

/// Of a number of refusals so many times its square root may be chance.
const CHANCE: f64 = 3.0;

/// The noise grows with the size of events, as fewer of them take a bucket from full to empty; up to this factor.
const MOST_NOISE_BY_SIZE: f64 = 4.0;

/// The share of refused units below which nothing is learned, for events of this size.
pub(super) fn noise(event_units: f64) -> f64 {
    NOISE * event_units.sqrt().clamp(1.0, MOST_NOISE_BY_SIZE)
}

/// How far the rate steps back after a refusal, as a share of the capacity.
const STEP_BACK: f64 = 0.15;

/// How much further it steps back where partitions may all be nearly empty, and how soon it is back from there.
const DIP: f64 = 0.25;
const DIP_TIME: f64 = 0.3;

/// By which share of a capacity of 100 units/s the rate rises in a second.
const GROWTH: f64 = 0.3;

/// The share falls with the square root of the capacity. So of many writers on one table the smaller ones gain on
/// the larger ones, until their shares are equal.
const GROWTH_FALLS: f64 = 0.5;
const LEAST_GROWTH: f64 = 0.01;

/// On the way back to the capacity there are at least so many events, as each refusal costs at least one.
const EVENTS_PER_RETURN: f64 = 8.0;

/// After so many seconds without a refusal there may be a new capacity to find, so the rate rises ever faster: by
/// this share of the capacity times the cube of the seconds since.
const ACCELERATES_AFTER: f64 = 2.0;
const ACCELERATION: f64 = 0.008;

/// The same for a small capacity, in units: a table that seemed to take next to nothing is soon tried again.
const LEAST_ACCELERATION: f64 = 0.1;

/// How many seconds the rate takes to double while the capacity is only guessed.
const DOUBLING: f64 = 0.5;

/// The most that one answer takes from a guess.
const LEAST_SHARE: f64 = 0.4;

/// In a longer time the bucket may have run over, so what was accepted in it is no measure.
const LONGEST_CYCLE: Duration = Duration::from_secs(8);

/// A cycle of this length is a measure, and a shorter one of at least so many units.
const ENOUGH_TIME: Duration = Duration::from_millis(500);
const SHORTEST_CYCLE: Duration = Duration::from_millis(150);
const ENOUGH_UNITS: f64 = 150.0;
const ENOUGH_EVENTS: f64 = 4.0;

/// One write unit in five seconds: the wait of an event that the table refuses again and again.
const LEAST_RATE: f64 = 0.2;

/// Above anything that a table takes, so that the curve ends somewhere.
const MOST_RATE: f64 = 1e9;

/// Refusals that come sooner than half of this, at most, are early.
const LATEST_RETURN: Duration = Duration::from_secs(3);

/// The table's limit, as far as it is known.
#[derive(Debug)]
pub(super) struct Limit {
    /// Units per second.
    pub(super) capacity: f64,
    /// Whether the capacity was measured between two refusals, or is guessed.
    is_measured: bool,
    dips: bool,
    /// When the rate last stepped back.
    pub(super) since: Instant,
    /// How much of the time since then the pace held nothing back: in that time the rate does not rise.
    pub(super) unused: Duration,
    cycle: Option<Cycle>,
    pub(super) last_refusal: Instant,
    /// Mean size of an event, in units.
    event_units: f64,
    /// First attempts that were answered while the rate was below the capacity.
    below: Units,
}

/// What was accepted since a refusal.
#[derive(Debug, Clone, Copy)]
struct Cycle {
    began: Instant,
    units: f64,
}

impl Limit {
    /// A guess: units were sent at this rate, and this share of the last ones was accepted.
    pub(super) fn guessed(rate: f64, share: f64, event_units: f64, now: Instant) -> Self {
        Self::new(rate * share.max(LEAST_SHARE), event_units, now)
    }

    fn new(capacity: f64, event_units: f64, now: Instant) -> Self {
        Self {
            capacity: capacity.max(LEAST_RATE),
            is_measured: false,
            dips: false,
            since: now,
            unused: Duration::ZERO,
            cycle: None,
            last_refusal: now,
            event_units,
            below: Units::default(),
        }
    }

    /// Counts what a call carried that was answered.
    pub(super) fn count(&mut self, call_began: Instant, accepted: f64, now: Instant) {
        match &mut self.cycle {
            Some(cycle) => cycle.units += accepted,
            // The first answer is the beginning: what it tells of was accepted before.
            None if call_began >= self.since => self.cycle = Some(Cycle { began: now, units: 0.0 }),
            None => {}
        }
    }

    /// Counts first attempts, as long as the rate is below the capacity.
    pub(super) fn count_below_capacity(&mut self, first: Units, now: Instant) {
        if self.is_early(now) {
            self.below.accepted += first.accepted;
            self.below.refused += first.refused;
        }
    }

    /// The share of first attempts that a busy partition may refuse, whatever the rate; `None` where there is none.
    ///
    /// It is about as large as that which is refused below the capacity. At the capacity, partitions are used up one
    /// after the other, and each looks busy for a moment: that is none.
    pub(super) fn refused_anyway(&self, now: Instant) -> Option<f64> {
        if self.is_early(now) {
            return Some(MOST_BUSY);
        }
        let Units { accepted, refused } = self.below;
        let (accepted, refused) = (accepted as f64, refused as f64);
        let certain = refused - CHANCE * refused.sqrt();
        (certain >= LEAST_BUSY * (accepted + refused))
            .then(|| BUSY_MARGIN * refused / (accepted + refused))
    }

    /// Units per second that may leave at `now`.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let dip = if self.dips { DIP * (-self.risen(now) / DIP_TIME).exp() } else { 0.0 };
        (self.curve(now) - self.capacity * dip).clamp(LEAST_RATE, MOST_RATE)
    }

    /// The rate but for the dip.
    fn curve(&self, now: Instant) -> f64 {
        let (capacity, risen) = (self.capacity, self.risen(now));
        let below = capacity * (1.0 - STEP_BACK);
        if !self.is_measured {
            return below * (risen / DOUBLING).exp2();
        }
        let late = (risen - ACCELERATES_AFTER).max(0.0);
        let acceleration = (ACCELERATION * capacity).max(LEAST_ACCELERATION);
        below + capacity * self.growth() * risen + acceleration * late.powi(3)
    }

    /// Seconds in which the rate has risen.
    fn risen(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.since).saturating_sub(self.unused).as_secs_f64()
    }

    /// By which share of the capacity the rate rises in a second.
    fn growth(&self) -> f64 {
        let growth = GROWTH * (100.0 / self.capacity).powf(GROWTH_FALLS);
        let events_per_second = self.capacity / self.event_units;
        growth.max(LEAST_GROWTH).min(STEP_BACK * events_per_second / EVENTS_PER_RETURN)
    }

    /// Whether the rate has had no time to come back to the capacity.
    fn is_early(&self, now: Instant) -> bool {
        let returns = (STEP_BACK / self.growth()).min(LATEST_RETURN.as_secs_f64());
        self.risen(now) < returns / 2.0
    }

    /// The least share of refused units that says something of the whole table.
    pub(super) fn noise(&self, now: Instant) -> f64 {
        let above_all = match (self.is_measured, self.is_early(now)) {
            (true, false) => 1.0,
            (true, true) => NOISE_BELOW_CAPACITY,
            (false, _) => NOISE_OF_GUESS,
        };
        noise(self.event_units) * above_all
    }

    /// The limit after this share of the last units was refused.
    pub(super) fn after_refusal(&self, share: f64, event_units: f64, now: Instant) -> Self {
        let (rate, early) = (self.curve(now), self.is_early(now));
        let next = |capacity| Self::new(capacity, event_units, now);
        match self.cycle.and_then(|cycle| cycle.measure(event_units, now)) {
            Some(capacity) if !self.is_measured => {
                Self { is_measured: true, dips: true, ..next(capacity) }
            }
            // The bucket was empty at both ends, and had no time to run over in between.
            Some(capacity) if !early && self.risen(now) <= LONGEST_CYCLE.as_secs_f64() => {
                Self { is_measured: true, ..next(capacity) }
            }
            // Too early: others take more than before, or the table gives less. Or late, and it may give more.
            _ if self.is_measured => Self { is_measured: true, dips: early, ..next(rate) },
            // The bucket is still empty, so the measuring goes on.
            _ => Self { cycle: self.cycle, ..Self::guessed(rate, 1.0 - share, event_units, now) },
        }
    }
}

impl Cycle {
    /// Units per second that were accepted until `now`, where that is enough to go by.
    fn measure(&self, event_units: f64, now: Instant) -> Option<f64> {
        let took = now.saturating_duration_since(self.began);
        let is_long = took >= ENOUGH_TIME && self.units >= ENOUGH_EVENTS * event_units;
        let is_large = took >= SHORTEST_CYCLE && self.units >= ENOUGH_UNITS;
        (is_long || is_large).then(|| self.units / took.as_secs_f64())
    }
}
