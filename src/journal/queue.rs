//! [`Queue`]: connects puts and the worker with the journal's thread.

use std::num::NonZeroU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::index::MARK_INTERVAL;
use super::progress::{Durability, Progress};
use super::record::{event_bytes, push_event};
use crate::clock::now;
use crate::error::JournalError;
use crate::event::Event;

/// Puts wait while this many bytes are not written or synced, because then the disk is slower than the puts.
const MAX_UNWRITTEN_BYTES: u64 = 16 * 1024 * 1024;

/// How long after a failed write the next event is let through, to find out whether writes work again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long settled events wait for others, to share a record with them.
const SETTLED_DELAY: Duration = Duration::from_millis(100);

/// Shared by the store's handles, its worker and the journal's thread.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the thread.
    work: Condvar,
    /// Wakes the puts that wait for room.
    room: Notify,
    progress: watch::Sender<Progress>,
    pub(super) max_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    next_sequence: u64,
    /// Bytes of all segments, and of everything that is reserved or not written yet.
    total_bytes: u64,
    /// Bytes that are reserved, or not durable yet.
    unwritten_bytes: u64,
    /// Why the last write failed, and when.
    failing: Option<(JournalError, Instant)>,
    /// Why the journal takes no more events, ever.
    failed: Option<JournalError>,
    /// Events whose tickets are answered although they are not stored. They must be put again.
    kept: Vec<u64>,
    is_closing: bool,
}

/// What the thread writes in one round.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Records of events.
    pub(super) records: Vec<u8>,
    /// The numbers of some of the events, and the offsets of their records.
    pub(super) marks: Vec<(u64, usize)>,
    /// The sequence numbers of the first and the last event in it.
    pub(super) sequences: Option<(u64, u64)>,
    /// Number of events in it.
    pub(super) events: u64,
    /// Sequence numbers of events that are settled.
    pub(super) settled: Vec<u64>,
    /// Sequence numbers of events that failed for good.
    pub(super) failed: Vec<u64>,
    /// A line of JSON for each event that failed for good.
    pub(super) failed_lines: Vec<u8>,
}

impl Batch {
    fn has_settled(&self) -> bool {
        !self.settled.is_empty() || !self.failed.is_empty()
    }
}

/// Room for the record of one event. Dropping it releases the room.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    queue: &'a Queue,
    bytes: u64,
}

impl Queue {
    pub(super) fn new(last_sequence: u64, total_bytes: u64, max_bytes: u64) -> Self {
        let state = State { next_sequence: last_sequence + 1, total_bytes, ..State::default() };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
            room: Notify::new(),
            progress: watch::Sender::new(Progress {
                durable: last_sequence,
                ..Progress::default()
            }),
            max_bytes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the state inconsistent, so a poisoned lock does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for an event without waiting.
    pub(super) fn try_reserve(&self, event_bytes: usize) -> Result<Reservation<'_>, JournalError> {
        let bytes = event_bytes as u64;
        let mut state = self.state();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if let Some((error, at)) = &mut state.failing {
            let now = now();
            if now < *at + PROBE_INTERVAL {
                return Err(error.clone());
            }
            *at = now;
        }
        if state.total_bytes + bytes > self.max_bytes
            || state.unwritten_bytes >= MAX_UNWRITTEN_BYTES
        {
            return Err(JournalError::Full { max_bytes: self.max_bytes });
        }
        state.total_bytes += bytes;
        state.unwritten_bytes += bytes;
        Ok(Reservation { queue: self, bytes })
    }

    /// Waits for room for an event. Cancel safe.
    pub(super) async fn reserve(
        &self,
        event_bytes: usize,
    ) -> Result<Reservation<'_>, JournalError> {
        loop {
            let room = self.room.notified();
            match self.try_reserve(event_bytes) {
                Err(JournalError::Full { .. }) => room.await,
                decided => return decided,
            }
        }
    }

    /// Appends the record of an event, for which there is room. Returns its sequence number.
    pub(super) fn append(&self, event: &Event, reservation: Reservation<'_>) -> NonZeroU64 {
        // From here on the thread releases the room.
        std::mem::forget(reservation);
        let mut state = self.state();
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let offset = state.batch.records.len();
        let is_far = |(_, last): &(u64, usize)| (offset - last) as u64 >= MARK_INTERVAL;
        if state.batch.marks.last().is_none_or(is_far) {
            state.batch.marks.push((sequence, offset));
        }
        push_event(&mut state.batch.records, sequence, event.key(), event.encoded_body());
        state.batch.events += 1;
        let first = state.batch.sequences.map_or(sequence, |(first, _)| first);
        let is_first = state.batch.sequences.replace((first, sequence)).is_none();
        drop(state);
        if is_first {
            self.work.notify_one();
        }
        NonZeroU64::new(sequence).unwrap_or(NonZeroU64::MIN)
    }

    /// Counts events as settled. `failed_line` is set for an event that failed for good.
    pub(super) fn settle_all(
        &self,
        sequences: impl Iterator<Item = NonZeroU64>,
        failed_line: Option<Vec<u8>>,
    ) {
        let mut state = self.state();
        let is_first = !state.batch.has_settled();
        let sequences = sequences.map(NonZeroU64::get);
        match failed_line {
            Some(line) => {
                state.batch.failed.extend(sequences);
                state.batch.failed_lines.extend(line);
            }
            None => state.batch.settled.extend(sequences),
        }
        drop(state);
        if is_first {
            self.work.notify_one();
        }
    }

    /// Marks an event whose ticket is answered although it is not stored.
    pub(super) fn keep(&self, sequence: NonZeroU64) {
        self.state().kept.push(sequence.get());
    }

    /// Takes the numbers of those [kept](Self::keep) events that are durable, ascending. Forgets those that were not
    /// written.
    pub(super) fn take_kept(&self) -> Vec<NonZeroU64> {
        let mut kept = std::mem::take(&mut self.state().kept);
        kept.sort_unstable();
        let progress = self.progress.borrow().clone();
        let unwritten = kept.split_off(kept.partition_point(|kept| *kept <= progress.durable));
        self.state().kept.extend(unwritten);
        kept.retain(|kept| progress.lost(*kept).is_none());
        kept.into_iter().filter_map(NonZeroU64::new).collect()
    }

    /// Whether an event is written.
    pub(super) fn durability(&self, sequence: NonZeroU64) -> Durability {
        let progress = self.progress.borrow();
        if progress.durable < sequence.get() {
            Durability::Unwritten
        } else if progress.lost(sequence.get()).is_some() {
            Durability::Lost
        } else {
            Durability::Durable
        }
    }

    /// Waits until the event is durable. Cancel safe.
    pub(super) async fn durable(&self, sequence: NonZeroU64) -> Result<(), JournalError> {
        let sequence = sequence.get();
        let mut progress = self.progress.subscribe();
        let decided = |progress: &Progress| progress.durable >= sequence || progress.is_closed;
        let progress = progress.wait_for(decided).await.map_err(|_| JournalError::Closed)?;
        match progress.lost(sequence) {
            Some(error) => Err(error.clone()),
            None if progress.durable >= sequence => Ok(()),
            None => Err(JournalError::Closed),
        }
    }

    /// Whether the event is durable, or will be.
    pub(super) fn keeps(&self, sequence: NonZeroU64) -> bool {
        let progress = self.progress.borrow();
        let is_durable = progress.durable >= sequence.get();
        progress.lost(sequence.get()).is_none() && (is_durable || self.state().failed.is_none())
    }

    /// Those of the events that were written, so that a segment counts them.
    pub(super) fn written<'a>(&self, sequences: &'a [u64]) -> impl Iterator<Item = u64> + use<'a> {
        let progress = self.progress.borrow().clone();
        sequences.iter().copied().filter(move |sequence| progress.lost(*sequence).is_none())
    }

    /// Waits for work. Runs on the journal's thread. Events are not taken before `not_before`, so that later ones share
    /// their write. `None` once the journal is closed and everything is taken.
    pub(super) fn take(&self, not_before: Instant) -> Option<Batch> {
        let mut state = self.state();
        loop {
            let now = now();
            let has_events = state.batch.events > 0;
            let has_settled = state.batch.has_settled();
            let due = match (has_events, has_settled) {
                (true, _) => Some(not_before),
                (false, true) => Some(not_before.max(now) + SETTLED_DELAY),
                (false, false) => None,
            };
            match due {
                _ if state.is_closing && (has_events || has_settled) => break,
                None if state.is_closing => return None,
                Some(due) if due <= now => break,
                Some(due) => {
                    let waited = self.work.wait_timeout(state, due - now);
                    let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    state = after;
                    if timeout.timed_out() && state.batch.has_settled() {
                        break;
                    }
                }
                None => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        Some(std::mem::take(&mut state.batch))
    }

    /// Takes everything that is queued, without waiting.
    #[cfg(test)]
    pub(super) fn take_now(&self) -> Batch {
        std::mem::take(&mut self.state().batch)
    }

    /// Bytes of all segments, and of the events that are not written yet.
    pub(super) fn total_bytes(&self) -> u64 {
        self.state().total_bytes
    }

    /// Records that the batch is durable, together with `other_bytes` bytes of other records.
    pub(super) fn succeeded(&self, batch: &Batch, other_bytes: u64) {
        let mut state = self.state();
        if batch.events > 0 {
            state.failing = None;
        }
        state.unwritten_bytes -= batch.records.len() as u64;
        state.total_bytes += other_bytes;
        drop(state);
        if let Some((_, last)) = batch.sequences {
            self.progress.send_modify(|progress| progress.durable = last);
        }
        self.room.notify_waiters();
    }

    /// Records that segments with this many bytes were removed.
    pub(super) fn removed(&self, bytes: u64) {
        let mut state = self.state();
        state.total_bytes = state.total_bytes.saturating_sub(bytes);
        drop(state);
        self.room.notify_waiters();
    }

    /// Records that the events of the batch are not in the journal. If the error `is_final`, every later event fails
    /// with it, too.
    pub(super) fn failed(&self, batch: &Batch, error: &JournalError, is_final: bool) {
        let mut state = self.state();
        state.failing = Some((error.clone(), now()));
        if is_final {
            state.failed = Some(error.clone());
        }
        state.unwritten_bytes -= batch.records.len() as u64;
        state.total_bytes -= batch.records.len() as u64;
        drop(state);
        if let Some((first, last)) = batch.sequences {
            self.progress.send_modify(|progress| {
                progress.lost.push((first, last, error.clone()));
                progress.durable = last;
            });
        }
        // Puts that wait for room get the error.
        self.room.notify_waiters();
    }

    /// Makes the thread end after it has written everything.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.work.notify_one();
    }

    /// Records that the thread has ended.
    pub(super) fn closed(&self) {
        self.state().failed.get_or_insert(JournalError::Closed);
        self.progress.send_modify(|progress| progress.is_closed = true);
        self.room.notify_waiters();
    }

    /// Waits until the thread has ended.
    pub(super) async fn wait_closed(&self) {
        let mut progress = self.progress.subscribe();
        // The sender is in this queue, so it is not dropped.
        let _ = progress.wait_for(|progress| progress.is_closed).await;
    }
}

impl Reservation<'_> {
    /// Releases the room that is not needed.
    pub(super) fn shrink_to(&mut self, event_bytes: usize) {
        let surplus = self.bytes.saturating_sub(event_bytes as u64);
        if surplus > 0 {
            let mut state = self.queue.state();
            state.total_bytes -= surplus;
            state.unwritten_bytes -= surplus;
            self.bytes -= surplus;
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.total_bytes -= self.bytes;
        state.unwritten_bytes -= self.bytes;
        drop(state);
        self.queue.room.notify_waiters();
    }
}

/// Bytes of an event's record.
pub(super) fn record_bytes(event: &Event) -> usize {
    event_bytes(event.key(), event.encoded_body())
}
