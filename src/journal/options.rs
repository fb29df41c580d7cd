//! [`JournalOptions`]: the settings of a journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Journal;
use super::storage::Directory;
use crate::error::{ConfigError, JournalError};

/// More than the largest event takes if each of its bytes is escaped.
const MIN_MAX_BYTES: u64 = 4 * 1024 * 1024;

const DEFAULT_MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;
const DEFAULT_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_millis(10);

/// When the journal's files are synced. Synced files are on the disk itself, so that a power cut does not lose them.
///
/// If only the process dies, nothing that was written is lost, under any policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// At once. One sync serves all events that wait for it.
    Always,
    /// At most once per this duration, 1 ms to 60 s. One sync serves all events that arrived in that time.
    Every(Duration),
    /// Never by the journal: the operating system writes the files when it chooses, usually after some seconds.
    /// [`journalled`](crate::PutTicket::journalled) then only means *written*.
    Os,
}

/// The settings of a journal; see [`Journal::options`].
#[derive(Debug, Clone)]
pub struct JournalOptions {
    pub(super) sync: SyncPolicy,
    pub(super) max_bytes: u64,
    pub(super) segment_bytes: u64,
    pub(super) overflow: bool,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Every(DEFAULT_SYNC_INTERVAL),
            max_bytes: DEFAULT_MAX_BYTES,
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            overflow: true,
        }
    }
}

impl JournalOptions {
    /// When the files are synced. The default is [`SyncPolicy::Every`] 10 ms.
    #[must_use]
    pub fn sync(self, sync: SyncPolicy) -> Self {
        Self { sync, ..self }
    }

    /// The limit of all segment files in bytes: 4 MiB or more, 4 GiB by default. A put waits while the journal is full.
    #[must_use]
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Bytes after which a new segment file begins: 64 KiB to 1 GiB, 64 MiB by default, and never more than an
    /// eighth of [`max_bytes`](Self::max_bytes). A segment is removed when all of its events are settled.
    #[must_use]
    pub fn segment_bytes(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }

    /// Whether an event for which the buffer has no room waits on disk, after the events that wait there already. Default:
    /// yes. Then a put waits only while the journal is [full](Self::max_bytes), also if the table takes no events for
    /// hours. Otherwise a put waits until the buffer has room, as without a journal.
    ///
    /// An event on disk takes about 400 bytes of memory, those of its ticket included, until the ticket is answered or
    /// dropped. With a [hook](crate::EventStoreBuilder::on_settled) it takes them until it is settled. Its
    /// [`event_deadline`](crate::EventStoreBuilder::event_deadline) begins when it comes into the buffer.
    #[must_use]
    pub fn overflow(self, overflow: bool) -> Self {
        Self { overflow, ..self }
    }

    /// Opens the journal in this directory. See [`Journal::open`].
    ///
    /// # Errors
    ///
    /// Those of [`Journal::open`], and [`JournalError::Config`] for a setting out of range.
    pub async fn open(self, directory: impl Into<PathBuf>) -> Result<Journal, JournalError> {
        self.validate()?;
        let directory = directory.into();
        let opened = tokio::task::spawn_blocking(move || {
            let storage = Directory::open(&directory)?;
            Journal::recover(self, directory, Arc::new(storage))
        });
        // The task is never cancelled, so an error is a panic, which is resumed here.
        opened.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(JournalError::Closed),
        })
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let interval = match self.sync {
            SyncPolicy::Every(interval) => interval,
            SyncPolicy::Always | SyncPolicy::Os => DEFAULT_SYNC_INTERVAL,
        };
        let limits = [
            (
                "sync",
                format!("Every({interval:?})"),
                (Duration::from_millis(1)..=Duration::from_secs(60)).contains(&interval),
                "be every 1 ms to 60 s",
            ),
            (
                "max_bytes",
                self.max_bytes.to_string(),
                self.max_bytes >= MIN_MAX_BYTES,
                "be 4 MiB or more",
            ),
            (
                "segment_bytes",
                self.segment_bytes.to_string(),
                (64 * 1024..=1024 * 1024 * 1024).contains(&self.segment_bytes),
                "be 64 KiB to 1 GiB",
            ),
        ];
        for (field, value, is_valid, limit) in limits {
            if !is_valid {
                return Err(ConfigError::new(field, value, limit));
            }
        }
        Ok(())
    }
}
