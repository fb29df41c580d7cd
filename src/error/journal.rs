//! [`JournalError`]: why a journal cannot be opened, written or trusted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ConfigError;

/// Why a journal cannot be opened or written, or did not accept an event.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process, or another store of this process, has opened the journal.
    #[error(
        "the journal {} is in use{}: give each process a directory of its own",
        directory.display(),
        owner.map(|owner| format!(" by process {owner}")).unwrap_or_default()
    )]
    InUse {
        /// Directory of the journal.
        directory: PathBuf,
        /// The process that has it open, if that is known.
        owner: Option<u32>,
    },

    /// A file of the directory is not a segment that this version can read.
    #[error("{} is not a journal segment of format version 1: {reason}; move it away, or use the version that wrote it", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// An operation on a file failed.
    #[error("the journal cannot {action} {}: {cause}; check permissions and free space", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        cause: Arc<io::Error>,
    },

    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The files have reached the limit of [`max_bytes`](crate::JournalOptions::max_bytes), or 16 MiB wait to be written.
    /// Only [`try_put`](crate::EventStore::try_put) fails with this; `put` waits.
    #[error(
        "the journal is full: its files have reached {max_bytes} bytes, or the disk is slower than \
         the puts; events leave it when they are stored, so raise max_bytes, or find out why the table \
         takes no more"
    )]
    Full {
        /// The limit.
        max_bytes: u64,
    },

    /// The store has no journal.
    #[error("the store has no journal: set one with EventStoreBuilder::journal")]
    Missing,

    /// The journal's thread has ended, because the store is closed.
    #[error("the journal is closed with its store: open it again with a new store")]
    Closed,
}

impl JournalError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { action, path, cause: Arc::new(cause) }
    }
}
