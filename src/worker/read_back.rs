//! Reading back: events that failed and may be stored all the same are read before they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_flight::{Completed, InFlight};
use crate::dynamodb::{BatchReading, BatchWriter};
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::pending::PendingEvent;
use crate::policy::Waiting;
use crate::policy::batch::BatchLimits;
use crate::policy::buffer::Buffer;
use crate::policy::resolve::{Found, Resolution, resolve};
use crate::policy::retry::Backoff;

/// What the service says to a role that may not read.
const ACCESS_DENIED: &str = "AccessDeniedException";

/// What became of an event that was read back.
pub(super) struct ReadBackOutcome {
    pub(super) event: PendingEvent,
    pub(super) resolution: Resolution,
}

impl ReadBackOutcome {
    /// Of an event for which there is no more time to read.
    fn unread(event: PendingEvent) -> Self {
        let resolution = Resolution::Failed(Certainty::MaybeStored, event.unread());
        Self { event, resolution }
    }
}

/// Reads that are in flight, and events that wait to be read.
pub(super) struct ReadBacks {
    writer: Arc<dyn BatchWriter>,
    read_timeout: Duration,
    backoff: Backoff,
    waiting: Buffer<PendingEvent>,
    pub(super) reads: InFlight<PendingEvent, BatchReading>,
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

    /// Adds an event whose read-back [has begun](PendingEvent::begin_read_back).
    pub(super) fn add(&mut self, event: PendingEvent, now: Instant) {
        self.waiting.requeue(event, now);
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
            let keys = keys(&batch);
            let answer_by = batch.iter().map(PendingEvent::expires_at).min().unwrap_or(now);
            let limit = self.read_timeout.min(answer_by.saturating_duration_since(now));
            batch.iter_mut().for_each(PendingEvent::begin_read);
            let writer = Arc::clone(&self.writer);
            self.reads.start(batch, 0, limit, async move { writer.read_batch(&keys).await });
        }
    }

    /// An event whose time is up before a read has given an answer.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<ReadBackOutcome> {
        self.waiting.pop_expired(now).map(ReadBackOutcome::unread)
    }

    /// Concludes a read: returns the events that are decided, and keeps those that are to be read again. `jitter` is a
    /// random number from 0 to 1.
    pub(super) fn conclude(
        &mut self,
        batch: Vec<PendingEvent>,
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
                    let retried = batch.into_iter();
                    return retried
                        .filter_map(|event| self.retry(event, &failure, now, jitter))
                        .collect();
                }
                let mut failed = batch;
                if is_denied || failure.class() == FailureClass::Fatal {
                    // The events that wait would be refused as well.
                    failed.extend(std::iter::from_fn(|| self.waiting.pop()));
                }
                failed.iter_mut().for_each(|event| event.fail_read(&failure));
                failed.into_iter().map(ReadBackOutcome::unread).collect()
            }
        }
    }

    /// Returns all events, unread. Reads in flight are dropped.
    pub(super) fn abandon(&mut self) -> Vec<ReadBackOutcome> {
        let in_flight = self.reads.abort();
        let waiting = std::iter::from_fn(|| self.waiting.pop());
        in_flight.chain(waiting).map(ReadBackOutcome::unread).collect()
    }

    fn apply(
        &mut self,
        batch: Vec<PendingEvent>,
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
        for event in batch {
            let found = found(event.event(), reading);
            match resolve(event.uncertainty(), found, event.elapsed(now)) {
                None => outcomes.extend(self.retry(event, &left_out, now, jitter)),
                Some(resolution) => outcomes.push(ReadBackOutcome { event, resolution }),
            }
        }
        outcomes
    }

    /// Reads an event again after a wait. Without time for that it is settled unread.
    fn retry(
        &mut self,
        mut event: PendingEvent,
        failure: &Arc<BatchError>,
        now: Instant,
        jitter: f64,
    ) -> Option<ReadBackOutcome> {
        event.fail_read(failure);
        let ready_at = now + self.backoff.delay(event.reads(), jitter);
        if ready_at >= event.expires_at() {
            return Some(ReadBackOutcome::unread(event));
        }
        self.waiting.requeue(event, ready_at);
        None
    }
}

fn keys(batch: &[PendingEvent]) -> Vec<EventKey> {
    batch.iter().map(|event| *event.event().key()).collect()
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

/// A read that names other keys is the answer to another request.
fn about(reading: BatchReading, batch: &[PendingEvent]) -> Completed<BatchReading> {
    if reading.is_about(&keys(batch)) {
        Ok(reading)
    } else {
        Err(BatchError::invalid_response("it names keys that were not asked for"))
    }
}
