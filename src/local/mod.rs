//! Feature `local`: a DynamoDB table in this process, without an AWS account.

mod access;
mod batch_write;
mod error;
mod failure;
mod file;
mod json;
mod limits;
mod operations;
mod response;
mod server;
mod statements;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use tokio::sync::oneshot;

use crate::dynamodb::table::{Capacity, Table, TableError};
use crate::store::EventStore;
use crate::store::builder::EventStoreBuilder;
use crate::write_capacity::WriteCapacity;

pub use error::LocalError;

/// Region of a local table's client. The engine accepts any.
const REGION: &str = "us-east-1";

/// A table in this process: the [dynoxide](https://docs.rs/dynoxide-rs) engine behind HTTP on
/// loopback, in memory or in a SQLite file.
///
/// Any AWS client can use it, with any credentials, at its [`endpoint_url`](Self::endpoint_url). It
/// never throttles and never leaves an item unprocessed, unless it is given a
/// [`write_capacity`](LocalTableBuilder::write_capacity).
///
/// The engine runs in its own thread until the handle is dropped. Then it finishes the requests that
/// have begun, for at most five seconds, and closes the file. [`stop`](Self::stop) waits for that.
///
/// A write to a file is on disk before it is acknowledged, and a batch of events is one transaction: all of it
/// is written or nothing. Only the user can access a new file, its `-wal` and its `-shm` (mode 0600). An
/// existing file keeps its mode. A file with another program's database is refused and left unchanged. Only one
/// process at a time should open a file.
///
/// All programs on this machine can connect, but web pages cannot: a request with an `Origin` header, or
/// with a `Host` other than 127.0.0.1, localhost or `[::1]`, is answered with status 403.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dynamodb_eventstore::LocalTable;
///
/// let table = LocalTable::in_memory().await?;
/// let store = table.store_builder().start().await?;
/// let stored = store.put(&serde_json::json!({ "foo": "bar" })).await?.await?;
///
/// let read = table.client().get_item().table_name(table.name());
/// let read = read
///     .key("key", aws_sdk_dynamodb::types::AttributeValue::S(stored.key.to_string()))
///     .send()
///     .await?;
/// assert_eq!(read.item.unwrap()["body"].as_s().unwrap(), r#"{"foo":"bar"}"#);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LocalTable {
    address: SocketAddr,
    sdk_config: Box<SdkConfig>,
    client: Client,
    name: String,
    /// Dropped to stop the engine.
    running: Option<oneshot::Sender<()>>,
    /// `None` after the result was received.
    stopped: Option<oneshot::Receiver<Result<(), LocalError>>>,
}

impl LocalTable {
    /// A table in memory. Its events are lost when the handle is dropped.
    ///
    /// # Errors
    ///
    /// [`LocalError`]
    pub async fn in_memory() -> Result<Self, LocalError> {
        Self::builder().start().await
    }

    /// A table in a SQLite file, which is created if it does not exist.
    ///
    /// # Errors
    ///
    /// [`LocalError`]
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, LocalError> {
        Self::builder().file(path).start().await
    }

    /// A builder for a table with more settings than [`in_memory`](Self::in_memory) and
    /// [`open`](Self::open) have.
    pub fn builder() -> LocalTableBuilder {
        LocalTableBuilder::default()
    }

    /// The endpoint URL for AWS clients: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Name of the table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client for the table.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The configuration of a client for the table, for example for [`Inspection::run`](crate::Inspection::run).
    #[must_use]
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.sdk_config
    }

    /// A builder for a store that writes to the table.
    pub fn store_builder(&self) -> EventStoreBuilder {
        EventStore::builder().sdk_config(&self.sdk_config).table(&self.name)
    }

    /// Stops the engine and waits until its file is closed.
    ///
    /// # Errors
    ///
    /// [`LocalError::Stopped`]: the engine had ended before, with a failure.
    pub async fn stop(mut self) -> Result<(), LocalError> {
        drop(self.running.take());
        self.wait().await
    }

    /// Waits until the engine ends by itself, which happens only after a failure.
    ///
    /// # Errors
    ///
    /// [`LocalError::Stopped`] with the failure.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the wait. The engine keeps running.
    pub async fn wait(&mut self) -> Result<(), LocalError> {
        let Some(stopped) = &mut self.stopped else {
            return Ok(());
        };
        let ended = stopped.await;
        self.stopped = None;
        ended.unwrap_or_else(|_| Err(LocalError::Stopped("its thread panicked".to_owned())))
    }
}

/// Sets up a [`LocalTable`]; made by [`LocalTable::builder`].
#[must_use = "a builder does nothing until start()"]
#[derive(Debug, Clone)]
pub struct LocalTableBuilder {
    file: Option<PathBuf>,
    port: u16,
    table: String,
    write_capacity: Option<WriteCapacity>,
}

impl Default for LocalTableBuilder {
    fn default() -> Self {
        Self { file: None, port: 0, table: "events".to_owned(), write_capacity: None }
    }
}

impl LocalTableBuilder {
    /// Keeps the table in a SQLite file. Default: in memory.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = Some(path.as_ref().to_owned());
        self
    }

    /// Port on 127.0.0.1. Default: 0, any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Name of the table. Default: `events`.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// Limits the write capacity, like that of a table in AWS. Beyond it some items of a `BatchWriteItem` call
    /// are unprocessed, or the call fails with an exception that names the limit. A `PutItem`, `UpdateItem` or
    /// `DeleteItem` fails. An `INSERT` of `BatchExecuteStatement` fails by itself. Transactions and other
    /// statements are not limited. Each table has its own limit. Default: no limit.
    pub fn write_capacity(mut self, write_capacity: WriteCapacity) -> Self {
        self.write_capacity = Some(write_capacity);
        self
    }

    /// Starts the engine, and creates the table unless the file holds it.
    ///
    /// # Errors
    ///
    /// [`LocalError`]: the file, the port or the table in the file cannot be used.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the engine.
    pub async fn start(self) -> Result<LocalTable, LocalError> {
        let Self { file, port, table: name, write_capacity } = self;
        let (started, address) = oneshot::channel();
        let (ended, stopped) = oneshot::channel();
        let (running, stop) = oneshot::channel();
        thread::Builder::new()
            .name("local-table".to_owned())
            .spawn(move || {
                // The receiver may have been dropped.
                let _ =
                    ended.send(server::run(file.as_deref(), port, write_capacity, started, stop));
            })
            .map_err(LocalError::Thread)?;
        let Ok(address) = address.await else {
            // The engine ended before it listened. Its result has the reason.
            let ended = stopped.await.unwrap_or(Ok(()));
            return Err(ended.err().unwrap_or_else(|| {
                LocalError::Stopped("its thread panicked at the start".to_owned())
            }));
        };
        let sdk_config = Box::new(sdk_config_for(address));
        let client = Client::new(&sdk_config);
        let local = LocalTable {
            address,
            sdk_config,
            client,
            name,
            running: Some(running),
            stopped: Some(stopped),
        };
        let table = Table::new(&local.client, &local.name);
        match table.create(Capacity::OnDemand).await {
            Ok(()) | Err(TableError::Exists { .. }) => table.check().await?,
            Err(error) => return Err(error.into()),
        }
        Ok(local)
    }
}

fn sdk_config_for(address: SocketAddr) -> SdkConfig {
    let credentials = Credentials::new("local", "local", None, None, "LocalTable");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{address}"))
        .build()
}
