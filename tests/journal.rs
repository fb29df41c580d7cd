//! The journal: accepted events survive their process, and are put again under their keys.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, Reply};
use dynamodb_eventstore::{
    Event, EventKey, EventStore, EventStoreBuilder, Journal, JournalError, OnDuplicate, Proof,
    PutError, SyncPolicy, WriteMode,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use support::endpoint::{Endpoint, OTHER_BODY, Reply as HttpReply, Script, Selector, TABLE};
use support::{clock, watchdog};

const SECOND: Duration = Duration::from_secs(1);

fn folder() -> TempDir {
    watchdog::start();
    tempfile::tempdir().unwrap()
}

async fn start(store: EventStoreBuilder, directory: &Path) -> EventStore {
    store.journal(Journal::open(directory).await.unwrap()).start().await.unwrap()
}

/// The files of the journal, without its lock.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.ends_with("lock")).collect()
}

/// Puts events that the table does not store, so that they stay in the journal.
async fn leave_events(directory: &Path, bodies: &[&str]) -> BTreeMap<String, String> {
    let store = start(FakeTable::always(Reply::Hang).store_builder(), directory).await;
    let mut left = BTreeMap::new();
    for body in bodies {
        let ticket = store.put_json(body).await.unwrap();
        ticket.journalled().await.unwrap();
        left.insert(ticket.key().to_string(), (*body).to_owned());
    }
    let report = store.close(Duration::ZERO).await.unwrap();
    assert!(report.errors.iter().all(|error| error.is_journalled()));
    left
}

#[tokio::test]
async fn unstored_event_is_put_again_under_its_key() {
    let (folder, table) = (folder(), FakeTable::new());
    let left = leave_events(folder.path(), &[r#"{"a":"\"1\""}"#, "2", "3"]).await;
    let journal = Journal::open(folder.path()).await.unwrap();
    assert_eq!(journal.report().unsettled, 3);
    let store = table.store_builder().journal(journal).start().await.unwrap();
    let report = store.replayed().await.unwrap();
    assert_eq!((report.found, report.stored, report.failed, report.left), (0, 3, 0, 0));
    assert_eq!(table.rows(), left);
    store.close(20 * SECOND).await.unwrap();
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn event_stored_without_an_answer_is_not_written_again() {
    let (folder, table) = (folder(), FakeTable::always(Reply::StoreThenHang));
    let store = start(table.store_builder(), folder.path()).await;
    let ticket = store.put(&1).await.unwrap();
    ticket.journalled().await.unwrap();
    // Wait until the call has begun.
    while table.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    store.close(Duration::ZERO).await.unwrap();
    table.reply_from_now_on(Reply::Store);
    let store = start(table.store_builder(), folder.path()).await;
    let report = store.replayed().await.unwrap();
    assert_eq!((report.found, report.stored), (1, 0));
    assert_eq!(table.calls().len(), 1);
}

#[tokio::test]
async fn event_does_not_replace_another_event_under_its_key() {
    let (folder, table) = (folder(), FakeTable::new());
    let left = leave_events(folder.path(), &["1", "2"]).await;
    let (taken, free) = (left.first_key_value().unwrap().0, left.last_key_value().unwrap().0);
    table.insert(&taken.parse().unwrap(), "another");
    let store = start(table.store_builder(), folder.path()).await;
    let report = store.replayed().await.unwrap();
    assert_eq!((report.found, report.stored, report.failed, report.left), (0, 1, 1, 0));
    assert_eq!((table.rows()[taken].as_str(), table.rows()[free].as_str()), ("another", "2"));
    store.close(SECOND).await.unwrap();
    let failed = fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let line: serde_json::Value = serde_json::from_str(failed.trim_end()).unwrap();
    assert_eq!((&line["key"], &line["body"]), (&taken.as_str().into(), &"1".into()));
}

#[tokio::test]
async fn stored_events_leave_no_file() {
    let (folder, table) = (folder(), FakeTable::new());
    let store = start(table.store_builder(), folder.path()).await;
    for number in 0..1_000 {
        drop(store.put(&number).await.unwrap());
    }
    assert!(store.close(20 * SECOND).await.unwrap().is_complete());
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn replayed_events_keep_their_order_before_new_keys() {
    let (folder, table) = (folder(), FakeTable::new());
    let left = leave_events(folder.path(), &["1", "2", "3"]).await;
    let store = start(table.store_builder(), folder.path()).await;
    let ticket = store.put(&4).await.unwrap();
    assert!(ticket.key().as_str() > left.last_key_value().unwrap().0.as_str());
    store.replayed().await.unwrap();
    ticket.await.unwrap();
    store.close(SECOND).await.unwrap();
    let bodies: Vec<String> = table.rows().into_values().collect();
    assert_eq!(bodies, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn new_keys_follow_a_key_of_a_fast_clock() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let ahead: EventKey = "29990101T000000000999990000".parse().unwrap();
    let store = start(table.store_builder(), folder.path()).await;
    let ticket = store.put_event(Event::new(ahead, "1").unwrap()).await.unwrap();
    ticket.journalled().await.unwrap();
    store.close(Duration::ZERO).await.unwrap();
    // The writer id is smaller than that of the key.
    let store = start(table.store_builder().writer_id(0), folder.path()).await;
    let next = *store.put(&2).await.unwrap().key();
    assert!(next > ahead, "{next}");
}

#[tokio::test]
async fn journal_that_is_in_use_names_its_process() {
    let folder = folder();
    let journal = Journal::open(folder.path()).await.unwrap();
    let error = Journal::open(folder.path()).await.unwrap_err();
    let JournalError::InUse { owner, .. } = &error else { panic!("{error}") };
    assert_eq!(*owner, Some(std::process::id()));
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())));
    drop(journal);
    Journal::open(folder.path()).await.unwrap();
}

#[tokio::test]
async fn closed_journal_can_be_opened_at_once() {
    let (folder, table) = (folder(), FakeTable::new());
    for number in 0..100 {
        let store = start(table.store_builder(), folder.path()).await;
        store.put(&number).await.unwrap().await.unwrap();
        store.close(SECOND).await.unwrap();
    }
    assert_eq!(table.rows().len(), 100);
}

#[tokio::test]
async fn invalid_event_is_kept_in_file_and_not_put_again() {
    let (folder, table) = (folder(), FakeTable::new());
    table.reject("\"bad\"");
    let store = start(table.store_builder(), folder.path()).await;
    let error = store.put("bad").await.unwrap().await.unwrap_err();
    assert!(!error.is_journalled(), "{error}");
    store.put("good").await.unwrap().await.unwrap();
    store.close(SECOND).await.unwrap();
    let failed = fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let line: serde_json::Value = serde_json::from_str(failed.trim_end()).unwrap();
    assert_eq!((&line["key"], &line["body"]), (&error.key().as_str().into(), &"\"bad\"".into()));
    assert_eq!(Journal::open(folder.path()).await.unwrap().report().unsettled, 0);
}

#[tokio::test]
async fn event_that_misses_its_deadline_stays_in_the_journal() {
    let (folder, table) = (folder(), FakeTable::always(Reply::throttle()));
    let store = table.store_builder().event_deadline(SECOND / 2).read_back(false);
    let store = start(store, folder.path()).await;
    let error = store.put(&1).await.unwrap().await.unwrap_err();
    assert!(error.is_journalled());
    assert!(error.to_string().contains("the journal keeps it"), "{error}");
    store.close(SECOND).await.unwrap();
    assert_eq!(Journal::open(folder.path()).await.unwrap().report().unsettled, 1);
}

#[tokio::test]
async fn torn_record_is_cut_off_and_reported_with_its_offset() {
    let folder = folder();
    let left = leave_events(folder.path(), &["1", "2"]).await;
    let segment = files(folder.path()).remove(0);
    let length = fs::metadata(&segment).unwrap().len();
    let mut torn = fs::read(&segment).unwrap();
    let start_of_last = torn.len() - 10;
    torn.extend_from_within(16..40);
    fs::write(&segment, &torn).unwrap();
    let journal = Journal::open(folder.path()).await.unwrap();
    let damage = &journal.report().torn[0];
    assert_eq!((damage.offset, damage.bytes, &damage.file), (length, 24, &segment));
    assert_eq!(journal.unsettled().count(), left.len());
    assert_eq!(fs::metadata(&segment).unwrap().len(), length);
    drop(journal);

    torn.truncate(start_of_last);
    fs::write(&segment, &torn).unwrap();
    let journal = Journal::open(folder.path()).await.unwrap();
    assert_eq!((journal.report().unsettled, journal.report().torn.len()), (1, 1));
}

#[tokio::test]
async fn damaged_record_is_set_aside_and_other_events_are_put() {
    let (folder, table) = (folder(), FakeTable::new());
    let left = leave_events(folder.path(), &["1", "2", "3"]).await;
    let segment = files(folder.path()).remove(0);
    let mut content = fs::read(&segment).unwrap();
    let record = (content.len() - 16) / 3;
    content[16 + record + record / 2] ^= 1;
    fs::write(&segment, content).unwrap();
    let journal = Journal::open(folder.path()).await.unwrap();
    assert_eq!(journal.report().damaged[0].offset, 16 + record as u64);
    assert_eq!(journal.report().damaged[0].bytes, record as u64);
    let store = table.store_builder().journal(journal).start().await.unwrap();
    assert_eq!(store.replayed().await.unwrap().stored, 2);
    assert!(table.rows().iter().all(|(key, body)| left[key] == *body));
    assert!(files(folder.path()).iter().any(|path| path.extension().unwrap() == "damaged"));
}

#[tokio::test]
async fn file_of_another_program_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("0000000001.journal");
    fs::write(&path, "a letter to somebody").unwrap();
    let error = Journal::open(folder.path()).await.unwrap_err();
    assert!(matches!(error, JournalError::Format { .. }), "{error}");
    assert_eq!(fs::read_to_string(path).unwrap(), "a letter to somebody");
}

#[tokio::test]
async fn full_journal_delays_puts_until_events_are_stored() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let options = Journal::options().max_bytes(4 * 1024 * 1024).segment_bytes(64 * 1024);
    let journal = options.open(folder.path()).await.unwrap();
    let store = table.store_builder().attempt_timeout(SECOND).journal(journal);
    let store = store.start().await.unwrap();
    let body = "x".repeat(400_000);
    let mut tickets = Vec::new();
    let full = loop {
        match store.try_put(&body) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, PutError::Journal(JournalError::Full { .. })), "{full}");
    assert_eq!(tickets.len(), 10);
    table.reply_from_now_on(Reply::Store);
    tickets.push(store.put(&body).await.unwrap());
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn journal_smaller_than_a_segment_gets_room_again() {
    let (folder, table) = (folder(), FakeTable::new());
    let journal = Journal::options().max_bytes(4 * 1024 * 1024).open(folder.path()).await.unwrap();
    let store = table.store_builder().journal(journal).start().await.unwrap();
    let body = "x".repeat(400_000);
    for _ in 0..30 {
        store.put(&body).await.unwrap().await.unwrap();
    }
}

#[tokio::test]
async fn put_waiting_for_journal_room_fails_at_close() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let journal = Journal::options().max_bytes(4 * 1024 * 1024).open(folder.path()).await.unwrap();
    let store = table.store_builder().journal(journal).start().await.unwrap();
    let body = "x".repeat(400_000);
    while let Ok(ticket) = store.try_put(&body) {
        drop(ticket);
    }
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.put(&body).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    store.close(Duration::ZERO).await.unwrap();
    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Err(PutError::Closed)), "{refused:?}");
}

#[test]
fn put_waiting_for_journal_fails_when_the_worker_is_lost() {
    let (folder, table) = (folder(), FakeTable::always(Reply::Hang));
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let options = Journal::options().max_bytes(4 * 1024 * 1024);
    let store = first.block_on(async {
        let journal = options.open(folder.path()).await.unwrap();
        table.store_builder().journal(journal).start().await.unwrap()
    });
    let body = "x".repeat(400_000);
    while let Ok(ticket) = store.try_put(&body) {
        drop(ticket);
    }
    let refused = second.block_on(async {
        let mut put = Box::pin(store.put(&body));
        assert!(futures::poll!(&mut put).is_pending());
        first.shutdown_background();
        put.await.map(drop)
    });
    assert!(matches!(refused, Err(PutError::WorkerLost(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn event_past_its_deadline_is_stored_when_the_table_recovers() {
    let (folder, table) = (folder(), FakeTable::always(Reply::throttle()));
    let store = table.store_builder().event_deadline(SECOND).read_back(false);
    let store = start(store, folder.path()).await;
    let error = store.put(&1).await.unwrap().await.unwrap_err();
    assert!(error.is_journalled() && table.rows().is_empty());
    table.reply_from_now_on(Reply::Store);
    // If a round of retries comes before the event's record is written, it does not find the event. So
    // several rounds may be needed.
    for _ in 0..10_000 {
        clock::wait(SECOND).await;
        if !table.rows().is_empty() {
            break;
        }
    }
    assert_eq!(table.body(error.key()).as_deref(), Some("1"));
    store.close(SECOND).await.unwrap();
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_closed_during_the_replay_loses_no_event() {
    let (folder, table) = (folder(), FakeTable::new());
    let bodies: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let left = leave_events(folder.path(), &bodies).await;
    for round in 0..20 {
        let store = start(table.store_builder(), folder.path()).await;
        for _ in 0..round * 100 {
            tokio::task::yield_now().await;
        }
        store.close(Duration::ZERO).await.unwrap();
    }
    let store = start(table.store_builder(), folder.path()).await;
    store.replayed().await.unwrap();
    store.close(SECOND).await.unwrap();
    assert_eq!(table.rows(), left);
}

#[tokio::test]
async fn store_without_a_journal_says_so() {
    let store = FakeTable::new().store_builder().start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    assert!(matches!(ticket.journalled().await, Err(JournalError::Missing)));
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let folder = folder();
    for (options, message) in [
        (Journal::options().sync(SyncPolicy::Every(Duration::ZERO)), "sync"),
        (Journal::options().max_bytes(1), "max_bytes"),
        (Journal::options().segment_bytes(1), "segment_bytes"),
    ] {
        let error = options.open(folder.path()).await.unwrap_err();
        assert!(
            matches!(error, JournalError::Config(_)) && error.to_string().contains(message),
            "{error}"
        );
    }
}

#[tokio::test]
async fn discarded_events_are_not_put_again() {
    let folder = folder();
    leave_events(folder.path(), &["1", "2"]).await;
    Journal::open(folder.path()).await.unwrap().discard().await.unwrap();
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(Journal::open(folder.path()).await.unwrap().report().unsettled, 0);
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_user_may_read_a_journal() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    let directory = folder.path().join("journal");
    leave_events(&directory, &["1"]).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert!(files(&directory).iter().all(|path| mode(path) == 0o600));
}

#[tokio::test]
async fn dropping_the_last_handle_finishes_and_unlocks_the_journal() {
    let (folder, table) = (folder(), FakeTable::new());
    let store = start(table.store_builder(), folder.path()).await;
    let ticket = store.put(&1).await.unwrap();
    drop(store);
    let stored = ticket.await.unwrap();
    assert_eq!(stored.proof, Proof::Acknowledged);
    // The journal's thread ends after the worker, and then unlocks the journal.
    while !files(folder.path()).is_empty() || Journal::open(folder.path()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn replayed_inserts_are_read_only_if_their_keys_are_taken() {
    let (folder, table) = (folder(), FakeTable::new());
    table.set_write_mode(WriteMode::Insert);
    let left = leave_events(folder.path(), &["1", "2", "3"]).await;
    let keys: Vec<EventKey> = left.keys().map(|key| key.parse().unwrap()).collect();
    table.insert(&keys[0], "another");
    table.insert(&keys[1], "2");
    // Without the read-back of failed events, too.
    let store = table.store_builder().on_duplicate(OnDuplicate::Fail).read_back(false);
    let store = start(store, folder.path()).await;
    let report = store.replayed().await.unwrap();
    assert_eq!((report.found, report.stored, report.failed, report.left), (1, 1, 1, 0));
    store.close(20 * SECOND).await.unwrap();
    let expected = ["another", "2", "3"].map(str::to_owned);
    assert_eq!(table.rows().into_values().collect::<Vec<_>>(), expected);
    let read: Vec<usize> = table.reads().iter().map(|read| read.keys.len()).collect();
    assert_eq!(read, [2]);
    let failed = fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let line: serde_json::Value = serde_json::from_str(failed.trim_end()).unwrap();
    assert_eq!((&line["key"], &line["body"]), (&keys[0].as_str().into(), &"1".into()));
}

#[tokio::test]
async fn journal_needs_duplicates_to_fail() {
    let folder = folder();
    let journal = Journal::open(folder.path()).await.unwrap();
    let store = FakeTable::new().store_builder().write_mode(WriteMode::Insert).journal(journal);
    let error = store.start().await.unwrap_err().to_string();
    assert!(
        error.contains("`on_duplicate` is NewKey; it must be `Fail` with a journal"),
        "{error}"
    );
}

// Killed processes.

const ENDPOINT: &str = "JOURNAL_TEST_ENDPOINT";
const DIRECTORY: &str = "JOURNAL_TEST_DIRECTORY";

/// The number of events for which the process has a buffer.
const BUFFERED: &str = "JOURNAL_TEST_BUFFERED";

/// Set for a process that inserts.
const INSERTS: &str = "JOURNAL_TEST_INSERTS";

/// This is not a test. `killed_writers_lose_no_event_and_store_none_twice` starts it as a process and
/// kills it. Until then it puts events, and prints the key of each that is journalled.
#[tokio::test]
#[ignore = "it runs until it is killed"]
async fn process_that_is_killed() {
    let (Ok(endpoint), Ok(directory)) = (std::env::var(ENDPOINT), std::env::var(DIRECTORY)) else {
        return;
    };
    let store = EventStore::builder()
        .table(TABLE)
        .region("us-east-1")
        .credentials("test", "test")
        .endpoint_url(endpoint)
        .attempt_timeout(SECOND);
    let buffered = std::env::var(BUFFERED).unwrap().parse().unwrap();
    let store = store.max_buffered_events(buffered);
    let store = with_mode(store, std::env::var_os(INSERTS).is_some());
    let store = start(store, Path::new(&directory)).await;
    for round in 0.. {
        let mut tickets = Vec::new();
        for number in 0..20 {
            let body = format!("\"{}-{round}-{number}\"", std::process::id());
            tickets.push((store.put_json(&body).await.unwrap(), body));
        }
        for (ticket, body) in tickets {
            if ticket.journalled().await.is_ok() {
                println!("journalled {} {body}", ticket.key());
            }
        }
    }
}

fn with_mode(store: EventStoreBuilder, inserts: bool) -> EventStoreBuilder {
    if !inserts {
        return store;
    }
    store.write_mode(WriteMode::Insert).on_duplicate(OnDuplicate::Fail)
}

fn spawn_writer(endpoint: &str, directory: &Path, inserts: bool, buffered: usize) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(BUFFERED, buffered.to_string());
    if inserts {
        command.env(INSERTS, "1");
    }
    command
        .args(["process_that_is_killed", "--exact", "--ignored", "--nocapture"])
        .env(ENDPOINT, endpoint)
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// How many processes are killed: 10, or as many as `JOURNAL_KILLS` says.
fn kills() -> u32 {
    std::env::var("JOURNAL_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_no_event_and_store_none_twice() {
    kill_writers(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_inserting_writers_store_every_event_exactly_once() {
    kill_writers(true).await;
}

/// Kills writers, whose keys another writer takes now and then if they insert.
async fn kill_writers(inserts: bool) {
    // There is no watchdog here, because many kills take longer than its limit.
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start(Script::of([])).await;
    let mut random = StdRng::seed_from_u64(1);
    let mut promised: BTreeMap<String, String> = BTreeMap::new();
    for _ in 0..kills() {
        let replies = (0..4).map(|_| match random.random_range(0..8) {
            0 if inserts => {
                let (places, code) = ((0..25).collect(), "ThrottlingError");
                HttpReply::Statements { places, code }
            }
            0 => HttpReply::Unprocessed(Selector::All),
            4 | 5 if inserts => HttpReply::Taken(vec![0, 3, 7], Box::new(HttpReply::Ok)),
            6 if inserts => {
                let lost = HttpReply::error(500, "InternalServerError").once_applied();
                HttpReply::Taken(vec![1, 4], Box::new(lost))
            }
            1 => HttpReply::error(500, "InternalServerError").once_applied(),
            2 => HttpReply::error(503, "ServiceUnavailable"),
            3 => HttpReply::Hang,
            _ => HttpReply::Ok,
        });
        endpoint.reply_to_next(replies.collect::<Vec<_>>());
        // With a small buffer, events wait on disk.
        let buffered = if random.random_bool(0.5) { 10_000 } else { 30 };
        let mut child = spawn_writer(&endpoint.url(), folder.path(), inserts, buffered);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let keys_before_the_end = random.random_range(0..300);
        let killed = tokio::task::spawn_blocking(move || {
            let mut keys = Vec::new();
            for line in lines {
                let line = line.unwrap();
                let journalled =
                    line.strip_prefix("journalled ").and_then(|rest| rest.split_once(' '));
                keys.extend(journalled.map(|(key, body)| (key.to_owned(), body.to_owned())));
                if keys.len() == keys_before_the_end {
                    child.kill().unwrap();
                }
            }
            // If the process has not journalled that many events, it is killed here.
            let _ = child.kill();
            child.wait().unwrap();
            keys
        });
        promised.extend(killed.await.unwrap());
    }
    endpoint.reply_from_now_on(HttpReply::Ok);
    let store = with_mode(endpoint.store().attempt_timeout(SECOND), inserts);
    let store = start(store, folder.path()).await;
    let report = store.replayed().await.unwrap();
    assert_eq!(report.left, 0, "{report:?}");
    store.close(20 * SECOND).await.unwrap();
    let mut table = endpoint.table().await;
    let taken = table.extract_if(.., |_, body| body == OTHER_BODY).count();
    assert_eq!(taken > 10, inserts, "{taken} keys were taken");
    // Events whose keys were taken are in a file, and nowhere else.
    let failed = fs::read_to_string(folder.path().join("failed.ndjson")).unwrap_or_default();
    let failed: BTreeSet<String> = failed
        .lines()
        .map(|line| serde_json::from_str::<Event>(line).unwrap().body().into_owned())
        .collect();
    assert!(failed.len() <= taken, "{} of {taken} events failed", failed.len());
    assert!(promised.len() > 100, "{}", promised.len());
    for (key, body) in &promised {
        let is_stored = table.get(key) == Some(body);
        assert!(is_stored != failed.contains(body), "{key} was journalled, and is lost");
    }
    let bodies: BTreeSet<&String> = table.values().collect();
    assert_eq!(bodies.len(), table.len(), "an event is stored twice");
    assert!(failed.iter().all(|body| !bodies.contains(body)));
    let files = files(folder.path());
    assert!(files.iter().all(|file| file.ends_with("failed.ndjson")), "{files:?}");
}
