//! The events that wait to be sent, and until when they may.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Waiting;
use super::batch::{Batch, BatchLimits, Refused};
use super::retry_queue::RetryQueue;

/// Events between acceptance and a call, and between one call and the next.
///
/// Fresh events wait for company, at most `linger`. Events to be retried wait out their backoff
/// and then go first; what room they leave in their batch, fresh events fill. A waiting retry holds
/// nobody up. Suspects of a refused batch go in batches of their own, so that the guilty one is found.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    limits: BatchLimits,
    linger: Duration,
    /// In order of arrival, so of their deadlines as well.
    fresh: VecDeque<T>,
    fresh_wire_bytes: usize,
    /// How many events at the front of `fresh` are due whatever their linger says.
    due_now: usize,
    retries: RetryQueue<T>,
    /// Events that the table had no capacity for more than once.
    repeated: RetryQueue<T>,
    next_group: u64,
}

/// How many write units a batch may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxUnits {
    pub(crate) all: u64,
    /// Of events that the table had no capacity for more than once.
    pub(crate) repeated: u64,
}

impl<T: Waiting> Buffer<T> {
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

    /// Adds an event that the table had no capacity for, before all that was accepted at `accepted_at` or
    /// later: it keeps its turn.
    pub(crate) fn requeue_in_turn(&mut self, item: T, accepted_at: Instant) {
        self.requeue(item, accepted_at);
    }

    /// Adds an event that the table had no capacity for more than once, and whose next attempt is not before
    /// `ready_at`.
    pub(crate) fn requeue_repeated(&mut self, item: T, ready_at: Instant) {
        self.repeated.push(item, None, ready_at);
    }

    /// Adds the events of a batch that was refused for one of them, as two batches of half its size
    /// that nothing else joins. Halving finds one culprit among 25 in five steps.
    pub(crate) fn isolate(&mut self, mut suspects: Vec<T>, now: Instant) {
        let second_half = suspects.split_off(suspects.len() / 2);
        for half in [suspects, second_half] {
            let group = Some(self.next_group);
            self.next_group += 1;
            for item in half {
                self.retries.push(item, group, now);
            }
        }
    }

    /// Makes every fresh event due that is here now: somebody waits for it, or for its room.
    pub(crate) fn flush_now(&mut self) {
        self.due_now = self.fresh.len();
    }

    /// The next batch, if one is due at `now`: it is full, or holds an event that is not to wait
    /// any longer.
    pub(crate) fn take_ready(&mut self, now: Instant) -> Option<Batch<T>> {
        self.take_ready_within(now, MaxUnits { all: u64::MAX, repeated: u64::MAX })
    }

    /// The next batch that is due at `now`, of at most so many write units, or of one event. Repeated events alone
    /// make a batch due if any may leave.
    pub(crate) fn take_ready_within(&mut self, now: Instant, max: MaxUnits) -> Option<Batch<T>> {
        let repeated_leave = max.repeated > 0 && self.has_repeated(now);
        if !repeated_leave && !self.is_due(now) {
            return None;
        }
        let mut batch = Batch::new(self.limits.within(max.all));
        let is_grouped =
            self.retries.first_ready(now).is_some_and(|(place, _)| place.group.is_some());
        let mut is_open = true;
        if repeated_leave && !is_grouped {
            is_open = self.fill_from_repeated(&mut batch, max.repeated, now);
        }
        if is_open && self.fill_from_retries(&mut batch, now) {
            self.fill_from_fresh(&mut batch, now);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// When the next batch is due, if none comes in before. Repeated events are not counted: the pace says when
    /// they leave.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let fresh = self.fresh.front().map(|item| item.accepted_at() + self.linger);
        self.retries.next_ready().into_iter().chain(fresh).min()
    }

    /// From when on the next repeated event may be sent.
    pub(crate) fn next_repeated(&self) -> Option<Instant> {
        self.repeated.next_ready()
    }

    /// Whether a repeated event may be sent at `now`.
    pub(crate) fn has_repeated(&self, now: Instant) -> bool {
        self.repeated.first_ready(now).is_some()
    }

    /// When the next event is to be given up, if it is not sent before.
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

    /// Removes any event: the store gives up all of them.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_fresh().or_else(|| self.retries.pop()).or_else(|| self.repeated.pop())
    }

    /// Whether an event is here that was never sent.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.fresh.len() + self.retries.len() + self.repeated.len()
    }

    /// How many events wait that were refused more than once.
    pub(crate) fn repeated_len(&self) -> usize {
        self.repeated.len()
    }

    /// Whether a batch is due at `now`, repeated events not counted.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due_now > 0
            || self.fresh.len() >= self.limits.max_events
            || self.fresh_wire_bytes >= self.limits.max_wire_bytes
            || self.next_due().is_some_and(|due_at| due_at <= now)
    }

    /// Moves repeated events of at most so many units into `batch`, or one. False when nothing else fits.
    fn fill_from_repeated(&mut self, batch: &mut Batch<T>, max_units: u64, now: Instant) -> bool {
        let mut same_key = Vec::new();
        let (mut units, mut is_open) = (0, true);
        while let Some((place, item)) = self.repeated.first_ready(now) {
            units += item.event().write_units();
            if units > max_units && !batch.is_empty() {
                break;
            }
            let Some(item) = self.repeated.remove(place) else { break };
            match batch.try_push(item) {
                Ok(()) => {}
                Err(Refused::SameKey(item)) => same_key.push(item),
                Err(Refused::Full(item)) => {
                    self.repeated.insert(item, place);
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

    /// Moves ready retries into `batch`. False when nothing else is to join them.
    fn fill_from_retries(&mut self, batch: &mut Batch<T>, now: Instant) -> bool {
        let mut same_key = Vec::new();
        let mut is_open = true;
        let mut group = None;
        while let Some((place, _)) = self.retries.first_ready(now) {
            // The first event decides whose batch it is.
            if *group.get_or_insert(place.group) != place.group {
                break;
            }
            let Some(item) = self.retries.remove(place) else { break };
            is_open = place.group.is_none();
            match batch.try_push(item) {
                Ok(()) => {}
                Err(Refused::SameKey(item)) => same_key.push(item),
                Err(Refused::Full(item)) => {
                    self.retries.insert(item, place);
                    is_open = false;
                    break;
                }
            }
        }
        self.set_aside(same_key, now);
        is_open
    }

    fn fill_from_fresh(&mut self, batch: &mut Batch<T>, now: Instant) {
        let mut same_key = Vec::new();
        loop {
            let due_now = self.due_now;
            let Some(item) = self.pop_fresh() else { break };
            match batch.try_push(item) {
                Ok(()) => {}
                Err(Refused::SameKey(item)) => same_key.push(item),
                Err(Refused::Full(item)) => {
                    self.fresh_wire_bytes += item.event().wire_bytes();
                    self.fresh.push_front(item);
                    self.due_now = due_now;
                    break;
                }
            }
        }
        self.set_aside(same_key, now);
    }

    /// Keeps what a batch cannot hold for its keys: it is ready for the one after.
    fn set_aside(&mut self, same_key: Vec<T>, now: Instant) {
        for item in same_key {
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

    fn buffer() -> Buffer<Item> {
        Buffer::new(BatchLimits::new(25), Duration::from_millis(5))
    }

    fn keys(batch: Option<Batch<Item>>) -> Vec<String> {
        let items = batch.map(Batch::into_items).unwrap_or_default();
        items.iter().map(|item| item.event.key().to_string()).collect()
    }

    #[test]
    fn a_lone_event_waits_for_the_linger_and_no_longer() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        buffer.push(items.item());
        assert!(buffer.take_ready(items.at(4)).is_none());
        assert_eq!(buffer.next_due(), Some(items.at(5)));
        assert_eq!(keys(buffer.take_ready(items.at(5))).len(), 1);
        assert!(buffer.is_empty());
        assert_eq!(buffer.next_due(), None);
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        for _ in 0..26 {
            buffer.push(items.item());
        }
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 25);
        assert!(buffer.take_ready(items.at(0)).is_none());
    }

    #[test]
    fn enough_bytes_for_a_full_batch_do_not_wait_either() {
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
    fn a_rush_makes_due_what_is_here_and_not_what_comes_after() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        buffer.push(items.item());
        buffer.flush_now();
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 1);
        buffer.push(items.item());
        assert!(buffer.take_ready(items.at(0)).is_none());
    }

    #[test]
    fn a_waiting_retry_holds_no_fresh_event_up() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        buffer.requeue(items.item(), items.at(1_000));
        let fresh = items.item();
        buffer.push(fresh.clone());
        assert_eq!(keys(buffer.take_ready(items.at(5))), [fresh.event.key().to_string()]);
        assert_eq!(buffer.next_due(), Some(items.at(1_000)));
    }

    #[test]
    fn a_ready_retry_goes_first_and_its_batch_is_refilled_with_fresh_events() {
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
    fn suspects_go_in_halves_that_nothing_joins() {
        let (mut items, mut buffer) = (Items::new(), buffer());
        let suspects: Vec<Item> = (0..5).map(|_| items.item()).collect();
        buffer.requeue(items.item(), items.at(0));
        buffer.isolate(suspects.clone(), items.at(0));
        buffer.requeue(items.item(), items.at(0));
        for _ in 0..25 {
            buffer.push(items.item());
        }
        let key = |item: &Item| item.event.key().to_string();
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 25);
        let halves = [&suspects[..2], &suspects[2..]];
        for half in halves {
            let expected: Vec<String> = half.iter().map(key).collect();
            assert_eq!(keys(buffer.take_ready(items.at(0))), expected);
        }
        assert_eq!(keys(buffer.take_ready(items.at(0))).len(), 2);
        assert!(buffer.is_empty());
    }

    #[test]
    fn two_events_of_one_key_go_in_two_batches() {
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
    fn deadlines_are_found_among_fresh_events_and_among_retries() {
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
    fn repeated_events_go_first_as_far_as_they_may() {
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
        Rush,
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
            1 => Just(Step::Rush),
            2 => (1..20_u64).prop_map(|milliseconds| Step::Wait { milliseconds }),
            3 => Just(Step::Take),
            1 => Just(Step::Expire),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_each_event_leaves_once_and_in_time(
            steps in prop::collection::vec(step(), 1..300),
        ) {
            let (mut items, mut buffer) = (Items::new(), buffer());
            let (mut clock, mut came, mut left) = (0, 0_usize, Vec::new());
            for step in steps {
                let now = items.at(clock);
                match step {
                    Step::Push | Step::Requeue { .. } | Step::RequeueRepeated { .. } => {
                        let mut item = items.item();
                        item.expires_at = now + Duration::from_millis(40);
                        came += 1;
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
                        let suspects = (0..count).map(|_| {
                            let mut item = items.item();
                            item.expires_at = now + Duration::from_millis(40);
                            item
                        });
                        let suspects: Vec<Item> = suspects.collect();
                        came += suspects.len();
                        buffer.isolate(suspects, now);
                    }
                    Step::Rush => buffer.flush_now(),
                    Step::Wait { milliseconds } => clock += milliseconds,
                    Step::Take => {
                        let before = buffer.len();
                        let taken = keys(buffer.take_ready(now));
                        prop_assert!(taken.len() <= 25);
                        prop_assert_eq!(before - taken.len(), buffer.len());
                        // What is due is taken, batch by batch.
                        prop_assert!(
                            !taken.is_empty()
                                || (buffer.next_due().is_none_or(|due_at| due_at > now)
                                    && !buffer.has_repeated(now))
                        );
                        left.extend(taken);
                    }
                    Step::Expire => {
                        while let Some(item) = buffer.pop_expired(now) {
                            prop_assert!(item.expires_at <= now);
                            left.push(item.event.key().to_string());
                        }
                        prop_assert!(buffer.next_expiry().is_none_or(|expiry| expiry > now));
                    }
                }
            }
            while let Some(item) = buffer.pop() {
                left.push(item.event.key().to_string());
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(buffer.fresh_wire_bytes, 0);
            prop_assert_eq!(left.len(), came);
            left.sort();
            left.dedup();
            prop_assert_eq!(left.len(), came);
        }
    }
}
