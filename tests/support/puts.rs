//! Puts events through a whole store into the endpoint, and compares the answers of the tickets with
//! the table.

use std::collections::BTreeMap;
use std::time::Duration;

use dynamodb_eventstore::{Backoff, EventStore, EventStoreBuilder};
use serde_json::json;
use tokio::time::timeout;

use super::endpoint::{Endpoint, Reply, Script, Transport};
use super::table::assert_matches_row;
pub(crate) use super::table::{Answer, Put};

/// The time limit of every test. It ends a test whose ticket is never answered.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Much longer than a response over loopback takes, so that only a hanging call reaches it.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long refusals must last before they are final. It leaves time for a second attempt.
pub(crate) const REFUSAL_TIMEOUT: Duration = Duration::from_millis(300);

pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    timeout(TIME_LIMIT, Box::pin(test)).await.expect("the test to end within its time limit")
}

/// Sets short waits between attempts, and a long linger, so that nothing is sent before the flush of
/// [`settle`]. All events that are put before it share one batch.
pub(crate) fn with_short_waits(store: EventStoreBuilder) -> EventStoreBuilder {
    let milliseconds = Duration::from_millis;
    let store = store.refusal_timeout(REFUSAL_TIMEOUT);
    store.linger(Duration::from_secs(30)).attempt_timeout(ATTEMPT_TIMEOUT).backoff(Backoff {
        floor: milliseconds(1),
        base: milliseconds(2),
        ceiling: milliseconds(10),
    })
}

pub(crate) async fn store_at(endpoint: &Endpoint) -> EventStore {
    with_short_waits(endpoint.store()).start().await.unwrap()
}

pub(crate) async fn put_body(store: &EventStore, body: String) -> Put {
    let ticket = store.put_json(&body).await.unwrap();
    Put { body, ticket }
}

/// The body of event `number` of [`put_many`].
pub(crate) fn body(number: usize) -> String {
    json!({ "number": number }).to_string()
}

pub(crate) async fn put_many(store: &EventStore, count: usize) -> Vec<Put> {
    let mut puts = Vec::new();
    for number in 0..count {
        puts.push(put_body(store, body(number)).await);
    }
    puts
}

pub(crate) fn keys(puts: &[Put]) -> Vec<String> {
    puts.iter().map(|put| put.ticket.key().to_string()).collect()
}

/// Flushes, waits for all answers and compares them with the table: every event called stored is
/// there, no event called not stored is there, and the table holds nothing else.
pub(crate) async fn settle(store: &EventStore, endpoint: &Endpoint, puts: Vec<Put>) -> Vec<Answer> {
    let report = store.flush().await.unwrap();
    let answers = compare(endpoint, puts).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    let reported = (report.stored as usize, report.failed as usize);
    assert_eq!(reported, (stored, answers.len() - stored));
    answers
}

/// [`settle`] without a flush, for events that several flushes have sent.
pub(crate) async fn compare(endpoint: &Endpoint, puts: Vec<Put>) -> Vec<Answer> {
    let mut table = endpoint.table().await;
    let mut answers = Vec::new();
    for Put { body, ticket } in puts {
        let key = ticket.key().to_string();
        let answer = ticket.await;
        assert_matches_row(&mut table, &key, body, &answer);
        answers.push(answer);
    }
    assert_eq!(table, BTreeMap::new(), "the table holds events that were not put");
    answers
}

/// Puts one event and returns its answer.
pub(crate) async fn settle_one(store: &EventStore, endpoint: &Endpoint) -> Answer {
    let puts = put_many(store, 1).await;
    settle(store, endpoint, puts).await.remove(0)
}

pub(crate) fn attempts(answers: &[Answer]) -> Vec<u32> {
    answers.iter().map(|answer| answer.as_ref().unwrap().attempts).collect()
}

/// Puts one batch of three events, whose calls get `replies` in turn. The batch must be retried and
/// stored. Every call must have all events, under the same keys.
pub(crate) async fn assert_stored_after(
    transport: Transport,
    replies: impl IntoIterator<Item = Reply>,
) {
    let endpoint = Endpoint::start_over(transport, Script::of(replies)).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 3).await;
    let keys = keys(&puts);

    let answers = settle(&store, &endpoint, puts).await;
    let batches = endpoint.batches();
    assert_eq!(attempts(&answers), [batches.len() as u32; 3]);
    assert!(batches.len() > 1, "the batch was not retried");
    for batch in batches {
        assert_eq!(batch.keys, keys);
    }
}
