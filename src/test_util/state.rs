//! The state of a fake table: its rows, its scripts and its calls.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::reply::Then;
use super::rules::violation;
use super::throughput::Meter;
use super::{ReadReply, Reply};
use crate::clock::now;
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::write_mode::WriteMode;

/// One call to the table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// The time of the call since the table was created, by the runtime's clock.
    pub at: Duration,
    /// The keys of the batch.
    pub keys: Vec<String>,
    /// Number of writes in flight when this write began, or of reads when this read began.
    /// It includes this call.
    pub in_flight: usize,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) start: Instant,
    pub(super) script: VecDeque<Reply>,
    pub(super) read_script: VecDeque<ReadReply>,
    /// The replies after the end of the scripts.
    pub(super) then: Then<Reply>,
    pub(super) then_read: Then<ReadReply>,
    /// A batch with one of these bodies is refused as a whole.
    pub(super) invalid_bodies: HashSet<String>,
    pub(super) calls: Vec<Call>,
    pub(super) reads: Vec<Call>,
    pub(super) writing: usize,
    pub(super) reading: usize,
    pub(super) mode: WriteMode,
    pub(super) rows: BTreeMap<String, String>,
    /// Batches to apply at these times, even if their calls were dropped.
    pub(super) late: Vec<(Instant, Vec<Event>)>,
    pub(super) violations: Vec<String>,
    /// `None` for a table without limits.
    pub(super) meter: Option<Meter>,
}

impl State {
    pub(super) fn begin(&mut self, events: &[Event]) -> Result<(Reply, Duration), BatchError> {
        let keys = events.iter().map(|event| event.key().to_string()).collect();
        self.calls.push(Call { at: self.age(), keys, in_flight: self.writing });
        let invalid = |message: String| {
            BatchError::new(FailureClass::Invalid, Certainty::NotStored, message)
                .with_code("ValidationException")
        };
        if let Some(violation) = violation(events) {
            self.violations.push(violation.clone());
            return Err(invalid(violation));
        }
        if !self.invalid_bodies.is_empty()
            && events.iter().any(|event| self.invalid_bodies.contains(&*event.body()))
        {
            return Err(invalid("One or more parameter values were invalid".to_owned()));
        }
        let latency = self.meter.as_ref().map_or(Duration::ZERO, |meter| meter.latency(now()));
        Ok((self.script.pop_front().unwrap_or_else(|| self.then.next(events.len())), latency))
    }

    /// The indexes of the events beyond the table's capacity.
    pub(super) fn throttle(&mut self, events: &[Event]) -> Result<Vec<usize>, BatchError> {
        self.meter.as_mut().map_or(Ok(Vec::new()), |meter| meter.throttle(events, now()))
    }

    pub(super) fn begin_read(&mut self, keys: &[EventKey]) -> ReadReply {
        let asked = keys.iter().map(ToString::to_string).collect();
        self.reads.push(Call { at: self.age(), keys: asked, in_flight: self.reading });
        self.read_script.pop_front().unwrap_or_else(|| self.then_read.next(keys.len()))
    }

    pub(super) fn age(&self) -> Duration {
        now().saturating_duration_since(self.start)
    }

    /// Writes events in the table's mode. Returns the keys of those that were not inserted, as their keys are taken.
    pub(super) fn apply<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) -> Vec<String> {
        let mut duplicates = Vec::new();
        for event in events {
            let (key, body) = (event.key().to_string(), event.body().into_owned());
            if self.mode == WriteMode::Insert && self.rows.contains_key(&key) {
                duplicates.push(key);
                continue;
            }
            let before = self.rows.insert(key.clone(), body);
            if before.is_some_and(|before| before != event.body()) {
                self.violations.push(format!("{key} was overwritten with another body"));
            }
        }
        duplicates
    }
}
