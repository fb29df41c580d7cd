//! The metrics of a store: they equal what was put and what became of it. The clock is paused.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, FaultRates, Reply};
use dynamodb_eventstore::{
    Backoff, BatchError, BatchReading, BatchReceipt, BatchWriter, Certainty, Event, EventKey,
    EventStore, FailureClass, Journal, Stats, ThrottlingReason, WriteCapacity, WriteMode,
};
use futures::future::BoxFuture;
use metrics::{Key, Unit};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use support::clock::{wait, wait_milliseconds};
use support::watchdog;

const SECOND: Duration = Duration::from_secs(1);
const PREFIX: &str = "dynamodb_eventstore_";

/// A recorder for the stores that this thread starts.
struct Recorder(DebuggingRecorder);

impl Recorder {
    fn new() -> Self {
        watchdog::start();
        Self(DebuggingRecorder::new())
    }

    /// Starts a store that reports here.
    #[expect(clippy::future_not_send, reason = "the recorder is that of this thread")]
    async fn start(&self, builder: dynamodb_eventstore::EventStoreBuilder) -> EventStore {
        let _here = metrics::set_default_local_recorder(&self.0);
        builder.start().await.unwrap()
    }

    /// Everything that was recorded. The recorder forgets it.
    fn take(&self) -> Recorded {
        let mut recorded = Recorded::default();
        for (key, unit, description, value) in self.0.snapshotter().snapshot().into_vec() {
            recorded.described.push((key.kind(), key.key().clone(), unit, description.is_some()));
            let mut name = key.key().name().strip_prefix(PREFIX).unwrap().to_owned();
            let labels =
                key.key().labels().filter(|label| !["table", "store"].contains(&label.key()));
            for label in labels {
                name = format!("{name}/{}", label.value());
            }
            match value {
                DebugValue::Counter(count) => drop(recorded.counters.insert(name, count)),
                DebugValue::Gauge(value) => drop(recorded.gauges.insert(name, value.0)),
                DebugValue::Histogram(values) => {
                    let values = values.iter().map(|value| value.0).collect();
                    recorded.histograms.insert(name, values);
                }
            }
        }
        recorded
    }
}

#[derive(Debug, Default)]
struct Recorded {
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, f64>,
    histograms: BTreeMap<String, Vec<f64>>,
    described: Vec<(MetricKind, Key, Option<Unit>, bool)>,
}

impl Recorded {
    fn counter(&self, name: &str) -> u64 {
        self.counters[name]
    }

    fn gauge(&self, name: &str) -> f64 {
        self.gauges[name]
    }

    fn histogram(&self, name: &str) -> &[f64] {
        &self.histograms[name]
    }

    /// The sum of a counter over its label.
    fn sum(&self, name: &str) -> u64 {
        let prefix = format!("{name}/");
        let of_name = self.counters.iter().filter(|(name, _)| name.starts_with(&prefix));
        of_name.map(|(_, count)| count).sum()
    }

    /// The values of a counter by its label, without those that are 0.
    fn by_label(&self, name: &str) -> Vec<(&str, u64)> {
        let prefix = format!("{name}/");
        let by_label = self
            .counters
            .iter()
            .filter_map(|(name, count)| name.strip_prefix(&prefix).map(|label| (label, *count)));
        by_label.filter(|(_, count)| *count > 0).collect()
    }

    /// Compares everything that both say.
    fn check(&self, stats: &Stats) {
        let failed = self.sum("events_failed_total");
        assert_eq!(self.counter("events_accepted_total"), stats.accepted);
        assert_eq!(self.counter("events_stored_total"), stats.stored);
        assert_eq!(failed, stats.failed);
        assert_eq!(self.gauge("pending_events"), stats.pending as f64);
        assert_eq!(self.sum("events_retried_total"), stats.retried);
        assert_eq!(self.counter("batches_total"), stats.batches);
        assert_eq!(self.counter("throttled_write_units_total"), stats.throttled_units);
        assert_eq!(self.sum("throttled_batches_total"), stats.throttled_batches);
        assert_eq!(self.counter("replaced_keys_total"), stats.replaced_keys);
        assert_eq!(self.histogram("batch_events").len() as u64, stats.batches);
        assert_eq!(self.histogram("put_to_stored_seconds").len() as u64, stats.stored);
    }

    /// Checks that nothing is left of a store that has ended.
    fn check_ended(&self) {
        for (name, value) in &self.gauges {
            assert_eq!(*value, 0.0, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_add_up_to_what_was_put() {
    let (recorder, table) = (Recorder::new(), FakeTable::new());
    table.reject("7");
    let store = recorder.start(table.store_builder()).await;
    for number in 0..1_000 {
        drop(store.put(&number).await.unwrap());
    }
    let report = store.close(SECOND).await.unwrap();
    assert_eq!((report.stored, report.failed), (999, 1));

    let recorded = recorder.take();
    recorded.check(&store.stats());
    recorded.check_ended();
    assert_eq!(recorded.counter("events_accepted_total"), 1_000);
    assert_eq!(recorded.counter("events_failed_total/not_retryable"), 1);
    let sent: f64 = recorded.histogram("batch_events").iter().sum();
    assert_eq!(sent, 1_000.0 + recorded.sum("events_retried_total") as f64);
    assert_eq!(recorded.histogram("batch_duration_seconds").len(), table.calls().len());
}

#[tokio::test(start_paused = true)]
async fn metrics_add_up_while_the_table_fails_at_random() {
    for seed in 0..50 {
        let rates = FaultRates::default();
        let (recorder, table) = (Recorder::new(), FakeTable::seeded(seed, rates));
        let store = recorder.start(table.store_builder().deterministic(seed)).await;
        for number in 0..200 {
            drop(store.put(&number).await.unwrap());
        }
        store.close(SECOND * u32::try_from(seed).unwrap()).await.unwrap();
        let recorded = recorder.take();
        recorded.check(&store.stats());
        recorded.check_ended();
        assert_eq!(recorded.counter("events_accepted_total"), 200, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn pending_events_and_age_are_current_while_table_hangs() {
    let (recorder, table) = (Recorder::new(), FakeTable::always(Reply::Hang));
    let builder = table.store_builder().max_batches_in_flight(1);
    let store = recorder.start(builder.attempt_timeout(SECOND * 30)).await;
    for _ in 0..60 {
        drop(store.put("x").await.unwrap());
    }
    // Nothing wakes the worker in the meantime but the publication itself.
    wait_milliseconds(7_500).await;
    let recorded = recorder.take();
    let pending = recorded.gauge("pending_events");
    assert_eq!((recorded.counter("events_accepted_total"), pending), (60, 60.0));
    assert!((60.0 * 3.0..60.0 * 1_000.0).contains(&recorded.gauge("pending_bytes")));
    assert_eq!(recorded.gauge("batches_in_flight"), 1.0);
    let age = recorded.gauge("oldest_waiting_seconds");
    assert!((6.5..=7.5).contains(&age), "{age}");
}

#[tokio::test(start_paused = true)]
async fn events_on_disk_are_counted_apart_until_they_are_sent() {
    let (recorder, table) = (Recorder::new(), FakeTable::always(Reply::Hang));
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).await.unwrap();
    let builder = table.store_builder().max_buffered_events(10).max_batches_in_flight(1);
    let builder = builder.max_batch_events(5).event_deadline(60 * 60 * SECOND).journal(journal);
    let store = recorder.start(builder).await;
    for _ in 0..100 {
        drop(store.put("x").await.unwrap());
    }
    wait(2 * SECOND).await;
    let recorded = recorder.take();
    assert_eq!(
        (recorded.counter("events_accepted_total"), recorded.gauge("pending_events")),
        (10, 10.0)
    );
    assert_eq!(recorded.gauge("waiting_on_disk_events"), 90.0);
    assert!((5_000.0..10_000.0).contains(&recorded.gauge("journal_bytes")));
    store.close(SECOND).await.unwrap();
    let recorded = recorder.take();
    assert_eq!(recorded.counter("events_failed_total/close_deadline"), 100);
    assert_eq!(recorded.counter("events_accepted_total"), 90);
    assert_eq!(recorded.gauge("waiting_on_disk_events"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn failed_events_are_counted_by_reason() {
    let one_wait = Backoff { floor: SECOND / 10, base: SECOND / 10, ceiling: SECOND / 10 };
    let server_error = || FakeTable::always(Reply::server_error());
    for (reason, table) in [
        ("deadline", server_error()),
        ("attempts", server_error()),
        ("close_deadline", FakeTable::always(Reply::Hang)),
        ("not_retryable", FakeTable::always(Reply::Panic)),
    ] {
        let recorder = Recorder::new();
        let builder = table.store_builder().backoff(one_wait).event_deadline(SECOND * 5);
        let max_attempts = if reason == "attempts" { 2 } else { 1_000 };
        let store = recorder.start(builder.max_attempts(max_attempts)).await;
        for _ in 0..3 {
            drop(store.put("x").await.unwrap());
        }
        let deadline = if reason == "close_deadline" { SECOND } else { SECOND * 60 };
        store.close(deadline).await.unwrap();
        let recorded = recorder.take();
        assert_eq!(recorded.by_label("events_failed_total"), [(reason, 3)]);
        recorded.check(&store.stats());
        recorded.check_ended();
        if reason == "attempts" {
            assert_eq!(recorded.by_label("events_retried_total"), [("transient", 3)]);
        }
    }
}

#[test]
fn events_of_a_lost_worker_are_counted() {
    let (recorder, table) = (Recorder::new(), FakeTable::always(Reply::Hang));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let store = recorder.start(table.store_builder()).await;
        drop(store.put("sent").await.unwrap());
        wait_milliseconds(50).await;
        drop(store.put("in the channel").await.unwrap());
        store
    });
    drop(runtime);
    let recorded = recorder.take();
    assert_eq!(recorded.by_label("events_failed_total"), [("worker_lost", 2)]);
    recorded.check(&store.stats());
    recorded.check_ended();
}

#[tokio::test(start_paused = true)]
async fn throttled_units_and_the_pace_are_shown() {
    let recorder = Recorder::new();
    let table = FakeTable::with_capacity(WriteCapacity::provisioned(100));
    let store = recorder.start(table.store_builder().deterministic(7)).await;
    // More than the table has saved.
    for number in 0..35_000 {
        drop(store.put(&number).await.unwrap());
    }
    let (recorded, stats) = (recorder.take(), store.stats());
    assert!(stats.throttled_units > 0);
    assert_eq!(recorded.counter("throttled_write_units_total"), stats.throttled_units);
    let pace = recorded.gauge("pace_write_units_per_second");
    assert!((50.0..200.0).contains(&pace), "{pace}");
    let classes = recorded.by_label("events_retried_total");
    assert!(classes.iter().all(|(class, _)| ["throttled", "unprocessed"].contains(class)));
    assert!(!classes.is_empty());
}

/// Throttles the first calls for one limit each, and stores the rest for half a write unit per event.
#[derive(Debug)]
struct Limited(std::sync::Mutex<Vec<&'static str>>);

impl BatchWriter for Limited {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        Box::pin(async move {
            if let Some(reason) = self.0.lock().unwrap().pop() {
                let class = FailureClass::Throttled;
                let error = BatchError::new(class, Certainty::NotStored, "too fast");
                return Err(error.with_throttling_reasons([ThrottlingReason::new(reason)]));
            }
            let units = events.len() as f64 / 2.0;
            Ok(BatchReceipt::all_processed().with_consumed_write_units(units))
        })
    }

    fn read_batch<'a>(
        &'a self,
        _: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        Box::pin(async { Ok(BatchReading::nothing_found()) })
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_calls_are_counted_by_limit_and_consumed_units_summed() {
    let recorder = Recorder::new();
    let limits = [
        "TableWriteProvisionedThroughputExceeded",
        "TableWriteAccountLimitExceeded",
        "TableWriteAccountLimitExceeded",
    ];
    let limited = Limited(std::sync::Mutex::new(limits.to_vec()));
    let store = recorder.start(EventStore::builder().batch_writer(limited).store_name("l")).await;
    for _ in 0..5 {
        store.put("x").await.unwrap().await.unwrap();
    }
    store.close(SECOND).await.unwrap();
    let recorded = recorder.take();
    let by_limit = recorded.by_label("throttled_batches_total");
    assert_eq!(by_limit, [("account", 2), ("provisioned", 1)]);
    assert_eq!(store.stats().consumed_write_units, 2.5);
    assert_eq!(recorded.counter("consumed_write_units_total"), 2);
}

#[tokio::test(start_paused = true)]
async fn replaced_keys_are_counted() {
    let (recorder, table) = (Recorder::new(), FakeTable::new());
    table.set_write_mode(WriteMode::Insert);
    let store = recorder.start(table.store_builder().write_mode(WriteMode::Insert)).await;
    let ticket = store.put("x").await.unwrap();
    table.insert(ticket.key(), "of another writer");
    ticket.await.unwrap();
    store.close(SECOND).await.unwrap();
    let recorded = recorder.take();
    assert_eq!(recorded.counter("replaced_keys_total"), 1);
    assert_eq!(recorded.by_label("events_retried_total"), [("duplicate", 1)]);
    recorded.check(&store.stats());
}

#[tokio::test(start_paused = true)]
async fn durations_are_those_of_the_clock() {
    let recorder = Recorder::new();
    let table = FakeTable::always(Reply::Store.after(SECOND / 4));
    let store = recorder.start(table.store_builder().linger(SECOND / 2)).await;
    for _ in 0..2 {
        drop(store.put("x").await.unwrap());
    }
    wait(SECOND).await;
    let recorded = recorder.take();
    assert_eq!(recorded.histogram("batch_events"), [2.0]);
    assert_eq!(recorded.histogram("batch_duration_seconds"), [0.25]);
    assert_eq!(recorded.histogram("put_to_stored_seconds"), [0.75, 0.75]);
}

#[tokio::test(start_paused = true)]
async fn stores_with_the_same_labels_add_up() {
    let (recorder, table) = (Recorder::new(), FakeTable::always(Reply::Hang));
    for events in [2, 3] {
        let store = recorder.start(table.store_builder()).await;
        for _ in 0..events {
            drop(store.put("x").await.unwrap());
        }
        wait_milliseconds(100).await;
        std::mem::forget(store);
    }
    let recorded = recorder.take();
    assert_eq!(recorded.counter("events_accepted_total"), 5);
    assert_eq!(recorded.gauge("pending_events"), 5.0);
    assert_eq!(recorded.gauge("batches_in_flight"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn labels_are_those_of_the_guide_and_name_no_event() {
    let recorder = Recorder::new();
    let table = EventStore::builder().table("all-events").endpoint_url("http://127.0.0.1:1");
    let table = table.credentials("id", "secret").region("us-east-1").check_table(false);
    let store = recorder.start(table.store_name("audit")).await;
    drop(store.put("x").await.unwrap());
    store.close(Duration::ZERO).await.unwrap();
    let recorded = recorder.take();
    assert_eq!(recorded.described.len(), 38, "the guide says how many time series a store has");
    let guide = guide();
    for (kind, key, unit, is_described) in &recorded.described {
        let mut labels: Vec<&str> = Vec::new();
        for label in key.labels() {
            match label.key() {
                "table" => assert_eq!(label.value(), "all-events"),
                "store" => assert_eq!(label.value(), "audit"),
                of_the_metric => labels.push(of_the_metric),
            }
        }
        assert_eq!(key.labels().count(), labels.len() + 2, "{key}");
        let kind = format!("{kind:?}").to_lowercase();
        let unit = match unit.unwrap() {
            Unit::Count => "",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::CountPerSecond => "per second",
            unit => panic!("{unit:?}"),
        };
        let row = [kind.as_str(), unit, &labels.concat()].map(str::to_owned);
        assert_eq!(guide.get(key.name()), Some(&row), "the guide's row of {}", key.name());
        assert!(is_described);
    }
    let names: std::collections::BTreeSet<_> =
        recorded.described.iter().map(|(_, key, ..)| key.name()).collect();
    assert_eq!(names.len(), guide.len(), "the guide has rows of metrics that do not exist");
}

/// Kind, unit and label of each metric, as the guide has them.
fn guide() -> BTreeMap<String, [String; 3]> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/metrics.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `dynamodb_eventstore_"));
    rows.map(|row| {
        let cells: Vec<String> =
            row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        (cells[1].clone(), [cells[2].clone(), cells[3].clone(), cells[4].clone()])
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn store_without_a_recorder_works() {
    watchdog::start();
    let table = Arc::new(FakeTable::new());
    let store = table.store_builder().start().await.unwrap();
    store.put("x").await.unwrap().await.unwrap();
    assert_eq!(store.close(SECOND).await.unwrap().stored, 1);
}
