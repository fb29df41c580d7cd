//! The whole store on a faulty network: a proxy between the store and Amazon's DynamoDB Local delays,
//! slices or drops packets, and closes or resets connections.
//!
//! Every test compares the answer of each ticket with the table: every event called stored is there
//! with its body, no event called not stored is there, and the table holds nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed set-up fails the test"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use dynamodb_eventstore::{
    Backoff, Certainty, EventStore, EventStoreBuilder, FailureReason, Proof, ReadBack, WriteError,
};
use futures::future::join_all;
use serde_json::json;
use tokio::time::{interval, timeout};

use support::clock::now;
use support::dynamodb_local;
use support::proxy::{
    BLACKHOLE, Proxy, TowardsClient, TowardsServer, ToxicKind, in_both_directions,
};
use support::resets::{Reset, ResettingProxy};
use support::table::{Answer, Put, assert_matches_row, rows};

/// The time limit of every test. It ends a test whose ticket is never answered.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// For tests in which no attempt times out, not even the first one to a server that has just started.
const LONG_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// For tests in which attempts time out.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);

/// How late a timer may fire on a busy machine.
const LATENESS: Duration = Duration::from_secs(2);

/// Makes a test of each case. Each test gets its own table.
macro_rules! on_dynamodb_local {
    ($($case:ident)*) => {
        mod dynamodb_local_behind {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs DynamoDB Local: .ci/dynamodb-local runs it"]
                async fn $case() {
                    let case = async {
                        super::$case(&super::Table::create(stringify!($case)).await).await;
                    };
                    let in_time = tokio::time::timeout(super::TIME_LIMIT, Box::pin(case));
                    in_time.await.expect("the case to end within its time limit");
                }
            )*
        }
    };
}

on_dynamodb_local! {
    latency_with_jitter_needs_one_attempt
    narrow_bandwidth_needs_one_attempt
    sliced_packets_need_one_attempt
    resets_during_requests_lose_no_event
    resets_during_responses_lose_no_event
    reset_of_the_only_request_is_maybe_stored
    reset_of_the_only_response_is_read_back
    temporary_blackhole_loses_no_event
    temporary_blackhole_for_responses_loses_no_event
    blackhole_beyond_the_deadline_fails_events_in_time
    blackhole_for_responses_beyond_the_deadline_leaves_maybe_stored
    connections_cut_by_bytes_sent_lose_no_event
    connections_cut_by_bytes_received_lose_no_event
    proxy_outages_lose_no_event
    proxy_outage_beyond_the_deadline_is_not_stored
}

struct Table {
    client: Client,
    name: String,
}

impl Table {
    async fn create(case: &str) -> Self {
        let client = dynamodb_local::client();
        let name = dynamodb_local::create_table(&client, case).await;
        Self { client, name }
    }

    /// A store that writes through a proxy, built from configuration. Its waits between attempts are
    /// short, and only the event deadline ends its attempts.
    ///
    /// The table is not checked at the start, so that the first connection carries events.
    fn store(&self, proxy_url: String) -> EventStoreBuilder {
        EventStore::builder()
            .table(&self.name)
            .region(dynamodb_local::REGION)
            .credentials(dynamodb_local::ACCESS_KEY_ID, "any")
            .endpoint_url(proxy_url)
            .check_table(false)
            .attempt_timeout(LONG_ATTEMPT_TIMEOUT)
            .max_attempts(1_000_000)
            .backoff(Backoff {
                floor: Duration::from_millis(1),
                base: Duration::from_millis(10),
                ceiling: Duration::from_millis(100),
            })
    }

    /// Waits for all answers and compares them with the table.
    ///
    /// A write that is still in flight after its ticket was answered belongs to an event that may be
    /// stored, so it does not matter whether it has been applied.
    async fn settle(&self, puts: Vec<Put>) -> Vec<Answer> {
        let settled = join_all(puts.into_iter().map(|Put { body, ticket }| async {
            let key = ticket.key().to_string();
            (key, body, ticket.await)
        }));
        let settled = settled.await;
        let mut rows = self.rows().await;
        let mut answers = Vec::new();
        for (key, body, answer) in settled {
            assert_matches_row(&mut rows, &key, body, &answer);
            answers.push(answer);
        }
        assert!(rows.is_empty(), "the table holds events that were not put: {rows:?}");
        answers
    }

    /// Like [`settle`](Self::settle), but every event must be stored. Returns the number of attempts
    /// of each.
    async fn settle_stored(&self, puts: Vec<Put>) -> Vec<u32> {
        let answers = self.settle(puts).await;
        answers.into_iter().map(|answer| answer.unwrap().attempts).collect()
    }

    async fn rows(&self) -> BTreeMap<String, String> {
        rows(&self.client, &self.name).await
    }

    async fn holds(&self, error: &WriteError) -> bool {
        self.rows().await.contains_key(error.key().as_str())
    }
}

/// Puts `count` events of a little more than `bytes` bytes.
async fn put(store: &EventStore, count: usize, bytes: usize) -> Vec<Put> {
    let mut puts = Vec::new();
    for number in 0..count {
        let body = json!({ "number": number, "text": "\"x".repeat(bytes / 3) }).to_string();
        let ticket = store.put_json(&body).await.unwrap();
        puts.push(Put { body, ticket });
    }
    puts
}

/// Waits until the condition holds, at most until the time limit of the test.
async fn until(condition: impl Fn() -> bool) {
    let mut polls = interval(Duration::from_millis(5));
    while !condition() {
        polls.tick().await;
    }
}

async fn proxy(faults: impl IntoIterator<Item = support::proxy::Fault>) -> Proxy {
    Proxy::start(&dynamodb_local::authority(), faults).await
}

async fn resetting_proxy(resets: impl IntoIterator<Item = Reset>) -> ResettingProxy {
    ResettingProxy::start(&dynamodb_local::authority(), resets).await
}

// Slow networks.

/// Puts events that must all be stored at their first attempt, and no faster than the proxy allows.
async fn assert_stored_slowly_at_first_attempt(
    proxy: Proxy,
    count: usize,
    bytes: usize,
    table: &Table,
) {
    let store = table.store(proxy.url()).start().await.unwrap();
    let start = now();
    let puts = put(&store, count, bytes).await;
    let attempts = table.settle_stored(puts).await;
    assert_eq!(attempts, vec![1; count]);
    assert!(start.elapsed() >= LEAST_TIME, "the proxy did not delay the events");
}

/// The tests of slow networks take at least this long.
const LEAST_TIME: Duration = Duration::from_millis(200);

async fn latency_with_jitter_needs_one_attempt(table: &Table) {
    // At least three calls on one connection, each of at least 2 × 60 ms.
    let proxy = proxy(in_both_directions(ToxicKind::Latency { latency: 100, jitter: 40 })).await;
    assert_stored_slowly_at_first_attempt(proxy, 500, 300, table).await;
}

async fn narrow_bandwidth_needs_one_attempt(table: &Table) {
    // Each connection has 100 kB/s, and a batch is larger than 60 kB.
    let slices = ToxicKind::Slicer { average_size: 2_000, size_variation: 0, delay: 0 };
    let narrow = ToxicKind::Bandwidth { rate: 100 };
    let proxy = proxy([(TowardsServer, slices), (TowardsServer, narrow)]).await;
    assert_stored_slowly_at_first_attempt(proxy, 400, 2_500, table).await;
}

async fn sliced_packets_need_one_attempt(table: &Table) {
    // A batch of at least 12 kB is at least 60 slices, with more than a millisecond between two.
    let slices = ToxicKind::Slicer { average_size: 100, size_variation: 90, delay: 4_000 };
    let proxy = proxy(in_both_directions(slices)).await;
    assert_stored_slowly_at_first_attempt(proxy, 300, 500, table).await;
}

// Broken connections.

/// The head of a request has some 700 bytes, and a batch of 25 such events some 15 kB.
const EVENT_BYTES: usize = 300;

/// Checks that each of these resets breaks a call, and that later calls store all events.
async fn assert_all_stored_despite(resets: &[Reset], table: &Table) {
    let proxy = resetting_proxy(resets.iter().copied()).await;
    let store = table.store(proxy.url()).start().await.unwrap();
    let puts = put(&store, 500, EVENT_BYTES).await;
    let attempts = table.settle_stored(puts).await;
    assert_eq!(proxy.left(), 0);
    let failed: u32 = attempts.iter().map(|attempts| attempts - 1).sum();
    assert!(failed as usize >= resets.len(), "{failed} attempts failed");
    assert_eq!(u64::from(failed), store.stats().retried);
}

async fn resets_during_requests_lose_no_event(table: &Table) {
    let resets = [0, 1, 100, 700, 1_000, 5_000, 12_000].map(Reset::AfterSent);
    assert_all_stored_despite(&resets.repeat(3), table).await;
}

async fn resets_during_responses_lose_no_event(table: &Table) {
    let resets = [1, 12, 13, 40, 100, 200].map(Reset::AfterReceived);
    assert_all_stored_despite(&resets.repeat(3), table).await;
}

/// The answers of two events with one attempt each: one that is not read back, and one that is.
async fn reset_once(reset: fn() -> Reset, table: &Table) -> (Answer, Answer) {
    let mut puts = Vec::new();
    for read_back in [false, true] {
        let proxy = resetting_proxy([reset()]).await;
        let store = table.store(proxy.url()).max_attempts(1).read_back(read_back);
        let store = store.start().await.unwrap();
        puts.extend(put(&store, 1, EVENT_BYTES).await);
        store.flush().await.unwrap();
    }
    let mut answers = table.settle(puts).await;
    let read_back = answers.pop().unwrap();
    (answers.pop().unwrap(), read_back)
}

async fn reset_of_the_only_request_is_maybe_stored(table: &Table) {
    let (unread, read_back) = reset_once(|| Reset::AfterSent(800), table).await;
    let (unread, read_back) = (unread.unwrap_err(), read_back.unwrap_err());
    assert!(unread.read_back().is_none());
    assert!(matches!(read_back.read_back(), Some(ReadBack::NotFound { .. })), "{read_back:?}");
    for error in [unread, read_back] {
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        let cause = error.last_cause().unwrap().to_string();
        assert!(cause.contains("reset"), "{cause}");
        assert!(!table.holds(&error).await, "a partial request was applied");
    }
}

async fn reset_of_the_only_response_is_read_back(table: &Table) {
    let (unread, read_back) = reset_once(|| Reset::AfterReceived(40), table).await;
    let error = unread.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(table.holds(&error).await, "a response began before the event was applied");
    let stored = read_back.unwrap();
    assert_eq!((stored.attempts, stored.proof), (1, Proof::ReadBack));
}

async fn connections_cut_by_bytes_sent_lose_no_event(table: &Table) {
    // The first batch of each connection passes. The second is cut off.
    let limit = ToxicKind::LimitData { bytes: 18_000 };
    let proxy = proxy([(TowardsServer, limit)]).await;
    let store = table.store(proxy.url()).max_batches_in_flight(2).start().await.unwrap();
    let puts = put(&store, 500, EVENT_BYTES).await;
    table.settle_stored(puts).await;
    assert!(store.stats().retried >= 100, "{:?}", store.stats());
}

async fn connections_cut_by_bytes_received_lose_no_event(table: &Table) {
    // A few responses of each connection pass. The next one is cut off.
    let limit = ToxicKind::LimitData { bytes: 1_000 };
    let proxy = proxy([(TowardsClient, limit)]).await;
    let store = table.store(proxy.url()).max_batches_in_flight(2).start().await.unwrap();
    let puts = put(&store, 500, EVENT_BYTES).await;
    table.settle_stored(puts).await;
    assert!(store.stats().retried >= 50, "{:?}", store.stats());
}

// Silent networks.

async fn temporary_blackhole_loses_no_event(table: &Table) {
    let mut proxy = proxy([]).await;
    let store = table.store(proxy.url()).attempt_timeout(ATTEMPT_TIMEOUT).start().await.unwrap();
    // These events open the connections that are then blackholed.
    let mut puts = put(&store, 500, EVENT_BYTES).await;
    store.flush().await.unwrap();
    let retried = store.stats().retried;
    proxy.add_fault(BLACKHOLE).await;
    puts.extend(put(&store, 200, EVENT_BYTES).await);
    until(|| store.stats().retried >= retried + 200).await;
    proxy.remove_faults().await;
    puts.extend(put(&store, 100, EVENT_BYTES).await);

    let attempts = table.settle_stored(puts).await;
    assert!(attempts[500..700].iter().all(|attempts| *attempts >= 2));
}

async fn temporary_blackhole_for_responses_loses_no_event(table: &Table) {
    let mut proxy = proxy([(TowardsClient, BLACKHOLE)]).await;
    let store = table.store(proxy.url()).attempt_timeout(ATTEMPT_TIMEOUT).start().await.unwrap();
    let puts = put(&store, 200, EVENT_BYTES).await;
    until(|| store.stats().retried >= 200).await;
    proxy.remove_faults().await;
    let attempts = table.settle_stored(puts).await;
    assert!(attempts.iter().all(|attempts| *attempts >= 2));
}

const DEADLINE: Duration = Duration::from_millis(1_500);

/// A store with a short deadline and one batch in flight, so that some events are never sent.
async fn impatient(table: &Table, proxy: &Proxy) -> EventStore {
    let store = table.store(proxy.url()).attempt_timeout(ATTEMPT_TIMEOUT);
    store.max_batches_in_flight(1).event_deadline(DEADLINE).start().await.unwrap()
}

/// Puts events that cannot be stored, and returns their errors, which must come within the documented
/// time.
async fn errors_in_time(table: &Table, store: &EventStore) -> Vec<WriteError> {
    let puts = put(store, 500, EVENT_BYTES).await;
    let bound = DEADLINE + ATTEMPT_TIMEOUT + LATENESS;
    let report = timeout(bound, store.flush()).await.expect("answers in time").unwrap();
    assert_eq!((report.stored, report.failed), (0, 500));
    let answers = table.settle(puts).await;
    let errors: Vec<WriteError> = answers.into_iter().map(|answer| answer.unwrap_err()).collect();
    assert!(errors.iter().all(|error| error.reason() == FailureReason::Deadline));
    errors
}

/// How many events may be stored and how many are not. Only an event that was sent may be stored.
fn by_certainty(errors: &[WriteError]) -> (usize, usize) {
    let maybe = |error: &&WriteError| error.certainty() == Certainty::MaybeStored;
    assert!(errors.iter().all(|error| maybe(&error) == (error.attempts() > 0)));
    let maybes = errors.iter().filter(maybe).count();
    (maybes, errors.len() - maybes)
}

async fn blackhole_beyond_the_deadline_fails_events_in_time(table: &Table) {
    let mut proxy = proxy(in_both_directions(BLACKHOLE)).await;
    let store = impatient(table, &proxy).await;
    let errors = errors_in_time(table, &store).await;
    let (maybe, never_sent) = by_certainty(&errors);
    assert!(maybe >= 25 && never_sent >= 25, "{maybe} and {never_sent}");
    assert!(table.rows().await.is_empty());

    proxy.remove_faults().await;
    let puts = put(&store, 25, EVENT_BYTES).await;
    assert_eq!(table.settle_stored(puts).await.len(), 25);
}

async fn blackhole_for_responses_beyond_the_deadline_leaves_maybe_stored(table: &Table) {
    let proxy = proxy([(TowardsClient, BLACKHOLE)]).await;
    let store = impatient(table, &proxy).await;
    let errors = errors_in_time(table, &store).await;
    let (maybe, never_sent) = by_certainty(&errors);
    assert!(maybe >= 25 && never_sent >= 25, "{maybe} and {never_sent}");
    // The events that were sent reach the table in the end.
    let mut polls = interval(Duration::from_millis(50));
    while !table.holds(&errors[0]).await {
        polls.tick().await;
    }
}

// Outages.

async fn proxy_outages_lose_no_event(table: &Table) {
    let mut proxy = proxy([]).await;
    let store = table.store(proxy.url()).start().await.unwrap();
    let mut puts = put(&store, 200, EVENT_BYTES).await;
    store.flush().await.unwrap();
    for _ in 0..3 {
        let retried = store.stats().retried;
        proxy.disable().await;
        puts.extend(put(&store, 200, EVENT_BYTES).await);
        until(|| store.stats().retried >= retried + 200).await;
        proxy.enable().await;
        puts.extend(put(&store, 200, EVENT_BYTES).await);
        store.flush().await.unwrap();
    }
    assert_eq!(table.settle_stored(puts).await.len(), 1_400);
}

async fn proxy_outage_beyond_the_deadline_is_not_stored(table: &Table) {
    let mut proxy = proxy([]).await;
    proxy.disable().await;
    let store = impatient(table, &proxy).await;
    for error in errors_in_time(table, &store).await {
        // Without a connection nothing can have been applied.
        assert_eq!(error.certainty(), Certainty::NotStored);
    }
    proxy.enable().await;
    let puts = put(&store, 200, EVENT_BYTES).await;
    assert_eq!(table.settle_stored(puts).await.len(), 200);
}
