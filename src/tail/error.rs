//! [`TailError`]: why a tail did not open, or why it ended.

use crate::dynamodb::table::TableError;
use crate::error::{BatchError, ConfigError};

/// Why a tail did not open, or why it ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// A setting is out of range, or contradicts another.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The table is missing, has another key schema or is not active, or it could not be described.
    #[error(transparent)]
    Table(#[from] TableError),

    /// The table has no stream.
    #[error(
        "table `{table}` has no stream, so there is nothing to follow. Switch one on; it has what is stored from then on:\n  {}",
        switch_on(table, region)
    )]
    NoStream {
        /// Name of the table.
        table: String,
        /// Region of the configuration; `(none)` if it has none.
        region: String,
    },

    /// The records of the table's stream do not have the items.
    #[error(
        "the stream of table `{table}` has the view type {view_type}, which has no bodies: NEW_IMAGE and \
         NEW_AND_OLD_IMAGES have them, KEYS_ONLY and OLD_IMAGE have not. The view type of a stream cannot be changed. \
         Unless another program reads it, switch it off, and a new one on:\n  {}\n  {}",
        switch_off(table, region),
        switch_on(table, region)
    )]
    WrongViewType {
        /// Name of the table.
        table: String,
        /// Region of the configuration; `(none)` if it has none.
        region: String,
        /// View type of the stream, as the service names it.
        view_type: String,
    },

    /// The stream was switched off. All of its records were returned.
    #[error(
        "the stream of table `{table}` was switched off, and is read to its end; once it is on again, resume from the tail's position"
    )]
    StreamOff {
        /// Name of the table.
        table: String,
    },

    /// A call failed: the service refused it, or all attempts failed.
    #[error(
        "the stream of table `{table}` cannot be read: {operation}{} failed with attempt {attempts}: {cause}; {}",
        of_shard(shard.as_deref()), advice(operation, cause)
    )]
    Call {
        /// Name of the table.
        table: String,
        /// Name of the API operation.
        operation: &'static str,
        /// The shard; `None` if the call was for the whole stream.
        shard: Option<String>,
        /// Attempts that were made.
        attempts: u32,
        /// How the last attempt failed.
        cause: Box<BatchError>,
    },

    /// The tail's tasks ended: their runtime was shut down, or they panicked.
    #[error(
        "the tail ended: its runtime was shut down, or a task panicked; keep the runtime, and resume from the tail's position"
    )]
    Stopped,
}

fn switch_on(table: &str, region: &str) -> String {
    update_table(table, region, "StreamEnabled=true,StreamViewType=NEW_IMAGE")
}

fn switch_off(table: &str, region: &str) -> String {
    update_table(table, region, "StreamEnabled=false")
}

/// The command of the AWS CLI. A table by its ARN is named as such.
fn update_table(table: &str, region: &str, specification: &str) -> String {
    format!(
        "aws dynamodb update-table --table-name {table} --stream-specification {specification} --region {region}"
    )
}

fn of_shard(shard: Option<&str>) -> String {
    shard.map_or_else(String::new, |shard| format!(" of shard {shard}"))
}

fn advice(operation: &str, cause: &BatchError) -> String {
    if cause.code() == Some("AccessDeniedException") {
        return format!("grant dynamodb:{operation} on the table's streams (table/NAME/stream/*)");
    }
    "resume from the tail's position once the cause is removed".to_owned()
}
