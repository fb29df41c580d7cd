//! [`ActiveJournal`]: a journal that a store writes to, and [`Unsettled`], the events in it that must be put again.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::progress::Durability;
use super::queue::{Queue, Reservation, record_bytes};
use super::reader::Reader;
use super::record;
use crate::error::JournalError;
use crate::event::Event;
use crate::event::key::EventKey;

/// A journal that a store writes to. Dropping it ends its thread after everything is written.
#[derive(Debug)]
pub(crate) struct ActiveJournal {
    pub(super) queue: Arc<Queue>,
    pub(super) reader: Reader,
    /// Whether events for which the buffer has no room wait on disk.
    pub(super) overflow: bool,
}

/// The place of one event in the journal, for its ticket.
#[derive(Debug)]
pub(crate) struct Position {
    queue: Arc<Queue>,
    sequence: NonZeroU64,
}

impl Position {
    pub(crate) fn sequence(&self) -> NonZeroU64 {
        self.sequence
    }

    /// Waits until the event is durable. Cancel safe.
    pub(crate) async fn durable(&self) -> Result<(), JournalError> {
        self.queue.durable(self.sequence).await
    }
}

/// The events that must be put again: first those that an earlier process left, later those of this process that failed
/// and are not stored.
pub(crate) struct Unsettled {
    pub(super) queue: Arc<Queue>,
    pub(crate) reader: Reader,
    /// Ascending.
    pub(crate) sequences: Vec<NonZeroU64>,
    /// The greatest key in the journal. New keys have to be greater.
    pub(crate) last_key: Option<EventKey>,
}

impl Unsettled {
    /// Takes the durable events that were [kept](ActiveJournal::keep) since the last call, in the order of their puts.
    pub(crate) fn take_kept(&self) -> Vec<NonZeroU64> {
        self.queue.take_kept()
    }

    /// Keeps an event that cannot be put again now.
    pub(crate) fn keep(&self, sequence: NonZeroU64) {
        self.queue.keep(sequence);
    }
}

impl ActiveJournal {
    /// Waits for room for an event whose encoded body has this many bytes. Cancel safe.
    pub(crate) async fn reserve(
        &self,
        encoded_bytes: usize,
    ) -> Result<Reservation<'_>, JournalError> {
        self.queue.reserve(record::bytes_with_longest_key(encoded_bytes)).await
    }

    /// Reserves room without waiting.
    pub(crate) fn try_reserve(
        &self,
        encoded_bytes: usize,
    ) -> Result<Reservation<'_>, JournalError> {
        self.queue.try_reserve(record::bytes_with_longest_key(encoded_bytes))
    }

    /// Appends an event, for which there is room.
    pub(crate) fn append(&self, event: &Event, mut reservation: Reservation<'_>) -> Position {
        reservation.shrink_to(record_bytes(event));
        let sequence = self.queue.append(event, reservation);
        Position { queue: Arc::clone(&self.queue), sequence }
    }

    /// Counts an event as settled. `failed_line` is the line that is kept in a file for an event that failed for good.
    pub(crate) fn settle(&self, sequence: NonZeroU64, failed_line: Option<Vec<u8>>) {
        self.queue.settle_all(std::iter::once(sequence), failed_line);
    }

    /// Counts stored events as settled.
    pub(crate) fn settle_all(&self, sequences: impl Iterator<Item = NonZeroU64>) {
        self.queue.settle_all(sequences, None);
    }

    /// Marks an event that has failed and is not stored, so that it is put again.
    pub(crate) fn keep(&self, sequence: NonZeroU64) {
        self.queue.keep(sequence);
    }

    /// Whether the event is durable, or will be once the store is closed.
    pub(crate) fn keeps(&self, sequence: NonZeroU64) -> bool {
        self.queue.keeps(sequence)
    }

    /// Whether an event is written.
    pub(crate) fn durability(&self, sequence: NonZeroU64) -> Durability {
        self.queue.durability(sequence)
    }

    /// Reads durable events.
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Whether events for which the buffer has no room wait on disk.
    pub(crate) fn has_overflow(&self) -> bool {
        self.overflow
    }

    /// Bytes of all segments, and of the events that are not written yet.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.queue.total_bytes()
    }

    /// Ends the thread after it has written everything, and waits for that.
    pub(crate) async fn close(&self) {
        self.queue.close();
        self.queue.wait_closed().await;
    }
}

impl Drop for ActiveJournal {
    fn drop(&mut self) {
        self.queue.close();
    }
}
