//! Room in the buffer, in events and in bytes: taken by a put, given back by its settling.

use std::collections::VecDeque;

use tokio::sync::{Notify, oneshot};

use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};

/// Why room was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcquireError {
    Full,
    Closed,
}

/// The buffer's bounds. Waiters are served in the order they came.
///
/// Whoever gives room back hands it to those who wait. So a put that is set aside while it waits, and
/// not asked again, keeps no more than its own room from the others.
#[derive(Debug)]
pub(crate) struct FlowControl {
    /// A [`Available`]: one word, so that room is taken in one step where there is some.
    free: AtomicU64,
    /// How many events' room is to be kept back, and how much is by now: the rest is still in use.
    to_withhold: AtomicU64,
    withheld: AtomicU64,
    /// How many are in `queue`. While there are any, nobody else takes flow_control.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    /// Tells the worker that a put has begun to wait, so that it does not sit out the linger.
    waiter_added: Notify,
}

/// The puts that wait for flow_control, in the order they came.
#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    bytes: u32,
    /// Told when the room has been taken for it; dropped when there will be none.
    acquired: oneshot::Sender<()>,
}

impl FlowControl {
    pub(crate) fn new(max_buffered_events: usize, max_buffered_bytes: usize) -> Self {
        let free = Available::of(max_buffered_events as u64, max_buffered_bytes as u64);
        Self {
            free: AtomicU64::new(free.0),
            to_withhold: AtomicU64::new(0),
            withheld: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            waiter_added: Notify::new(),
        }
    }

    /// Room for one event of `bytes`, or word that there is none now.
    pub(crate) fn try_acquire(&self, bytes: u32) -> Result<Permit<'_>, AcquireError> {
        if self.has_waiters() && !self.free().is_closed() {
            return Err(AcquireError::Full);
        }
        self.take(bytes)?;
        Ok(Permit { flow_control: self, bytes })
    }

    /// Waits for room for one event of `bytes`. Fails only when the store closes.
    ///
    /// Cancel safe: a dropped wait leaves its place in the queue and holds nothing.
    pub(crate) async fn acquire(&self, bytes: u32) -> Result<Permit<'_>, AcquireError> {
        match self.try_acquire(bytes) {
            // In memory of its own, so that a put that need not wait carries none of it around.
            Err(AcquireError::Full) => Box::pin(Wait::new(self, bytes).done()).await,
            decided => decided,
        }
    }

    /// Gives back the room of so many events.
    pub(crate) fn release(&self, events: u64, bytes: u64) {
        let events = events - self.keep_back(events);
        // In one order with `waiting`: either the waiter sees this flow_control, or this sees the waiter.
        self.free.fetch_add(Available::of(events, bytes).0, Ordering::SeqCst);
        if self.has_waiters() {
            self.serve();
        }
    }

    /// Keeps the room of so many events back from now on, out of what is free and of what is given back. One
    /// caller at a time.
    pub(crate) fn withhold(&self, events: u64) {
        self.to_withhold.store(events, Ordering::SeqCst);
        let mut taken = 0;
        let _ = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| {
            let missing = events.saturating_sub(self.withheld.load(Ordering::SeqCst));
            taken = missing.min(Available(free).events());
            Some(free - Available::of(taken, 0).0)
        });
        self.withheld.fetch_add(taken, Ordering::SeqCst);
        let mut too_many = 0;
        let _ = self.withheld.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |withheld| {
            too_many = withheld.saturating_sub(events);
            Some(withheld - too_many)
        });
        if too_many > 0 {
            self.free.fetch_add(Available::of(too_many, 0).0, Ordering::SeqCst);
            self.serve();
        }
    }

    /// Whether room is kept back.
    pub(crate) fn is_withheld(&self) -> bool {
        self.to_withhold.load(Ordering::SeqCst) > 0
    }

    /// Keeps as many of these events' room back as are still to be.
    fn keep_back(&self, events: u64) -> u64 {
        let to_withhold = self.to_withhold.load(Ordering::SeqCst);
        if to_withhold == 0 {
            return 0;
        }
        let mut kept = 0;
        let _ = self.withheld.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |withheld| {
            kept = to_withhold.saturating_sub(withheld).min(events);
            Some(withheld + kept)
        });
        kept
    }

    /// Refuses everyone from now on, those who wait included.
    pub(crate) fn close(&self) {
        self.free.fetch_or(Available::CLOSED, Ordering::SeqCst);
        self.serve();
    }

    /// Whether a put waits for room now.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Returns when a put has begun to wait for flow_control.
    pub(crate) async fn waiter_added(&self) {
        self.waiter_added.notified().await;
    }

    /// Takes room for those who have waited longest, as far as there is some. Nobody is woken under the
    /// lock.
    fn serve(&self) {
        while let Some((waiter, taken)) = self.next_served() {
            // Where there will be no flow_control, dropping the sender says so. Who has gone leaves it to the next.
            if taken.is_ok() && waiter.acquired.send(()).is_err() {
                let events = 1 - self.keep_back(1);
                self.free.fetch_add(Available::of(events, waiter.bytes.into()).0, Ordering::SeqCst);
            }
        }
    }

    fn next_served(&self) -> Option<(Waiter, Result<(), AcquireError>)> {
        let mut queue = self.queue();
        let taken = self.take(queue.waiters.front()?.bytes);
        if taken == Err(AcquireError::Full) {
            return None;
        }
        let waiter = queue.waiters.pop_front()?;
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        Some((waiter, taken))
    }

    fn take(&self, bytes: u32) -> Result<(), AcquireError> {
        let less = |free| Available(free).less(bytes).map(|free| free.0);
        match self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Ok(()),
            Err(free) if Available(free).is_closed() => Err(AcquireError::Closed),
            Err(_) => Err(AcquireError::Full),
        }
    }

    fn free(&self) -> Available {
        Available(self.free.load(Ordering::SeqCst))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole after each of its steps, so a poisoned lock does not matter.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One put's wait.
struct Wait<'a> {
    flow_control: &'a FlowControl,
    number: u64,
    bytes: u32,
    acquired: oneshot::Receiver<()>,
}

impl<'a> Wait<'a> {
    fn new(flow_control: &'a FlowControl, bytes: u32) -> Self {
        let (acquired, told) = oneshot::channel();
        let number = {
            let mut queue = flow_control.queue();
            let number = queue.next_number;
            queue.next_number += 1;
            queue.waiters.push_back(Waiter { number, bytes, acquired });
            flow_control.waiting.fetch_add(1, Ordering::SeqCst);
            number
        };
        flow_control.waiter_added.notify_one();
        // What was given back before the place was taken went to nobody.
        flow_control.serve();
        Self { flow_control, number, bytes, acquired: told }
    }

    async fn done(mut self) -> Result<Permit<'a>, AcquireError> {
        let told = (&mut self.acquired).await;
        told.map(|()| Permit { flow_control: self.flow_control, bytes: self.bytes })
            .map_err(|_| AcquireError::Closed)
    }
}

impl Drop for Wait<'_> {
    /// Leaves the queue, or gives back what nobody has heard of.
    fn drop(&mut self) {
        if self.acquired.is_terminated() {
            return;
        }
        // From here on nobody tells anything.
        self.acquired.close();
        if self.acquired.try_recv().is_ok() {
            return self.flow_control.release(1, self.bytes.into());
        }
        {
            let mut queue = self.flow_control.queue();
            let place = queue.waiters.binary_search_by_key(&self.number, |waiter| waiter.number);
            let Ok(place) = place else { return };
            queue.waiters.remove(place);
            self.flow_control.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        // Those behind may be smaller.
        self.flow_control.serve();
    }
}

/// What is free, in one number: whether the room is closed, in the highest bit, then events, then bytes.
#[derive(Debug, Clone, Copy)]
struct Available(u64);

/// Bits of the bytes, below those of the events.
const BYTE_BITS: u32 = 36;

/// Most events that a room counts.
pub(crate) const MAX_EVENTS: u64 = (1 << (63 - BYTE_BITS)) - 1;

/// Most bytes that a room counts: one less than 64 GiB.
pub(crate) const MAX_BYTES: u64 = (1 << BYTE_BITS) - 1;

impl Available {
    const CLOSED: u64 = 1 << 63;

    fn of(events: u64, bytes: u64) -> Self {
        debug_assert!(events <= MAX_EVENTS && bytes <= MAX_BYTES);
        Self(events << BYTE_BITS | bytes)
    }

    fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    fn events(self) -> u64 {
        (self.0 & !Self::CLOSED) >> BYTE_BITS
    }

    fn bytes(self) -> u64 {
        self.0 & MAX_BYTES
    }

    /// What is left when an event of `bytes` has come in; `None` when it cannot.
    fn less(self, bytes: u32) -> Option<Self> {
        let fits = !self.is_closed() && self.events() > 0 && self.bytes() >= bytes.into();
        fits.then(|| Self(self.0 - Self::of(1, bytes.into()).0))
    }
}

/// Room for one event. Dropping it gives the room back.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    flow_control: &'a FlowControl,
    bytes: u32,
}

impl Permit<'_> {
    /// Leaves the room to the event that it was taken for, which is to [`release`](Room::leave) by itself.
    pub(crate) fn forget(self) -> u32 {
        let bytes = self.bytes;
        std::mem::forget(self);
        bytes
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.flow_control.release(1, self.bytes.into());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn free(flow_control: &FlowControl) -> (u64, u64) {
        (flow_control.free().events(), flow_control.free().bytes())
    }

    #[test]
    fn the_largest_room_is_counted_and_used_up() {
        let flow_control = FlowControl::new(MAX_EVENTS as usize, MAX_BYTES as usize);
        assert_eq!(free(&flow_control), (MAX_EVENTS, MAX_BYTES));
        let permit = flow_control.try_acquire(u32::MAX).unwrap();
        assert_eq!(free(&flow_control), (MAX_EVENTS - 1, MAX_BYTES - u64::from(u32::MAX)));
        flow_control.close();
        drop(permit);
        assert_eq!(free(&flow_control), (MAX_EVENTS, MAX_BYTES));
    }

    #[test]
    fn a_permit_holds_one_event_and_its_bytes_and_gives_both_back() {
        let flow_control = FlowControl::new(2, 100);
        let permit = flow_control.try_acquire(60).unwrap();
        assert_eq!(free(&flow_control), (1, 40));
        drop(permit);
        assert_eq!(free(&flow_control), (2, 100));
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let flow_control = FlowControl::new(2, 100);
        let _held = flow_control.try_acquire(60).unwrap();
        assert_eq!(flow_control.try_acquire(41).unwrap_err(), AcquireError::Full);
        assert_eq!(free(&flow_control), (1, 40));
    }

    #[test]
    fn withheld_room_is_free_for_nobody_until_it_is_released() {
        let flow_control = FlowControl::new(10, 100);
        flow_control.withhold(7);
        assert_eq!(free(&flow_control), (3, 100));
        flow_control.withhold(4);
        assert_eq!(free(&flow_control), (6, 100));
        flow_control.withhold(0);
        assert_eq!(free(&flow_control), (10, 100));
        assert!(!flow_control.is_withheld());
    }

    #[test]
    fn room_in_use_is_withheld_when_it_is_given_back() {
        let flow_control = FlowControl::new(3, 100);
        let permits = [(); 3].map(|()| flow_control.try_acquire(10).unwrap());
        flow_control.withhold(2);
        let [first, second, third] = permits;
        drop(first);
        drop(second);
        assert_eq!(free(&flow_control), (0, 90));
        drop(third);
        assert_eq!(free(&flow_control), (1, 100));
        flow_control.withhold(0);
        assert_eq!(free(&flow_control), (3, 100));
    }

    #[tokio::test]
    async fn a_put_that_waits_is_served_when_room_is_released() {
        let flow_control = FlowControl::new(2, 100);
        flow_control.withhold(2);
        let mut waits = Box::pin(flow_control.acquire(10));
        assert!(waits.as_mut().now_or_never().is_none());
        flow_control.withhold(1);
        drop(waits.await.unwrap());
        assert_eq!(free(&flow_control), (1, 100));
    }

    #[tokio::test]
    async fn nobody_goes_before_those_who_wait() {
        let flow_control = FlowControl::new(3, 100);
        let held = flow_control.try_acquire(60).unwrap();
        let mut large = Box::pin(flow_control.acquire(60));
        assert!(large.as_mut().now_or_never().is_none());
        // There is room for these, and there would never be any for the large one.
        assert_eq!(flow_control.try_acquire(10).unwrap_err(), AcquireError::Full);
        let mut small = Box::pin(flow_control.acquire(10));
        assert!(small.as_mut().now_or_never().is_none());
        drop(held);
        let (large, small) = (large.await.unwrap(), small.await.unwrap());
        assert_eq!(free(&flow_control), (1, 30));
        drop((large, small));
        assert!(flow_control.try_acquire(100).is_ok());
    }

    #[tokio::test]
    async fn a_put_that_is_set_aside_while_it_waits_keeps_only_its_own_room() {
        let flow_control = FlowControl::new(2, 100);
        let (first, second) =
            (flow_control.try_acquire(1).unwrap(), flow_control.try_acquire(1).unwrap());
        let mut set_aside = Box::pin(flow_control.acquire(60));
        assert!(set_aside.as_mut().now_or_never().is_none());
        let mut waits = Box::pin(flow_control.acquire(40));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waits.as_mut().now_or_never().is_none(), "this room is the other's");
        drop(second);
        let acquired = waits.await.unwrap();
        assert_eq!(
            free(&flow_control),
            (0, 0),
            "the other has its flow_control, whether it asks or not"
        );
        assert!(!flow_control.has_waiters());
        drop(acquired);
        drop(flow_control.try_acquire(40).unwrap());
        drop(set_aside);
        assert_eq!(free(&flow_control), (2, 100));
    }

    #[tokio::test]
    async fn when_a_large_one_gives_up_those_behind_it_are_served() {
        let flow_control = FlowControl::new(3, 100);
        let _held = flow_control.try_acquire(60).unwrap();
        let mut large = Box::pin(flow_control.acquire(60));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(flow_control.acquire(40));
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert!(small.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_cancelled_wait_leaves_nothing_behind() {
        let flow_control = FlowControl::new(2, 100);
        let held = flow_control.try_acquire(60).unwrap();
        {
            let waits = flow_control.acquire(60);
            tokio::pin!(waits);
            assert!(waits.as_mut().now_or_never().is_none());
            assert!(flow_control.has_waiters());
        }
        assert!(!flow_control.has_waiters());
        drop(held);
        assert_eq!(free(&flow_control), (2, 100));
    }

    #[tokio::test]
    async fn closing_refuses_those_who_wait_and_those_who_come() {
        let flow_control = FlowControl::new(1, 100);
        let _held = flow_control.try_acquire(1).unwrap();
        let waits = flow_control.acquire(1);
        tokio::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        flow_control.close();
        assert_eq!(waits.await.unwrap_err(), AcquireError::Closed);
        assert_eq!(flow_control.try_acquire(1).unwrap_err(), AcquireError::Closed);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn puts_on_several_threads_that_wait_and_give_up_all_get_room_in_the_end() {
        const PUTS: u32 = 2_000;
        let flow_control: &'static FlowControl = Box::leak(Box::new(FlowControl::new(3, 100)));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8_u32 {
            tasks.spawn(async move {
                for put in 0..PUTS {
                    let bytes = 1 + (put * 31 + task * 17) % 100;
                    if put % 7 == task % 7 {
                        // Begins to wait, and gives up before, at or after its turn.
                        let begun = flow_control.acquire(bytes);
                        tokio::select! {
                            biased;
                            acquired = begun => drop(acquired.unwrap()),
                            () = tokio::task::yield_now() => {}
                        }
                        continue;
                    }
                    let permit = flow_control.acquire(bytes).await.unwrap();
                    if put % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    drop(permit);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!((free(flow_control), flow_control.has_waiters()), ((3, 100), false));
        // Closing lets everyone go who waits, wherever they are.
        let _held = flow_control.try_acquire(100).unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        (0..8).for_each(|_| drop(waiting.spawn(async { flow_control.acquire(1).await.is_err() })));
        while flow_control.waiting.load(Ordering::SeqCst) < 8 {
            tokio::task::yield_now().await;
        }
        flow_control.close();
        assert!(waiting.join_all().await.into_iter().all(|refused| refused));
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Asks for room for an event of so many bytes, and waits if there is none.
        Enter {
            bytes: u32,
        },
        /// Cancels the wait at this place.
        Cancel {
            place: usize,
        },
        /// Settles the event at this place.
        Leave {
            place: usize,
        },
        Close,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..60_u32).prop_map(|bytes| Step::Enter { bytes }),
            2 => (0..100_usize).prop_map(|place| Step::Cancel { place }),
            4 => (0..100_usize).prop_map(|place| Step::Leave { place }),
            1 => Just(Step::Close),
        ]
    }

    proptest! {
        /// Permits out are those of the events inside, whatever else waits, was cancelled or refused.
        #[test]
        fn all_room_is_held_by_the_events_inside_or_free(
            steps in prop::collection::vec(step(), 1..200),
        ) {
            const EVENTS: u64 = 5;
            const BYTES: u64 = 100;
            let flow_control = FlowControl::new(EVENTS as usize, BYTES as usize);
            let flow_control = &flow_control;
            let mut inside: Vec<Permit<'_>> = Vec::new();
            let mut waiting = Vec::new();
            let mut closed = false;
            for step in steps {
                match step {
                    Step::Enter { bytes } => {
                        waiting.push(Box::pin(flow_control.acquire(bytes)));
                    }
                    Step::Cancel { place } if !waiting.is_empty() => {
                        drop(waiting.remove(place % waiting.len()));
                    }
                    Step::Leave { place } if !inside.is_empty() => {
                        drop(inside.remove(place % inside.len()));
                    }
                    Step::Cancel { .. } | Step::Leave { .. } => {}
                    Step::Close => {
                        flow_control.close();
                        closed = true;
                    }
                }
                // Everyone who has got room comes in; nobody does after the close.
                let mut still_waiting = Vec::new();
                for mut waits in waiting {
                    match waits.as_mut().now_or_never() {
                        Some(Ok(permit)) => {
                            prop_assert!(!closed);
                            inside.push(permit);
                        }
                        Some(Err(error)) => prop_assert!(closed && error == AcquireError::Closed),
                        None => still_waiting.push(waits),
                    }
                }
                waiting = still_waiting;
                let bytes: u64 = inside.iter().map(|permit| u64::from(permit.bytes)).sum();
                let events = inside.len() as u64;
                prop_assert!(events <= EVENTS && bytes <= BYTES);
                prop_assert_eq!(flow_control.has_waiters(), !waiting.is_empty());
                if waiting.is_empty() {
                    prop_assert_eq!(free(flow_control), (EVENTS - events, BYTES - bytes));
                }
            }
            drop((waiting, inside));
            prop_assert_eq!(free(flow_control), (EVENTS, BYTES));
        }
    }
}
