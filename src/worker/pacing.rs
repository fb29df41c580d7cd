//! Connects the worker with the [pace](crate::policy::pace): which batches may be sent, what answers show of the
//! table's capacity, and how many events the buffer may hold.

use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;
use tracing::field::display;

use super::Worker;
use crate::error::{BatchError, FailureClass, ThrottlingLimit, ThrottlingReason};
use crate::pending::{CallTimes, PendingEvent};
use crate::policy::BufferedEvent;
use crate::policy::buffer::MaxUnits;
use crate::policy::pace::{Allowance, Change, Observation, Units};
use crate::stats::Limits;

/// The buffer may always hold at least this many batches. With fewer, the table's capacity could not be used.
const MIN_BUFFERED_BATCHES: usize = 4;

/// A call with this many events or more has events of several partitions, because a hash spreads the keys evenly.
const EVENTS_OF_SEVERAL_PARTITIONS: usize = 8;

/// What a completed call carried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) times: CallTimes,
    events: usize,
    units: SentUnits,
}

impl Call {
    pub(super) fn new(batch: &[PendingEvent], times: CallTimes) -> Self {
        Self { times, events: batch.len(), units: SentUnits::of(batch) }
    }
}

/// Write units of a batch, by how often its events have been throttled before this call. Attempts that failed for other
/// reasons do not count.
#[derive(Debug, Clone, Copy, Default)]
struct SentUnits {
    /// Never throttled.
    first: u64,
    /// Throttled once.
    second: u64,
    /// Throttled more than once.
    repeated: u64,
}

impl SentUnits {
    fn of<'a>(events: impl IntoIterator<Item = &'a PendingEvent>) -> Self {
        let mut sent = Self::default();
        for event in events {
            let units = event.event().write_units();
            match event.throttled() {
                0 => sent.first += units,
                1 => sent.second += units,
                _ => sent.repeated += units,
            }
        }
        sent
    }

    fn total(self) -> u64 {
        self.first + self.second + self.repeated
    }
}

/// What an answer says about the table's capacity.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer<'a> {
    /// The table had capacity for a part of the call, or for all of it.
    Processed(Processed),
    /// The whole call was throttled.
    Throttled(&'a BatchError),
}

/// The part of a call for which the table had capacity, and the part that it throttled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Processed {
    accepted_events: usize,
    accepted: SentUnits,
    throttled: SentUnits,
}

impl Processed {
    /// An insert that finds its key taken consumes write units, so it counts as accepted. Events that failed for other
    /// reasons count in neither part.
    pub(super) fn of(
        stored: &[PendingEvent],
        unprocessed: &[PendingEvent],
        failed: &[(PendingEvent, Arc<BatchError>)],
    ) -> Self {
        let failed_as = |is_of_class: fn(FailureClass) -> bool| {
            let failed = failed.iter().filter(move |(_, failure)| is_of_class(failure.class()));
            failed.map(|(event, _)| event)
        };
        let duplicates = || failed_as(|class| class == FailureClass::Duplicate);
        Self {
            accepted_events: stored.len() + duplicates().count(),
            accepted: SentUnits::of(stored.iter().chain(duplicates())),
            throttled: SentUnits::of(
                unprocessed.iter().chain(failed_as(FailureClass::is_throttled)),
            ),
        }
    }

    /// What the service charged for each accepted write unit, if the call consumed this many units.
    pub(super) fn charge(self, consumed_write_units: f64) -> f64 {
        consumed_write_units / self.accepted.total() as f64
    }
}

impl<'a> Answer<'a> {
    /// The first reason that the service named.
    fn reason(self) -> Option<&'a ThrottlingReason> {
        match self {
            Self::Processed(_) => None,
            Self::Throttled(error) => error.throttling_reasons().first(),
        }
    }

    /// Whether the throttling may be that of one partition alone.
    fn is_of_one_partition(self, call: Call) -> bool {
        let limit = self.reason().map(ThrottlingReason::limit);
        call.events < EVENTS_OF_SEVERAL_PARTITIONS && limit == Some(ThrottlingLimit::KeyRange)
    }
}

impl Worker {
    /// How many write units the next batch may have at `now`. `None` if no batch is due, or if the pace delays it. In
    /// the second case `send_not_before` is set.
    pub(super) fn allow(&mut self, now: Instant) -> Option<MaxUnits> {
        let repeated = self.allow_repeated(now);
        if repeated == 0 && !self.buffer.is_due(now) {
            return None;
        }
        let delayed = if repeated == 0 { self.buffer.repeated_len() } else { 0 };
        match self.pace.allow(self.buffer.len() - delayed, now) {
            Allowance::Units(all) => Some(MaxUnits { all, repeated }),
            Allowance::NotBefore(at) => {
                self.send_not_before = Some(at);
                None
            }
        }
    }

    /// How many units of repeated events the next batch may have at `now`. If there are none, sets `next_repeated` to
    /// the time of the next check.
    fn allow_repeated(&mut self, now: Instant) -> u64 {
        self.next_repeated = self.buffer.next_repeated();
        if !self.buffer.has_repeated(now) {
            return 0;
        }
        match self.pace.allow_repeated(self.buffer.repeated_len(), now) {
            Allowance::Units(units) => units,
            Allowance::NotBefore(at) => {
                self.next_repeated = Some(at);
                0
            }
        }
    }

    /// Charges a batch to the pace.
    pub(super) fn charge_pace(&mut self, batch: &[PendingEvent]) {
        let units = SentUnits::of(batch);
        self.pace.charge(units.total(), units.repeated, batch.len());
    }

    /// Counts what an answer says about the table's capacity, and passes it to the concurrency limit and the pace.
    pub(super) fn observe_answer(&mut self, call: Call, answer: Answer<'_>, now: Instant) {
        let counters = &self.accounting.counters;
        let Processed { accepted_events, accepted, throttled } = match answer {
            Answer::Processed(processed) => processed,
            Answer::Throttled(_) => {
                let limit = answer.reason().map(ThrottlingReason::limit);
                counters.throttle_batch(limit.unwrap_or(ThrottlingLimit::Unknown));
                let accepted = SentUnits::default();
                Processed { accepted_events: 0, accepted, throttled: call.units }
            }
        };
        let is_throttled = throttled.total() > 0;
        if is_throttled {
            counters.throttle(throttled.total());
        }
        // This call has just left the calls in flight, but it counted towards the limit until now.
        let is_saturated =
            self.in_flight.len() + 1 >= self.concurrency.limit() && self.buffer.is_due(now);
        self.concurrency.observe(accepted_events, is_saturated, now);
        let units = |accepted: u64, throttled: u64| Units { accepted, throttled };
        let observation = Observation {
            began: call.times.began,
            first: units(accepted.first, throttled.first),
            second: units(accepted.second, throttled.second),
            repeated: units(accepted.repeated, throttled.repeated),
            is_of_one_partition: answer.is_of_one_partition(call),
        };
        let jitter = if is_throttled { self.jitter.random::<f64>() } else { 0.0 };
        if self.pace.observe(observation, now, jitter) == Change::Began {
            let reason = answer.reason().map(display);
            tracing::warn!(
                reason,
                "the table throttles: calls are now paced by its measured capacity"
            );
        }
        if self.pace.capacity().is_some() {
            self.limit_buffer();
        }
    }

    /// Ends the pacing, when the table has not been at its limit for a long time.
    pub(super) fn forget_pace(&mut self, now: Instant) {
        if self.pace.forget(now) == Change::Ended {
            tracing::info!("the table has stopped throttling: calls are no longer paced");
            self.limit_buffer();
        }
    }

    /// Limits the buffer to the events that the table takes within half of an event's deadline.
    pub(super) fn limit_buffer(&mut self) {
        let max_events = self.settings.max_buffered_events as u64;
        let min_events = (MIN_BUFFERED_BATCHES * self.settings.max_batch_events) as u64;
        let reduction = match self.pace.events_within(self.settings.retry.event_deadline / 2) {
            Some(events) => max_events.saturating_sub(events.max(min_events)),
            None => 0,
        };
        let flow_control = &self.accounting.flow_control;
        if reduction > 0 || flow_control.is_limit_reduced() {
            flow_control.reduce_limit(reduction);
        }
    }

    /// Publishes in the counters what limits the calls now.
    pub(super) fn publish_limits(&mut self, now: Instant) {
        let accounting = &self.accounting;
        let accepted_at =
            |expires_at: Instant| expires_at.checked_sub(self.settings.retry.event_deadline);
        let oldest = self.buffer.next_expiry().and_then(accepted_at);
        accounting.counters.set_limits(Limits {
            write_units_per_second: self.pace.rate(now),
            batches_in_flight: self.concurrency.limit(),
            oldest_accepted: oldest
                .map(|accepted_at| accepted_at.saturating_duration_since(accounting.started_at)),
        });
        #[cfg(feature = "metrics")]
        self.publisher.publish(self.in_flight.len(), now);
    }
}
