//! Internals that the benchmarks measure. Not part of the public interface: this module can change in every version.
#![doc(hidden)]

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use bytes::Bytes;

use crate::dynamodb::BatchReceipt;
use crate::dynamodb::DirectBatchWriter;
use crate::dynamodb::request::RequestSettings;
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::key::{EventKey, KeyGenerator, WriterId};
use crate::event::{Event, MAX_BATCH_EVENTS};
use crate::policy::BufferedEvent;
use crate::policy::batch::{Batch, BatchLimits};
use crate::policy::buffer::Buffer;
use crate::policy::reconcile::reconcile;
use crate::write_mode::WriteMode;

/// An event, when it was accepted, and when it fails.
pub type Expiring = (Event, Instant, Instant);

impl BufferedEvent for Expiring {
    fn event(&self) -> &Event {
        &self.0
    }

    fn accepted_at(&self) -> Instant {
        self.1
    }

    fn expires_at(&self) -> Instant {
        self.2
    }
}

/// Makes one key at each of these times, in milliseconds since the Unix epoch, and returns the last.
pub fn make_keys(times: impl IntoIterator<Item = u64>) -> Option<EventKey> {
    let mut keys = KeyGenerator::new(WriterId::from_random(0));
    times.into_iter().filter_map(|time| keys.next(time)).last()
}

/// Adds events to a buffer without linger and takes them out again in batches.
pub fn fill_batches(events: Vec<Expiring>, now: Instant) -> Vec<Vec<Expiring>> {
    let mut buffer =
        Buffer::new(BatchLimits::new(MAX_BATCH_EVENTS, WriteMode::Put), Duration::ZERO);
    for event in events {
        buffer.push(event);
    }
    std::iter::from_fn(|| buffer.take_ready(now).map(Batch::into_items)).collect()
}

/// The events that a receipt with these unprocessed keys acknowledges, and those that remain.
pub fn reconcile_batch(
    sent: Vec<Expiring>,
    unprocessed: &[String],
) -> (Vec<Expiring>, Vec<Expiring>) {
    let reconciled = reconcile(sent, unprocessed, &[]);
    (reconciled.stored, reconciled.unprocessed)
}

/// The body of the request that writes `events`.
pub fn request_body(table: &str, events: &[Event]) -> Bytes {
    Bytes::from(RequestSettings::new(table).body(events))
}

/// The direct transport without the rest of the store: from a request's body to its receipt.
#[derive(Debug)]
pub struct DirectTransport(DirectBatchWriter);

impl DirectTransport {
    /// The transport of a store with this client's configuration.
    pub fn new(client: &Client, table: &str) -> Self {
        Self(DirectBatchWriter::new(client, table))
    }

    /// Signs and sends a request, and reads the response.
    pub async fn send(&self, body: Bytes) -> Result<BatchReceipt, BatchError> {
        let not_repeatable = || {
            let message = "the request cannot be repeated";
            Err(BatchError::new(FailureClass::Fatal, Certainty::NotStored, message))
        };
        self.0.write(|| body, Duration::MAX).await.unwrap_or_else(not_repeatable)
    }
}
