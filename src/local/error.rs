//! Why a local table did not start, or did not stop well.

use std::io;
use std::net::SocketAddr;

use crate::dynamodb::table::TableError;

/// Why a local table did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The file could not be opened as a database, or holds another program's.
    #[error("cannot open `{path}` as a local table: {cause}")]
    Open {
        /// The file, or `:memory:`.
        path: String,
        /// What is wrong with it.
        cause: String,
    },

    /// The port could not be listened on. No file was made.
    #[error("cannot listen on {address}: {cause}; name another port, or 0 for any that is free")]
    Listen {
        /// The loopback address and port.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },

    /// The thread or the runtime of the engine could not be started.
    #[error("cannot start the local table's thread: {0}")]
    Thread(#[source] io::Error),

    /// The engine ended before it was asked to.
    #[error("the local table stopped: {0}")]
    Stopped(String),

    /// The table in the file is not one for events.
    #[error(transparent)]
    Table(#[from] TableError),
}
