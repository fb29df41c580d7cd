//! Inserts over HTTP, against a scripted endpoint in front of the embedded table: errors of single statements, lost
//! answers, and keys that another writer has. Each scenario runs over both transports.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod support;

use std::time::Duration;

use dynamodb_eventstore::{
    Certainty, EventStore, FailureClass, FailureReason, OnDuplicate, Proof, Stored, WriteMode,
};
use futures::future::join_all;

use support::endpoint::{Endpoint, Reply, Script, Transport};
use support::puts::{Answer, body, in_time, put_body, put_many, with_short_waits};
use support::watchdog;

const OTHER: &str = "\"another\"";

/// Makes two tests of each scenario, one for each transport.
macro_rules! for_each_transport {
    ($($scenario:ident)*) => {
        mod directly {
            $(
                #[tokio::test]
                async fn $scenario() {
                    super::in_time(super::$scenario(super::Transport::Http)).await;
                }
            )*
        }

        mod through_a_client {
            $(
                #[tokio::test]
                async fn $scenario() {
                    super::in_time(super::$scenario(super::Transport::Client)).await;
                }
            )*
        }
    };
}

for_each_transport! {
    inserts_are_sent_once_and_stored
    key_of_another_writer_is_not_overwritten
    duplicate_fails_alone_with_on_duplicate_fail
    lost_answers_leave_each_event_stored_once
    invalid_answers_leave_each_event_stored_once
    only_throttled_statements_are_sent_again
    only_failed_statements_are_sent_again
    statement_with_an_invalid_event_fails_alone
    call_whose_statements_are_all_denied_is_refused
    missing_table_is_final_at_once
    batch_with_an_invalid_event_is_split
}

async fn store_at(endpoint: &Endpoint) -> EventStore {
    watchdog::start();
    let store = with_short_waits(endpoint.store()).write_mode(WriteMode::Insert);
    store.start().await.unwrap()
}

/// Puts `count` events, and returns their answers once the store has settled them.
async fn put_and_settle(store: &EventStore, count: usize) -> Vec<Answer> {
    let puts = put_many(store, count).await;
    store.flush().await.unwrap();
    join_all(puts.into_iter().map(|put| put.ticket)).await
}

fn stored(answers: Vec<Answer>) -> Vec<Stored> {
    answers.into_iter().map(|answer| answer.expect("the event is stored")).collect()
}

/// Asserts that the table has exactly these events, each with the body of its number.
async fn assert_stored_once(endpoint: &Endpoint, stored: &[Stored]) {
    let table = endpoint.table().await;
    assert_eq!(table.len(), stored.len());
    for (number, stored) in stored.iter().enumerate() {
        assert_eq!(table.get(stored.key.as_str()), Some(&body(number)));
    }
}

async fn inserts_are_sent_once_and_stored(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let store = store_at(&endpoint).await;
    let stored = stored(put_and_settle(&store, 30).await);
    assert!(stored.iter().all(|stored| stored.attempts == 1));
    assert_eq!(endpoint.sizes(), [25, 5]);
    assert_eq!(endpoint.calls("BatchExecuteStatement").len(), 2);
    assert_stored_once(&endpoint, &stored).await;
}

async fn key_of_another_writer_is_not_overwritten(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 3).await;
    let taken = *puts[1].ticket.key();
    endpoint.put_as_another(taken.to_string(), OTHER).await;
    store.flush().await.unwrap();
    let stored = stored(join_all(puts.into_iter().map(|put| put.ticket)).await);
    assert_ne!(stored[1].key, taken);
    assert_eq!(stored[1].attempts, 2);
    let table = endpoint.table().await;
    assert_eq!(table.len(), 4);
    assert_eq!(table[taken.as_str()], OTHER);
    assert_eq!(table[stored[1].key.as_str()], body(1));
    assert_eq!(endpoint.sizes(), [3, 1]);
    assert!(endpoint.calls("BatchGetItem").is_empty());
}

async fn duplicate_fails_alone_with_on_duplicate_fail(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let store = with_short_waits(endpoint.store()).write_mode(WriteMode::Insert);
    let store = store.on_duplicate(OnDuplicate::Fail).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    endpoint.put_as_another(puts[1].ticket.key().to_string(), OTHER).await;
    store.flush().await.unwrap();
    let answers = join_all(puts.into_iter().map(|put| put.ticket)).await;
    let error = answers[1].as_ref().unwrap_err();
    assert_eq!(
        (error.reason(), error.certainty()),
        (FailureReason::DuplicateKey, Certainty::NotStored)
    );
    assert_eq!(error.last_cause().unwrap().code(), Some("DuplicateItem"));
    assert!(answers[0].is_ok() && answers[2].is_ok());
}

async fn lost_answers_leave_each_event_stored_once(transport: Transport) {
    let lost = [
        Reply::HangUp,
        Reply::Hang,
        Reply::CutShort,
        Reply::ResetInResponse,
        Reply::WrongChecksum,
        Reply::error(500, "InternalServerError"),
    ];
    for lost in lost {
        let endpoint = Endpoint::start_over(transport, [lost.clone().once_applied()]).await;
        let store = store_at(&endpoint).await;
        let stored = stored(put_and_settle(&store, 3).await);
        for stored in &stored {
            assert_eq!((stored.attempts, stored.proof), (2, Proof::ReadBack), "{lost:?}");
        }
        assert_eq!(endpoint.calls("BatchGetItem").len(), 1);
        assert_stored_once(&endpoint, &stored).await;
        // The same fault, but nothing was applied.
        let endpoint = Endpoint::start_over(transport, [lost.clone()]).await;
        let store = store_at(&endpoint).await;
        let stored = self::stored(put_and_settle(&store, 3).await);
        assert!(stored.iter().all(|stored| stored.proof == Proof::Acknowledged), "{lost:?}");
        assert_stored_once(&endpoint, &stored).await;
    }
}

async fn invalid_answers_leave_each_event_stored_once(transport: Transport) {
    for answer in
        ["", "{}", r#"{"Responses":[]}"#, r#"{"Responses":[{}]}"#, r#"{"UnprocessedItems":{}}"#]
    {
        let endpoint =
            Endpoint::start_over(transport, [Reply::raw(200, answer).once_applied()]).await;
        let store = store_at(&endpoint).await;
        let stored = stored(put_and_settle(&store, 2).await);
        assert!(stored.iter().all(|stored| stored.proof == Proof::ReadBack), "{answer}");
        assert_stored_once(&endpoint, &stored).await;
    }
}

async fn only_throttled_statements_are_sent_again(transport: Transport) {
    for code in ["ProvisionedThroughputExceeded", "ThrottlingError", "RequestLimitExceeded"] {
        let reply = Reply::Statements { places: vec![1, 3], code };
        let endpoint = Endpoint::start_over(transport, [reply]).await;
        let store = store_at(&endpoint).await;
        let stored = stored(put_and_settle(&store, 5).await);
        assert_eq!(endpoint.sizes(), [5, 2], "{code}");
        assert_eq!(store.stats().throttled_units, 2);
        let history = stored[1].history();
        assert_eq!(history[0].failure().unwrap().class(), FailureClass::Throttled);
        assert_stored_once(&endpoint, &stored).await;
    }
}

async fn only_failed_statements_are_sent_again(transport: Transport) {
    for code in ["InternalServerError", "TransactionConflict", "SomethingNew"] {
        let reply = Reply::Statements { places: vec![0], code };
        let endpoint = Endpoint::start_over(transport, [reply]).await;
        let store = store_at(&endpoint).await;
        let stored = stored(put_and_settle(&store, 3).await);
        assert_eq!(endpoint.sizes(), [3, 1], "{code}");
        assert_stored_once(&endpoint, &stored).await;
    }
}

async fn statement_with_an_invalid_event_fails_alone(transport: Transport) {
    let reply = Reply::Statements { places: vec![1], code: "ValidationError" };
    let endpoint = Endpoint::start_over(transport, [reply]).await;
    let store = store_at(&endpoint).await;
    let answers = put_and_settle(&store, 3).await;
    let error = answers[1].as_ref().unwrap_err();
    assert_eq!((error.reason(), error.attempts()), (FailureReason::NotRetryable, 1));
    assert_eq!(error.certainty(), Certainty::NotStored);
    assert_eq!(endpoint.table().await.len(), 2);
}

async fn call_whose_statements_are_all_denied_is_refused(transport: Transport) {
    let denied = Reply::Statements { places: (0..25).collect(), code: "AccessDenied" };
    let endpoint = Endpoint::start_over(transport, Script::always(denied)).await;
    let store = store_at(&endpoint).await;
    let answers = put_and_settle(&store, 2).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.last_cause().unwrap().class(), FailureClass::Refused);
        assert_eq!(error.certainty(), Certainty::NotStored);
    }
    endpoint.reply_from_now_on(Reply::Ok);
    tokio::time::timeout(Duration::from_secs(20), async {
        stored(put_and_settle(&store, 1).await);
    })
    .await
    .unwrap();
}

async fn missing_table_is_final_at_once(transport: Transport) {
    let missing = Reply::Statements { places: (0..25).collect(), code: "ResourceNotFound" };
    let endpoint = Endpoint::start_over(transport, Script::always(missing)).await;
    let store = store_at(&endpoint).await;
    for answer in put_and_settle(&store, 2).await {
        let error = answer.unwrap_err();
        assert_eq!((error.attempts(), error.certainty()), (1, Certainty::NotStored));
    }
}

async fn batch_with_an_invalid_event_is_split(transport: Transport) {
    let invalid = "\"invalid\"".to_owned();
    let script = Script::of([]).poison([invalid.clone()]);
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = store_at(&endpoint).await;
    let mut puts = put_many(&store, 3).await;
    puts.push(put_body(&store, invalid).await);
    store.flush().await.unwrap();
    let answers = join_all(puts.into_iter().map(|put| put.ticket)).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert_eq!(answers[3].as_ref().unwrap_err().certainty(), Certainty::NotStored);
}
