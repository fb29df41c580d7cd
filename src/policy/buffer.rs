//! The events that wait to be sent. Decides which of them form the next batch, and when it is due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::BufferedEvent;
use super::batch::{Batch, BatchLimits, PushError};
use super::retry_queue::RetryQueue;

/// The events that are not in flight: those never sent, and those that wait for their next attempt.
///
/// - A fresh event waits at most `linger` for other events to share its call.
/// - A retry waits until its backoff ends, and is then sent before the fresh events, which fill the rest of its batch.
///   A retry that is not ready delays no other event.
/// - A repeated event is one that was throttled more than once. It is sent before retries, as far as the
///   [pace](super::pace) permits.
/// - If a batch failed because of one invalid event, its events are sent in batches of their own, so that the invalid
///   one is found.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    limits: BatchLimits,
    linger: Duration,
    /// In the order of their arrival, which is also that of their deadlines.
    fresh: VecDeque<T>,
    fresh_wire_bytes: usize,
    /// How many events at the front of `fresh` are due before their linger ends.
    due_now: usize,
    retries: RetryQueue<T>,
    /// The repeated events.
    repeated: RetryQueue<T>,
    next_group: u64,
}

/// The most write units of the next batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxUnits {
    pub(crate) all: u64,
    /// The most write units of repeated events among these.
    pub(crate) repeated: u64,
}

impl<T: BufferedEvent> Buffer<T> {
    pub(crate) fn new(limits: BatchLimits, linger: Duration) -> Self {
        Self {
            limits,
            linger,
            fresh: VecDeque::new(),
            fresh_wire_bytes: 0,
            due_now: 0,
            retries: RetryQueue::new(),
            repeated: RetryQueue::new(),
            next_group: 0,
        }
    }

    /// Adds an event that was just accepted.
    pub(crate) fn push(&mut self, item: T) {
        self.fresh_wire_bytes += item.event().wire_bytes();
        self.fresh.push_back(item);
    }

    /// Adds an event whose next attempt is not before `ready_at`.
    pub(crate) fn requeue(&mut self, item: T, ready_at: Instant) {
        self.retries.push(item, None, ready_at);
    }

    /// Adds an event that is ready at once and is sent before those that were accepted after it, at `accepted_at`.
    pub(crate) fn requeue_in_order(&mut self, item: T, accepted_at: Instant) {
        self.requeue(item, accepted_at);
    }

    /// Adds a repeated event, whose next attempt is not before `ready_at`.
    pub(crate) fn requeue_repeated(&mut self, item: T, ready_at: Instant) {
        self.repeated.push(item, None, ready_at);
    }

    /// Adds the events of a batch that failed because of one of them. They form two batches of half its size, which no
    /// other event joins. Halving finds one invalid event among 25 in five steps.
    pub(crate) fn isolate(&mut self, mut events: Vec<T>, now: Instant) {
        let second_half = events.split_off(events.len() / 2);
        for half in [events, second_half] {
            let group = Some(self.next_group);
            self.next_group += 1;
            for item in half {
                self.retries.push(item, group, now);
            }
        }
    }

    /// Makes every fresh event that the buffer holds now due.
    pub(crate) fn flush_now(&mut self) {
        self.due_now = self.fresh.len();
    }

    /// The next batch, if one is due at `now`: it is full, or one of its events is due.
    pub(crate) fn take_ready(&mut self, now: Instant) -> Option<Batch<T>> {
        self.take_ready_within(now, MaxUnits { all: u64::MAX, repeated: u64::MAX })
    }

    /// The next batch, if one is due at `now`, of at most `max` write units or of a single event. A repeated event that
    /// `max` permits makes a batch due.
    pub(crate) fn take_ready_within(&mut self, now: Instant, max: MaxUnits) -> Option<Batch<T>> {
        let takes_repeated = max.repeated > 0 && self.has_repeated(now);
        if !takes_repeated && !self.is_due(now) {
            return None;
        }
        let mut batch = Batch::new(self.limits.with_max_units(max.all));
        let is_grouped =
            self.retries.first_ready(now).is_some_and(|(position, _)| position.group.is_some());
        let mut is_open = true;
        if takes_repeated && !is_grouped {
            is_open = self.fill_from_repeated(&mut batch, max.repeated, now);
        }
        if is_open && self.fill_from_retries(&mut batch, now) {
            self.fill_from_fresh(&mut batch, now);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// When the next batch is due, unless an event arrives earlier. Repeated events do not count, as the pace decides
    /// when they are sent.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let fresh = self.fresh.front().map(|item| item.accepted_at() + self.linger);
        self.retries.next_ready().into_iter().chain(fresh).min()
    }

    /// When the next repeated event is ready.
    pub(crate) fn next_repeated(&self) -> Option<Instant> {
        self.repeated.next_ready()
    }

    /// Whether a repeated event is ready at `now`.
    pub(crate) fn has_repeated(&self, now: Instant) -> bool {
        self.repeated.first_ready(now).is_some()
    }

    /// When the next event fails, unless it is sent earlier.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let fresh = self.fresh.front().map(T::expires_at);
        let retries =
            [&self.retries, &self.repeated].into_iter().filter_map(RetryQueue::next_expiry);
        retries.chain(fresh).min()
    }

    /// Removes an event whose deadline has passed at `now`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<T> {
        if self.fresh.front().is_some_and(|item| item.expires_at() <= now) {
            return self.pop_fresh();
        }
        self.retries.pop_expired(now).or_else(|| self.repeated.pop_expired(now))
    }

    /// Removes an event, due or not.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_fresh().or_else(|| self.retries.pop()).or_else(|| self.repeated.pop())
    }

    /// Whether the buffer holds an event that was never sent.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.fresh.len() + self.retries.len() + self.repeated.len()
    }

    /// How many repeated events wait.
    pub(crate) fn repeated_len(&self) -> usize {
        self.repeated.len()
    }

    /// Whether a batch is due at `now`. Repeated events do not count.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due_now > 0
            || self.fresh.len() >= self.limits.max_events
            || self.fresh_wire_bytes >= self.limits.max_wire_bytes
            || self.next_due().is_some_and(|due_at| due_at <= now)
    }

    /// Moves repeated events of at most `max_units`, or a single one, into `batch`. False when the batch is full.
    fn fill_from_repeated(&mut self, batch: &mut Batch<T>, max_units: u64, now: Instant) -> bool {
        let mut same_key = Vec::new();
        let (mut units, mut is_open) = (0, true);
        while let Some((position, item)) = self.repeated.first_ready(now) {
            units += item.event().write_units();
            if units > max_units && !batch.is_empty() {
                break;
            }
            let Some(item) = self.repeated.remove(position) else { break };
            match batch.try_push(item) {
                Ok(()) => {}
                Err(PushError::SameKey(item)) => same_key.push(item),
                Err(PushError::Full(item)) => {
                    self.repeated.insert(item, position);
                    is_open = false;
                    break;
                }
            }
        }
        for item in same_key {
            self.requeue_repeated(item, now);
        }
        is_open
    }

    /// Moves ready retries into `batch`. False when no other event may join them.
    fn fill_from_retries(&mut self, batch: &mut Batch<T>, now: Instant) -> bool {
        let mut same_key = Vec::new();
        let mut is_open = true;
        let mut group = None;
        while let Some((position, _)) = self.retries.first_ready(now) {
            // The group of the first event is the group of the whole batch.
            if *group.get_or_insert(position.group) != position.group {
                break;
            }
            let Some(item) = self.retries.remove(position) else { break };
            is_open = position.group.is_none();
            match batch.try_push(item) {
                Ok(()) => {}
                Err(PushError::SameKey(item)) => same_key.push(item),
                Err(PushError::Full(item)) => {
                    self.retries.insert(item, position);
                    is_open = false;
                    break;
                }
            }
        }
        self.requeue_all(same_key, now);
        is_open
    }

    fn fill_from_fresh(&mut self, batch: &mut Batch<T>, now: Instant) {
        let mut same_key = Vec::new();
        loop {
            let due_now = self.due_now;
            let Some(item) = self.pop_fresh() else { break };
            match batch.try_push(item) {
                Ok(()) => {}
                Err(PushError::SameKey(item)) => same_key.push(item),
                Err(PushError::Full(item)) => {
                    self.fresh_wire_bytes += item.event().wire_bytes();
                    self.fresh.push_front(item);
                    self.due_now = due_now;
                    break;
                }
            }
        }
        self.requeue_all(same_key, now);
    }

    /// Adds events that share a key with an event of the batch just made. They are ready for the next batch.
    fn requeue_all(&mut self, items: Vec<T>, now: Instant) {
        for item in items {
            self.requeue(item, now);
        }
    }

    fn pop_fresh(&mut self) -> Option<T> {
        let item = self.fresh.pop_front()?;
        self.fresh_wire_bytes -= item.event().wire_bytes();
        self.due_now = self.due_now.saturating_sub(1);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Item, Items};
    use super::*;
    use crate::write_mode::WriteMode;

    fn buffer() -> Buffer<Item> {
        Buffer::new(BatchLimits::new(25, WriteMode::Put), Duration::from_millis(5))
    }

    fn keys(batch: Option<Batch<Item>>) -> Vec<String> {
        let items = batch.map(Batch::into_items).unwrap_or_default();
        items.iter().map(|item| item.event.key().to_string()).collect()
    }

    #[test]
    fn single_event_is_due_when_its_linger_ends() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        buffer.push(items.item());
        assert!(buffer.take_ready(items.at(4)).is_none());
        assert_eq!(buffer.next_due(), Some(items.at(5)));
        assert_eq!(keys(buffer.take_ready(items.at(5))).len(), 1);
        assert!(buffer.is_empty());
        assert_eq!(buffer.next_due(), None);
    }

    #[test]
    fn full_batch_is_due_at_once() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        for _ in 0..26 {
            buffer.push(items.item());
        }
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 25);
        assert!(buffer.take_ready(items.at(0)).is_none());
    }

    #[test]
    fn enough_bytes_for_a_batch_are_due_at_once() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        let quotes = "\"".repeat(crate::event::MAX_BODY_BYTES);
        for _ in 0..20 {
            buffer.push(items.with_body(&quotes));
        }
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 19);
        assert!(buffer.take_ready(items.at(4)).is_none());
        assert_eq!(keys(buffer.take_ready(items.at(5))).len(), 1);
    }

    #[test]
    fn flush_makes_present_events_due_and_no_later_ones() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        buffer.push(items.item());
        buffer.flush_now();
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 1);
        buffer.push(items.item());
        assert!(buffer.take_ready(items.at(0)).is_none());
    }

    #[test]
    fn waiting_retry_delays_no_fresh_event() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        buffer.requeue(items.item(), items.at(1_000));
        let fresh = items.item();
        buffer.push(fresh.clone());
        assert_eq!(keys(buffer.take_ready(items.at(5))), [fresh.event.key().to_string()]);
        assert_eq!(buffer.next_due(), Some(items.at(1_000)));
    }

    #[test]
    fn ready_retry_goes_first_and_fresh_events_fill_its_batch() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        for _ in 0..24 {
            buffer.push(items.accepted_at(99));
        }
        let retry = items.item();
        buffer.requeue(retry.clone(), items.at(100));
        let taken = keys(buffer.take_ready(items.at(100)));
        assert_eq!(taken.len(), 25);
        assert_eq!(taken[0], retry.event.key().to_string());
    }

    #[test]
    fn invalid_batch_is_split_in_halves_without_other_events() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        let isolated: Vec<Item> = (0..5).map(|_| items.item()).collect();
        buffer.requeue(items.item(), items.at(0));
        buffer.isolate(isolated.clone(), items.at(0));
        buffer.requeue(items.item(), items.at(0));
        for _ in 0..25 {
            buffer.push(items.item());
        }
        let key = |item: &Item| item.event.key().to_string();
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 25);
        let halves = [&isolated[..2], &isolated[2..]];
        for half in halves {
            let expected: Vec<String> = half.iter().map(key).collect();
            assert_eq!(keys(buffer.take_ready(items.at(0))), expected);
        }
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 2);
        assert!(buffer.is_empty());
    }

    #[test]
    fn events_with_the_same_key_go_in_separate_batches() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        let item = items.item();
        buffer.push(item.clone());
        buffer.push(item);
        buffer.push(items.item());
        assert_eq!(keys(buffer.take_ready(items.at(5))).len(), 2);
        assert_eq!(keys(buffer.take_ready(items.at(5))).len(), 1);
        assert!(buffer.is_empty());
    }

    #[test]
    fn fresh_events_and_retries_expire_at_their_deadlines() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        let expiring = |items: &mut Items, milliseconds| {
            let mut item = items.item();
            item.expires_at = items.at(milliseconds);
            item
        };
        let (first, second, third) =
            (expiring(&mut items, 10), expiring(&mut items, 20), expiring(&mut items, 30));
        buffer.requeue(third, items.at(1));
        buffer.requeue(first.clone(), items.at(2));
        buffer.push(second.clone());
        assert_eq!(buffer.next_expiry(), Some(items.at(10)));
        assert_eq!(buffer.pop_expired(items.at(9)), None);
        assert_eq!(buffer.pop_expired(items.at(10)), Some(first));
        assert_eq!(buffer.pop_expired(items.at(10)), None);
        assert_eq!(buffer.pop_expired(items.at(20)), Some(second));
        assert_eq!(buffer.next_expiry(), Some(items.at(30)));
    }

    #[test]
    fn permitted_repeated_events_go_first() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        let repeated: Vec<Item> = (0..10).map(|_| items.item()).collect();
        for item in &repeated {
            buffer.requeue_repeated(item.clone(), items.at(0));
        }
        let none = MaxUnits { all: 100, repeated: 0 };
        assert!(buffer.take_ready_within(items.at(0), none).is_none());
        for _ in 0..30 {
            buffer.push(items.item());
        }
        let three = MaxUnits { all: 100, repeated: 3 };
        let taken = keys(buffer.take_ready_within(items.at(0), three));
        assert_eq!(taken.len(), 25);
        let first: Vec<String> =
            repeated[..3].iter().map(|item| item.event.key().to_string()).collect();
        assert_eq!(taken[..3], first);
        assert_eq!(buffer.repeated_len(), 7);
        assert_eq!(keys(buffer.take_ready_within(items.at(1), three)).len(), 11);
        assert_eq!(keys(buffer.take_ready_within(items.at(1), three)).len(), 3);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Requeue { after: u64 },
        RequeueRepeated { after: u64 },
        Isolate { count: usize },
        Flush,
        Wait { milliseconds: u64 },
        Take,
        Expire,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => Just(Step::Push),
            4 => (0..50_u64).prop_map(|after| Step::Requeue { after }),
            2 => (0..50_u64).prop_map(|after| Step::RequeueRepeated { after }),
            1 => (2..=25_usize).prop_map(|count| Step::Isolate { count }),
            1 => Just(Step::Flush),
            2 => (1..20_u64).prop_map(|milliseconds| Step::Wait { milliseconds }),
            3 => Just(Step::Take),
            1 => Just(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn every_event_leaves_the_buffer_once_and_in_time(
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let (mut items, mut buffer) = (Items::new(), buffer());
            let (mut clock, mut added, mut removed) = (0, 0_usize, Vec::new());
            for step in steps {
                let now = items.at(clock);
                match step {
                    Step::Push | Step::Requeue { .. } | Step::RequeueRepeated { .. } => {
                        let mut item = items.item();
                        item.expires_at = now + Duration::from_millis(40);
                        added += 1;
                        match step {
                            Step::Requeue { after } => {
                                buffer.requeue(item, now + Duration::from_millis(after));
                            }
                            Step::RequeueRepeated { after } => {
                                buffer.requeue_repeated(item, now + Duration::from_millis(after));
                            }
                            _ => {
                                item.accepted_at = now;
                                buffer.push(item);
                            }
                        }
                    }
                    Step::Isolate { count } => {
                        let isolated = (0..count).map(|_| {
                            let mut item = items.item();
                            item.expires_at = now + Duration::from_millis(40);
                            item
                        });
                        let isolated: Vec<Item> = isolated.collect();
                        added += isolated.len();
                        buffer.isolate(isolated, now);
                    }
                    Step::Flush => buffer.flush_now(),
                    Step::Wait { milliseconds } => clock += milliseconds,
                    Step::Take => {
                        let before = buffer.len();
                        let taken = keys(buffer.take_ready(now));
                        prop_assert!(taken.len() <= 25);
                        prop_assert_eq!(before - taken.len(), buffer.len());
                        // A batch is only missing when none is due.
                        prop_assert!(
                            !taken.is_empty()
                                || (buffer.next_due().is_none_or(|due_at| due_at > now)
                                    && !buffer.has_repeated(now))
                        );
                        removed.extend(taken);
                    }
                    Step::Expire => {
                        while let Some(item) = buffer.pop_expired(now) {
                            prop_assert!(item.expires_at <= now);
                            removed.push(item.event.key().to_string());
                        }
                        prop_assert!(buffer.next_expiry().is_none_or(|expiry| expiry > now));
                    }
                }
            }
            while let Some(item) = buffer.pop() {
                removed.push(item.event.key().to_string());
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(buffer.fresh_wire_bytes, 0);
            prop_assert_eq!(removed.len(), added);
            removed.sort();
            removed.dedup();
            prop_assert_eq!(removed.len(), added);
        }
    }
}
