//! The spans of write calls, as a subscriber records them. The clock is paused.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, Reply};
use dynamodb_eventstore::{
    BatchError, BatchReading, BatchReceipt, BatchWriter, Event, EventKey, EventStore, WriteMode,
};
use futures::future::BoxFuture;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use support::watchdog;

const SECOND: Duration = Duration::from_secs(1);

/// The fields of one span.
#[derive(Debug, Clone, Default, PartialEq)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The values of these fields; an empty text for one that is not recorded.
    fn all<const N: usize>(&self, names: [&str; N]) -> [&str; N] {
        names.map(|name| self.get(name).unwrap_or_default())
    }
}

/// Records the spans that have closed.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Fields>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        assert!(attributes.is_root(), "a call is no part of a caller's span");
        assert_eq!(attributes.metadata().name(), "write_batch");
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<Fields>().unwrap());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let fields = span.extensions_mut().remove::<Fields>().unwrap();
        self.0.lock().unwrap().push(fields);
    }
}

impl Recorder {
    /// Records the spans of this thread, down to `level`, until the guard is dropped.
    fn subscribe(level: Level) -> (Self, DefaultGuard) {
        watchdog::start();
        let recorder = Self::default();
        let ours = Targets::new().with_target("dynamodb_eventstore", level);
        let subscriber = tracing_subscriber::registry().with(recorder.clone().with_filter(ours));
        (recorder, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> Vec<Fields> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn put_and_close(store: &EventStore, events: usize, deadline: Duration) {
    for _ in 0..events {
        drop(store.put("secret").await.unwrap());
    }
    store.close(deadline).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_call_has_a_span_with_its_batch_and_attempt() {
    let (recorder, _guard) = Recorder::subscribe(Level::DEBUG);
    let table = FakeTable::scripted([Reply::Unprocessed(vec![1]), Reply::Store]);
    let store = table.store_builder().start().await.unwrap();
    put_and_close(&store, 3, SECOND * 60).await;
    let spans = recorder.take();
    let fields = ["db.operation.batch.size", "attempt", "unprocessed", "error.type"];
    let spans_of = |fields| spans.iter().map(|span| span.all(fields)).collect::<Vec<_>>();
    assert_eq!(spans_of(fields), [["3", "1", "1", ""], ["1", "2", "0", ""]]);
    for span in &spans {
        let fields = ["db.system.name", "db.operation.name", "otel.kind"];
        assert_eq!(span.all(fields), ["aws.dynamodb", "BatchWriteItem", "client"]);
        assert_eq!(span.get("otel.status_code"), None);
        let bytes: usize = span.get("bytes").unwrap().parse().unwrap();
        assert!((1..1_000).contains(&bytes), "{bytes}");
        assert!(span.0.values().all(|value| !value.contains("secret")), "{span:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn span_of_a_failed_call_names_the_error() {
    for (reply, error_type) in [
        (Reply::throttle(), "FakeException"),
        (Reply::server_error(), "FakeException"),
        (Reply::Hang, "transient"),
        (Reply::Panic, "panicked"),
    ] {
        let (recorder, _guard) = Recorder::subscribe(Level::DEBUG);
        let table = FakeTable::scripted([reply.clone()]);
        let store = table.store_builder().start().await.unwrap();
        put_and_close(&store, 1, SECOND * 60).await;
        let spans = recorder.take();
        let first = spans.first().unwrap().all(["error.type", "otel.status_code"]);
        assert_eq!(first, [error_type, "ERROR"], "{reply:?}");
        assert!(spans.iter().skip(1).all(|span| span.get("error.type").is_none()), "{spans:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn span_of_a_call_that_close_cancels_says_so() {
    let (recorder, _guard) = Recorder::subscribe(Level::DEBUG);
    let table = FakeTable::always(Reply::Hang);
    let store = table.store_builder().start().await.unwrap();
    put_and_close(&store, 1, SECOND).await;
    let spans: Vec<_> = recorder.take();
    let types: Vec<_> = spans.iter().map(|span| span.get("error.type")).collect();
    assert_eq!(types, [Some("cancelled")]);
}

#[tokio::test]
async fn span_names_the_table_and_the_operation() {
    for (mode, operation) in
        [(WriteMode::Put, "BatchWriteItem"), (WriteMode::Insert, "BatchExecuteStatement")]
    {
        let (recorder, _guard) = Recorder::subscribe(Level::DEBUG);
        // Nothing listens there.
        let builder = EventStore::builder().table("all-events").endpoint_url("http://127.0.0.1:1");
        let builder = builder.credentials("id", "key").region("us-east-1").check_table(false);
        let store = builder.write_mode(mode).max_attempts(1).start().await.unwrap();
        put_and_close(&store, 1, SECOND * 5).await;
        let spans = recorder.take();
        let fields = ["aws.dynamodb.table_names", "db.operation.name", "error.type"];
        assert_eq!(spans.first().unwrap().all(fields), ["all-events", operation, "transient"]);
    }
}

/// Stores every event in a call of which everything is known.
#[derive(Debug)]
struct Known;

impl BatchWriter for Known {
    fn write_batch<'a>(
        &'a self,
        _: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        let receipt = BatchReceipt::all_processed().with_request_id("R1");
        Box::pin(async { Ok(receipt.with_consumed_write_units(2.5)) })
    }

    fn read_batch<'a>(
        &'a self,
        _: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        Box::pin(async { Ok(BatchReading::nothing_found()) })
    }
}

#[tokio::test(start_paused = true)]
async fn span_has_the_request_id_and_the_consumed_units() {
    let (recorder, _guard) = Recorder::subscribe(Level::DEBUG);
    let store = EventStore::builder().batch_writer(Known).start().await.unwrap();
    put_and_close(&store, 1, SECOND).await;
    let fields = ["aws.request_id", "consumed_write_units", "aws.dynamodb.table_names"];
    assert_eq!(recorder.take().first().unwrap().all(fields), ["R1", "2.5", ""]);
}

#[tokio::test(start_paused = true)]
async fn subscriber_of_warnings_gets_no_span() {
    let (recorder, _guard) = Recorder::subscribe(Level::WARN);
    let store = FakeTable::new().store_builder().start().await.unwrap();
    put_and_close(&store, 1, SECOND).await;
    assert_eq!(recorder.take(), []);
}

/// Records which span follows from which, and the callers' spans that have closed. It panics at the id of a closed span.
#[derive(Debug, Clone, Default)]
struct Links {
    links: Arc<Mutex<Vec<(u64, &'static str)>>>,
    closed: Arc<Mutex<Vec<&'static str>>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Links {
    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        assert_eq!(context.span(id).unwrap().name(), "write_batch");
        let caller = context.span(follows).unwrap().name();
        self.links.lock().unwrap().push((id.into_u64(), caller));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let name = context.span(&id).unwrap().name();
        if name != "write_batch" {
            self.closed.lock().unwrap().push(name);
        }
    }
}

impl Links {
    /// Records the spans of this thread, those of the store down to `level`, until the guard is dropped.
    fn subscribe(level: Level) -> (Self, DefaultGuard) {
        watchdog::start();
        let links = Self::default();
        let levels = Targets::new().with_target("dynamodb_eventstore", level);
        let levels = levels.with_target("spans", Level::INFO);
        // A filter of the layer alone loses spans if threads have subscribers of different levels, as tests have.
        let subscriber = tracing_subscriber::registry().with(links.clone()).with(levels);
        (links, tracing::subscriber::set_default(subscriber))
    }

    /// The callers' spans to which each call is linked.
    fn by_call(&self) -> Vec<Vec<&'static str>> {
        let links = self.links.lock().unwrap();
        let calls = links.chunk_by(|(call, _), (next, _)| call == next);
        calls.map(|links| links.iter().map(|(_, caller)| *caller).collect()).collect()
    }

    fn closed(&self) -> Vec<&'static str> {
        self.closed.lock().unwrap().clone()
    }
}

async fn put_and_forget(store: &EventStore, events: usize) {
    for _ in 0..events {
        drop(store.put("secret").await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_is_linked_once_to_each_callers_span() {
    let (links, _guard) = Links::subscribe(Level::DEBUG);
    let table = FakeTable::scripted([Reply::Unprocessed(vec![3])]);
    let store = table.store_builder().start().await.unwrap();
    put_and_forget(&store, 2).instrument(tracing::info_span!("first")).await;
    put_and_forget(&store, 1).await;
    put_and_forget(&store, 1).instrument(tracing::info_span!("second")).await;
    store.close(SECOND).await.unwrap();
    assert_eq!(links.by_call(), [vec!["first", "second"], vec!["second"]]);
}

#[tokio::test(start_paused = true)]
async fn linked_span_closes_when_its_event_is_settled() {
    for (level, closed_early) in [(Level::DEBUG, vec![]), (Level::INFO, vec!["caller"])] {
        let (links, _guard) = Links::subscribe(level);
        let store = FakeTable::new().store_builder().start().await.unwrap();
        // Until its first call the store does not know who listens.
        store.put("first").await.unwrap().await.unwrap();
        put_and_forget(&store, 1).instrument(tracing::info_span!("caller")).await;
        assert_eq!(links.closed(), closed_early, "{level}");
        store.close(SECOND).await.unwrap();
        assert_eq!(links.closed(), ["caller"], "{level}");
        assert_eq!(links.by_call().len(), usize::from(level == Level::DEBUG));
    }
}

#[tokio::test(start_paused = true)]
async fn linked_event_has_no_history_after_its_first_attempt() {
    let (_links, _guard) = Links::subscribe(Level::DEBUG);
    let table = FakeTable::scripted([Reply::Store, Reply::throttle()]);
    let store = table.store_builder().start().await.unwrap();
    let put = || async { store.put("x").await.unwrap().await.unwrap().history().len() };
    let attempts = async { [put().await, put().await] };
    assert_eq!(attempts.instrument(tracing::info_span!("caller")).await, [0, 2]);
}
