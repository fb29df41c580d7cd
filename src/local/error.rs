//! The errors of a local table.

use std::io;
use std::net::SocketAddr;

use crate::dynamodb::table::TableError;

/// Why a local table did not start, or stopped with an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The file could not be opened as a database, or belongs to another program.
    #[error("cannot open `{path}` as a local table: {cause}")]
    Open {
        /// The file, or `:memory:`.
        path: String,
        /// The reason.
        cause: String,
    },

    /// The server could not listen on the port. No file was created.
    #[error("cannot listen on {address}: {cause}; name another port, or 0 for any that is free")]
    Listen {
        /// The loopback address and port.
        address: SocketAddr,
        /// The error of the operating system.
        cause: io::Error,
    },

    /// The thread or the runtime of the engine could not be started.
    #[error("cannot start the local table's thread: {0}")]
    Thread(io::Error),

    /// The engine ended without being stopped.
    #[error("the local table stopped: {0}")]
    Stopped(String),

    /// The table in the file is not a table for events.
    #[error(transparent)]
    Table(#[from] TableError),
}
