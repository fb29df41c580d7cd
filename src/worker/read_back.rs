//! Read-back: failed events that may be stored are read from the table before their tickets are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use super::in_flight::{CallResult, InFlight};
use crate::dynamodb::{BatchReading, BatchWriter};
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::pending::PendingEvent;
use crate::policy::BufferedEvent;
use crate::policy::batch::BatchLimits;
use crate::policy::buffer::Buffer;
use crate::policy::resolve::{Found, Resolution, resolve};
use crate::policy::retry::Backoff;
use crate::write_mode::WriteMode;

/// The error code for a role without `dynamodb:BatchGetItem`.
const ACCESS_DENIED: &str = "AccessDeniedException";

/// The result of one event's read-back.
pub(super) struct ReadBackOutcome {
    pub(super) event: PendingEvent,
    pub(super) resolution: Resolution,
}

impl ReadBackOutcome {
    /// The outcome of an event that no read has decided.
    fn unread(event: PendingEvent) -> Self {
        let resolution = Resolution::Failed(Certainty::MaybeStored, event.unread());
        Self { event, resolution }
    }
}

/// The events that are read back: those that wait for a read, and those with a read in flight.
pub(super) struct ReadBacks {
    writer: Arc<dyn BatchWriter>,
    mode: WriteMode,
    read_timeout: Duration,
    backoff: Backoff,
    waiting: Buffer<PendingEvent>,
    pub(super) reads: InFlight<PendingEvent, BatchReading>,
}

impl ReadBacks {
    pub(super) fn new(
        writer: Arc<dyn BatchWriter>,
        mode: WriteMode,
        read_timeout: Duration,
        backoff: Backoff,
        limits: BatchLimits,
        max_reads: usize,
    ) -> Self {
        Self {
            writer,
            mode,
            read_timeout,
            backoff,
            waiting: Buffer::new(limits, Duration::ZERO),
            // Bytes need no limit: a request has keys only, and an answer is no larger than the events it is about.
            reads: InFlight::new(max_reads, usize::MAX),
        }
    }

    /// Whether the events that are read were inserted.
    pub(super) fn are_of_inserts(&self) -> bool {
        self.mode == WriteMode::Insert
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.reads.is_empty()
    }

    /// Adds an event whose read-back [has begun](PendingEvent::begin_read_back).
    pub(super) fn add(&mut self, event: PendingEvent, now: Instant) {
        self.waiting.requeue(event, now);
    }

    /// When the next read or the next expiry is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let read = if self.reads.has_capacity() { self.waiting.next_due() } else { None };
        read.into_iter().chain(self.waiting.next_expiry()).min()
    }

    /// Begins the reads that are due.
    pub(super) fn read_due(&mut self, now: Instant) {
        while self.reads.has_capacity()
            && let Some(batch) = self.waiting.take_ready(now)
        {
            let mut batch = batch.into_items();
            let keys = keys(&batch);
            let answer_by = batch.iter().map(PendingEvent::expires_at).min().unwrap_or(now);
            let timeout = self.read_timeout.min(answer_by.saturating_duration_since(now));
            batch.iter_mut().for_each(PendingEvent::begin_read);
            let writer = Arc::clone(&self.writer);
            self.reads.start(batch, 0, Span::none(), now, timeout, async move {
                writer.read_batch(&keys).await
            });
        }
    }

    /// Removes an event that has to be answered at `now` although no read has decided it.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<ReadBackOutcome> {
        self.waiting.pop_expired(now).map(ReadBackOutcome::unread)
    }

    /// Handles a completed read: returns the events that are decided, and queues the others to be read again. `jitter`
    /// is a random number from 0 to 1.
    pub(super) fn conclude(
        &mut self,
        batch: Vec<PendingEvent>,
        result: CallResult<BatchReading>,
        now: Instant,
        jitter: f64,
    ) -> Vec<ReadBackOutcome> {
        match result.and_then(|reading| check_keys(reading, &batch)) {
            Ok(reading) => self.apply(batch, &reading, now, jitter),
            Err(failure) => {
                tracing::warn!(events = batch.len(), class = ?failure.class(), error = %failure, "read-back failed");
                let failure = Arc::new(failure);
                // Denied access is final here, as a role that may write need not be allowed to read. Other refusals are
                // temporary: credentials that are new or being rotated.
                let is_denied = failure.code() == Some(ACCESS_DENIED);
                if failure.class().is_retryable() && !is_denied {
                    let retried = batch.into_iter();
                    return retried
                        .filter_map(|event| self.retry(event, &failure, now, jitter))
                        .collect();
                }
                let mut failed = batch;
                if is_denied || failure.class() == FailureClass::Fatal {
                    // The service would refuse the waiting events as well.
                    failed.extend(std::iter::from_fn(|| self.waiting.pop()));
                }
                failed.iter_mut().for_each(|event| event.fail_read(&failure));
                failed.into_iter().map(ReadBackOutcome::unread).collect()
            }
        }
    }

    /// Cancels the reads in flight, and returns all events as unread.
    pub(super) fn abort(&mut self) -> Vec<ReadBackOutcome> {
        let in_flight = self.reads.abort().map(|(_, event)| event);
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
        let unread = Arc::new(BatchError::new(
            FailureClass::Unprocessed,
            Certainty::NotStored,
            "the service left the key in UnprocessedKeys: the table has too little read capacity",
        ));
        let mut outcomes = Vec::with_capacity(batch.len());
        for event in batch {
            let found = found(event.event(), reading);
            // An earlier put of the event may have stored it under another key. Then an item of another writer under
            // this key proves nothing.
            let mode = if event.was_put_before() { WriteMode::Put } else { self.mode };
            match resolve(event.uncertainty(), found, event.elapsed(now), mode) {
                None => outcomes.extend(self.retry(event, &unread, now, jitter)),
                Some(resolution) => outcomes.push(ReadBackOutcome { event, resolution }),
            }
        }
        outcomes
    }

    /// Queues an event to be read again after a backoff. Without time for that, returns it as unread.
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

/// Fails a reading that names keys of another request.
fn check_keys(reading: BatchReading, batch: &[PendingEvent]) -> CallResult<BatchReading> {
    if reading.is_about(&keys(batch)) {
        Ok(reading)
    } else {
        Err(BatchError::invalid_response("it names keys that were not requested"))
    }
}
