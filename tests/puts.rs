//! Puts of many events: through a sink, from threads, of a whole collection.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, FaultRates, Reply};
use dynamodb_eventstore::{
    Certainty, EventSink, EventStore, FailureClass, FailureReason, PutAllReport, PutError,
    SinkError, WorkerLost,
};
use futures::{FutureExt, Sink, SinkExt, StreamExt, stream};
use proptest::prelude::*;
use serde::{Serialize, Serializer};
use tokio::runtime::Runtime;

use support::clock;
use support::watchdog;

const SECOND: Duration = Duration::from_secs(1);

/// A text that serialises to itself, or not at all if it is empty.
#[derive(Debug, Clone, PartialEq)]
struct Text(String);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            return Err(serde::ser::Error::custom("the text is empty"));
        }
        serializer.serialize_str(&self.0)
    }
}

fn texts(count: usize) -> Vec<Text> {
    (0..count).map(|number| Text(format!("text {number}"))).collect()
}

/// The bodies in the table, as they were before they were serialised.
fn stored(table: &FakeTable) -> BTreeSet<String> {
    table.rows().into_values().map(|body| serde_json::from_str(&body).unwrap()).collect()
}

async fn start(table: &FakeTable) -> EventStore {
    watchdog::start();
    table.store_builder().start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn stream_is_forwarded_and_every_event_stored() {
    let table = FakeTable::new();
    let store = start(&table).await;
    stream::iter(texts(1_000)).map(Ok).forward(store.sink()).await.unwrap();
    // `forward` has returned, so nothing is pending.
    assert_eq!((store.stats().stored, store.stats().pending), (1_000, 0));
    assert_eq!(stored(&table).len(), 1_000);
    assert_eq!(table.sizes(), [25; 40]);
}

#[tokio::test(start_paused = true)]
async fn sink_is_not_ready_while_the_buffer_is_full() {
    let table = FakeTable::always(Reply::Store.after(SECOND));
    let builder = table.store_builder().max_buffered_events(10).max_batch_events(1);
    let store = builder.start().await.unwrap();
    let mut sink = store.sink();
    let other = store.put("other").await.unwrap();
    for text in texts(10) {
        sink.feed(text).await.unwrap();
    }
    // Ten are accepted, and one waits in the sink.
    assert_eq!(store.stats().accepted, 10);
    let start = clock::now();
    poll_fn(|context| sink.poll_ready_unpin(context)).await.unwrap();
    assert_eq!((clock::now() - start, store.stats().accepted), (SECOND, 11));
    sink.flush().await.unwrap();
    other.await.unwrap();
    assert_eq!(stored(&table).len(), 11);
}

#[tokio::test(start_paused = true)]
async fn flush_of_a_sink_waits_for_its_own_events() {
    let table = FakeTable::scripted([Reply::Hang, Reply::Store.after(SECOND)]);
    let store = table.store_builder().max_batch_events(1).start().await.unwrap();
    let other = store.put("hangs").await.unwrap();
    clock::wait(SECOND).await;
    let start = clock::now();
    let mut sink = store.sink();
    sink.feed(Text("own".to_owned())).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(clock::now() - start, SECOND);
    assert_eq!(store.stats().pending, 1);
    // Nothing is left to wait for.
    assert!(sink.flush().now_or_never().unwrap().is_ok());
    other.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sink_returns_each_failed_event_once() {
    let table = FakeTable::new();
    for number in [3, 7] {
        table.reject(format!("\"text {number}\""));
    }
    let store = start(&table).await;
    let mut sink = store.sink();
    for text in texts(10) {
        sink.feed(text).await.unwrap();
    }
    let mut failed = BTreeSet::new();
    for _ in 0..2 {
        let error = sink.flush().await.unwrap_err();
        let SinkError::Write { index, cause } = &error else { panic!("{error}") };
        assert_eq!(cause.event().unwrap().body(), format!("\"text {index}\""));
        assert!(error.to_string().contains(cause.key().as_str()), "{error}");
        failed.insert(error.index());
    }
    assert_eq!(failed, BTreeSet::from([3, 7]));
    sink.flush().await.unwrap();
    assert_eq!(store.stats().stored, 8);
}

#[tokio::test(start_paused = true)]
async fn forward_ends_with_the_first_failed_event() {
    let table = FakeTable::new();
    table.reject("\"text 30\"");
    let store = start(&table).await;
    let mut taken = 0;
    let endless = stream::iter(0..).map(|number| {
        taken = number;
        Ok(Text(format!("text {number}")))
    });
    let error = endless.forward(store.sink()).await.unwrap_err();
    assert_eq!(error.index(), 30, "{error}");
    assert!(taken < 20_000, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn sink_refuses_an_event_and_takes_the_next() {
    let table = FakeTable::new();
    let store = start(&table).await;
    let mut sink = store.sink();
    sink.feed(Text("one".to_owned())).await.unwrap();
    for (index, text) in [(1, String::new()), (2, "x".repeat(500_000))] {
        let error = sink.feed(Text(text)).await.unwrap_err();
        assert!(matches!(error, SinkError::Put { .. }) && error.index() == index, "{error}");
    }
    sink.feed(Text("two".to_owned())).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(stored(&table).into_iter().collect::<Vec<_>>(), ["one", "two"]);
    // The sink is closed, not the store.
    store.put("three").await.unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sink_of_a_closed_store_takes_no_event() {
    let table = FakeTable::new();
    let store = start(&table).await;
    let mut sink: EventSink<Text> = store.sink();
    sink.feed(Text("one".to_owned())).await.unwrap();
    store.close(SECOND).await.unwrap();
    let ready = poll_fn(|context| sink.poll_ready_unpin(context)).await;
    let error = ready.unwrap_err();
    assert!(matches!(error, SinkError::Put { index: 1, cause: PutError::Closed }), "{error}");
    // What was put before was stored.
    sink.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn event_that_waits_in_a_sink_learns_of_the_close() {
    let table = FakeTable::always(Reply::Store.after(SECOND));
    let store = table.store_builder().max_buffered_events(1).start().await.unwrap();
    let mut sink = store.sink();
    let _other = store.put("other").await.unwrap();
    sink.feed(Text("own".to_owned())).await.unwrap();
    let (closed, flushed) = tokio::join!(store.close(SECOND * 9), sink.flush());
    assert_eq!(closed.unwrap().stored, 1);
    let error = flushed.unwrap_err();
    assert!(matches!(error, SinkError::Put { index: 0, cause: PutError::Closed }), "{error}");
    sink.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a sink that was not ready")]
async fn event_for_a_sink_that_is_not_ready_panics() {
    let store = FakeTable::always(Reply::Hang).store_builder().max_buffered_events(1);
    let store = store.start().await.unwrap();
    let mut sink = store.sink();
    for text in texts(3) {
        Pin::new(&mut sink).start_send(text).unwrap();
    }
}

#[test]
fn blocking_puts_wait_for_room_and_store_all() {
    watchdog::start();
    let table = FakeTable::new();
    let runtime = Runtime::new().unwrap();
    let builder = table.store_builder().max_buffered_events(4).linger(Duration::ZERO);
    let store = runtime.block_on(builder.start()).unwrap();
    let put = |name: usize| {
        let store = &store;
        move || {
            let put = |number| store.blocking_put(&format!("{name} {number}")).unwrap();
            let tickets: Vec<_> = (0..200).map(put).collect();
            assert!(store.stats().pending <= 4, "{store:?}");
            for ticket in tickets {
                let key = *ticket.key();
                assert_eq!(ticket.blocking_wait().unwrap().key, key);
            }
        }
    };
    std::thread::scope(|scope| {
        for name in 0..3 {
            scope.spawn(put(name));
        }
    });
    assert_eq!(stored(&table).len(), 600);
    let error = store.blocking_put(&Text(String::new())).unwrap_err();
    assert!(matches!(error, PutError::NotSerializable(_)), "{error}");
}

#[tokio::test]
async fn blocking_put_panics_in_async_code_and_not_beside_it() {
    let table = FakeTable::always(Reply::Fail(FailureClass::Fatal, Certainty::NotStored));
    let store = start(&table).await;
    let panicked = catch_unwind(AssertUnwindSafe(|| store.blocking_put("one")));
    assert!(panicked.is_err());
    assert_eq!(store.stats().accepted, 0);
    let ticket = store.put("two").await.unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ticket.blocking_wait())).is_err());
    let put = move || store.blocking_put("three").unwrap().blocking_wait();
    let error = tokio::task::spawn_blocking(put).await.unwrap().unwrap_err();
    assert_eq!(error.event().unwrap().body(), "\"three\"");
}

#[test]
fn blocking_put_after_the_runtime_is_an_error() {
    watchdog::start();
    let runtime = Runtime::new().unwrap();
    let store = runtime.block_on(FakeTable::always(Reply::Hang).store_builder().start()).unwrap();
    let ticket = store.blocking_put("one").unwrap();
    drop(runtime);
    let reason = FailureReason::WorkerLost(WorkerLost::Stopped);
    assert_eq!(ticket.blocking_wait().unwrap_err().reason(), reason);
    let error = store.blocking_put("two").unwrap_err();
    assert!(matches!(error, PutError::WorkerLost(WorkerLost::Stopped)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn put_all_tells_what_became_of_each_event() {
    let table = FakeTable::new();
    table.reject("\"text 4\"");
    let store = start(&table).await;
    let mut input = texts(60);
    input[7] = Text(String::new());
    input[9] = Text("x".repeat(500_000));
    let mut ticket = store.put_all(input.clone()).await;
    assert_eq!((ticket.accepted(), ticket.not_accepted().len()), (58, 2));
    // A wait that is given up loses nothing.
    assert!((&mut ticket).now_or_never().is_none());
    let report = ticket.await;
    assert_eq!((report.stored, report.failed[0].index, report.is_complete()), (57, 4, false));
    assert_eq!(table.body(report.failed[0].key()), None);
    let given_back: Vec<_> =
        report.not_accepted.iter().map(|not| (not.index, not.event.clone())).collect();
    assert_eq!(given_back, [(7, input[7].clone()), (9, input[9].clone())]);
    assert!(matches!(report.not_accepted[0].error, PutError::NotSerializable(_)));
    assert!(matches!(report.not_accepted[1].error, PutError::TooLarge(_)));
}

#[tokio::test(start_paused = true)]
async fn put_all_waits_while_the_buffer_is_full() {
    let table = FakeTable::always(Reply::Store.after(SECOND));
    // As many calls are in flight from the start.
    let builder = table.store_builder().max_buffered_events(8).max_batch_events(1);
    let store = builder.start().await.unwrap();
    let start = clock::now();
    let mut input = texts(24).into_iter();
    let ticket = store.put_all(input.by_ref()).await;
    assert_eq!((clock::now() - start, input.len()), (SECOND * 2, 0));
    assert_eq!(ticket.await.stored, 24);
    assert_eq!(clock::now() - start, SECOND * 3);
}

#[tokio::test(start_paused = true)]
async fn put_all_gives_the_rest_back_when_the_store_closes() {
    let table = FakeTable::always(Reply::Store.after(SECOND));
    let store = table.store_builder().max_buffered_events(10).start().await.unwrap();
    let input = texts(10_000);
    let close = async {
        clock::wait(Duration::from_millis(500)).await;
        store.close(SECOND * 9).await.unwrap()
    };
    let (ticket, closed) = tokio::join!(store.put_all(input.clone()), close);
    let report = ticket.await;
    assert_eq!((report.stored, closed.stored), (10, 10));
    let rest: Vec<Text> = report.not_accepted.into_iter().map(|not| not.event).collect();
    assert_eq!(rest, input[10..]);
}

#[tokio::test(start_paused = true)]
async fn puts_that_need_not_wait_let_other_tasks_run() {
    let store = start(&FakeTable::new()).await;
    let sink = store.sink();
    assert!(stream::iter(texts(1_000)).map(Ok).forward(sink).now_or_never().is_none());
    assert!(store.stats().accepted < 200, "{store:?}");
    tokio::task::yield_now().await;
    let before = store.stats().accepted;
    assert!(store.put_all(texts(1_000)).now_or_never().is_none());
    assert!(store.stats().accepted - before < 200, "{store:?}");
}

#[tokio::test(start_paused = true)]
async fn put_all_of_nothing_is_complete() {
    let store = start(&FakeTable::new()).await;
    let mut ticket = store.put_all::<Text>([]).await;
    assert!((&mut ticket).now_or_never().unwrap().is_complete());
    assert_eq!(ticket.now_or_never().unwrap().stored, 0);
}

/// How an input of the property is made: a text, one that is too large, or one that cannot be serialised.
fn input() -> impl Strategy<Value = Vec<Text>> {
    let text = prop_oneof![
        100 => Just("text".to_owned()),
        1 => Just("x".repeat(410_000)),
        1 => Just(String::new()),
    ];
    let number = |(number, text): (usize, String)| match text.as_str() {
        "" => Text(text),
        _ => Text(format!("{number} {text}")),
    };
    prop::collection::vec(text, 0..300)
        .prop_map(move |texts| texts.into_iter().enumerate().map(number).collect())
}

fn paused(test: impl Future<Output = Result<(), TestCaseError>>) -> Result<(), TestCaseError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn put_all_names_every_event_once(input in input(), seed: u64, buffer in 1_usize..50) {
        watchdog::start();
        paused(async move {
            let table = FakeTable::seeded(seed, FaultRates::default());
            let builder = table.store_builder().max_buffered_events(buffer).event_deadline(SECOND);
            let store = builder.deterministic(seed).start().await.unwrap();
            let PutAllReport { stored, failed, not_accepted, .. } =
                store.put_all(input.clone()).await.await;
            let mut named: Vec<u64> = failed.iter().map(|failed| failed.index).collect();
            named.extend(not_accepted.iter().map(|not| not.index));
            prop_assert!(failed.is_sorted_by_key(|failed| failed.index));
            let distinct: BTreeSet<u64> = named.iter().copied().collect();
            prop_assert_eq!(distinct.len(), named.len());
            prop_assert_eq!(stored as usize + named.len(), input.len());
            for failed in &failed {
                let body = serde_json::to_string(&input[failed.index as usize]).unwrap();
                prop_assert_eq!(&*failed.error.event().unwrap().body(), body.as_str());
            }
            for not in &not_accepted {
                prop_assert_eq!(&not.event, &input[not.index as usize]);
            }
            let rows = self::stored(&table);
            for (index, text) in input.iter().enumerate().filter(|(index, _)| !distinct.contains(&(*index as u64))) {
                prop_assert!(rows.contains(&text.0), "event {} is missing", index);
            }
            Ok(())
        })?;
    }

    #[test]
    fn sink_names_every_event_that_is_not_stored(input in input(), seed: u64, buffer in 1_usize..50) {
        watchdog::start();
        paused(async move {
            let table = FakeTable::seeded(seed, FaultRates::default());
            let builder = table.store_builder().max_buffered_events(buffer).event_deadline(SECOND);
            let store = builder.deterministic(seed).start().await.unwrap();
            let (mut sink, mut named) = (store.sink(), Vec::new());
            for text in input.clone() {
                // An error of an earlier event leaves this one with the caller.
                while let Err(error) = poll_fn(|context| sink.poll_ready_unpin(context)).await {
                    named.push(error.index());
                }
                if let Err(error) = sink.start_send_unpin(text) {
                    named.push(error.index());
                }
            }
            while let Err(error) = sink.close().await {
                named.push(error.index());
            }
            let distinct: BTreeSet<u64> = named.iter().copied().collect();
            prop_assert_eq!(distinct.len(), named.len());
            let rows = stored(&table);
            for (index, text) in input.iter().enumerate().filter(|(index, _)| !distinct.contains(&(*index as u64))) {
                prop_assert!(rows.contains(&text.0), "event {} is missing", index);
            }
            prop_assert_eq!(store.stats().stored as usize + named.len(), input.len());
            Ok(())
        })?;
    }
}

/// The number of tickets that a sink holds, as its `Debug` shows it.
fn unsettled(sink: &EventSink<u32>) -> usize {
    let shown = format!("{sink:?}");
    let (_, rest) = shown.split_once("unsettled: ").unwrap();
    rest.split_once(',').unwrap().0.parse().unwrap()
}

/// Feeds a sink without a pause, on a thread beside that of the worker. Returns the most tickets that it has held.
async fn most_tickets(events: u32, max_buffered_events: usize) -> usize {
    let table = FakeTable::new();
    let builder = table.store_builder().max_buffered_events(max_buffered_events);
    let store = builder.linger(Duration::ZERO).start().await.unwrap();
    let feed = async move {
        let (mut sink, mut most) = (store.sink(), 0);
        for number in 0..events {
            poll_fn(|context| sink.poll_ready_unpin(context)).await.unwrap();
            sink.start_send_unpin(number).unwrap();
            most = most.max(unsettled(&sink));
        }
        sink.flush().await.unwrap();
        assert_eq!(unsettled(&sink), 0);
        most
    };
    tokio::spawn(feed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sink_holds_no_more_tickets_than_the_buffer_events() {
    watchdog::start();
    let most = most_tickets(50_000, 100).await;
    assert!((50..=100).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn sink_drops_answered_tickets_behind_a_slow_one() {
    let table = FakeTable::scripted([Reply::Hang]);
    let builder = table.store_builder().max_batch_events(1).attempt_timeout(SECOND * 60);
    let store = builder.event_deadline(SECOND * 100).linger(Duration::ZERO).start().await.unwrap();
    let mut sink = store.sink();
    let mut most = 0;
    for number in 0..2_000 {
        sink.feed(number).await.unwrap();
        most = most.max(unsettled(&sink));
        clock::wait(Duration::from_millis(1)).await;
    }
    assert!(most <= 3, "{most}");
    assert!(poll_fn(|context| Poll::Ready(sink.poll_flush_unpin(context))).await.is_pending());
}
