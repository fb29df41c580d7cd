//! The table to write to: one of an AWS account, or a local one.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use dynamodb_eventstore::{EventStore, EventStoreBuilder, LocalTable, SdkBatchWriter};

/// File of the local table if none is named.
pub(crate) const DEFAULT_FILE: &str = "events.sqlite";

/// A table to write to, and what keeps it alive.
#[derive(Debug)]
pub(crate) enum Target {
    Aws { sdk_config: Box<SdkConfig>, table: String },
    Local { table: LocalTable, file: PathBuf },
}

impl Target {
    pub(crate) async fn open_local(file: &Path) -> Result<Self, Box<dyn Error>> {
        let table = LocalTable::open(file).await?;
        Ok(Self::Local { table, file: file.to_owned() })
    }

    pub(crate) fn store_builder(&self) -> EventStoreBuilder {
        match self {
            Self::Aws { sdk_config, table } => {
                EventStore::builder().sdk_config(sdk_config).table(table)
            }
            Self::Local { table, .. } => table.store_builder(),
        }
    }

    /// A client of the table that reads events outside of a store.
    pub(crate) fn batch_writer(&self) -> SdkBatchWriter {
        match self {
            Self::Aws { sdk_config, table } => SdkBatchWriter::new(&Client::new(sdk_config), table),
            Self::Local { table, .. } => SdkBatchWriter::new(table.client(), table.name()),
        }
    }

    pub(crate) async fn close(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Aws { .. } => Ok(()),
            Self::Local { table, .. } => Ok(table.stop().await?),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws { table, .. } => write!(formatter, "table `{table}`"),
            Self::Local { file, .. } => write!(formatter, "the local table in {}", file.display()),
        }
    }
}
