//! Events for which the buffer has no room wait on disk, in the journal.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, FaultRates, Reply};
use dynamodb_eventstore::{
    Certainty, Event, EventKey, EventStore, EventStoreBuilder, FailureReason, Journal,
    JournalError, PutError, PutTicket, Settled,
};
use futures::FutureExt;
use tempfile::TempDir;

use support::watchdog;

const SECOND: Duration = Duration::from_secs(1);

/// Room in the buffer of these tests, in events.
const BUFFERED: usize = 10;

fn folder() -> TempDir {
    watchdog::start();
    tempfile::tempdir().unwrap()
}

/// Starts a store with a small buffer.
async fn start(store: EventStoreBuilder, directory: &Path) -> EventStore {
    let journal = Journal::open(directory).await.unwrap();
    store.max_buffered_events(BUFFERED).journal(journal).start().await.unwrap()
}

/// Puts the numbers from 0 on, without waiting.
fn put_numbers(store: &EventStore, numbers: u64) -> Vec<PutTicket> {
    (0..numbers).map(|number| store.try_put(&number).unwrap()).collect()
}

async fn journalled(tickets: &[PutTicket]) {
    for ticket in tickets {
        ticket.journalled().await.unwrap();
    }
}

/// The bodies of the stored events, in the order of their first calls.
fn stored_in_order(table: &FakeTable) -> Vec<String> {
    let keys = table.calls().into_iter().flat_map(|call| call.keys);
    keys.filter_map(|key| table.body(&key.parse().unwrap())).collect()
}

fn numbers(count: u64) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().all(|entry| entry.unwrap().file_name() == "lock")
}

#[tokio::test]
async fn puts_do_not_wait_while_the_table_does_not_answer() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = start(table.store_builder(), folder.path()).await;
    let tickets = put_numbers(&store, 1_000);
    journalled(&tickets).await;
    let stats = store.stats();
    assert_eq!((stats.accepted, stats.pending), (1_000, 1_000));
    assert_eq!(stats.waiting_on_disk, 1_000 - BUFFERED as u64);
    assert!(stats.journal_bytes > 1_000 * 40, "{stats:?}");
}

#[tokio::test]
async fn waiting_events_are_sent_in_their_order() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = table.store_builder().attempt_timeout(SECOND / 10).max_batches_in_flight(1);
    let store = start(store, folder.path()).await;
    let tickets = put_numbers(&store, 10_000);
    journalled(&tickets).await;
    table.reply_from_now_on(Reply::Store);
    let keys: Vec<EventKey> = tickets.iter().map(|ticket| *ticket.key()).collect();
    for (ticket, key) in tickets.into_iter().zip(&keys) {
        assert_eq!(ticket.await.unwrap().key, *key);
    }
    let mut sent = stored_in_order(&table);
    // The first events were sent once while the table did not answer.
    sent.drain(..sent.len() - 10_000);
    assert_eq!(sent, numbers(10_000));
    assert_eq!(store.stats().waiting_on_disk, 0);
    assert!(store.close(SECOND).await.unwrap().is_complete());
    assert!(is_empty(folder.path()));
}

#[tokio::test]
async fn event_put_after_waiting_ones_does_not_overtake_them() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Store.after(SECOND / 100)));
    let store = start(table.store_builder().max_batches_in_flight(1), folder.path()).await;
    let mut tickets = Vec::new();
    for number in 0..500 {
        tickets.push(store.put(&number).await.unwrap());
        tokio::task::yield_now().await;
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(stored_in_order(&table), numbers(500));
}

#[tokio::test]
async fn full_journal_delays_put_and_refuses_try_put() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let journal = Journal::options().max_bytes(4 * 1024 * 1024).segment_bytes(64 * 1024);
    let journal = journal.open(folder.path()).await.unwrap();
    let store = table.store_builder().max_buffered_events(BUFFERED).attempt_timeout(SECOND / 10);
    let store = store.journal(journal).start().await.unwrap();
    let body = "x".repeat(10_000);
    let mut tickets = Vec::new();
    let refused = loop {
        match store.try_put(&body) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, PutError::Journal(JournalError::Full { .. })), "{refused}");
    assert!(tickets.len() > 400 && store.put(&body).now_or_never().is_none());
    table.reply_from_now_on(Reply::Store);
    tickets.push(store.put(&body).await.unwrap());
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn journal_without_overflow_leaves_puts_waiting_for_the_buffer() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let journal = Journal::options().overflow(false).open(folder.path()).await.unwrap();
    let store = table.store_builder().max_buffered_events(BUFFERED).journal(journal);
    let store = store.start().await.unwrap();
    let _tickets = put_numbers(&store, BUFFERED as u64);
    assert!(matches!(store.try_put(&1), Err(PutError::Full { .. })));
    assert!(store.put(&1).now_or_never().is_none());
}

#[tokio::test]
async fn flush_waits_for_events_on_disk() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Store.after(SECOND / 1_000)));
    let store = start(table.store_builder(), folder.path()).await;
    drop(put_numbers(&store, 2_000));
    assert!(store.stats().waiting_on_disk > 0);
    let report = store.flush().await.unwrap();
    assert_eq!((report.stored, report.failed), (2_000, 0));
    assert_eq!(table.rows().len(), 2_000);
}

#[tokio::test]
async fn close_sends_events_on_disk_until_its_deadline() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Store.after(SECOND / 1_000)));
    let store = start(table.store_builder(), folder.path()).await;
    let tickets = put_numbers(&store, 2_000);
    let (closed, also_closed) = tokio::join!(store.close(60 * SECOND), store.close(50 * SECOND));
    let report = closed.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.stored, also_closed.unwrap().stored), (2_000, 2_000));
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert!(is_empty(folder.path()));
}

#[tokio::test]
async fn closing_store_accepts_no_event_while_others_wait() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = start(table.store_builder(), folder.path()).await;
    drop(put_numbers(&store, 100));
    let mut close = Box::pin(store.close(SECOND));
    assert!(futures::poll!(&mut close).is_pending());
    assert!(matches!(store.try_put(&1), Err(PutError::Closed)));
    assert!(matches!(store.put(&1).await, Err(PutError::Closed)));
    assert!(matches!(
        store.put_event(Event::new(key(), "1").unwrap()).await,
        Err(PutError::Closed)
    ));
    assert_eq!(close.await.unwrap().failed, 100);
}

fn key() -> EventKey {
    "20130927T005240652508858176".parse().unwrap()
}

#[tokio::test]
async fn events_on_disk_at_close_deadline_go_to_next_store() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = start(table.store_builder(), folder.path()).await;
    let tickets = put_numbers(&store, 100);
    let earlier = store.put_event(Event::new(key(), "\"earlier\"").unwrap()).await.unwrap();
    let report = store.close(SECOND / 10).await.unwrap();
    assert_eq!((report.stored, report.failed), (0, 101));
    assert_eq!(report.left_on_disk, 101 - BUFFERED as u64);
    assert_eq!(report.errors.len(), BUFFERED);
    for ticket in tickets.into_iter().skip(BUFFERED) {
        let error = ticket.await.unwrap_err();
        assert_eq!(error.reason(), FailureReason::CloseDeadline);
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 0));
        assert!(error.is_journalled(), "{error}");
    }
    // An earlier put may have stored it.
    assert_eq!(earlier.await.unwrap_err().certainty(), Certainty::MaybeStored);
    let stats = store.stats();
    assert_eq!((stats.failed, stats.pending, stats.waiting_on_disk), (101, 0, 0));
    drop(store);

    table.reply_from_now_on(Reply::Store);
    let store = start(table.store_builder(), folder.path()).await;
    assert_eq!(store.replayed().await.unwrap().stored, 101);
    store.close(SECOND).await.unwrap();
    assert_eq!(table.rows().len(), 101);
}

#[tokio::test]
async fn dropping_the_last_handle_sends_the_waiting_events() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Store.after(SECOND / 1_000)));
    let store = start(table.store_builder(), folder.path()).await;
    let tickets = put_numbers(&store, 1_000);
    drop(store);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    while Journal::open(folder.path()).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(is_empty(folder.path()));
}

#[test]
fn events_on_disk_when_runtime_ends_go_to_next_store() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let (store, tickets) = first.block_on(async {
        let store = start(table.store_builder(), folder.path()).await;
        let tickets = put_numbers(&store, 100);
        journalled(&tickets).await;
        (store, tickets)
    });
    first.shutdown_timeout(10 * SECOND);
    for ticket in tickets {
        let error = ticket.now_or_never().unwrap().unwrap_err();
        assert!(matches!(error.reason(), FailureReason::WorkerLost(_)) && error.is_journalled());
    }
    assert!(matches!(store.try_put(&1), Err(PutError::WorkerLost(_))));
    assert_eq!(store.stats().failed, 100);
    drop(store);
    table.reply_from_now_on(Reply::Store);
    runtime().block_on(async {
        let store = start(table.store_builder(), folder.path()).await;
        store.replayed().await.unwrap();
        store.close(SECOND).await.unwrap();
    });
    assert_eq!(table.rows().len(), 100);
}

#[tokio::test]
async fn events_whose_tickets_are_dropped_are_sent_from_disk() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = table.store_builder().attempt_timeout(SECOND / 10).max_batches_in_flight(1);
    let store = start(store, folder.path()).await;
    // Enough that runs of events without tickets are merged, with a ticket in between.
    let mut kept = Vec::new();
    for number in 0..20_000_u64 {
        let ticket = store.put(&number).await.unwrap();
        if number % 3_000 == 0 {
            kept.push(ticket);
        }
    }
    table.reply_from_now_on(Reply::Store);
    for ticket in kept {
        ticket.await.unwrap();
    }
    assert!(store.close(60 * SECOND).await.unwrap().is_complete());
    let bodies: Vec<String> = table.rows().into_values().collect();
    assert_eq!(bodies, numbers(20_000));
}

#[tokio::test]
async fn record_that_cannot_be_read_fails_its_event_only() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = table.store_builder().attempt_timeout(SECOND / 10).max_batches_in_flight(1);
    let store = start(store, folder.path()).await;
    let first = put_numbers(&store, 100);
    journalled(&first).await;
    // The next put finds that the records of the others are durable, and drops the events from memory.
    let last = store.try_put(&100).unwrap();
    let segment = folder.path().join("0000000001.journal");
    let mut content = fs::read(&segment).unwrap();
    let damaged = first[50].key().as_str().as_bytes();
    let at = content.windows(damaged.len()).position(|bytes| bytes == damaged).unwrap();
    content[at] ^= 1;
    fs::write(&segment, content).unwrap();
    table.reply_from_now_on(Reply::Store);
    for (number, ticket) in first.into_iter().enumerate() {
        match ticket.await {
            Ok(_) => assert_ne!(number, 50),
            Err(error) => {
                assert_eq!((number, error.reason()), (50, FailureReason::Unreadable));
                assert!(error.is_journalled() && error.certainty() == Certainty::NotStored);
            }
        }
    }
    last.await.unwrap();
    let report = store.close(SECOND).await.unwrap();
    assert_eq!((report.stored, report.failed), (100, 1));
}

#[tokio::test]
async fn hook_learns_of_each_waiting_event() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let settled: Arc<Mutex<BTreeMap<EventKey, bool>>> = Arc::default();
    let missed: Arc<AtomicU64> = Arc::default();
    let (learned, missed_events) = (Arc::clone(&settled), Arc::clone(&missed));
    let store = table.store_builder().on_settled(move |event| {
        let (key, is_stored) = match event {
            Settled::Stored(stored) => (&stored.key, true),
            Settled::Failed(error) => (error.key(), false),
            Settled::Missed { events, .. } => {
                missed_events.fetch_add(*events, Ordering::Relaxed);
                return;
            }
            _ => unreachable!(),
        };
        assert!(learned.lock().unwrap().insert(*key, is_stored).is_none());
    });
    let store = start(store, folder.path()).await;
    drop(put_numbers(&store, 10_000));
    store.close(SECOND / 10).await.unwrap();
    let settled = settled.lock().unwrap();
    assert!(!settled.values().any(|is_stored| *is_stored));
    assert_eq!(settled.len() as u64 + missed.load(Ordering::Relaxed), 10_000);
}

/// Many threads put into a small buffer, and the table fails calls at random.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_event_of_many_threads_is_settled_once() {
    for seed in 0..5 {
        let folder = folder();
        let latency = SECOND / 1_000..SECOND / 200;
        let table = FakeTable::seeded(
            seed,
            FaultRates { latency, throttled: 0.0, unprocessed: 0.0, ..FaultRates::default() },
        );
        let store = table.store_builder().attempt_timeout(SECOND / 50);
        let store = start(store, folder.path()).await;
        let puts = (0..8_u64).map(|thread| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut stored = BTreeMap::new();
                let mut tickets = Vec::new();
                for number in 0..200 {
                    let body = format!("\"{thread}-{number}\"");
                    let ticket = store.put_json(&body).await.unwrap();
                    // Some tickets are dropped.
                    if number % 3 > 0 {
                        tickets.push((body, ticket));
                    }
                }
                for (body, ticket) in tickets {
                    if let Ok(answer) = ticket.await {
                        stored.insert(answer.key.to_string(), body);
                    }
                }
                stored
            })
        });
        let puts: Vec<_> = puts.collect();
        let mut stored = BTreeMap::new();
        for put in puts {
            stored.extend(put.await.unwrap());
        }
        let report = store.close(60 * SECOND).await.unwrap();
        assert_eq!(report.stored + report.failed, 1_600, "seed {seed}");
        let stats = store.stats();
        assert_eq!((stats.accepted, stats.pending, stats.waiting_on_disk), (1_600, 0, 0));
        drop(store);
        // What is not stored is in the journal.
        table.reply_from_now_on(Reply::Store);
        let store = start(table.store_builder(), folder.path()).await;
        store.replayed().await.unwrap();
        store.close(60 * SECOND).await.unwrap();
        let rows = table.rows();
        assert_eq!(rows.len(), 1_600, "seed {seed}");
        assert!(stored.iter().all(|(key, body)| rows[key] == *body), "seed {seed}");
        assert!(is_empty(folder.path()), "seed {seed}");
    }
}
