//! What decides, within reach of the benchmarks. No part of the public interface: it may change
//! with every version.
#![doc(hidden)]

use std::time::{Duration, Instant};

use crate::event::{Event, MAX_BATCH_EVENTS};
use crate::key::{EventKey, KeyGenerator, WriterId};
use crate::policy::Waiting;
use crate::policy::batch::{Batch, BatchLimits};
use crate::policy::buffer::Buffer;
use crate::policy::reconcile::reconcile;

/// An event, and when it is to be given up.
pub type Expiring = (Event, Instant);

impl Waiting for Expiring {
    fn event(&self) -> &Event {
        &self.0
    }

    fn expires_at(&self) -> Instant {
        self.1
    }
}

/// The last of the keys that one writer makes, one at each of these times: milliseconds after the
/// Unix epoch.
pub fn make_keys(times: impl IntoIterator<Item = u64>) -> Option<EventKey> {
    let mut keys = KeyGenerator::new(WriterId::from_random(0));
    times.into_iter().filter_map(|time| keys.next(time)).last()
}

/// The batches that events which all come at `now` leave the buffer in.
pub fn fill_batches(events: Vec<Expiring>, now: Instant) -> Vec<Vec<Expiring>> {
    let mut buffer = Buffer::new(BatchLimits::new(MAX_BATCH_EVENTS), Duration::ZERO);
    for event in events {
        buffer.push(event, now);
    }
    std::iter::from_fn(|| buffer.take_ready(now).map(Batch::into_items)).collect()
}

/// The events that were stored, and those that remain.
pub fn reconcile_batch(
    sent: Vec<Expiring>,
    unprocessed: &[String],
) -> (Vec<Expiring>, Vec<Expiring>) {
    let reconciled = reconcile(sent, unprocessed);
    (reconciled.stored, reconciled.remaining)
}
