//! [`Overflow`]: the accepted events that wait on disk, in the journal, until the buffer has room for them.
//!
//! ```text
//! put ──▶ buffer has room? ──yes──▶ worker
//!              │ no, or others wait already              ▲
//!              └──▶ Overflow, journal ──▶ Loader ──permit┘
//! ```

mod loader;
mod queue;

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

pub(super) use loader::Loader;
use queue::{Entry, WaitingQueue};

use super::Shared;
use crate::accounting::Accounting;
use crate::error::{FailureReason, WriteError};
use crate::event::Event;
use crate::flow_control::AcquireError;
use crate::journal::{ActiveJournal, Durability};
use crate::pending::{PutTicket, SettledError, WaitingEvent};
use crate::worker::CloseDeadlines;

/// The waiting events of one store. Puts add events, and the [`Loader`] takes them.
pub(super) struct Overflow {
    state: Mutex<State>,
    /// Whether a put must lock the state: events wait, or the store is closing.
    is_active: AtomicBool,
    /// Wakes the loader.
    added: Notify,
    /// Sequence number of the last event that the loader has sent; `u64::MAX` when no event is left for it.
    sent: watch::Sender<u64>,
    /// Set when the store is closed.
    closing: watch::Sender<Option<CloseDeadlines>>,
}

#[derive(Default)]
struct State {
    queue: WaitingQueue,
    /// Number of an event that is not in the queue any more, and is being failed.
    failing: Option<NonZeroU64>,
    /// Set while events wait, so that the store does not end when its last handle is dropped.
    keep_alive: Option<Arc<Shared>>,
    /// Whether all events have failed, because the store ends.
    is_ended: bool,
    left: LeftOnDisk,
}

/// The events that were not sent when the store ended.
#[derive(Debug, Clone, Default)]
pub(super) struct LeftOnDisk {
    /// Those that the journal has.
    pub(super) events: u64,
    /// The errors of the others: the journal has not written them, and perhaps cannot.
    pub(super) errors: Vec<WriteError>,
}

/// What the loader sends next.
enum Next {
    /// An event that is still in memory.
    InMemory(NonZeroU64, Event),
    /// Events that are on disk only.
    OnDisk(Vec<NonZeroU64>),
}

impl Overflow {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            is_active: AtomicBool::new(false),
            added: Notify::new(),
            sent: watch::Sender::new(0),
            closing: watch::Sender::new(None),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state inconsistent, so a poisoned lock does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a put must [wait here](Self::push) instead of acquiring a permit, which would overtake waiting events.
    pub(super) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    /// Adds an event. `accept` appends it to the journal, and returns it with its ticket. It is not called if the store
    /// is closed.
    pub(super) fn push(
        &self,
        shared: &Arc<Shared>,
        journal: &ActiveJournal,
        accept: impl FnOnce() -> (WaitingEvent, PutTicket),
    ) -> Result<PutTicket, AcquireError> {
        let accounting = &shared.accounting;
        let mut state = self.state();
        if state.is_ended || self.closing.borrow().is_some() {
            return Err(AcquireError::Closed);
        }
        // Under the lock, so that the events wait in the order of the journal.
        let (event, ticket) = accept();
        state.queue.push(event, |sequence| journal.durability(sequence), accounting.hook.is_none());
        accounting.counters.set_waiting_on_disk(state.queue.len());
        state.keep_alive.get_or_insert_with(|| Arc::clone(shared));
        self.is_active.store(true, Ordering::Release);
        drop(state);
        self.added.notify_one();
        Ok(ticket)
    }

    /// Accepts no more events. Returns whether events wait. If so, the loader stops the worker after it has sent them.
    pub(super) fn close(&self, deadlines: CloseDeadlines) -> bool {
        let state = self.state();
        self.is_active.store(true, Ordering::Release);
        self.closing.send_if_modified(|set| {
            let earliest = set.map_or(deadlines, |set| set.earliest(deadlines));
            set.replace(earliest) != Some(earliest)
        });
        state.queue.len() > 0 || state.failing.is_some()
    }

    /// Whether [`close`](Self::close) was called.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.borrow().is_some()
    }

    /// Waits until [`close`](Self::close) is called. Cancel safe.
    pub(super) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender is in this value, so it is not dropped.
        let _ = closing.wait_for(Option::is_some).await;
    }

    /// Waits until the events that wait now are sent to the worker. Returns false if the store has ended. Cancel
    /// safe.
    pub(super) async fn drained(&self) -> bool {
        let last = {
            let state = self.state();
            state.queue.last().or(state.failing)
        };
        if let Some(last) = last {
            let mut sent = self.sent.subscribe();
            // The sender is in this value, so it is not dropped.
            let _ = sent.wait_for(|sent| *sent >= last.get()).await;
        }
        !self.state().is_ended
    }

    /// The events that were not sent when the store ended.
    pub(super) fn left(&self) -> LeftOnDisk {
        self.state().left.clone()
    }

    /// The store. `None` if no event waits.
    fn store(&self) -> Option<Arc<Shared>> {
        self.state().keep_alive.clone()
    }

    /// The deadlines of close, once it is called.
    fn deadlines(&self) -> Option<CloseDeadlines> {
        *self.closing.borrow()
    }

    /// What the loader sends next, at most `max_events`. `None` if no event waits; then the store may end.
    fn next(&self, max_events: usize) -> Option<Next> {
        let mut state = self.state();
        let next = state.queue.first(max_events);
        if next.is_none() {
            self.is_active.store(self.closing.borrow().is_some(), Ordering::Release);
            let store = state.keep_alive.take();
            drop(state);
            // It may be the last reference, whose drop runs other code: not under the lock.
            drop(store);
        }
        next
    }

    /// Removes the first event, if it has this number, and calls `send` with it. This is done under the lock, so that a
    /// flush or close finds each event either here or in the channel to the worker.
    fn send_first<T>(
        &self,
        sequence: NonZeroU64,
        accounting: &Accounting,
        send: impl FnOnce(Entry) -> T,
    ) -> Option<T> {
        let mut state = self.state();
        let event = state.queue.pop(sequence)?;
        accounting.counters.set_waiting_on_disk(state.queue.len());
        let sent = send(event);
        self.sent.send_replace(sequence.get());
        Some(sent)
    }

    /// Takes the event with this number out, which is the first, and fails it. Not under the lock, because `fail` logs,
    /// and the log may end in this store. A flush or close that comes meanwhile waits.
    fn fail_first(&self, sequence: NonZeroU64, accounting: &Accounting, fail: impl FnOnce(Entry)) {
        let event = {
            let mut state = self.state();
            let event = state.queue.pop(sequence);
            state.failing = event.as_ref().map(|_| sequence);
            accounting.counters.set_waiting_on_disk(state.queue.len());
            event
        };
        if let Some(event) = event {
            fail(event);
            self.state().failing = None;
            self.sent.send_replace(sequence.get());
        }
    }

    /// Fails all events, because the store ends. The journal keeps those that it has.
    fn fail_all(&self, reason: FailureReason, accounting: &Accounting) {
        let (queue, store) = {
            let mut state = self.state();
            if std::mem::replace(&mut state.is_ended, true) {
                return;
            }
            self.is_active.store(true, Ordering::Release);
            (std::mem::take(&mut state.queue), state.keep_alive.take())
        };
        let mut left = LeftOnDisk { events: queue.len(), errors: Vec::new() };
        for waiting in queue.into_entries() {
            match waiting {
                Entry::Event(event) => {
                    let journal = accounting.journal.as_ref();
                    let durability = journal.map(|journal| journal.durability(event.sequence()));
                    let SettledError { error, .. } = event.fail(reason, accounting);
                    if durability != Some(Durability::Durable) {
                        left.errors.push(error);
                    }
                }
                Entry::Run { events, .. } => accounting.settle_waiting(events, reason),
            }
        }
        left.events -= left.errors.len() as u64;
        accounting.counters.set_waiting_on_disk(0);
        if left.events > 0 {
            tracing::warn!(
                events = left.events,
                "events that wait on disk are left for the next store that opens the journal"
            );
        }
        self.state().left = left;
        self.sent.send_replace(u64::MAX);
        drop(store);
    }

    /// Waits until the deadline of close has passed. Never ready before close is called.
    async fn past_deadline(&self) {
        let mut closing = self.closing.subscribe();
        loop {
            let deadlines = *closing.borrow_and_update();
            let Some(deadlines) = deadlines else {
                // The sender is in this value, so it is not dropped.
                let _ = closing.changed().await;
                continue;
            };
            let fail_at = Instant::from_std(deadlines.fail_at);
            if timeout_at(fail_at, closing.changed()).await.is_err() {
                return;
            }
        }
    }
}
