//! Flow control: the limits of the buffer, in events and in bytes. A put acquires a permit, and settling its event
//! releases it.

use std::collections::VecDeque;

use tokio::sync::{Notify, oneshot};

use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};

/// Why no permit was acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcquireError {
    Full,
    Closed,
}

/// A fair semaphore with two counts, events and bytes: waiters acquire in the order in which they came.
///
/// The task that releases permits assigns them to the waiters. So a waiter whose future is not polled holds only its
/// own permit, and the waiters behind it get theirs.
#[derive(Debug)]
pub(crate) struct FlowControl {
    /// [`Available`], in one word: an acquire that need not wait is one atomic step.
    available: AtomicU64,
    /// The number of events by which the limit should be reduced.
    reduction_target: AtomicU64,
    /// The number of events by which the limit is reduced so far. The rest of the reduction happens when permits in
    /// use are released.
    reduction: AtomicU64,
    /// Length of the queue. While it is above zero, only waiters acquire.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    /// Wakes the worker when a put begins to wait, so that it flushes the buffer without waiting for the linger.
    waiter_added: Notify,
}

/// The waiting puts, in the order in which they came.
#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    bytes: u32,
    /// Sends when the permit is assigned. It is dropped when flow control is closed.
    assigned: oneshot::Sender<()>,
}

impl FlowControl {
    pub(crate) fn new(max_buffered_events: usize, max_buffered_bytes: usize) -> Self {
        let available = Available::new(max_buffered_events as u64, max_buffered_bytes as u64);
        Self {
            available: AtomicU64::new(available.0),
            reduction_target: AtomicU64::new(0),
            reduction: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            waiter_added: Notify::new(),
        }
    }

    /// Acquires a permit for one event of `bytes` without waiting.
    pub(crate) fn try_acquire(&self, bytes: u32) -> Result<Permit<'_>, AcquireError> {
        if self.has_waiters() && !self.available().is_closed() {
            return Err(AcquireError::Full);
        }
        self.take(bytes)?;
        Ok(Permit { flow_control: self, bytes })
    }

    /// Waits for a permit for one event of `bytes`. Fails only when flow control is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future removes it from the queue. It then holds nothing.
    pub(crate) async fn acquire(&self, bytes: u32) -> Result<Permit<'_>, AcquireError> {
        match self.try_acquire(bytes) {
            // Boxed, so that the future of a put that need not wait stays small.
            Err(AcquireError::Full) => Box::pin(Acquire::new(self, bytes).wait()).await,
            decided => decided,
        }
    }

    /// Releases the permits of `events` events with `bytes` bytes in total.
    pub(crate) fn release(&self, events: u64, bytes: u64) {
        let events = events - self.retire(events);
        // Sequentially consistent with `waiting`: either the waiter sees these permits, or this call sees the waiter.
        self.available.fetch_add(Available::new(events, bytes).0, Ordering::SeqCst);
        if self.has_waiters() {
            self.assign();
        }
    }

    /// Sets by how many events the limit is reduced. Available permits are retired at once, permits in use when they
    /// are released. Not to be called concurrently.
    pub(crate) fn reduce_limit(&self, events: u64) {
        self.reduction_target.store(events, Ordering::SeqCst);
        let mut retired = 0;
        let _ = self.available.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |available| {
            let missing = events.saturating_sub(self.reduction.load(Ordering::SeqCst));
            retired = missing.min(Available(available).events());
            Some(available - Available::new(retired, 0).0)
        });
        self.reduction.fetch_add(retired, Ordering::SeqCst);
        let mut surplus = 0;
        let _ = self.reduction.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |reduction| {
            surplus = reduction.saturating_sub(events);
            Some(reduction - surplus)
        });
        if surplus > 0 {
            self.available.fetch_add(Available::new(surplus, 0).0, Ordering::SeqCst);
            self.assign();
        }
    }

    /// Whether the limit of events is reduced, or is being reduced.
    pub(crate) fn is_limit_reduced(&self) -> bool {
        self.reduction_target.load(Ordering::SeqCst) > 0
    }

    /// Retires released permits, as many of `events` as the reduction of the limit still needs. Returns how many it
    /// has retired.
    fn retire(&self, events: u64) -> u64 {
        let reduction_target = self.reduction_target.load(Ordering::SeqCst);
        if reduction_target == 0 {
            return 0;
        }
        let mut retired = 0;
        let _ = self.reduction.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |reduction| {
            retired = reduction_target.saturating_sub(reduction).min(events);
            Some(reduction + retired)
        });
        retired
    }

    /// Fails every waiting and every later acquire with [`AcquireError::Closed`].
    pub(crate) fn close(&self) {
        self.available.fetch_or(Available::CLOSED, Ordering::SeqCst);
        self.assign();
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.available().is_closed()
    }

    /// Whether a put waits for a permit.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until a put has begun to wait for a permit.
    pub(crate) async fn waiter_added(&self) {
        self.waiter_added.notified().await;
    }

    /// Assigns available permits to the first waiters until too few are left, or fails all waiters when closed. No
    /// waiter is woken while the queue is locked.
    fn assign(&self) {
        while let Some((waiter, taken)) = self.assign_next() {
            // A send fails if the waiter was dropped. Then its permit becomes available again. When closed, dropping
            // the sender fails the waiter.
            if taken.is_ok() && waiter.assigned.send(()).is_err() {
                let events = 1 - self.retire(1);
                let available = Available::new(events, waiter.bytes.into());
                self.available.fetch_add(available.0, Ordering::SeqCst);
            }
        }
    }

    fn assign_next(&self) -> Option<(Waiter, Result<(), AcquireError>)> {
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
        let take = |available| Available(available).take(bytes).map(|available| available.0);
        match self.available.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Ok(()),
            Err(available) if Available(available).is_closed() => Err(AcquireError::Closed),
            Err(_) => Err(AcquireError::Full),
        }
    }

    fn available(&self) -> Available {
        Available(self.available.load(Ordering::SeqCst))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic cannot leave the queue inconsistent, so a poisoned lock does not matter.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiting acquire.
struct Acquire<'a> {
    flow_control: &'a FlowControl,
    number: u64,
    bytes: u32,
    assigned: oneshot::Receiver<()>,
}

impl<'a> Acquire<'a> {
    fn new(flow_control: &'a FlowControl, bytes: u32) -> Self {
        let (sender, assigned) = oneshot::channel();
        let number = {
            let mut queue = flow_control.queue();
            let number = queue.next_number;
            queue.next_number += 1;
            queue.waiters.push_back(Waiter { number, bytes, assigned: sender });
            flow_control.waiting.fetch_add(1, Ordering::SeqCst);
            number
        };
        flow_control.waiter_added.notify_one();
        // Permits that were released before the waiter was in the queue were not assigned to it.
        flow_control.assign();
        Self { flow_control, number, bytes, assigned }
    }

    async fn wait(mut self) -> Result<Permit<'a>, AcquireError> {
        let assigned = (&mut self.assigned).await;
        assigned
            .map(|()| Permit { flow_control: self.flow_control, bytes: self.bytes })
            .map_err(|_| AcquireError::Closed)
    }
}

impl Drop for Acquire<'_> {
    /// Leaves the queue, or releases a permit that was assigned and not yet received.
    fn drop(&mut self) {
        if self.assigned.is_terminated() {
            return;
        }
        // No permit can be assigned after this.
        self.assigned.close();
        if self.assigned.try_recv().is_ok() {
            return self.flow_control.release(1, self.bytes.into());
        }
        {
            let mut queue = self.flow_control.queue();
            let index = queue.waiters.binary_search_by_key(&self.number, |waiter| waiter.number);
            let Ok(index) = index else { return };
            queue.waiters.remove(index);
            self.flow_control.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        // The waiters behind it may need fewer bytes.
        self.flow_control.assign();
    }
}

/// Available permits in one word: the highest bit says whether flow control is closed, the next 27 bits count events,
/// the lowest 36 bits count bytes.
#[derive(Debug, Clone, Copy)]
struct Available(u64);

/// Bits that count bytes.
const BYTE_BITS: u32 = 36;

/// The highest limit of events: 134,217,727.
pub(crate) const MAX_EVENTS: u64 = (1 << (63 - BYTE_BITS)) - 1;

/// The highest limit of bytes: one less than 64 GiB.
pub(crate) const MAX_BYTES: u64 = (1 << BYTE_BITS) - 1;

impl Available {
    const CLOSED: u64 = 1 << 63;

    fn new(events: u64, bytes: u64) -> Self {
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

    /// What is left after one event of `bytes`; `None` if it does not fit, or when closed.
    fn take(self, bytes: u32) -> Option<Self> {
        let fits = !self.is_closed() && self.events() > 0 && self.bytes() >= bytes.into();
        fits.then(|| Self(self.0 - Self::new(1, bytes.into()).0))
    }
}

/// A permit for one event and its bytes, released when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    flow_control: &'a FlowControl,
    bytes: u32,
}

impl Permit<'_> {
    /// Forgets the permit without releasing it. The caller then has to [`release`](FlowControl::release) it.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
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

    /// Available events and bytes.
    fn available(flow_control: &FlowControl) -> (u64, u64) {
        (flow_control.available().events(), flow_control.available().bytes())
    }

    #[test]
    fn largest_limits_are_counted_without_overflow() {
        let flow_control = FlowControl::new(MAX_EVENTS as usize, MAX_BYTES as usize);
        assert_eq!(available(&flow_control), (MAX_EVENTS, MAX_BYTES));
        let permit = flow_control.try_acquire(u32::MAX).unwrap();
        assert_eq!(available(&flow_control), (MAX_EVENTS - 1, MAX_BYTES - u64::from(u32::MAX)));
        flow_control.close();
        drop(permit);
        assert_eq!(available(&flow_control), (MAX_EVENTS, MAX_BYTES));
    }

    #[test]
    fn dropped_permit_releases_event_and_bytes() {
        let flow_control = FlowControl::new(2, 100);
        let permit = flow_control.try_acquire(60).unwrap();
        assert_eq!(available(&flow_control), (1, 40));
        drop(permit);
        assert_eq!(available(&flow_control), (2, 100));
    }

    #[test]
    fn failed_acquire_takes_nothing() {
        let flow_control = FlowControl::new(2, 100);
        let _held = flow_control.try_acquire(60).unwrap();
        assert_eq!(flow_control.try_acquire(41).unwrap_err(), AcquireError::Full);
        assert_eq!(available(&flow_control), (1, 40));
    }

    #[test]
    fn reduced_limit_retires_available_permits_until_raised() {
        let flow_control = FlowControl::new(10, 100);
        flow_control.reduce_limit(7);
        assert_eq!(available(&flow_control), (3, 100));
        flow_control.reduce_limit(4);
        assert_eq!(available(&flow_control), (6, 100));
        flow_control.reduce_limit(0);
        assert_eq!(available(&flow_control), (10, 100));
        assert!(!flow_control.is_limit_reduced());
    }

    #[test]
    fn reduced_limit_retires_permits_in_use_when_released() {
        let flow_control = FlowControl::new(3, 100);
        let permits = [(); 3].map(|()| flow_control.try_acquire(10).unwrap());
        flow_control.reduce_limit(2);
        let [first, second, third] = permits;
        drop(first);
        drop(second);
        assert_eq!(available(&flow_control), (0, 90));
        drop(third);
        assert_eq!(available(&flow_control), (1, 100));
        flow_control.reduce_limit(0);
        assert_eq!(available(&flow_control), (3, 100));
    }

    #[tokio::test]
    async fn waiter_acquires_when_limit_is_raised() {
        let flow_control = FlowControl::new(2, 100);
        flow_control.reduce_limit(2);
        let mut waiter = Box::pin(flow_control.acquire(10));
        assert!(waiter.as_mut().now_or_never().is_none());
        flow_control.reduce_limit(1);
        drop(waiter.await.unwrap());
        assert_eq!(available(&flow_control), (1, 100));
    }

    #[tokio::test]
    async fn later_small_acquire_does_not_overtake_large_waiter() {
        let flow_control = FlowControl::new(3, 100);
        let held = flow_control.try_acquire(60).unwrap();
        let mut large = Box::pin(flow_control.acquire(60));
        assert!(large.as_mut().now_or_never().is_none());
        // If these acquired what is available, the large one might wait for ever.
        assert_eq!(flow_control.try_acquire(10).unwrap_err(), AcquireError::Full);
        let mut small = Box::pin(flow_control.acquire(10));
        assert!(small.as_mut().now_or_never().is_none());
        drop(held);
        let (large, small) = (large.await.unwrap(), small.await.unwrap());
        assert_eq!(available(&flow_control), (1, 30));
        drop((large, small));
        assert!(flow_control.try_acquire(100).is_ok());
    }

    #[tokio::test]
    async fn unpolled_waiter_holds_only_its_own_permit() {
        let flow_control = FlowControl::new(2, 100);
        let (first, second) =
            (flow_control.try_acquire(1).unwrap(), flow_control.try_acquire(1).unwrap());
        let mut unpolled = Box::pin(flow_control.acquire(60));
        assert!(unpolled.as_mut().now_or_never().is_none());
        let mut waiter = Box::pin(flow_control.acquire(40));
        assert!(waiter.as_mut().now_or_never().is_none());
        drop(first);
        assert!(
            waiter.as_mut().now_or_never().is_none(),
            "this permit is assigned to the other waiter"
        );
        drop(second);
        let acquired = waiter.await.unwrap();
        assert_eq!(
            available(&flow_control),
            (0, 0),
            "the other waiter has its permit, polled or not"
        );
        assert!(!flow_control.has_waiters());
        drop(acquired);
        drop(flow_control.try_acquire(40).unwrap());
        drop(unpolled);
        assert_eq!(available(&flow_control), (2, 100));
    }

    #[tokio::test]
    async fn cancelled_large_waiter_lets_smaller_one_acquire() {
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
    async fn cancelled_waiter_holds_nothing() {
        let flow_control = FlowControl::new(2, 100);
        let held = flow_control.try_acquire(60).unwrap();
        {
            let waiter = flow_control.acquire(60);
            tokio::pin!(waiter);
            assert!(waiter.as_mut().now_or_never().is_none());
            assert!(flow_control.has_waiters());
        }
        assert!(!flow_control.has_waiters());
        drop(held);
        assert_eq!(available(&flow_control), (2, 100));
    }

    #[tokio::test]
    async fn close_fails_waiting_and_later_acquires() {
        let flow_control = FlowControl::new(1, 100);
        let _held = flow_control.try_acquire(1).unwrap();
        let waiter = flow_control.acquire(1);
        tokio::pin!(waiter);
        assert!(waiter.as_mut().now_or_never().is_none());
        flow_control.close();
        assert_eq!(waiter.await.unwrap_err(), AcquireError::Closed);
        assert_eq!(flow_control.try_acquire(1).unwrap_err(), AcquireError::Closed);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_acquires_and_cancellations_all_finish() {
        const PUTS: u32 = 2_000;
        let flow_control: &'static FlowControl = Box::leak(Box::new(FlowControl::new(3, 100)));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8_u32 {
            tasks.spawn(async move {
                for put in 0..PUTS {
                    let bytes = 1 + (put * 31 + task * 17) % 100;
                    if put % 7 == task % 7 {
                        // Begins to wait, and is cancelled before, while or after its permit is assigned.
                        let acquire = flow_control.acquire(bytes);
                        tokio::select! {
                            biased;
                            acquired = acquire => drop(acquired.unwrap()),
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
        assert_eq!((available(flow_control), flow_control.has_waiters()), ((3, 100), false));
        // Closing fails every waiter.
        let _held = flow_control.try_acquire(100).unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        (0..8).for_each(|_| drop(waiting.spawn(async { flow_control.acquire(1).await.is_err() })));
        while flow_control.waiting.load(Ordering::SeqCst) < 8 {
            tokio::task::yield_now().await;
        }
        flow_control.close();
        assert!(waiting.join_all().await.into_iter().all(|failed| failed));
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Begins an acquire for an event of this many bytes.
        Acquire {
            bytes: u32,
        },
        /// Drops the waiter at this index.
        Cancel {
            index: usize,
        },
        /// Drops the permit at this index.
        Release {
            index: usize,
        },
        Close,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..60_u32).prop_map(|bytes| Step::Acquire { bytes }),
            2 => (0..100_usize).prop_map(|index| Step::Cancel { index }),
            4 => (0..100_usize).prop_map(|index| Step::Release { index }),
            1 => Just(Step::Close),
        ]
    }

    proptest! {
        /// A permit that is not held is available, even if acquires wait, are cancelled or fail.
        #[test]
        fn every_permit_is_held_or_available(
            steps in prop::collection::vec(step(), 1..200),
        ) {
            const EVENTS: u64 = 5;
            const BYTES: u64 = 100;
            let flow_control = FlowControl::new(EVENTS as usize, BYTES as usize);
            let flow_control = &flow_control;
            let mut held: Vec<Permit<'_>> = Vec::new();
            let mut waiting = Vec::new();
            let mut closed = false;
            for step in steps {
                match step {
                    Step::Acquire { bytes } => {
                        waiting.push(Box::pin(flow_control.acquire(bytes)));
                    }
                    Step::Cancel { index } if !waiting.is_empty() => {
                        drop(waiting.remove(index % waiting.len()));
                    }
                    Step::Release { index } if !held.is_empty() => {
                        drop(held.remove(index % held.len()));
                    }
                    Step::Cancel { .. } | Step::Release { .. } => {}
                    Step::Close => {
                        flow_control.close();
                        closed = true;
                    }
                }
                // Every assigned permit is received. After the close, none is.
                let mut still_waiting = Vec::new();
                for mut waiter in waiting {
                    match waiter.as_mut().now_or_never() {
                        Some(Ok(permit)) => {
                            prop_assert!(!closed);
                            held.push(permit);
                        }
                        Some(Err(error)) => prop_assert!(closed && error == AcquireError::Closed),
                        None => still_waiting.push(waiter),
                    }
                }
                waiting = still_waiting;
                let bytes: u64 = held.iter().map(|permit| u64::from(permit.bytes)).sum();
                let events = held.len() as u64;
                prop_assert!(events <= EVENTS && bytes <= BYTES);
                prop_assert_eq!(flow_control.has_waiters(), !waiting.is_empty());
                if waiting.is_empty() {
                    prop_assert_eq!(available(flow_control), (EVENTS - events, BYTES - bytes));
                }
            }
            drop((waiting, held));
            prop_assert_eq!(available(flow_control), (EVENTS, BYTES));
        }
    }
}
