//! Feature `local`: a table without an account, in this process.

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

/// Region that a local table's client names. The engine takes any.
const REGION: &str = "us-east-1";

/// A table in this process: the [dynoxide](https://docs.rs/dynoxide-rs) engine behind HTTP on
/// loopback, in memory or in a SQLite file.
///
/// It takes any AWS client, with any credentials: [`endpoint_url`](Self::endpoint_url) says where.
/// It never throttles and never hands an item back, unless it is given a
/// [`write_capacity`](LocalTableBuilder::write_capacity).
///
/// The engine runs in a thread of its own until the handle is dropped; then it finishes the requests
/// that have begun, within five seconds, and closes the file. [`stop`](Self::stop) waits for that.
///
/// Each write to a file is on disk before it is acknowledged, and a batch of events is one
/// transaction: it is there whole or not at all. A new file is for its user alone (mode 0600), and so
/// are the `-wal` and `-shm` beside it; one that is there keeps its mode. A file that holds another
/// program's database is refused and left as it is. One process at a time should have a file open.
///
/// Every program on this machine can connect, and no web page: a request that has an `Origin` header,
/// or a `Host` that is not 127.0.0.1, localhost or `[::1]`, is answered 403.
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
    /// `None` once it has told.
    stopped: Option<oneshot::Receiver<Result<(), LocalError>>>,
}

impl LocalTable {
    /// A table in memory, gone with its handle.
    ///
    /// # Errors
    ///
    /// [`LocalError`]
    pub async fn in_memory() -> Result<Self, LocalError> {
        Self::builder().start().await
    }

    /// A table in a SQLite file, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`LocalError`]
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, LocalError> {
        Self::builder().file(path).start().await
    }

    /// Begins a table with other settings than those of [`in_memory`](Self::in_memory) and
    /// [`open`](Self::open).
    pub fn builder() -> LocalTableBuilder {
        LocalTableBuilder::default()
    }

    /// Where an AWS client finds the table: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Name of the table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client that talks to the table.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Begins a store that writes to the table.
    pub fn store_builder(&self) -> EventStoreBuilder {
        EventStore::builder().sdk_config(&self.sdk_config).table(&self.name)
    }

    /// Stops the engine and waits until its file is closed.
    ///
    /// # Errors
    ///
    /// [`LocalError::Stopped`]: the engine had ended before.
    pub async fn stop(mut self) -> Result<(), LocalError> {
        drop(self.running.take());
        self.wait().await
    }

    /// Waits until the engine ends by itself, which only a failure makes it do.
    ///
    /// # Errors
    ///
    /// [`LocalError::Stopped`] with the failure.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops nothing but the waiting.
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

    /// Takes so much and no more, like a table in AWS: of a `BatchWriteItem` call some items come back unprocessed,
    /// or all are refused with an exception that names the limit; a `PutItem`, `UpdateItem` or `DeleteItem` is refused.
    /// Transactions and PartiQL are not limited. Each table has a limit of its own. Default: none.
    pub fn write_capacity(mut self, write_capacity: WriteCapacity) -> Self {
        self.write_capacity = Some(write_capacity);
        self
    }

    /// Starts the engine, and creates the table unless the file has it.
    ///
    /// # Errors
    ///
    /// [`LocalError`]: the file, the port or the table in the file is not fit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops what was started.
    pub async fn start(self) -> Result<LocalTable, LocalError> {
        let Self { file, port, table: name, write_capacity } = self;
        let (started, address) = oneshot::channel();
        let (ended, stopped) = oneshot::channel();
        let (running, stop) = oneshot::channel();
        thread::Builder::new()
            .name("local-table".to_owned())
            .spawn(move || {
                // Whoever waited for either answer may have gone.
                let _ =
                    ended.send(server::run(file.as_deref(), port, write_capacity, started, stop));
            })
            .map_err(LocalError::Thread)?;
        let Ok(address) = address.await else {
            // The engine did not come to say where it listens; it says why as it ends.
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
