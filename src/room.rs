//! Room in the buffer, in events and in bytes: taken by a put, given back by its settling.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, TryAcquireError};

/// Why room was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    Closed,
}

/// The buffer's bounds. Waiters are served in the order they came.
#[derive(Debug)]
pub(crate) struct Room {
    events: Semaphore,
    bytes: Semaphore,
    waiting: AtomicUsize,
    /// Tells the worker that a put has begun to wait, so that it does not sit out the linger.
    pressed: Notify,
}

impl Room {
    pub(crate) fn new(max_buffered_events: usize, max_buffered_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            events: Semaphore::new(max_buffered_events),
            bytes: Semaphore::new(max_buffered_bytes),
            waiting: AtomicUsize::new(0),
            pressed: Notify::new(),
        })
    }

    /// Room for one event of `bytes`, or word that there is none now.
    pub(crate) fn try_enter(self: &Arc<Self>, bytes: u32) -> Result<Permit, NoRoom> {
        let refused = |error| match error {
            TryAcquireError::NoPermits => NoRoom::Full,
            TryAcquireError::Closed => NoRoom::Closed,
        };
        let event = self.events.try_acquire().map_err(refused)?;
        let of_bytes = self.bytes.try_acquire_many(bytes).map_err(refused)?;
        event.forget();
        of_bytes.forget();
        Ok(Permit { room: Arc::clone(self), bytes })
    }

    /// Waits for room for one event of `bytes`. Fails only when the store closes.
    ///
    /// Cancel safe: a dropped wait leaves its place in the queue and holds nothing.
    pub(crate) async fn enter(self: &Arc<Self>, bytes: u32) -> Result<Permit, NoRoom> {
        match self.try_enter(bytes) {
            Err(NoRoom::Full) => {}
            decided => return decided,
        }
        let _waiter = Waiter::new(self);
        let event = self.events.acquire().await.map_err(|_| NoRoom::Closed)?;
        let of_bytes = self.bytes.acquire_many(bytes).await.map_err(|_| NoRoom::Closed)?;
        event.forget();
        of_bytes.forget();
        Ok(Permit { room: Arc::clone(self), bytes })
    }

    /// Refuses everyone from now on, those who wait included.
    pub(crate) fn close(&self) {
        self.events.close();
        self.bytes.close();
    }

    /// Whether a put waits for room now.
    pub(crate) fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Returns when a put has begun to wait for room.
    pub(crate) async fn pressed(&self) {
        self.pressed.notified().await;
    }
}

/// One put's wait, for as long as it waits.
struct Waiter<'a>(&'a Room);

impl<'a> Waiter<'a> {
    fn new(room: &'a Room) -> Self {
        room.waiting.fetch_add(1, Ordering::Release);
        room.pressed.notify_one();
        Self(room)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

/// Room for one event. Dropping it gives the room back, which is the only way to do so.
#[derive(Debug)]
pub(crate) struct Permit {
    room: Arc<Room>,
    bytes: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.room.events.add_permits(1);
        self.room.bytes.add_permits(self.bytes as usize);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn free(room: &Room) -> (usize, usize) {
        (room.events.available_permits(), room.bytes.available_permits())
    }

    #[test]
    fn a_permit_holds_one_event_and_its_bytes_and_gives_both_back() {
        let room = Room::new(2, 100);
        let permit = room.try_enter(60).unwrap();
        assert_eq!(free(&room), (1, 40));
        drop(permit);
        assert_eq!(free(&room), (2, 100));
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let room = Room::new(2, 100);
        let _held = room.try_enter(60).unwrap();
        assert_eq!(room.try_enter(41).unwrap_err(), NoRoom::Full);
        assert_eq!(free(&room), (1, 40));
    }

    #[tokio::test]
    async fn a_cancelled_wait_leaves_nothing_behind() {
        let room = Room::new(2, 100);
        let held = room.try_enter(60).unwrap();
        {
            let waits = room.enter(60);
            tokio::pin!(waits);
            assert!(waits.as_mut().now_or_never().is_none());
            assert!(room.is_pressed());
        }
        assert!(!room.is_pressed());
        drop(held);
        assert_eq!(free(&room), (2, 100));
    }

    #[tokio::test]
    async fn closing_refuses_those_who_wait_and_those_who_come() {
        let room = Room::new(1, 100);
        let _held = room.try_enter(1).unwrap();
        let waits = room.enter(1);
        tokio::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        room.close();
        assert_eq!(waits.await.unwrap_err(), NoRoom::Closed);
        assert_eq!(room.try_enter(1).unwrap_err(), NoRoom::Closed);
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
            const EVENTS: usize = 5;
            const BYTES: usize = 100;
            let room = Room::new(EVENTS, BYTES);
            let mut inside: Vec<Permit> = Vec::new();
            let mut waiting = Vec::new();
            let mut closed = false;
            for step in steps {
                match step {
                    Step::Enter { bytes } => {
                        let room = Arc::clone(&room);
                        waiting.push(Box::pin(async move { room.enter(bytes).await }));
                    }
                    Step::Cancel { place } if !waiting.is_empty() => {
                        drop(waiting.remove(place % waiting.len()));
                    }
                    Step::Leave { place } if !inside.is_empty() => {
                        drop(inside.remove(place % inside.len()));
                    }
                    Step::Cancel { .. } | Step::Leave { .. } => {}
                    Step::Close => {
                        room.close();
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
                        Some(Err(no_room)) => prop_assert!(closed && no_room == NoRoom::Closed),
                        None => still_waiting.push(waits),
                    }
                }
                waiting = still_waiting;
                let bytes: usize = inside.iter().map(|permit| permit.bytes as usize).sum();
                prop_assert!(inside.len() <= EVENTS && bytes <= BYTES);
                prop_assert_eq!(room.is_pressed(), !waiting.is_empty());
                if waiting.is_empty() {
                    prop_assert_eq!(free(&room), (EVENTS - inside.len(), BYTES - bytes));
                }
            }
            drop((waiting, inside));
            prop_assert_eq!(free(&room), (EVENTS, BYTES));
        }
    }
}
