//! The journal: keeps accepted events on disk until they are settled.
//!
//! ```text
//! put ──▶ Queue ──▶ Writer, on a thread of its own ──▶ segment files
//!           ▲            │ one write and one sync for all events that wait
//! settle ───┘            └── removes a segment when all of its events are settled
//!
//! open: segment files ──▶ recovery ──▶ unsettled events ──▶ Replay (in the store) reads them back, and puts the rest
//! ```
//!
//! [`record`] has the format. Each record has a checksum, so it is read whole or not at all. An incomplete (torn)
//! record at the end of a segment is cut off. Damaged bytes in the middle are copied to a `.damaged` file. An event
//! counts as unsettled until a record says that it is settled, or its segment is removed. If that record or the removal
//! is lost, the event is read back from the table, and found.

mod options;
mod queue;
mod record;
mod recovery;
#[cfg(test)]
mod simulation;
mod storage;
mod writer;

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use options::{JournalOptions, SyncPolicy};
pub(crate) use queue::Reservation;
use queue::{Queue, record_bytes};
use record::{Parsed, Record, parse};
pub(crate) use recovery::Location;
use recovery::Recovered;
pub use recovery::{Damage, RecoveryReport};
use storage::Storage;
use writer::Writer;

use crate::error::JournalError;
use crate::event::Event;
use crate::event::encoded_body::EncodedBody;
use crate::event::key::EventKey;

/// A directory that keeps accepted events until they are settled, so that they survive their process.
///
/// Pass it to [`EventStoreBuilder::journal`](crate::EventStoreBuilder::journal). Every event that is put is then also
/// written to the directory, and [`PutTicket::journalled`](crate::PutTicket::journalled) says when it is there. The
/// ticket itself still means *in the table*.
///
/// The next process that opens the directory puts the events again that are not known to be stored, under their old
/// keys. It reads each one first, or inserts it. So an event is stored once, however often processes end in between.
///
/// Only one process at a time can have a directory open. Only the user who owns the files can read them.
///
/// ```
/// # #[cfg(feature = "local")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use dynamodb_eventstore::{Journal, LocalTable};
///
/// let directory = std::env::temp_dir().join(format!("journal-{}", std::process::id()));
/// let table = LocalTable::in_memory().await?;
/// let journal = Journal::open(&directory).await?;
/// let store = table.store_builder().journal(journal).start().await?;
///
/// let ticket = store.put(&serde_json::json!({ "foo": "bar" })).await?;
/// ticket.journalled().await?; // on disk: it will be stored, even if this process ends now
/// ticket.await?; // in the table
///
/// store.close(Duration::from_secs(20)).await?;
/// # std::fs::remove_dir_all(directory)?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "local"))]
/// # fn main() {}
/// ```
pub struct Journal {
    options: JournalOptions,
    directory: PathBuf,
    storage: Arc<dyn Storage>,
    recovered: Recovered,
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Journal")
            .field("directory", &self.directory)
            .field("report", &self.recovered.report)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in this directory with the default settings. The directory is created if there is none.
    ///
    /// `Ok` means that the directory is locked and that its records are read. Its events are put again by the store
    /// that gets the journal.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`] if another process has it open, [`JournalError::Format`] if a file is not of this
    /// version, [`JournalError::Io`] if a file cannot be read or written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing in the directory, except that torn ends may be cut off.
    pub async fn open(directory: impl Into<PathBuf>) -> Result<Self, JournalError> {
        Self::options().open(directory).await
    }

    /// Settings that differ from the defaults. [`JournalOptions::open`] opens a journal with them.
    #[must_use]
    pub fn options() -> JournalOptions {
        JournalOptions::default()
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What opening the journal found.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.recovered.report
    }

    /// The events that are not known to be stored, in the order in which they were put. The iterator reads each event
    /// from the disk when it is polled.
    ///
    /// # Errors
    ///
    /// An item is [`JournalError::Io`] if its record cannot be read.
    pub fn unsettled(&self) -> impl Iterator<Item = Result<Event, JournalError>> {
        let read = |location| read_event(&*self.storage, location);
        self.recovered.unsettled.iter().map(read)
    }

    /// Forgets all events that are not known to be stored. Those that are not in the table are lost.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`] if the journal's thread cannot be started.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the events may or may not be forgotten.
    pub async fn discard(self) -> Result<(), JournalError> {
        let (journal, unsettled) = self.start()?;
        for sequence in unsettled.locations.iter().filter_map(Location::sequence) {
            journal.settle(sequence, None);
        }
        journal.close().await;
        Ok(())
    }

    fn recover(
        options: JournalOptions,
        directory: PathBuf,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, JournalError> {
        let recovered = recovery::recover(&*storage)?;
        let report = &recovered.report;
        for damage in report.torn.iter().chain(&report.damaged) {
            tracing::warn!(
                file = %damage.file.display(),
                offset = damage.offset,
                bytes = damage.bytes,
                "the journal has bytes that are no record"
            );
        }
        Ok(Self { options, directory, storage, recovered })
    }

    /// Starts the journal's thread. Returns a handle for the store, and the events for the replay.
    pub(crate) fn start(self) -> Result<(ActiveJournal, Unsettled), JournalError> {
        let Self { options, directory, storage, recovered } = self;
        let JournalOptions { sync, max_bytes, segment_bytes } = options;
        let total_bytes = recovered.segments.iter().map(|segment| segment.bytes).sum();
        let queue = Arc::new(Queue::new(recovered.last_sequence, total_bytes, max_bytes));
        let writer = Writer::new(
            Arc::clone(&queue),
            Arc::clone(&storage),
            sync,
            segment_bytes,
            recovered.segments,
        );
        std::thread::Builder::new()
            .name("eventstore-journal".to_owned())
            .spawn(move || writer.run())
            .map_err(JournalError::io("start the thread of", &directory))?;
        let (locations, last_key) = (recovered.unsettled, recovered.last_key);
        let unsettled = Unsettled { queue: Arc::clone(&queue), storage, locations, last_key };
        Ok((ActiveJournal { queue }, unsettled))
    }
}

/// The events that must be put again. At first they are those that an earlier process left. Later they are those whose
/// tickets were answered although they are not stored.
pub(crate) struct Unsettled {
    queue: Arc<Queue>,
    storage: Arc<dyn Storage>,
    pub(crate) locations: Vec<Location>,
    /// The greatest key in the journal. New keys have to be greater.
    pub(crate) last_key: Option<EventKey>,
}

impl Unsettled {
    /// A function that finds the events that were kept since the last call, in the order of their puts. It reads the
    /// segments.
    pub(crate) fn finder(&self) -> impl FnOnce() -> Vec<Location> + Send + use<> {
        let (queue, storage) = (Arc::clone(&self.queue), Arc::clone(&self.storage));
        move || {
            let kept = queue.take_kept();
            if kept.is_empty() {
                return Vec::new();
            }
            let located = recovery::locate(&*storage, &kept).unwrap_or_else(|error| {
                tracing::error!(%error, "the journal cannot be read");
                Vec::new()
            });
            // Events that are not written yet, or cannot be read now, are kept for the next call.
            for sequence in kept.into_iter().filter_map(NonZeroU64::new) {
                let found = located.binary_search_by_key(&Some(sequence), Location::sequence);
                if found.is_err() && queue.keeps(sequence) {
                    queue.keep(sequence);
                }
            }
            located
        }
    }

    /// A function that reads the event at a location. It can be called from any thread.
    pub(crate) fn reader(&self) -> impl Fn(Location) -> Result<Event, JournalError> + Send + use<> {
        let storage = Arc::clone(&self.storage);
        move |location| read_event(&*storage, &location)
    }
}

fn read_event(storage: &dyn Storage, location: &Location) -> Result<Event, JournalError> {
    let path = storage.path(location.segment);
    let content = storage
        .read_at(location.segment, location.offset, location.bytes as usize)
        .map_err(JournalError::io("read an event of", &path))?;
    let changed = || {
        let changed = io::Error::new(io::ErrorKind::InvalidData, "the record has changed");
        JournalError::io("read an event of", &path)(changed)
    };
    let Parsed::Record { record: Record::Event { key, encoded_body, .. }, .. } = parse(&content)
    else {
        return Err(changed());
    };
    let body = EncodedBody::from_encoded(encoded_body).ok_or_else(changed)?;
    Event::with_body(key, body).map_err(|_| changed())
}

/// A journal that a store writes to. Dropping it ends its thread after everything is written.
#[derive(Debug)]
pub(crate) struct ActiveJournal {
    queue: Arc<Queue>,
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
        self.queue.settle(sequence, failed_line);
    }

    /// Marks an event whose ticket is answered although it is not stored, so that it is put again.
    pub(crate) fn keep(&self, sequence: NonZeroU64) {
        self.queue.keep(sequence);
    }

    /// Whether the event is durable, or will be once the store is closed.
    pub(crate) fn keeps(&self, sequence: NonZeroU64) -> bool {
        self.queue.keeps(sequence)
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
