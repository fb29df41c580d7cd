//! [`StartError`]: why a store did not start.

use crate::dynamodb::table::TableError;
#[cfg(feature = "journal")]
use crate::error::JournalError;
use crate::error::{ConfigError, LeaseError};

/// Why a store did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of range or missing, or contradicts another.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// There is no tokio runtime for the worker to run on.
    #[error(
        "start() needs a tokio runtime: call it from within one, for example in #[tokio::main]"
    )]
    NoRuntime,

    /// The table is missing or has another key schema, or the check of it failed.
    #[error(transparent)]
    Table(#[from] TableError),

    /// The journal's thread cannot be started.
    #[cfg(feature = "journal")]
    #[error(transparent)]
    Journal(#[from] JournalError),

    /// No writer id could be leased ([`WriterIds::leased`](crate::WriterIds::leased)).
    #[error(transparent)]
    WriterId(#[from] LeaseError),
}
