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

mod active;
mod index;
mod options;
mod progress;
mod queue;
mod reader;
mod record;
mod recovery;
#[cfg(test)]
mod simulation;
mod storage;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use active::{ActiveJournal, Position, Unsettled};
use index::Index;
pub use options::{JournalOptions, SyncPolicy};
pub(crate) use progress::Durability;
use queue::Queue;
pub(crate) use queue::Reservation;
pub(crate) use reader::{ReadEvent, Reader};
use recovery::Recovered;
pub use recovery::{Damage, RecoveryReport};
use storage::Storage;
use writer::Writer;

use crate::error::JournalError;
use crate::event::Event;

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
    index: Arc<Index>,
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

    /// The events that are not known to be stored, in the order in which they were put. The iterator reads them from
    /// the disk, some at a time.
    ///
    /// # Errors
    ///
    /// An item is [`JournalError::Io`] if its record cannot be read.
    pub fn unsettled(&self) -> impl Iterator<Item = Result<Event, JournalError>> {
        let reader = Reader { storage: Arc::clone(&self.storage), index: Arc::clone(&self.index) };
        let mut rest = self.recovered.unsettled.as_slice();
        let read_next = move || {
            let events = reader.read_first(rest);
            rest = rest.get(events.len()..).unwrap_or_default();
            (!events.is_empty()).then_some(events)
        };
        std::iter::from_fn(read_next).flatten().map(|(_, event)| event)
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
        for sequence in unsettled.sequences {
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
        let mut recovered = recovery::recover(&*storage)?;
        let index = Arc::new(std::mem::take(&mut recovered.index));
        let report = &recovered.report;
        for damage in report.torn.iter().chain(&report.damaged) {
            tracing::warn!(
                file = %damage.file.display(),
                offset = damage.offset,
                bytes = damage.bytes,
                "the journal has bytes that are no record"
            );
        }
        Ok(Self { options, directory, storage, index, recovered })
    }

    /// Starts the journal's thread. Returns a handle for the store, and the events for the replay.
    pub(crate) fn start(self) -> Result<(ActiveJournal, Unsettled), JournalError> {
        let Self { options, directory, storage, index, recovered } = self;
        let JournalOptions { sync, max_bytes, segment_bytes, overflow } = options;
        let total_bytes = recovered.segments.iter().map(|segment| segment.bytes).sum();
        let queue = Arc::new(Queue::new(recovered.last_sequence, total_bytes, max_bytes));
        let writer = Writer::new(
            Arc::clone(&queue),
            Arc::clone(&storage),
            Arc::clone(&index),
            sync,
            segment_bytes,
            recovered.segments,
        );
        std::thread::Builder::new()
            .name("eventstore-journal".to_owned())
            .spawn(move || writer.run())
            .map_err(JournalError::io("start the thread of", &directory))?;
        let (sequences, last_key) = (recovered.unsettled, recovered.last_key);
        let reader = Reader { storage, index };
        let unsettled =
            Unsettled { queue: Arc::clone(&queue), reader: reader.clone(), sequences, last_key };
        Ok((ActiveJournal { queue, reader, overflow }, unsettled))
    }
}
