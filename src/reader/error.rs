//! [`ReadError`]: why a table cannot be read, or not further.

use std::io;
use std::path::PathBuf;

use crate::dynamodb::table::TableError;
use crate::error::{BatchError, ConfigError};

/// Why a reader did not open, or why it ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A setting is out of range, or contradicts another.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The table is missing, has another key schema or is not active, or it could not be described.
    #[error(transparent)]
    Table(#[from] TableError),

    /// A page could not be read: the service refused it, or all attempts failed.
    #[error(
        "the scan of table `{table}` failed in segment {segment}, {}, with attempt {attempts}: {cause}; {}",
        after(after_key.as_deref()), advice(cause)
    )]
    Page {
        /// Name of the table.
        table: String,
        /// The segment, from 0.
        segment: u32,
        /// The last key of the segment's page before; `None` for its first page.
        after_key: Option<String>,
        /// Attempts that were made to read the page.
        attempts: u32,
        /// How the last attempt failed.
        cause: Box<BatchError>,
    },

    /// A temporary file, which sorting needs, could not be written or read.
    #[error(
        "events cannot be sorted, because a temporary file in {} could not be {action}: {cause}; make room, or name another directory (temporary_directory)",
        directory.display()
    )]
    TemporaryFile {
        /// Where the file is.
        directory: PathBuf,
        /// What was tried: "created", "written" or "read".
        action: &'static str,
        /// Why it failed.
        cause: io::Error,
    },

    /// The thread that sorts could not be started.
    #[error(
        "events cannot be sorted, because no thread could be started: {0}; see the limit of threads and memory"
    )]
    Thread(io::Error),

    /// The reader's tasks ended before the table was read: their runtime was shut down, or they panicked.
    #[error(
        "the reader ended before the table was read: its runtime was shut down, or a task panicked; keep the runtime, and resume from the reader's position"
    )]
    Stopped,

    /// A reader from whose stream items were taken cannot count.
    #[error("the reader has begun to read, so it cannot count: open another one")]
    AlreadyRead,
}

fn after(key: Option<&str>) -> String {
    key.map_or_else(|| "at its start".to_owned(), |key| format!("after key {key}"))
}

fn advice(cause: &BatchError) -> &'static str {
    if cause.code() == Some("AccessDeniedException") {
        return "grant dynamodb:Scan on the table";
    }
    if cause.class().is_throttled() {
        return "set a lower limit of read units, give the table more capacity, or resume later from the reader's \
                position";
    }
    "resume from the reader's position once the cause is removed"
}
