//! The events of one call. A batch cannot exceed the service's limits, so every call that the worker makes has a valid
//! size.

use super::BufferedEvent;
use crate::event::MAX_BATCH_WIRE_BYTES;
use crate::event::key::EventKey;
use crate::write_mode::WriteMode;

/// Bytes of a request around its items: two braces, `RequestItems` and the table's name, which can be an ARN of up to
/// 1,024 characters. Rounded up.
const REQUEST_ENVELOPE_BYTES: usize = 1_200;

/// Bytes that the statement of an insert has more than a put, which [`Event::wire_bytes`](crate::Event::wire_bytes)
/// counts. The table's name in it has up to 255. Rounded up.
const STATEMENT_BYTES: usize = 400;

/// How large a batch may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) max_events: usize,
    pub(crate) max_wire_bytes: usize,
    /// The most write units of a batch. A single event that has more is sent alone.
    pub(crate) max_units: u64,
}

impl BatchLimits {
    /// At most `max_events`, the service's limit of bytes, and any number of write units.
    pub(crate) const fn new(max_events: usize, mode: WriteMode) -> Self {
        let more_bytes = match mode {
            WriteMode::Put => 0,
            WriteMode::Insert => max_events * STATEMENT_BYTES,
        };
        let max_wire_bytes = MAX_BATCH_WIRE_BYTES - REQUEST_ENVELOPE_BYTES - more_bytes;
        Self { max_events, max_wire_bytes, max_units: u64::MAX }
    }

    /// The same limits with at most `max_units` write units.
    pub(crate) const fn with_max_units(self, max_units: u64) -> Self {
        Self { max_units, ..self }
    }
}

/// Why an item was not added to a batch. The error contains the item.
#[derive(Debug, PartialEq)]
pub(crate) enum PushError<T> {
    /// The item does not fit into what is left of the batch.
    Full(T),
    /// The batch has an event with the same key. The service rejects a call that has a key twice.
    SameKey(T),
}

/// At most 25 events, with distinct keys, whose request has at most 16 MB.
#[derive(Debug)]
pub(crate) struct Batch<T> {
    limits: BatchLimits,
    items: Vec<T>,
    wire_bytes: usize,
    units: u64,
    greatest_key: Option<EventKey>,
}

impl<T: BufferedEvent> Batch<T> {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            items: Vec::with_capacity(limits.max_events),
            wire_bytes: 0,
            units: 0,
            greatest_key: None,
        }
    }

    /// Adds an item, if it fits.
    pub(crate) fn try_push(&mut self, item: T) -> Result<(), PushError<T>> {
        let wire_bytes = self.wire_bytes + item.event().wire_bytes();
        let units = self.units + item.event().write_units();
        if self.items.len() >= self.limits.max_events
            || wire_bytes > self.limits.max_wire_bytes
            || (units > self.limits.max_units && !self.is_empty())
        {
            return Err(PushError::Full(item));
        }
        let key = *item.event().key();
        // Most events come in the order of their keys, so the search below is rare.
        if self.greatest_key.is_none_or(|greatest| greatest < key) {
            self.greatest_key = Some(key);
        } else if self.contains(&key) {
            return Err(PushError::SameKey(item));
        }
        self.wire_bytes = wire_bytes;
        self.units = units;
        self.items.push(item);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn into_items(self) -> Vec<T> {
        self.items
    }

    fn contains(&self, key: &EventKey) -> bool {
        self.items.iter().any(|present| present.event().key() == key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Items;
    use super::*;

    #[test]
    fn full_batch_returns_the_26th_event() {
        let mut items = Items::new();
        let mut batch = Batch::new(BatchLimits::new(25, WriteMode::Put));
        for _ in 0..25 {
            batch.try_push(items.item()).unwrap();
        }
        let late = items.item();
        assert_eq!(batch.try_push(late.clone()), Err(PushError::Full(late)));
        assert_eq!(batch.into_items().len(), 25);
    }

    #[test]
    fn batch_holds_at_most_its_write_units() {
        let mut items = Items::new();
        let mut batch = Batch::new(BatchLimits::new(25, WriteMode::Put).with_max_units(3));
        let (large, small) = ("x".repeat(2_000), "{}");
        batch.try_push(items.with_body(&large)).unwrap();
        batch.try_push(items.with_body(small)).unwrap();
        assert!(matches!(batch.try_push(items.with_body(small)), Err(PushError::Full(_))));
    }

    #[test]
    fn event_over_the_unit_limit_is_sent_alone() {
        let mut items = Items::new();
        let mut batch = Batch::new(BatchLimits::new(25, WriteMode::Put).with_max_units(1));
        batch.try_push(items.with_body(&"x".repeat(5_000))).unwrap();
        assert!(matches!(batch.try_push(items.item()), Err(PushError::Full(_))));
    }

    #[test]
    fn second_event_of_a_key_is_returned() {
        let mut items = Items::new();
        let mut batch = Batch::new(BatchLimits::new(25, WriteMode::Put));
        let item = items.item();
        batch.try_push(item.clone()).unwrap();
        assert_eq!(batch.try_push(item.clone()), Err(PushError::SameKey(item)));
    }

    #[test]
    fn bytes_are_counted_as_encoded_in_the_request() {
        // 25 items of 400 KB fit into 16 MB. If the items consist of quotes, which are escaped, only 19 fit.
        for (body, fitting) in [("x", 25), ("\"", 19)] {
            let mut items = Items::new();
            let mut batch = Batch::new(BatchLimits::new(25, WriteMode::Put));
            let body = body.repeat(crate::event::MAX_BODY_BYTES);
            let taken = (0..25).take_while(|_| batch.try_push(items.with_body(&body)).is_ok());
            assert_eq!(taken.count(), fitting);
        }
    }

    proptest! {
        #[test]
        fn each_key_is_added_once_in_any_order(
            picks in prop::collection::vec(0..12_usize, 0..60),
        ) {
            let mut items = Items::new();
            let pool: Vec<_> = (0..12).map(|_| items.item()).collect();
            let mut batch = Batch::new(BatchLimits::new(25, WriteMode::Put));
            let mut taken = std::collections::HashSet::new();
            for pick in picks {
                let is_new = taken.insert(pick);
                prop_assert_eq!(batch.try_push(pool[pick].clone()).is_ok(), is_new);
            }
        }
    }

    proptest! {
        // Each case encodes megabytes.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_batch_is_within_the_limits(
            max_events in 1..=25_usize,
            bodies in prop::collection::vec(("[\"a\\\\]{0,2}", 0..200_000_usize, any::<bool>()), 0..60),
        ) {
            let mut items = Items::new();
            let limits = BatchLimits::new(max_events, WriteMode::Put);
            let mut batch = Batch::new(limits);
            let mut last = items.item();
            for (unit, times, repeat_key) in bodies {
                let item = if repeat_key { last.clone() } else { items.with_body(&unit.repeat(times)) };
                last = item.clone();
                let _ = batch.try_push(item);
            }
            let taken = batch.into_items();
            prop_assert!(taken.len() <= max_events);
            let wire: usize = taken.iter().map(|item| item.event.wire_bytes()).sum();
            prop_assert!(wire + REQUEST_ENVELOPE_BYTES <= MAX_BATCH_WIRE_BYTES);
            let keys: std::collections::HashSet<_> = taken.iter().map(|item| *item.event.key()).collect();
            prop_assert_eq!(keys.len(), taken.len());
        }
    }
}
