//! `WriteMode::Insert`: what happens to an event whose key another item has. The clock is paused.
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, ReadReply, Reply};
use dynamodb_eventstore::{
    BatchError, BatchReading, BatchReceipt, BatchWriter, Certainty, Event, EventKey, EventStore,
    EventStoreBuilder, FailureClass, FailureReason, OnDuplicate, Proof, ReadBack, StartError,
    WriteMode,
};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use support::watchdog;

const SECOND: Duration = Duration::from_secs(1);
const OTHER: &str = "\"another\"";

fn inserting(script: impl IntoIterator<Item = Reply>) -> FakeTable {
    watchdog::start();
    let table = FakeTable::scripted(script);
    table.set_write_mode(WriteMode::Insert);
    table
}

/// A store whose events wait until a test has put other items under their keys.
fn store_at(table: &FakeTable) -> EventStoreBuilder {
    table.store_builder().linger(SECOND).attempt_timeout(4 * SECOND).event_deadline(20 * SECOND)
}

fn bodies(table: &FakeTable) -> BTreeSet<String> {
    table.rows().into_values().collect()
}

// Another writer's item has the key.

#[tokio::test(start_paused = true)]
async fn event_with_taken_key_is_stored_under_new_one() {
    let table = inserting([]);
    let store = store_at(&table).start().await.unwrap();
    let (taken, free) = (store.put(&1).await.unwrap(), store.put(&2).await.unwrap());
    let keys = [*taken.key(), *free.key()];
    table.insert(&keys[0], OTHER);
    let stored = taken.await.unwrap();
    assert!(stored.key > keys[1], "the new key is later than those of both puts");
    assert_eq!((stored.attempts, stored.proof), (2, Proof::Acknowledged));
    assert_eq!(stored.history()[0].failure().unwrap().class(), FailureClass::Duplicate);
    assert_eq!(free.await.unwrap().key, keys[1]);
    assert_eq!(table.body(&keys[0]).unwrap(), OTHER);
    assert_eq!(table.body(&stored.key).unwrap(), "1");
    assert_eq!(table.rows().len(), 3);
    assert_eq!(store.stats().replaced_keys, 1);
    assert!(table.reads().is_empty(), "no earlier attempt can have stored the event");
}

#[tokio::test(start_paused = true)]
async fn drawn_writer_id_is_replaced_after_a_duplicate() {
    let writer_id = |key: &EventKey| key.as_str()[18..23].to_owned();
    for (assigned, is_replaced) in [(None, true), (Some(7), false)] {
        let table = inserting([]);
        let mut store = store_at(&table);
        if let Some(id) = assigned {
            store = store.writer_id(id);
        }
        let store = store.start().await.unwrap();
        let ticket = store.put(&1).await.unwrap();
        let key = *ticket.key();
        table.insert(&key, OTHER);
        let stored = ticket.await.unwrap();
        assert_eq!(writer_id(&stored.key) != writer_id(&key), is_replaced);
    }
}

#[tokio::test(start_paused = true)]
async fn duplicate_fails_as_not_stored_with_on_duplicate_fail() {
    let table = inserting([]);
    let store = store_at(&table).on_duplicate(OnDuplicate::Fail).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    let key = *ticket.key();
    table.insert(&key, OTHER);
    let error = ticket.await.unwrap_err();
    assert_eq!((error.key(), error.certainty()), (&key, Certainty::NotStored));
    assert_eq!(error.reason(), FailureReason::DuplicateKey);
    let message = error.to_string();
    assert!(message.contains("another item has its key"), "{message}");
    assert!(message.ends_with("put its body as a new event, as the other one has its key"));
    assert_eq!(bodies(&table), BTreeSet::from([OTHER.to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn inserting_stores_with_equal_ids_and_clocks_lose_nothing() {
    const EVENTS: usize = 10_000;
    /// Runs two stores that make the same keys. Returns the events that are found under the keys in their answers, the
    /// rows of the table, and how many keys were replaced.
    async fn run(mode: WriteMode) -> (BTreeSet<String>, BTreeMap<String, String>, u64) {
        watchdog::start();
        let table = FakeTable::new();
        table.set_write_mode(mode);
        let mut stores = Vec::new();
        for _ in 0..2 {
            let store = table.store_builder().deterministic(1).writer_id(7);
            stores.push(store.start().await.unwrap());
        }
        let put = |writer: usize| {
            let store: &EventStore = &stores[writer];
            async move {
                let mut tickets = Vec::new();
                for number in 0..EVENTS {
                    tickets.push(store.put(&[writer, number]).await.unwrap());
                }
                let answers = join_all(tickets).await;
                answers.into_iter().map(|answer| answer.unwrap().key).collect::<Vec<_>>()
            }
        };
        let (first, second) = futures::join!(put(0), put(1));
        let rows = table.rows();
        let of = |writer: usize, keys: Vec<EventKey>| {
            let row = |(number, key): (usize, EventKey)| {
                let body = format!("[{writer},{number}]");
                (rows.get(key.as_str()) == Some(&body)).then_some(body)
            };
            keys.into_iter().enumerate().filter_map(row).collect::<Vec<_>>()
        };
        let found = of(0, first).into_iter().chain(of(1, second)).collect();
        (found, rows.clone(), stores.iter().map(|store| store.stats().replaced_keys).sum())
    }
    let (found, rows, replaced) = run(WriteMode::Insert).await;
    assert_eq!((found.len(), rows.len()), (2 * EVENTS, 2 * EVENTS));
    assert!(replaced >= EVENTS as u64, "{replaced}");
    let (found, rows, _) = run(WriteMode::Put).await;
    assert_eq!((found.len(), rows.len()), (EVENTS, EVENTS), "half of the events were overwritten");
}

// The item may be the event itself.

#[tokio::test(start_paused = true)]
async fn event_stored_by_a_lost_attempt_is_recognised() {
    for lost in [Reply::StoreThenFail, Reply::StoreThenLoseAnswer, Reply::StoreThenHang] {
        let table = inserting([lost]);
        let store = store_at(&table).start().await.unwrap();
        let ticket = store.put(&1).await.unwrap();
        let key = *ticket.key();
        let stored = ticket.await.unwrap();
        assert_eq!((stored.key, stored.proof, stored.attempts), (key, Proof::ReadBack, 2));
        assert_eq!((table.rows().len(), table.reads().len()), (1, 1));
        assert_eq!(store.stats().replaced_keys, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn late_insert_of_a_lost_attempt_finds_the_key_taken() {
    let table = inserting([Reply::HangThenStore(6 * SECOND)]);
    let store = store_at(&table).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    let key = *ticket.key();
    table.insert(&key, OTHER);
    let stored = ticket.await.unwrap();
    assert_ne!(stored.key, key);
    support::clock::wait(10 * SECOND).await;
    assert_eq!(table.body(&key).unwrap(), OTHER);
    assert_eq!(table.rows().len(), 2, "the event is stored once");
}

#[tokio::test(start_paused = true)]
async fn stored_event_that_is_put_again_is_found() {
    let table = inserting([]);
    let store = store_at(&table).start().await.unwrap();
    let first = store.put(&1).await.unwrap().await.unwrap();
    let again = store.put_event(Event::new(first.key, "1").unwrap()).await.unwrap();
    let stored = again.await.unwrap();
    assert_eq!((stored.key, stored.proof), (first.key, Proof::ReadBack));
    assert_eq!(table.rows().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn duplicate_that_cannot_be_read_is_maybe_stored() {
    let table = inserting([Reply::StoreThenFail]);
    table.reply_to_reads_from_now_on(ReadReply::Deny);
    let store = store_at(&table).start().await.unwrap();
    let error = store.put(&1).await.unwrap().await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert_eq!(error.reason(), FailureReason::DuplicateKey);
    assert!(matches!(error.read_back(), Some(ReadBack::Failed(_))));
    assert!(error.to_string().contains("grant dynamodb:BatchGetItem"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn uncertain_duplicate_is_read_without_read_back() {
    let table = inserting([Reply::StoreThenFail]);
    let store = store_at(&table).read_back(false).start().await.unwrap();
    let stored = store.put(&1).await.unwrap().await.unwrap();
    assert_eq!((stored.proof, table.reads().len()), (Proof::ReadBack, 1));
}

#[tokio::test(start_paused = true)]
async fn uncertain_duplicate_is_read_until_the_deadline_of_its_event() {
    let table = inserting([Reply::StoreThenFail]);
    table.reply_to_reads_from_now_on(ReadReply::Fail(FailureClass::Throttled));
    let store = store_at(&table).event_deadline(60 * SECOND).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    support::clock::wait(50 * SECOND).await;
    table.reply_to_reads_from_now_on(ReadReply::Read);
    assert_eq!(ticket.await.unwrap().proof, Proof::ReadBack);
}

// Events that were put before.

#[tokio::test(start_paused = true)]
async fn event_put_again_under_its_old_key_is_stored_once() {
    let table = inserting([]);
    let store = store_at(&table).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    // A program may keep the event with this key, to put it again after a crash.
    let event = Event::new(*ticket.key(), "1").unwrap();
    table.insert(event.key(), OTHER);
    ticket.await.unwrap();
    for _ in 0..3 {
        let again = store.put_event(event.clone()).await.unwrap();
        let error = again.await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::DuplicateKey);
        assert_eq!(error.certainty(), Certainty::MaybeStored, "it is stored, under another key");
        assert!(error.to_string().contains("stored it under a new key"), "{error}");
    }
    assert_eq!(table.rows().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn failed_event_put_again_under_taken_key_is_maybe_stored() {
    let table = inserting([Reply::Hang]);
    let store = store_at(&table).max_attempts(1).start().await.unwrap();
    let event = Event::new("20130927T005240652508858176".parse().unwrap(), "1").unwrap();
    table.insert(event.key(), OTHER);
    let error = store.put_event(event).await.unwrap().await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert_eq!(error.reason(), FailureReason::DuplicateKey);
    assert!(error.to_string().contains("stored it under a new key"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn largest_body_under_a_short_taken_key_fails() {
    let table = inserting([]);
    let store = store_at(&table).start().await.unwrap();
    let key: EventKey = "20130927T0052406525088".parse().unwrap();
    let event = Event::new(key, "1".repeat(409_600 - 7 - key.as_str().len())).unwrap();
    table.insert(&key, OTHER);
    let ticket = store.put_again(event, Certainty::NotStored).await.unwrap();
    let error = ticket.await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::DuplicateKey);
    assert_eq!(error.certainty(), Certainty::NotStored);
}

/// Finds every key taken, after a millisecond.
struct Taken;

impl BatchWriter for Taken {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        async move {
            support::clock::wait(Duration::from_millis(1)).await;
            Ok(events.iter().fold(BatchReceipt::all_processed(), |receipt, event| {
                let (class, certainty) = (FailureClass::Duplicate, Certainty::NotStored);
                let failure = BatchError::new(class, certainty, "taken");
                receipt.with_failed(event.key().as_str(), failure)
            }))
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn event_whose_new_keys_are_taken_has_limited_attempts() {
    watchdog::start();
    let store = EventStore::builder().batch_writer(Taken).write_mode(WriteMode::Insert);
    let store = store.max_attempts(5).start().await.unwrap();
    let error = store.put(&1).await.unwrap().await.unwrap_err();
    assert_eq!((error.reason(), error.attempts()), (FailureReason::Attempts, 5));
    assert!(error.elapsed() > Duration::from_millis(50), "it had no backoff");
    assert_eq!(error.certainty(), Certainty::NotStored);
}

/// Deletes the items that the store reads, just before each read.
#[derive(Clone)]
struct Deleting(FakeTable);

impl BatchWriter for Deleting {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        self.0.write_batch(events)
    }

    fn read_batch<'a>(
        &'a self,
        keys: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        async move {
            keys.iter().for_each(|key| self.0.remove(key));
            self.0.read_batch(keys).await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn key_that_is_free_again_is_used() {
    let table = inserting([Reply::server_error()]);
    let store = store_at(&table).batch_writer(Deleting(table.clone())).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    let key = *ticket.key();
    table.insert(&key, OTHER);
    let stored = ticket.await.unwrap();
    assert_eq!((stored.key, stored.attempts), (key, 3));
    assert_eq!(table.body(&key).unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn lost_event_whose_key_another_has_is_not_stored() {
    let table = inserting([Reply::Hang]);
    let store = store_at(&table).max_attempts(1).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    table.insert(ticket.key(), OTHER);
    let error = ticket.await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::NotStored, "an insert replaces nothing");
    assert!(matches!(error.read_back(), Some(ReadBack::OtherBody { .. })));
}

// The end of the store.

#[tokio::test(start_paused = true)]
async fn duplicate_in_flight_at_close_deadline_fails_with_that_reason() {
    let table = inserting([Reply::Store.after(SECOND)]);
    let store = table.store_builder().linger(Duration::ZERO).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    table.insert(ticket.key(), OTHER);
    tokio::task::yield_now().await;
    let report = store.close(SECOND / 2).await.unwrap();
    assert_eq!((report.stored, report.failed), (0, 1));
    let error = ticket.await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::CloseDeadline);
}

// Settings.

#[tokio::test]
async fn table_must_be_a_name() {
    watchdog::start();
    for table in ["arn:aws:dynamodb:eu-central-1:123456789012:table/events", "a\"; DELETE", "ab"] {
        let store = EventStore::builder().table(table).write_mode(WriteMode::Insert);
        let Err(StartError::Config(error)) = store.start().await else { panic!("{table}") };
        assert!(error.to_string().contains("must be a table's name with"), "{error}");
    }
}

#[tokio::test]
async fn on_duplicate_needs_write_mode_insert() {
    watchdog::start();
    let store = FakeTable::new().store_builder().on_duplicate(OnDuplicate::Fail);
    let Err(StartError::Config(error)) = store.start().await else { panic!("it started") };
    assert!(error.to_string().contains("must not be set without `WriteMode::Insert`"), "{error}");
}
