//! Which table: one of an AWS account, or a local one.

use std::error::Error;
use std::path::{Path, PathBuf};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use dynamodb_eventstore::{EventStore, EventStoreBuilder, LocalTable, SdkBatchWriter};

/// File of the local table when none is named.
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

    /// What reads events back, outside of a store.
    pub(crate) fn batch_writer(&self) -> SdkBatchWriter {
        match self {
            Self::Aws { sdk_config, table } => SdkBatchWriter::new(&Client::new(sdk_config), table),
            Self::Local { table, .. } => SdkBatchWriter::new(table.client(), table.name()),
        }
    }

    /// The target as a sentence has it.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Aws { table, .. } => format!("table `{table}`"),
            Self::Local { file, .. } => format!("the local table in {}", file.display()),
        }
    }

    pub(crate) async fn close(self) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Aws { .. } => Ok(()),
            Self::Local { table, .. } => Ok(table.stop().await?),
        }
    }
}
