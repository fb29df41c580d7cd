//! Putting events through a whole store into the endpoint, and holding what the tickets say against
//! what the table holds.

use std::collections::BTreeMap;
use std::time::Duration;

use dynamodb_eventstore::{
    Backoff, Certainty, EventStore, EventStoreBuilder, PutTicket, Stored, WriteError,
};
use serde_json::json;
use tokio::time::timeout;

use super::endpoint::{Endpoint, Reply, Script, Transport};
use super::table::hold_against;

/// No test may take longer. What it guards against is a ticket that is never answered.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Long beside an answer over loopback, so that only a call that hangs takes so long.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a refusal of everything stands before it is final: long enough for a second attempt.
pub(crate) const REFUSAL_TIMEOUT: Duration = Duration::from_millis(300);

pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    timeout(TIME_LIMIT, Box::pin(test)).await.expect("the test to end within its time limit")
}

/// Short waits between attempts; and nothing goes out before [`settle`] asks for it, so that what
/// was put stands in one batch.
pub(crate) fn brisk(store: EventStoreBuilder) -> EventStoreBuilder {
    let milliseconds = Duration::from_millis;
    let store = store.refusal_timeout(REFUSAL_TIMEOUT);
    store.linger(Duration::from_secs(30)).attempt_timeout(ATTEMPT_TIMEOUT).backoff(Backoff {
        floor: milliseconds(1),
        base: milliseconds(2),
        ceiling: milliseconds(10),
    })
}

pub(crate) async fn store_at(endpoint: &Endpoint) -> EventStore {
    brisk(endpoint.store()).start().await.unwrap()
}

/// An event on its way.
pub(crate) struct Put {
    pub(crate) body: String,
    pub(crate) ticket: PutTicket,
}

pub(crate) type Answer = Result<Stored, WriteError>;

pub(crate) async fn put_body(store: &EventStore, body: String) -> Put {
    let ticket = store.put_json(&body).await.unwrap();
    Put { body, ticket }
}

/// The body of the event that [`put_many`] puts as the `number`th.
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

/// Waits for all answers and holds them against the table: what is called stored is there, what is
/// called not stored is not, and nothing else is there.
pub(crate) async fn settle(store: &EventStore, endpoint: &Endpoint, puts: Vec<Put>) -> Vec<Answer> {
    let report = store.flush().await.unwrap();
    let answers = compare(endpoint, puts).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    let told = (report.stored as usize, report.failed as usize);
    assert_eq!(told, (stored, answers.len() - stored));
    answers
}

/// [`settle`], where several flushes have told of these events.
pub(crate) async fn compare(endpoint: &Endpoint, puts: Vec<Put>) -> Vec<Answer> {
    let mut table = endpoint.table().await;
    let mut answers = Vec::new();
    for Put { body, ticket } in puts {
        let key = ticket.key().to_string();
        let answer = ticket.await;
        hold_against(&mut table, &key, body, &answer);
        answers.push(answer);
    }
    assert_eq!(table, BTreeMap::new(), "nobody put this");
    answers
}

/// Puts one event and says what became of it.
pub(crate) async fn settle_one(store: &EventStore, endpoint: &Endpoint) -> Answer {
    let puts = put_many(store, 1).await;
    settle(store, endpoint, puts).await.remove(0)
}

pub(crate) fn attempts(answers: &[Answer]) -> Vec<u32> {
    answers.iter().map(|answer| answer.as_ref().unwrap().attempts).collect()
}

/// Runs `replies` past a batch of three, which must be stored at the last of them: each event in
/// as many calls as there are replies, always under its own key.
pub(crate) async fn stored_after(transport: Transport, replies: impl IntoIterator<Item = Reply>) {
    let endpoint = Endpoint::start_over(transport, Script::of(replies)).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 3).await;
    let keys = keys(&puts);

    let answers = settle(&store, &endpoint, puts).await;
    let batches = endpoint.batches();
    assert_eq!(attempts(&answers), [batches.len() as u32; 3]);
    assert!(batches.len() > 1, "nothing was retried");
    for batch in batches {
        assert_eq!(batch.keys, keys);
    }
}
