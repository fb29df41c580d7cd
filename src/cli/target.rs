//! The table to write to: one of an AWS account, or a local one.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use dynamodb_eventstore::{EventStore, EventStoreBuilder, LocalTable, SdkBatchWriter};

/// File of the local table if none is named.
pub(crate) const DEFAULT_FILE: &str = "events.sqlite";

/// A table to write to, with the local engine that serves it, if
/// any.
#[derive(Debug)]
pub(crate) enum Target {
    Aws {
        sdk_config: Box<SdkConfig>,
        table: String,
    },
    /// The file is `None` for a table in memory.
    Local {
        table: LocalTable,
        file: Option<PathBuf>,
    },
}

impl Target {
    pub(crate) async fn open_local(file: &Path) -> Result<Self, Box<dyn Error>> {
        let table = LocalTable::open(file).await?;
        Ok(Self::Local { table, file: Some(file.to_owned()) })
    }

    pub(crate) async fn open_in_memory() -> Result<Self, Box<dyn Error>> {
        Ok(Self::Local { table: LocalTable::in_memory().await?, file: None })
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
        SdkBatchWriter::new(&self.client(), self.table_name())
    }

    pub(crate) fn client(&self) -> Client {
        match self {
            Self::Aws { sdk_config, .. } => Client::new(sdk_config),
            Self::Local { table, .. } => table.client().clone(),
        }
    }

    pub(crate) fn sdk_config(&self) -> &SdkConfig {
        match self {
            Self::Aws { sdk_config, .. } => sdk_config,
            Self::Local { table, .. } => table.sdk_config(),
        }
    }

    pub(crate) fn table_name(&self) -> &str {
        match self {
            Self::Aws { table, .. } => table,
            Self::Local { table, .. } => table.name(),
        }
    }

    /// What tells this table from others, in words. A table of AWS also has an account, which only the service knows.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Aws { sdk_config, table } => {
                let region = sdk_config.region().map_or("no region", |region| region.as_ref());
                format!("table `{table}` in {region}")
            }
            Self::Local { file: Some(file), .. } => {
                let file = file.canonicalize().unwrap_or_else(|_| file.clone());
                format!("the local table in {}", file.display())
            }
            Self::Local { file: None, .. } => self.to_string(),
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
            Self::Local { file: Some(file), .. } => {
                write!(formatter, "the local table in {}", file.display())
            }
            Self::Local { file: None, .. } => formatter.write_str("a local table in memory"),
        }
    }
}
