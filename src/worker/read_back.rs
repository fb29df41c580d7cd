//! The events that are given up and may be stored all the same: read back before they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_flight::{Completed, InFlight};
use super::settle::Held;
use crate::dynamodb::{BatchReading, BatchWriter};
use crate::error::{BatchError, Certainty, FailureClass, FailureReason, ReadBack};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::policy::Waiting;
use crate::policy::batch::BatchLimits;
use crate::policy::buffer::Buffer;
use crate::policy::resolve::{Found, Resolution, resolve};
use crate::policy::retry::Backoff;

/// What the service says to a role that may not read.
const ACCESS_DENIED: &str = "AccessDeniedException";

/// An event that is given up for `reason` and waits for a read.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    held: Held,
    reason: FailureReason,
    answer_by: Instant,
    reads: u32,
    /// Why the last read told nothing.
    failure: Option<Arc<BatchError>>,
}

impl Waiting for Unconfirmed {
    fn event(&self) -> &Event {
        self.held.event()
    }

    fn expires_at(&self) -> Instant {
        self.answer_by
    }
}

impl Unconfirmed {
    /// What is left to say when there is no more time to read.
    fn unread(self) -> ReadBackOutcome {
        let read_back = self.failure.map_or(ReadBack::NoTime, ReadBack::Failed);
        let resolution = Resolution::Failure(Certainty::MaybeStored, read_back);
        ReadBackOutcome { held: self.held, reason: self.reason, resolution }
    }
}

/// How an event in doubt ends.
pub(super) struct ReadBackOutcome {
    pub(super) held: Held,
    pub(super) reason: FailureReason,
    pub(super) resolution: Resolution,
}

/// Reads, under way and to come.
pub(super) struct ReadBacks {
    writer: Arc<dyn BatchWriter>,
    read_timeout: Duration,
    backoff: Backoff,
    /// Each waits for its turn to be read, first or again, and until its time is up.
    waiting: Buffer<Unconfirmed>,
    pub(super) reads: InFlight<Unconfirmed, BatchReading>,
}

impl ReadBacks {
    pub(super) fn new(
        writer: Arc<dyn BatchWriter>,
        read_timeout: Duration,
        backoff: Backoff,
        limits: BatchLimits,
        most_reads: usize,
    ) -> Self {
        Self {
            writer,
            read_timeout,
            backoff,
            waiting: Buffer::new(limits, Duration::ZERO),
            // A request for keys alone is small, and its answer no larger than the events in hand.
            reads: InFlight::new(most_reads, usize::MAX),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reads.is_empty()
    }

    /// Takes an event to be read back, and answered by `answer_by` at the latest.
    pub(super) fn add(
        &mut self,
        held: Held,
        reason: FailureReason,
        answer_by: Instant,
        now: Instant,
    ) {
        self.waiting.requeue(Unconfirmed { held, reason, answer_by, reads: 0, failure: None }, now);
    }

    /// When there is something to do, if nothing happens before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let read = if self.reads.has_place() { self.waiting.next_due() } else { None };
        read.into_iter().chain(self.waiting.next_expiry()).min()
    }

    /// Begins the reads that are due.
    pub(super) fn read_due(&mut self, now: Instant) {
        while self.reads.has_place()
            && let Some(batch) = self.waiting.take_ready(now)
        {
            let mut batch = batch.into_items();
            let keys: Vec<EventKey> =
                batch.iter().map(|unconfirmed| *unconfirmed.event().key()).collect();
            let answer_by =
                batch.iter().map(|unconfirmed| unconfirmed.answer_by).min().unwrap_or(now);
            let limit = self.read_timeout.min(answer_by.saturating_duration_since(now));
            for unconfirmed in &mut batch {
                unconfirmed.reads += 1;
            }
            let writer = Arc::clone(&self.writer);
            self.reads.start(batch, 0, limit, async move { writer.read_batch(&keys).await });
        }
    }

    /// The next event whose time is up before a read has told anything.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<ReadBackOutcome> {
        self.waiting.pop_expired(now).map(Unconfirmed::unread)
    }

    /// Sorts the events of a read that came back into those that are decided, handed back, and those
    /// to be read again. `jitter` is a random number from 0 to 1.
    pub(super) fn conclude(
        &mut self,
        batch: Vec<Unconfirmed>,
        completed: Completed<BatchReading>,
        now: Instant,
        jitter: f64,
    ) -> Vec<ReadBackOutcome> {
        match completed.and_then(|reading| about(reading, &batch)) {
            Ok(reading) => self.apply(batch, &reading, now, jitter),
            Err(failure) => {
                tracing::warn!(events = batch.len(), class = ?failure.class(), error = %failure, "read back failed");
                let failure = Arc::new(failure);
                // A role that may write need not be allowed to read. Other refusals pass: keys that are rotated, or new.
                let is_denied = failure.code() == Some(ACCESS_DENIED);
                if failure.class().is_retryable() && !is_denied {
                    let again = batch.into_iter();
                    return again
                        .filter_map(|unconfirmed| self.again(unconfirmed, &failure, now, jitter))
                        .collect();
                }
                let mut refused = batch;
                if is_denied || failure.class() == FailureClass::Fatal {
                    // What waits would be refused as well.
                    refused.extend(std::iter::from_fn(|| self.waiting.pop()));
                }
                refused
                    .into_iter()
                    .map(|unconfirmed| Unconfirmed {
                        failure: Some(Arc::clone(&failure)),
                        ..unconfirmed
                    })
                    .map(Unconfirmed::unread)
                    .collect()
            }
        }
    }

    /// Hands back everything, as undecided as it is. Reads under way are dropped.
    pub(super) fn abandon(&mut self) -> Vec<ReadBackOutcome> {
        let under_way = self.reads.abort();
        let waiting = std::iter::from_fn(|| self.waiting.pop());
        under_way.chain(waiting).map(Unconfirmed::unread).collect()
    }

    fn apply(
        &mut self,
        batch: Vec<Unconfirmed>,
        reading: &BatchReading,
        now: Instant,
        jitter: f64,
    ) -> Vec<ReadBackOutcome> {
        let left_out = Arc::new(BatchError::new(
            FailureClass::Unprocessed,
            Certainty::NotStored,
            "the service left the key in UnprocessedKeys: the table is short of read capacity",
        ));
        let mut outcomes = Vec::with_capacity(batch.len());
        for unconfirmed in batch {
            let (uncertainty, after) =
                (unconfirmed.held.pending.uncertainty(), unconfirmed.held.pending.elapsed(now));
            match resolve(uncertainty, found(unconfirmed.event(), reading), after) {
                None => outcomes.extend(self.again(unconfirmed, &left_out, now, jitter)),
                Some(resolution) => {
                    let Unconfirmed { held, reason, .. } = unconfirmed;
                    outcomes.push(ReadBackOutcome { held, reason, resolution });
                }
            }
        }
        outcomes
    }

    /// Reads an event again after a wait, or decides without, where the wait would take too long.
    fn again(
        &mut self,
        mut unconfirmed: Unconfirmed,
        failure: &Arc<BatchError>,
        now: Instant,
        jitter: f64,
    ) -> Option<ReadBackOutcome> {
        unconfirmed.failure = Some(Arc::clone(failure));
        let ready_at = now + self.backoff.delay(unconfirmed.reads, jitter);
        if ready_at >= unconfirmed.answer_by {
            return Some(unconfirmed.unread());
        }
        self.waiting.requeue(unconfirmed, ready_at);
        None
    }
}

fn found(event: &Event, reading: &BatchReading) -> Found {
    if reading.is_unread(event.key()) {
        return Found::Unread;
    }
    match reading.body(event.key()) {
        Some(Some(body)) if body == event.body() => Found::Event,
        Some(_) => Found::Other,
        None => Found::Nothing,
    }
}

fn about(reading: BatchReading, batch: &[Unconfirmed]) -> Completed<BatchReading> {
    let keys: Vec<EventKey> = batch.iter().map(|unconfirmed| *unconfirmed.event().key()).collect();
    if reading.is_about(&keys) {
        Ok(reading)
    } else {
        Err(BatchError::unreadable("it names keys that were not asked for"))
    }
}
