//! The messages of all public error types: each is complete, and no source repeats it.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::any::type_name;
use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dynamodb_eventstore::{
    BatchError, BatchReceipt, BatchWriter, Certainty, CloseError, Event, EventKey, EventStore,
    EventTooLarge, FailureClass, FlushError, ItemDefect, JournalError, LeaseError, LocalError,
    LocalTable, PutError, ReadError, RecordLoss, ScannedItem, SinkError, StartError, TableError,
    TailError, WorkerLost, WriteError, WriterIds,
};
use futures::FutureExt;
use futures::future::BoxFuture;

/// What only the source of a batch writer's error says.
const OWN_SOURCE: &str = "the proxy has run out of memory";

/// A writer whose errors have a source.
struct Failing;

impl BatchWriter for Failing {
    fn write_batch<'a>(
        &'a self,
        _events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        std::future::ready(Err(batch_error().with_source(io::Error::other(OWN_SOURCE)))).boxed()
    }
}

fn batch_error() -> BatchError {
    BatchError::new(FailureClass::Fatal, Certainty::NotStored, "the proxy refused the batch")
        .with_code("ProxyError")
        .with_request_id("REQUEST")
}

/// The error of a ticket whose last cause has a source.
async fn write_error() -> WriteError {
    let store = EventStore::builder().batch_writer(Failing).start().await.unwrap();
    store.put(&7).await.unwrap().await.unwrap_err()
}

/// The error of a store for whose lease there is no table.
async fn lease_error() -> LeaseError {
    let table = LocalTable::in_memory().await.unwrap();
    let store = EventStore::builder()
        .table(table.name())
        .region("us-east-1")
        .credentials("local", "local")
        .endpoint_url(table.endpoint_url())
        .writer_id(WriterIds::leased("writers").max_wait(Duration::from_millis(1)));
    match store.start().await {
        Err(StartError::WriterId(error)) => error,
        other => panic!("{other:?}"),
    }
}

async fn start_error() -> StartError {
    EventStore::builder().batch_writer(Failing).linger(Duration::MAX).start().await.unwrap_err()
}

fn io_error() -> io::Error {
    io::Error::other("the disk is on fire")
}

fn json_error() -> serde_json::Error {
    serde_json::from_str::<u8>("{").unwrap_err()
}

fn table_error() -> TableError {
    TableError::Service {
        operation: "DescribeTable",
        table: "events".to_owned(),
        cause: Box::new(batch_error()),
    }
}

fn journal_error() -> JournalError {
    JournalError::Io { action: "sync", path: PathBuf::from("journal"), cause: Arc::new(io_error()) }
}

fn page_error() -> ReadError {
    ReadError::Page {
        table: "events".to_owned(),
        segment: 3,
        after_key: None,
        attempts: 2,
        cause: Box::new(batch_error()),
    }
}

fn file_error() -> ReadError {
    let directory = PathBuf::from("sorted");
    ReadError::TemporaryFile { directory, action: "written", cause: io_error() }
}

fn stream_error() -> TailError {
    TailError::Call {
        table: "events".to_owned(),
        operation: "GetRecords",
        shard: Some("shardId-1".to_owned()),
        attempts: 2,
        cause: Box::new(batch_error()),
    }
}

fn event_too_large() -> EventTooLarge {
    let key: EventKey = "20130927T005240652508858176".parse().unwrap();
    Event::new(key, format!("\"{}\"", "x".repeat(500_000))).unwrap_err()
}

/// The errors of a program, and what the message of each must contain besides its own text.
#[derive(Default)]
struct Errors {
    types: BTreeSet<&'static str>,
    all: Vec<(Box<dyn Error + Send + Sync>, String)>,
}

impl Errors {
    fn add<E: Error + Send + Sync + 'static>(&mut self, error: E) {
        self.add_with_cause(error, "");
    }

    fn add_with_cause<E: Error + Send + Sync + 'static>(&mut self, error: E, cause: impl ToString) {
        self.types.extend(type_name::<E>().rsplit("::").next());
        self.all.push((Box::new(error), cause.to_string()));
    }

    /// At least one error of each public type, and each variant that has a cause.
    async fn of_all_types() -> Self {
        let mut errors = Self::default();
        let (write_error, lease_error) = (write_error().await, lease_error().await);
        let StartError::Config(config_error) = start_error().await else { panic!("a setting") };

        errors.add(batch_error().with_source(io_error()));
        errors.add_with_cause(write_error.clone(), batch_error());
        errors.add(lease_error.clone());
        errors.add(WorkerLost::Stopped);
        errors.add_with_cause(FlushError::from(WorkerLost::Panicked), WorkerLost::Panicked);
        errors.add_with_cause(CloseError::from(WorkerLost::Stopped), WorkerLost::Stopped);

        errors.add_with_cause(PutError::from(event_too_large()), event_too_large());
        errors.add_with_cause(PutError::NotSerializable(json_error()), json_error());
        errors.add_with_cause(PutError::NotJson(json_error()), json_error());
        errors.add_with_cause(PutError::from(journal_error()), journal_error());
        errors.add_with_cause(PutError::from(WorkerLost::Stopped), WorkerLost::Stopped);
        errors.add_with_cause(PutError::from(lease_error.clone()), &lease_error);
        let refused = SinkError::Put { index: 7, cause: PutError::NotJson(json_error()) };
        errors.add_with_cause(refused, json_error());
        errors.add_with_cause(
            SinkError::Write { index: 7, cause: write_error.clone() },
            &write_error,
        );

        errors.add_with_cause(StartError::from(config_error.clone()), &config_error);
        errors.add_with_cause(StartError::from(table_error()), batch_error());
        errors.add_with_cause(StartError::from(journal_error()), journal_error());
        errors.add_with_cause(StartError::from(lease_error.clone()), &lease_error);
        errors.add_with_cause(table_error(), batch_error());
        errors.add_with_cause(journal_error(), io_error());
        errors.add_with_cause(JournalError::from(config_error.clone()), &config_error);

        errors.add_with_cause(page_error(), batch_error());
        errors.add_with_cause(file_error(), io_error());
        errors.add_with_cause(ReadError::Thread(io_error()), io_error());
        errors.add_with_cause(ReadError::from(table_error()), batch_error());
        errors.add_with_cause(ReadError::from(config_error.clone()), &config_error);

        let (table, region) = ("events".to_owned(), "us-east-1".to_owned());
        errors.add_with_cause(TailError::from(config_error.clone()), &config_error);
        errors.add_with_cause(TailError::from(table_error()), batch_error());
        errors.add_with_cause(stream_error(), batch_error());
        errors.add_with_cause(TailError::StreamOff { table: table.clone() }, &table);
        let view_type = "KEYS_ONLY".to_owned();
        errors.add_with_cause(
            TailError::NoStream { table: table.clone(), region: region.clone() },
            "aws dynamodb update-table --table-name events",
        );
        errors.add_with_cause(TailError::WrongViewType { table, region, view_type }, "KEYS_ONLY");
        errors.add(TailError::Stopped);
        errors.add(RecordLoss::StreamReplaced);
        let lost = RecordLoss::PositionTooOld { age: Duration::from_secs(90_000) };
        errors.add_with_cause(lost, "25 h old");

        let address = "127.0.0.1:1".parse().unwrap();
        errors.add_with_cause(LocalError::Listen { address, cause: io_error() }, io_error());
        errors.add_with_cause(LocalError::Thread(io_error()), io_error());
        errors.add_with_cause(LocalError::from(table_error()), batch_error());

        errors.add(config_error);
        errors.add(event_too_large());
        errors.add("no key".parse::<EventKey>().unwrap_err());
        errors.add(ScannedItem::from_dynamodb_json(b"no item").unwrap_err());
        errors.add(ItemDefect::BodyIsMissing);
        errors
    }
}

/// The messages of an error and of its sources, outermost first.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect()
}

#[tokio::test]
async fn error_of_each_type_is_tested() {
    let public: BTreeSet<&str> = include_str!("public-api.txt")
        .lines()
        .filter_map(|line| line.strip_prefix("impl core::error::Error for dynamodb_eventstore::"))
        .collect();
    assert!(public.contains("WriteError"));
    assert_eq!(Errors::of_all_types().await.types, public);
}

#[tokio::test]
async fn message_contains_its_cause() {
    for (error, cause) in Errors::of_all_types().await.all {
        assert!(error.to_string().contains(&cause), "{error:?}: {cause}");
    }
}

#[tokio::test]
async fn source_repeats_no_text() {
    for (error, _) in Errors::of_all_types().await.all {
        let texts = chain(&*error);
        for (place, text) in texts.iter().enumerate() {
            let repeated = texts.iter().skip(place + 1).find(|source| text.contains(*source));
            assert_eq!(repeated, None, "{error:?}");
        }
    }
}

#[tokio::test]
async fn errors_around_a_writer_error_keep_its_source() {
    let error = write_error().await;
    assert_eq!(chain(&error), [error.to_string(), OWN_SOURCE.to_owned()]);
    let error = SinkError::Write { index: 7, cause: error };
    assert_eq!(chain(&error), [error.to_string(), OWN_SOURCE.to_owned()]);
}
