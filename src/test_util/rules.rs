//! The rules for which the service refuses a batch as a whole.

use std::collections::HashSet;

use crate::event::{Event, MAX_BATCH_EVENTS, MAX_BATCH_WIRE_BYTES, MAX_ITEM_BYTES};

/// Describes the rule of `BatchWriteItem` that this batch breaks, if any.
pub(super) fn violation(events: &[Event]) -> Option<String> {
    let keys: HashSet<_> = events.iter().map(Event::key).collect();
    let wire_bytes: usize = events.iter().map(Event::wire_bytes).sum();
    if events.is_empty() {
        Some("a batch without an event".to_owned())
    } else if events.len() > MAX_BATCH_EVENTS {
        Some(format!("a batch of {} events", events.len()))
    } else if keys.len() < events.len() {
        Some("a batch with one key twice".to_owned())
    } else if let Some(event) = events.iter().find(|event| event.item_bytes() > MAX_ITEM_BYTES) {
        Some(format!("an item of {} bytes", event.item_bytes()))
    } else if wire_bytes > MAX_BATCH_WIRE_BYTES {
        Some(format!("a batch of {wire_bytes} bytes"))
    } else {
        None
    }
}
