//! Where a store writes, and by which way.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;

use crate::writer::{BatchWriter, DirectBatchWriter, SdkBatchWriter};

/// Where the batches go.
pub(crate) enum Target {
    /// Through a client that was handed in, with its interceptors and all.
    Client {
        client: Client,
        table: String,
    },
    /// To where the configuration leads.
    Configured {
        client: Client,
        table: String,
    },
    Writer(Arc<dyn BatchWriter>),
}

impl Target {
    /// The table, where it can be asked about itself.
    pub(crate) fn table(&self) -> Option<(&Client, &str)> {
        match self {
            Self::Client { client, table } | Self::Configured { client, table } => {
                Some((client, table))
            }
            Self::Writer(_) => None,
        }
    }

    pub(crate) fn into_writer(self) -> Arc<dyn BatchWriter> {
        match self {
            Self::Client { client, table } => Arc::new(SdkBatchWriter::new(&client, table)),
            Self::Configured { client, table } => Arc::new(DirectBatchWriter::new(&client, table)),
            Self::Writer(writer) => writer,
        }
    }
}
