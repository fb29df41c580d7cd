//! The options that name the table.

use std::error::Error;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use dynamodb_eventstore::{ConfigError, EventStore, EventStoreBuilder, StartError};

use super::AwsOptions;
use crate::output::{Output, with_causes};
use crate::target::{DEFAULT_FILE, Target};

/// Where the events are.
#[derive(Debug, clap::Args)]
pub(crate) struct TableOptions {
    /// DynamoDB table, by name or ARN.
    #[arg(long, conflicts_with = "local", value_parser = NonEmptyStringValueParser::new())]
    table: Option<String>,

    /// Local table: a SQLite file. Commands that write create it if it does not exist.
    #[arg(long, value_name = "PATH")]
    local: Option<PathBuf>,

    #[command(flatten)]
    aws: AwsOptions,
}

impl TableOptions {
    /// Whether the user named a table.
    pub(crate) fn is_named(&self) -> bool {
        self.table.is_some() || self.local.is_some()
    }

    /// Opens the table that the user named; `None` if there is none.
    pub(crate) async fn open(&self) -> Result<Option<Target>, Box<dyn Error>> {
        if let Some(table) = &self.table {
            let sdk_config = Box::new(self.aws.sdk_config().await?);
            return Ok(Some(Target::Aws { sdk_config, table: table.clone() }));
        }
        if self.aws.is_any_set() {
            return Err(
                "--region, --profile and --endpoint-url need --table: name the table".into()
            );
        }
        match &self.local {
            Some(file) => Target::open_local(file).await.map(Some),
            None => Ok(None),
        }
    }

    /// Opens a table to read, which must exist: the local table in the current directory if none is named.
    pub(crate) async fn open_existing(&self, output: &Output) -> Result<Target, Box<dyn Error>> {
        if self.table.is_none() && !self.aws.is_any_set() {
            let file = self.local.as_deref().unwrap_or_else(|| DEFAULT_FILE.as_ref());
            if !file.is_file() {
                let file = file.display();
                return Err(format!(
                    "there is no local table in {file}: name a table (--table, --local)"
                )
                .into());
            }
        }
        let named = self.open().await?;
        if let Some(target) = named {
            return Ok(target);
        }
        output.note(format_args!(
            "no --table given: reading the local table {DEFAULT_FILE} in the current directory"
        ));
        Target::open_local(DEFAULT_FILE.as_ref()).await
    }

    /// Why `target` cannot be used: there are no credentials, or what the error says.
    pub(crate) async fn describe_failure(
        &self,
        action: &str,
        target: &Target,
        error: &(dyn Error + Send + Sync + 'static),
    ) -> String {
        let missing_credentials = match target {
            Target::Aws { sdk_config, .. } => self.aws.missing_credentials(sdk_config).await,
            Target::Local { .. } => None,
        };
        let cause = missing_credentials.unwrap_or_else(|| with_causes(error));
        format!("cannot {action} {target}: {cause}")
    }

    /// Starts a store that writes to `target`.
    pub(crate) async fn start(
        &self,
        store: EventStoreBuilder,
        target: &Target,
    ) -> Result<EventStore, String> {
        let error = match store.start().await {
            Ok(store) => return Ok(store),
            Err(StartError::Config(error)) => return Err(describe(&error)),
            Err(error) => error,
        };
        Err(self.describe_failure("store in", target, &error).await)
    }
}

/// The message for a setting that is out of range, with the name of
/// its option.
fn describe(error: &ConfigError) -> String {
    let option = match error.field {
        "attempt_timeout" => "--attempt-timeout",
        "linger" => "--linger",
        "on_duplicate" => "--on-duplicate",
        "max_batches_in_flight" => "--batches-in-flight",
        "max_buffered_events" => "--buffer",
        "max_write_units_per_second" => "--write-units",
        "table" => "--table",
        "writer_id" => "--writer-id",
        "writer_id.leased" => "--lease-writer-id",
        _ => return error.to_string(),
    };
    format!("{option} is {}; it must {}", error.value, error.limit)
}
