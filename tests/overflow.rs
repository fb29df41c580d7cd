//! Events for which the buffer has no room wait on disk, in the journal.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, FaultRates, Reply};
use dynamodb_eventstore::{
    Certainty, Event, EventKey, EventStore, EventStoreBuilder, FailureReason, FlushError, Journal,
    JournalError, PutError, PutTicket, Settled, SyncPolicy,
};
use futures::FutureExt;
use tempfile::TempDir;

use support::{clock, watchdog};

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

/// Waits until the thread of a dropped store has unlocked its journal.
async fn unlocked(directory: &Path) {
    while Journal::open(directory).await.is_err() {
        tokio::task::yield_now().await;
    }
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
    unlocked(folder.path()).await;
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
        unlocked(folder.path()).await;
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

/// The journal's first file, and the offset of the key in an event's record.
fn place(directory: &Path, key: &EventKey) -> (fs::File, u64) {
    let path = directory.join("0000000001.journal");
    let (content, key) = (fs::read(&path).unwrap(), key.as_str().as_bytes());
    let at = content.windows(key.len()).position(|bytes| bytes == key).unwrap();
    (fs::File::options().read(true).write(true).open(path).unwrap(), at as u64)
}

/// Damages a byte of a file, or repairs one that is damaged.
fn flip((file, at): &(fs::File, u64)) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, *at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], *at).unwrap();
}

/// Damages the record of an event.
fn damage(directory: &Path, key: &EventKey) {
    flip(&place(directory, key));
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
    damage(folder.path(), first[50].key());
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
async fn flush_and_close_count_an_event_that_cannot_be_read() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = table.store_builder().attempt_timeout(SECOND / 10).max_batches_in_flight(1);
    let store = start(store, folder.path()).await;
    let tickets = put_numbers(&store, 100);
    journalled(&tickets).await;
    let last = store.try_put(&100).unwrap();
    damage(folder.path(), tickets[50].key());
    drop((tickets, last));
    table.reply_from_now_on(Reply::Store);
    let flushed = store.flush().await.unwrap();
    assert_eq!((flushed.stored, flushed.failed), (100, 1));
    let report = store.close(SECOND).await.unwrap();
    assert_eq!((report.stored, report.failed), (100, 1));
    assert_eq!((report.errors.len(), report.not_listed, report.left_on_disk), (0, 1, 0));
}

/// An event that cannot be read stays in the journal, and is put again when it can be.
async fn unreadable_event_is_put_later(
    store: &EventStore,
    folder: &Path,
    table: &FakeTable,
    key: EventKey,
) {
    let record = place(folder, &key);
    flip(&record);
    table.reply_from_now_on(Reply::Store);
    assert_eq!(store.flush().await.unwrap().failed, 1);
    assert_eq!((store.stats().failed, store.stats().pending), (1, 0));
    assert_eq!(table.body(&key), None);
    flip(&record);
    tokio::time::pause();
    for _ in 0..10_000 {
        clock::wait(SECOND).await;
        if table.body(&key).is_some() {
            return;
        }
    }
    panic!("the event is not put again");
}

#[tokio::test]
async fn event_that_can_be_read_later_is_put_later() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = table.store_builder().attempt_timeout(SECOND / 10).max_batches_in_flight(1);
    let store = start(store, folder.path()).await;
    let tickets = put_numbers(&store, 100);
    journalled(&tickets).await;
    let _last = store.try_put(&100).unwrap();
    unreadable_event_is_put_later(&store, folder.path(), &table, *tickets[50].key()).await;
}

#[tokio::test]
async fn event_without_a_ticket_that_can_be_read_later_is_put_later() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = table.store_builder().attempt_timeout(SECOND / 10).max_batches_in_flight(1);
    let store = start(store, folder.path()).await;
    let tickets = put_numbers(&store, 5_000);
    journalled(&tickets).await;
    // An event that the first read from the disk does not reach.
    let key = *tickets[4_900].key();
    drop(tickets);
    // Enough that the events without tickets are merged.
    drop(put_numbers(&store, 5_000));
    unreadable_event_is_put_later(&store, folder.path(), &table, key).await;
}

#[tokio::test]
async fn waiting_event_that_was_put_before_stays_maybe_stored() {
    let (folder, table) = (folder(), FakeTable::always(Reply::throttle()));
    let store = table.store_builder().event_deadline(SECOND / 5).read_back(false);
    let store = start(store, folder.path()).await;
    let tickets = put_numbers(&store, BUFFERED as u64);
    let again = store.put_event(Event::new(key(), "1").unwrap()).await.unwrap();
    assert_eq!(store.stats().waiting_on_disk, 1);
    for ticket in tickets {
        assert_eq!(ticket.await.unwrap_err().certainty(), Certainty::NotStored);
    }
    let error = again.await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::Deadline);
    assert_eq!(error.certainty(), Certainty::MaybeStored);
}

#[tokio::test]
async fn earliest_deadline_of_close_counts_for_waiting_events() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = start(table.store_builder(), folder.path()).await;
    let tickets = put_numbers(&store, 100);
    journalled(&tickets).await;
    let mut first = Box::pin(store.close(1_000 * SECOND));
    for _ in 0..10 {
        // The loader waits for the first deadline.
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    let (first, second, third) =
        tokio::join!(first, store.close(SECOND / 10), store.close(2_000 * SECOND));
    for report in [first, second, third] {
        assert_eq!(report.unwrap().left_on_disk, 100 - BUFFERED as u64);
    }
}

#[tokio::test]
async fn closing_store_refuses_puts_although_the_journal_is_full() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let journal = Journal::options().max_bytes(4 * 1024 * 1024).open(folder.path()).await.unwrap();
    let store = table.store_builder().max_buffered_events(1).journal(journal);
    let store = store.start().await.unwrap();
    let body = "x".repeat(400_000);
    while let Ok(ticket) = store.try_put(&body) {
        drop(ticket);
    }
    let mut earlier = Box::pin(store.put(&body));
    assert!(futures::poll!(&mut earlier).is_pending());
    let mut close = Box::pin(store.close(1_000 * SECOND));
    assert!(futures::poll!(&mut close).is_pending());
    assert!(matches!(earlier.now_or_never(), Some(Err(PutError::Closed))));
    assert!(matches!(store.put(&body).now_or_never(), Some(Err(PutError::Closed))));
    assert!(matches!(store.try_put(&body), Err(PutError::Closed)));
}

#[tokio::test]
async fn flush_does_not_pass_over_events_left_on_disk() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = start(table.store_builder(), folder.path()).await;
    let tickets = put_numbers(&store, 100);
    journalled(&tickets).await;
    let (flushed, closed) = tokio::join!(store.flush(), store.close(SECOND / 10));
    assert!(matches!(flushed, Err(FlushError::Closed)), "{flushed:?}");
    assert_eq!(closed.unwrap().left_on_disk, 100 - BUFFERED as u64);
}

/// Starts a store whose journal cannot be written any more: its first segment is full, and its directory is gone.
async fn start_with_broken_journal(
    store: EventStoreBuilder,
    folder: TempDir,
    interval: Duration,
) -> EventStore {
    let journal = Journal::options().segment_bytes(64 * 1024).sync(SyncPolicy::Every(interval));
    let journal = journal.open(folder.path()).await.unwrap();
    let store = store.max_buffered_events(BUFFERED).journal(journal).start().await.unwrap();
    let first = store.try_put(&"x".repeat(70_000)).unwrap();
    first.journalled().await.unwrap();
    folder.close().unwrap();
    store
}

#[tokio::test]
async fn waiting_events_that_cannot_be_written_are_sent_from_memory() {
    let table = FakeTable::always(Reply::Hang);
    let store = table.store_builder().attempt_timeout(SECOND / 10).max_batches_in_flight(1);
    let store = start_with_broken_journal(store, folder(), SECOND / 10).await;
    let mut tickets = put_numbers(&store, 100);
    for ticket in &tickets {
        assert!(matches!(ticket.journalled().await, Err(JournalError::Io { .. })));
    }
    // After a second another put is tried.
    let last = loop {
        match store.try_put(&100) {
            Ok(ticket) => break ticket,
            Err(error) => assert!(matches!(error, PutError::Journal(JournalError::Io { .. }))),
        }
        tokio::task::yield_now().await;
    };
    tickets.push(last);
    table.reply_from_now_on(Reply::Store);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(store.flush().await.unwrap().stored, 102);
    assert!(store.close(SECOND).await.unwrap().is_complete());
}

#[tokio::test]
async fn close_lists_events_that_the_journal_may_not_keep() {
    let table = FakeTable::always(Reply::Hang);
    let store = start_with_broken_journal(table.store_builder(), folder(), 60 * SECOND).await;
    drop(put_numbers(&store, 100));
    let report = store.close(Duration::ZERO).await.unwrap();
    assert_eq!((report.failed, report.left_on_disk), (101, 0));
    assert_eq!(report.errors.len(), 101);
    assert!(report.errors.iter().all(|error| error.event().is_some()));
}

#[tokio::test]
async fn events_without_tickets_left_on_disk_count_as_failed() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let store = start(table.store_builder(), folder.path()).await;
    for number in 0..20_000_u64 {
        drop(store.put(&number).await.unwrap());
    }
    let report = store.close(Duration::ZERO).await.unwrap();
    let stats = store.stats();
    assert_eq!((stats.accepted, stats.failed, stats.pending), (20_000, 20_000, 0));
    assert_eq!(report.failed, 20_000);
    assert_eq!(report.left_on_disk + report.errors.len() as u64 + report.not_listed, 20_000);
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
