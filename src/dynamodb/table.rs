//! The table for events: creates it, waits until it is active, and checks its key.
//!
//! Programs use it through the public [`Table`]; a store checks its table with it when it starts.

use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::{
    BillingMode, ProvisionedThroughput, TableDescription, TableStatus, TimeToLiveSpecification,
    TimeToLiveStatus,
};
use tokio::time::{Instant, sleep_until, timeout};

use super::classify::{ACCESS_DENIED, RESOURCE_NOT_FOUND, classify};
use super::lease_table::EXPIRES_AT_ATTRIBUTE;
use super::signing_state::SigningInfo;
use super::table_key::{Purpose, key_in_words};
use crate::clock::{MAX_DEADLINE, now};
use crate::error::BatchError;

/// Time limit of one call, the SDK's retries included. The SDK has none by default.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts of one call. These calls are rare, so the SDK's own retries are sufficient.
const CALL_ATTEMPTS: u32 = 3;

/// Interval between checks whether a table has become active, which takes the service some seconds.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Why the table cannot be used, created or described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The account has no table with this name in this region.
    #[error(
        "there is no table `{table}` in region {region}: check the name and the region, or create \
         it (`dynamodb-eventstore create-table --table {table}`, or Table::create)"
    )]
    Missing {
        /// Name of the table.
        table: String,
        /// Region of the client; `(none)` if it has none.
        region: String,
    },

    /// The table has another key schema, so that it would refuse every event.
    #[error(
        "table `{table}` has the key {found}, but events need a table whose only key is the hash \
         key `key` of type S (String): choose another table, or create one"
    )]
    WrongKey {
        /// Name of the table.
        table: String,
        /// The table's key, in words.
        found: String,
    },

    /// The table has another key schema, so that no writer id can be leased from it.
    #[error(
        "table `{table}` has the key {found}, but leases need a table whose only key is the hash \
         key `id` of type S (String): choose another table, or create one"
    )]
    WrongKeyForWriterIds {
        /// Name of the table.
        table: String,
        /// The table's key, in words.
        found: String,
    },

    /// The table exists and cannot be written to.
    #[error("table `{table}` is {status}, not ACTIVE: wait for it (Table::wait_until_active)")]
    NotActive {
        /// Name of the table.
        table: String,
        /// The table's status, as the service names it.
        status: String,
    },

    /// A table with this name exists already, so none was created.
    #[error("table `{table}` exists already")]
    Exists {
        /// Name of the table.
        table: String,
    },

    /// The call failed: the service could not be reached, or refused it.
    #[error("{operation} of table `{table}` failed: {cause}")]
    Service {
        /// Name of the API operation.
        operation: &'static str,
        /// Name of the table.
        table: String,
        /// How it failed.
        cause: Box<BatchError>,
    },
}

/// The capacity mode of a new table, and its capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Capacity {
    /// Pay per request. A new table takes up to 4,000 write units a second. The default.
    #[default]
    OnDemand,
    /// Pay for this capacity, whether it is used or not.
    Provisioned {
        /// Read units a second, each for a consistent read of up to 4 KB. 1 or more.
        read_units: u32,
        /// Write units a second, each for a write of up to 1 KB. 1 or more.
        write_units: u32,
    },
}

/// A table for events: one hash key `key` of type String, nothing else. Or the table that stores lease writer ids
/// from ([`for_writer_ids`](Self::for_writer_ids)), with the hash key `id`.
///
/// ```no_run
/// # async fn example(client: aws_sdk_dynamodb::Client) -> Result<(), dynamodb_eventstore::TableError> {
/// use std::time::Duration;
///
/// use dynamodb_eventstore::{Capacity, Table};
///
/// let table = Table::new(&client, "all-events");
/// table.create(Capacity::OnDemand).await?;
/// table.wait_until_active(Duration::from_secs(60)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Table {
    client: Client,
    name: String,
    purpose: Purpose,
}

impl fmt::Debug for Table {
    /// Shows the name only: the endpoint in the client's configuration can contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Table {
    /// The table with this name or ARN. It need not exist.
    #[must_use]
    pub fn new(client: &Client, name: impl Into<String>) -> Self {
        let retries = RetryConfig::standard()
            .with_max_attempts(CALL_ATTEMPTS)
            .with_initial_backoff(Duration::from_millis(50));
        let config = client.config().to_builder().retry_config(retries).build();
        Self { client: Client::from_conf(config), name: name.into(), purpose: Purpose::Events }
    }

    /// The table with this name or ARN, for stores to lease writer ids from
    /// ([`WriterIds::leased`](crate::WriterIds::leased)). It need not exist.
    ///
    /// ```no_run
    /// # async fn example(client: aws_sdk_dynamodb::Client) -> Result<(), dynamodb_eventstore::TableError> {
    /// use std::time::Duration;
    ///
    /// use dynamodb_eventstore::{Capacity, Table};
    ///
    /// let table = Table::for_writer_ids(&client, "all-events-writers");
    /// table.create(Capacity::OnDemand).await?;
    /// table.wait_until_active(Duration::from_secs(60)).await?;
    /// table.remove_expired_rows().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn for_writer_ids(client: &Client, name: impl Into<String>) -> Self {
        Self { purpose: Purpose::WriterIds, ..Self::new(client, name) }
    }

    /// Switches time to live on (attribute `expires_at`), so that the service removes each row of a table [for writer
    /// ids](Self::for_writer_ids) 30 days after its lease has ended. Does nothing if it is already on. The table must
    /// be active. A table for events has no such attribute, and nothing is removed from it.
    ///
    /// # Errors
    ///
    /// [`TableError::Missing`], otherwise [`TableError::Service`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, time to live may or may not be switched on.
    pub async fn remove_expired_rows(&self) -> Result<(), TableError> {
        let call = self.client.describe_time_to_live().table_name(&self.name);
        let described = self.call("DescribeTimeToLive", call.send()).await?;
        let status =
            described.time_to_live_description().and_then(|live| live.time_to_live_status());
        if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
            return Ok(());
        }
        let setting = TimeToLiveSpecification::builder()
            .enabled(true)
            .attribute_name(EXPIRES_AT_ATTRIBUTE)
            .build();
        let call = self.client.update_time_to_live().table_name(&self.name);
        let call = call.set_time_to_live_specification(setting.ok());
        self.call("UpdateTimeToLive", call.send()).await.map(drop)
    }

    /// Creates the table. `Ok` means that the service has begun to create it, not that it can be written to;
    /// see [`wait_until_active`](Self::wait_until_active).
    ///
    /// # Errors
    ///
    /// [`TableError::Exists`] if there is a table with this name, otherwise [`TableError::Service`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the table may or may not be created.
    pub async fn create(&self, capacity: Capacity) -> Result<(), TableError> {
        let call = self
            .client
            .create_table()
            .table_name(&self.name)
            .set_key_schema(Some(self.purpose.key_schema()))
            .set_attribute_definitions(Some(self.purpose.attribute_definitions()));
        let call = match capacity {
            Capacity::OnDemand => call.billing_mode(BillingMode::PayPerRequest),
            Capacity::Provisioned { read_units, write_units } => call
                .billing_mode(BillingMode::Provisioned)
                .set_provisioned_throughput(provisioned(read_units, write_units)),
        };
        match self.call("CreateTable", call.send()).await {
            Ok(_) => Ok(()),
            Err(TableError::Service { cause, .. }) if cause.code() == Some(RESOURCE_IN_USE) => {
                Err(TableError::Exists { table: self.name.clone() })
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until the table can be written to. It checks the table every 500 ms until `limit` has passed. The
    /// last check may take up to 10 s longer.
    ///
    /// # Errors
    ///
    /// [`TableError::NotActive`] or [`TableError::Missing`] if the table is still in this state when `limit` has
    /// passed. The other errors of [`check`](Self::check) are returned at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn wait_until_active(&self, limit: Duration) -> Result<(), TableError> {
        let start = now();
        let deadline = start.checked_add(limit).unwrap_or(start + MAX_DEADLINE);
        loop {
            match self.check().await {
                // The service may not yet know a table that was just created.
                Err(TableError::NotActive { .. } | TableError::Missing { .. })
                    if now() + POLL_INTERVAL <= deadline => {}
                result => return result,
            }
            sleep_until(Instant::from_std(now() + POLL_INTERVAL)).await;
        }
    }

    /// Checks that the table exists, has the right key, and can be written to.
    ///
    /// # Errors
    ///
    /// [`TableError::Missing`], [`TableError::WrongKey`] or [`TableError::NotActive`] for a table that events
    /// cannot be written to; [`TableError::Service`] if the table could not be described.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn check(&self) -> Result<(), TableError> {
        let description = self.describe().await?;
        self.check_key(&description)?;
        self.check_status(&description)
    }

    pub(super) async fn describe(&self) -> Result<TableDescription, TableError> {
        let call = self.client.describe_table().table_name(&self.name);
        let described = self.call("DescribeTable", call.send()).await?;
        described.table.ok_or_else(|| {
            let cause = BatchError::invalid_response("it names no table");
            self.service_error("DescribeTable", cause)
        })
    }

    pub(super) fn check_key(&self, description: &TableDescription) -> Result<(), TableError> {
        if self.purpose.has_right_key(description) {
            return Ok(());
        }
        let (table, found) = (self.name.clone(), key_in_words(description));
        Err(match self.purpose {
            Purpose::Events => TableError::WrongKey { table, found },
            Purpose::WriterIds => TableError::WrongKeyForWriterIds { table, found },
        })
    }

    pub(super) fn check_status(&self, description: &TableDescription) -> Result<(), TableError> {
        match description.table_status() {
            Some(TableStatus::Active | TableStatus::Updating) | None => Ok(()),
            Some(status) => Err(TableError::NotActive {
                table: self.name.clone(),
                status: status.as_str().to_owned(),
            }),
        }
    }

    /// Like [`check`](Self::check), but succeeds if the role is not allowed to describe the table.
    pub(crate) async fn check_before_writing(&self) -> Result<(), TableError> {
        match self.check().await {
            Err(TableError::Service { cause, .. }) if cause.code() == Some(ACCESS_DENIED) => {
                tracing::warn!(
                    table = self.name,
                    "the table's key schema is not checked: dynamodb:DescribeTable is not allowed"
                );
                Ok(())
            }
            result => result,
        }
    }

    async fn call<O, E>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<O, SdkError<E, HttpResponse>>>,
    ) -> Result<O, TableError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let cause = match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(output)) => return Ok(output),
            Ok(Err(error)) => classify(&error, SigningInfo::UNKNOWN),
            Err(_) => BatchError::timed_out(CALL_TIMEOUT),
        };
        if cause.code() == Some(RESOURCE_NOT_FOUND) {
            return Err(self.missing_error());
        }
        Err(self.service_error(operation, cause))
    }

    fn service_error(&self, operation: &'static str, cause: BatchError) -> TableError {
        TableError::Service { operation, table: self.name.clone(), cause: Box::new(cause) }
    }

    fn missing_error(&self) -> TableError {
        let region = self.client.config().region();
        TableError::Missing {
            table: self.name.clone(),
            region: region.map_or("(none)", |region| region.as_ref()).to_owned(),
        }
    }
}

const RESOURCE_IN_USE: &str = "ResourceInUseException";

fn provisioned(read_units: u32, write_units: u32) -> Option<ProvisionedThroughput> {
    ProvisionedThroughput::builder()
        .read_capacity_units(read_units.into())
        .write_capacity_units(write_units.into())
        .build()
        .ok()
}
