//! The throughput of a fake table with a capacity.

use std::time::{Duration, Instant};

use crate::error::{BatchError, Certainty, FailureClass, ThrottlingReason};
use crate::event::Event;
use crate::write_capacity::{Buckets, Throttle, WriteCapacity};

/// The units that a table accepted and throttled in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Throughput {
    /// Write units of the items that were applied.
    pub accepted_units: u64,
    /// Write units of the items that were throttled.
    pub throttled_units: u64,
    /// Calls whose items were all throttled.
    pub throttled_calls: u64,
}

/// Limits the writes of a table, and records its throughput.
#[derive(Debug)]
pub(super) struct Meter {
    start: Instant,
    buckets: Buckets,
    seconds: Vec<Throughput>,
}

impl Meter {
    pub(super) fn new(capacity: WriteCapacity, start: Instant) -> Self {
        Self { start, buckets: Buckets::new(capacity), seconds: Vec::new() }
    }

    pub(super) fn latency(&self, now: Instant) -> Duration {
        self.buckets.latency(now.saturating_duration_since(self.start))
    }

    pub(super) fn seconds(&self) -> Vec<Throughput> {
        self.seconds.clone()
    }

    /// The indexes of the events beyond the capacity at `now`. Fails if all events are.
    pub(super) fn throttle(
        &mut self,
        events: &[Event],
        now: Instant,
    ) -> Result<Vec<usize>, BatchError> {
        let age = now.saturating_duration_since(self.start);
        let mut throttled = Vec::new();
        let mut last = None;
        let mut seen = Throughput::default();
        for (place, event) in events.iter().enumerate() {
            let units = event.write_units();
            match self.buckets.admit(event.key().as_str(), units, age) {
                Ok(()) => seen.accepted_units += units,
                Err(throttle) => {
                    seen.throttled_units += units;
                    throttled.push(place);
                    last = Some(throttle);
                }
            }
        }
        let whole = last.filter(|_| throttled.len() == events.len());
        seen.throttled_calls = u64::from(whole.is_some());
        self.count(seen, age);
        match whole {
            Some(throttle) => Err(throttling_error(throttle)),
            None => Ok(throttled),
        }
    }

    fn count(&mut self, seen: Throughput, age: Duration) {
        let second = age.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Throughput::default());
        }
        if let Some(sum) = self.seconds.get_mut(second) {
            sum.accepted_units += seen.accepted_units;
            sum.throttled_units += seen.throttled_units;
            sum.throttled_calls += seen.throttled_calls;
        }
    }
}

fn throttling_error(throttle: Throttle) -> BatchError {
    let (code, reason) = throttle.exception();
    let message = "the fake table is out of capacity";
    BatchError::new(FailureClass::Throttled, Certainty::NotStored, message)
        .with_code(code)
        .with_throttling_reasons([ThrottlingReason::new(reason)])
}
