//! What answers tell of the table's capacity, and what follows from it for the calls and the buffer.

use std::time::Instant;

use rand::RngExt;
use tracing::field::display;

use super::Worker;
use crate::error::{BatchError, ThrottlingLimit, ThrottlingReason};
use crate::pending::PendingEvent;
use crate::policy::Waiting;
use crate::policy::buffer::MaxUnits;
use crate::policy::pace::{Allowance, Answer, Change, Units};
use crate::stats::Limits;

/// However slow the table, so many batches may wait: with fewer, its capacity could not be used.
const LEAST_BUFFERED_BATCHES: usize = 4;

/// Keys are spread evenly over a table's partitions. So this many events of one call are not all for the same.
const EVENTS_OF_SEVERAL_PARTITIONS: usize = 8;

/// A call that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) began: Option<Instant>,
    events: usize,
    units: Sent,
}

impl Call {
    pub(super) fn of(batch: &[PendingEvent]) -> Self {
        let began = batch.first().and_then(|event| event.in_flight_since());
        Self { began, events: batch.len(), units: Sent::of(batch) }
    }
}

/// Write units of a batch whose call has begun, by how often its events have been sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    first: u64,
    second: u64,
    repeated: u64,
}

impl Sent {
    fn of(events: &[PendingEvent]) -> Self {
        let mut sent = Self::default();
        for event in events {
            let units = event.event().write_units();
            match event.attempts() {
                0 | 1 => sent.first += units,
                2 => sent.second += units,
                _ => sent.repeated += units,
            }
        }
        sent
    }

    fn total(self) -> u64 {
        self.first + self.second + self.repeated
    }
}

/// How much of a call the table had capacity for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share<'a> {
    Stored(&'a [PendingEvent]),
    /// The call was refused as a whole.
    Refused(&'a BatchError),
}

impl<'a> Share<'a> {
    /// The first reason that the service named.
    fn reason(self) -> Option<&'a ThrottlingReason> {
        match self {
            Self::Stored(_) => None,
            Self::Refused(error) => error.throttling_reasons().first(),
        }
    }

    /// Whether it may be one partition alone that had no capacity.
    fn is_of_one_partition(self, call: Call) -> bool {
        let limit = self.reason().map(ThrottlingReason::limit);
        call.events < EVENTS_OF_SEVERAL_PARTITIONS && limit == Some(ThrottlingLimit::KeyRange)
    }
}

impl Worker {
    /// How many units of a batch may leave at `now`. `None` where nothing is due, or not yet; then the moment to
    /// ask again is noted.
    pub(super) fn allow(&mut self, now: Instant) -> Option<MaxUnits> {
        let repeated = self.allow_repeated(now);
        if repeated == 0 && !self.buffer.is_due(now) {
            return None;
        }
        let held_back = if repeated == 0 { self.buffer.repeated_len() } else { 0 };
        match self.pace.allow(self.buffer.len() - held_back, now) {
            Allowance::Units(all) => Some(MaxUnits { all, repeated }),
            Allowance::NotBefore(turn) => {
                self.next_turn = Some(turn);
                None
            }
        }
    }

    fn allow_repeated(&mut self, now: Instant) -> u64 {
        self.next_repeated = self.buffer.next_repeated();
        if !self.buffer.has_repeated(now) {
            return 0;
        }
        match self.pace.allow_repeated(self.buffer.repeated_len(), now) {
            Allowance::Units(units) => units,
            Allowance::NotBefore(turn) => {
                self.next_repeated = Some(turn);
                0
            }
        }
    }

    /// Notes that a batch leaves, before its call is counted among its events' attempts.
    pub(super) fn pace_sent(&mut self, batch: &[PendingEvent]) {
        let units = |event: &PendingEvent| event.event().write_units();
        let is_repeated = |event: &&PendingEvent| event.attempts() >= 2;
        let all = batch.iter().map(units).sum();
        let repeated = batch.iter().filter(is_repeated).map(units).sum();
        self.pace.sent(all, repeated, batch.len());
    }

    /// Learns from an answer that says what the table had capacity for.
    pub(super) fn learn(&mut self, call: Call, share: Share<'_>, now: Instant) {
        let counters = &self.exit_guard.accounting.counters;
        let (stored, stored_events) = match share {
            Share::Stored(stored) => (Sent::of(stored), stored.len()),
            Share::Refused(_) => {
                let limit = share.reason().map(ThrottlingReason::limit);
                counters.throttle_batch(limit.unwrap_or(ThrottlingLimit::Unknown));
                (Sent::default(), 0)
            }
        };
        let refused = call.units.total() - stored.total();
        if refused > 0 {
            counters.throttle(refused);
        }
        // The call that was answered still had its place when no other could begin.
        let is_saturated =
            self.in_flight.len() + 1 >= self.concurrency.limit() && self.buffer.is_due(now);
        self.concurrency.observe(stored_events, is_saturated, now);
        let units = |sent: u64, accepted: u64| Units { accepted, refused: sent - accepted };
        let answer = Answer {
            began: call.began.unwrap_or(now),
            first: units(call.units.first, stored.first),
            second: units(call.units.second, stored.second),
            repeated: units(call.units.repeated, stored.repeated),
            is_of_one_partition: share.is_of_one_partition(call),
        };
        let jitter = if refused > 0 { self.jitter.random::<f64>() } else { 0.0 };
        if self.pace.observe(answer, now, jitter) == Change::Began {
            let reason = share.reason().map(display);
            tracing::warn!(
                reason,
                "the table throttles: calls now leave at the rate that it takes"
            );
        }
        if self.pace.capacity().is_some() {
            self.limit_buffer();
        }
    }

    /// Takes the table for unlimited again, when it has not been at its limit for long.
    pub(super) fn forget_pace(&mut self, now: Instant) {
        if self.pace.forget(now) == Change::Ended {
            tracing::info!("the table throttles no more: calls leave at once");
            self.limit_buffer();
        }
    }

    /// Lets no more events in than are stored in half of their deadline.
    pub(super) fn limit_buffer(&mut self) {
        let most = self.max_buffered_events as u64;
        let least = (LEAST_BUFFERED_BATCHES * self.limits.max_events) as u64;
        let withheld = match self.pace.events_within(self.retry.event_deadline / 2) {
            Some(events) => most.saturating_sub(events.max(least)),
            None => 0,
        };
        if withheld > 0 || self.exit_guard.accounting.flow_control.is_withheld() {
            self.exit_guard.accounting.flow_control.withhold(withheld);
        }
    }

    /// Tells the counters what limits the calls now.
    pub(super) fn publish_limits(&self, now: Instant) {
        let accounting = &self.exit_guard.accounting;
        let accepted_at = |expires_at: Instant| expires_at.checked_sub(self.retry.event_deadline);
        let oldest = self.buffer.next_expiry().and_then(accepted_at);
        accounting.counters.limit(Limits {
            write_units_per_second: self.pace.rate(now),
            batches_in_flight: self.concurrency.limit(),
            oldest: oldest.map(|oldest| oldest.saturating_duration_since(accounting.began)),
        });
    }
}
