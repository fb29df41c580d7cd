//! The whole store, built as a user builds it, against an endpoint that fails as scripted.
//!
//! Every test compares the answer of each ticket with the endpoint's table.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed set-up fails the test")]

mod support;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::{
    BeforeTransmitInterceptorContextMut, FinalizerInterceptorContextMut,
};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemOutput;
use aws_smithy_runtime_api::client::interceptors::context::Output;
use dynamodb_eventstore::{
    Certainty, EventStore, EventStoreBuilder, FailureClass, FailureReason, StartError, TableError,
    WriteError,
};
use serde_json::json;
use tokio::net::TcpSocket;

use support::credentials::SlowProvider;
use support::endpoint::{
    Described, ECHO, EVENT_KEY, Endpoint, KeyPart, Reply, Script, Selector, TABLE, Transport,
};
use support::puts::{
    ATTEMPT_TIMEOUT, TIME_LIMIT, assert_stored_after, attempts, body, in_time, keys, put_body,
    put_many, settle, settle_one, store_at, with_short_waits,
};

/// An event deadline that is short enough for tests to wait for it.
const SHORT_DEADLINE: Duration = Duration::from_millis(300);

/// Part of an event's body. It must not appear in any error or in the log.
const MARKER: &str = "w0nt-be-t0ld";

// Unprocessed items.

#[tokio::test]
async fn unprocessed_items_alone_are_retried_until_stored() {
    in_time(async {
        let endpoint = Endpoint::start([
            Reply::Unprocessed(Selector::Places(vec![17, 3, 20, 8, 0])),
            // Two of the events 17, 3, 20, 8 and 0, in the order in which the store retries them.
            Reply::Unprocessed(Selector::Places(vec![4, 1])),
        ])
        .await;
        let store = store_at(&endpoint).await;
        let puts = put_many(&store, 25).await;
        let keys = keys(&puts);
        let answers = settle(&store, &endpoint, puts).await;

        let batches = endpoint.batches();
        assert_eq!(endpoint.sizes(), [25, 5, 2]);
        assert_eq!(batches[0].keys, keys);
        let mut second = batches[1].keys.clone();
        second.sort();
        assert_eq!(second, [0, 3, 8, 17, 20].map(|place| keys[place].clone()));
        let mut third = batches[2].keys.clone();
        third.sort();
        let mut unprocessed = [batches[1].keys[1].clone(), batches[1].keys[4].clone()];
        unprocessed.sort();
        assert_eq!(third, unprocessed);

        for (key, attempts) in keys.iter().zip(attempts(&answers)) {
            let carried = batches.iter().filter(|batch| batch.keys.contains(key)).count();
            assert_eq!(attempts as usize, carried, "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn wholly_unprocessed_batches_are_retried_until_stored() {
    in_time(async {
        let unprocessed = || Reply::Unprocessed(Selector::All);
        let endpoint = Endpoint::start([unprocessed(), unprocessed(), unprocessed()]).await;
        let store = store_at(&endpoint).await;
        let puts = put_many(&store, 25).await;
        let answers = settle(&store, &endpoint, puts).await;
        // After the first batch the store sends calls at a lower rate, with fewer events each.
        let sizes = endpoint.sizes();
        let returned: usize = sizes.iter().take(3).sum();
        assert_eq!(sizes.iter().sum::<usize>(), 25 + returned);
        assert_eq!(attempts(&answers).iter().sum::<u32>() as usize, 25 + returned);
        let stats = store.stats();
        assert_eq!((stats.retried, stats.throttled_units), (returned as u64, returned as u64));
    })
    .await;
}

#[tokio::test]
async fn always_unprocessed_event_fails_as_not_stored() {
    in_time(async {
        let endpoint =
            Endpoint::start(Script::always(Reply::Unprocessed(Selector::Places(vec![1])))).await;
        let store = with_short_waits(endpoint.store()).max_attempts(5).start().await.unwrap();
        let puts = put_many(&store, 3).await;
        let answers = settle(&store, &endpoint, puts).await;
        // The unprocessed event is retried alone, so it has index 0, and is stored.
        assert_eq!(attempts(&answers), [1, 2, 1]);

        let endpoint =
            Endpoint::start(Script::always(Reply::Unprocessed(Selector::Places(vec![0])))).await;
        let store = with_short_waits(endpoint.store()).max_attempts(5).start().await.unwrap();
        let puts = put_many(&store, 3).await;
        let mut answers = settle(&store, &endpoint, puts).await;
        let error = answers.remove(0).unwrap_err();
        assert_eq!(attempts(&answers), [1, 1]);
        assert_eq!(endpoint.sizes(), [3, 1, 1, 1, 1]);
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 5));
        assert_eq!(error.reason(), FailureReason::Attempts);
        let cause = error.last_cause().unwrap();
        assert_eq!(cause.class(), FailureClass::Unprocessed);
        assert_eq!(cause.request_id(), Some(endpoint.last_batch_id().as_str()));
    })
    .await;
}

#[tokio::test]
async fn unknown_unprocessed_key_invalidates_the_whole_response() {
    in_time(async {
        let unknown_key = || Reply::Unprocessed(Selector::PlacesAndUnknownKey(vec![]));
        assert_stored_after(Transport::Http, [unknown_key(), unknown_key()]).await;

        let endpoint = Endpoint::start(Script::always(unknown_key())).await;
        let store = with_short_waits(endpoint.store())
            .read_back(false)
            .max_attempts(2)
            .start()
            .await
            .unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::MaybeStored, 2));
    })
    .await;
}

#[tokio::test]
async fn invalid_response_leaves_its_listed_events_maybe_stored() {
    in_time(async {
        let invalid = Reply::Unprocessed(Selector::PlacesAndUnknownKey(vec![0])).once_applied();
        let denied = Reply::error(400, "AccessDeniedException");
        let endpoint = Endpoint::start(Script::of([invalid]).then(denied)).await;
        let store = with_short_waits(endpoint.store()).read_back(false).start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        assert!(error.attempts() >= 2);
    })
    .await;
}

// Transient errors.

#[tokio::test]
async fn temporarily_refused_batch_is_stored_when_refusals_end() {
    in_time(async {
        for code in [
            "ProvisionedThroughputExceededException",
            "ThrottlingException",
            "RequestLimitExceeded",
            // These are not throttling errors, but are handled like them: nothing was written, and a
            // retry may succeed.
            "ExpiredTokenException",
        ] {
            assert_stored_after(
                Transport::Http,
                [Reply::error(400, code), Reply::error(400, code)],
            )
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn batch_is_stored_when_server_errors_end() {
    in_time(async {
        for failed in [
            Reply::error(500, "InternalServerError"),
            Reply::error(503, "ServiceUnavailable"),
            Reply::raw(502, "<html><body>Bad gateway</body></html>"),
            Reply::raw(503, ""),
        ] {
            assert_stored_after(Transport::Http, [failed.clone(), failed.once_applied()]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn broken_connection_leaves_one_row_under_the_same_key() {
    in_time(async {
        for broken in [Reply::HangUp, Reply::CutShort] {
            assert_stored_after(Transport::Http, [broken.clone()]).await;
            assert_stored_after(Transport::Http, [broken.clone().once_applied()]).await;
            assert_stored_after(
                Transport::Http,
                [broken.clone().once_applied(), broken.once_applied()],
            )
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn hanging_call_is_dropped_and_its_events_are_retried() {
    in_time(assert_stored_after(Transport::Http, [Reply::Hang])).await;
}

#[tokio::test]
async fn call_hanging_after_it_was_applied_leaves_one_row() {
    in_time(assert_stored_after(Transport::Http, [Reply::Hang.once_applied()])).await;
}

#[tokio::test]
async fn truncated_response_keeps_its_request_id() {
    in_time(async {
        let endpoint = Endpoint::start([Reply::CutShort]).await;
        let store = with_short_waits(endpoint.store())
            .read_back(false)
            .max_attempts(1)
            .start()
            .await
            .unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        let id = endpoint.last_batch_id();
        assert_eq!(error.last_cause().unwrap().request_id(), Some(id.as_str()));
    })
    .await;
}

/// Responses with a 2xx or 3xx status that do not acknowledge the batch.
const NO_ACKNOWLEDGEMENTS: [(u16, &str); 14] = [
    (200, ""),
    (200, "{}"),
    (200, "null"),
    (200, "[]"),
    (200, "<html><body>Log in to the guest network</body></html>"),
    (200, r#"{"UnprocessedItems":"#),
    (200, r#"{"UnprocessedItems":null}"#),
    (200, r#"{"UnprocessedItems":[]}"#),
    (200, r#"{"UnprocessedItems":{"events":[{}]}}"#),
    (200, r#"{"UnprocessedItems":{"events":[{"PutRequest":{"Item":{"body":{"S":"{}"}}}}]}}"#),
    (200, r#"{"UnprocessedItems":{"others":[{"PutRequest":{"Item":{"key":{"S":"1"}}}}]}}"#),
    (200, r#"{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError"}"#),
    (204, ""),
    (302, ""),
];

#[tokio::test]
async fn response_without_acknowledgement_is_retried() {
    in_time(async {
        for (status, body) in NO_ACKNOWLEDGEMENTS {
            let unreadable = Reply::raw(status, body);
            assert_stored_after(Transport::Http, [unreadable.clone(), unreadable.once_applied()])
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn event_without_acknowledgement_is_maybe_stored() {
    in_time(async {
        for (status, body) in NO_ACKNOWLEDGEMENTS {
            for reply in [Reply::raw(status, body), Reply::raw(status, body).once_applied()] {
                let endpoint = Endpoint::start(Script::always(reply)).await;
                let store = with_short_waits(endpoint.store())
                    .read_back(false)
                    .max_attempts(3)
                    .start()
                    .await
                    .unwrap();
                let error = settle_one(&store, &endpoint).await.unwrap_err();
                assert_eq!(error.certainty(), Certainty::MaybeStored, "{status} {body}");
                assert_eq!((error.reason(), error.attempts()), (FailureReason::Attempts, 3));
                assert_eq!(endpoint.sizes(), [1, 1, 1]);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn empty_unprocessed_list_acknowledges_the_batch() {
    in_time(async {
        let acknowledged = Reply::raw(200, r#"{"UnprocessedItems":{"events":[]}}"#).once_applied();
        let endpoint = Endpoint::start([acknowledged]).await;
        let store = store_at(&endpoint).await;
        let puts = put_many(&store, 3).await;
        let answers = settle(&store, &endpoint, puts).await;
        assert_eq!(attempts(&answers), [1, 1, 1]);
    })
    .await;
}

// Persistent errors.

#[tokio::test]
async fn refusal_is_final_after_the_refusal_timeout() {
    in_time(async {
        for (status, code) in [
            (400, "AccessDeniedException"),
            (400, "UnrecognizedClientException"),
            (403, "InvalidSignatureException"),
            (400, "ResourceNotFoundException"),
        ] {
            let endpoint = Endpoint::start(Script::always(Reply::error(status, code))).await;
            let store = store_at(&endpoint).await;
            let puts = put_many(&store, 3).await;
            let answers = settle(&store, &endpoint, puts).await;
            // If the store has never written to the table, a missing table is final at once.
            let fails_at_once = code == "ResourceNotFoundException";
            assert_eq!(
                endpoint.sizes().len() == 1,
                fails_at_once,
                "{code}: {:?}",
                endpoint.sizes()
            );
            let id = endpoint.last_batch_id();
            for answer in answers {
                let error = answer.unwrap_err();
                assert_eq!(error.certainty(), Certainty::NotStored);
                assert_eq!(error.attempts() as usize, endpoint.sizes().len());
                assert_eq!(error.reason(), FailureReason::NotRetryable);
                let cause = error.last_cause().unwrap();
                assert_eq!((cause.code(), cause.request_id()), (Some(code), Some(id.as_str())));
                let message = error.to_string();
                assert!(message.contains(code) && message.contains(&id), "{message}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_batch_is_split_until_each_event_is_refused_alone() {
    in_time(async {
        let refusal = Reply::error(400, "ValidationException");
        let endpoint = Endpoint::start(Script::always(refusal)).await;
        let store =
            with_short_waits(endpoint.store()).max_batches_in_flight(1).start().await.unwrap();
        let puts = put_many(&store, 3).await;
        let answers = settle(&store, &endpoint, puts).await;
        assert_eq!(endpoint.sizes(), [3, 1, 2, 1, 1]);
        for (answer, attempts) in answers.into_iter().zip([2, 3, 3]) {
            let error = answer.unwrap_err();
            assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, attempts));
            assert_eq!(error.reason(), FailureReason::NotRetryable);
            assert_eq!(error.last_cause().unwrap().code(), Some("ValidationException"));
        }
    })
    .await;
}

#[tokio::test]
async fn final_refusal_fails_queued_events_until_a_call_succeeds() {
    in_time(async {
        let denied = Reply::error(400, "AccessDeniedException");
        let endpoint = Endpoint::start(Script::always(denied)).await;
        let store =
            with_short_waits(endpoint.store()).max_batches_in_flight(8).start().await.unwrap();
        let puts = put_many(&store, 600).await;
        let answers = settle(&store, &endpoint, puts).await;
        // After a refusal the store sends one call at a time.
        assert!(endpoint.sizes().len() < 20, "{:?}", endpoint.sizes());
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(error.certainty(), Certainty::NotStored);
            assert_eq!(error.reason(), FailureReason::NotRetryable);
            assert_eq!(error.last_cause().unwrap().code(), Some("AccessDeniedException"));
        }

        // The next event is tried once and fails at once.
        let before = endpoint.sizes().len();
        settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!(endpoint.sizes().len(), before + 1);
        endpoint.reply_from_now_on(Reply::Ok);
        settle_one(&store, &endpoint).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_refusal_among_many_calls_loses_no_event() {
    in_time(async {
        for code in ["AccessDeniedException", "UnrecognizedClientException"] {
            let refused = (0..20).map(|_| Reply::Ok).chain([Reply::error(400, code)]);
            let endpoint = Endpoint::start(Script::of(refused)).await;
            let store = with_short_waits(endpoint.store()).start().await.unwrap();
            let puts = put_many(&store, 2_000).await;
            let answers = settle(&store, &endpoint, puts).await;
            assert!(answers.iter().all(Result::is_ok), "{code}");
            assert_eq!(store.stats().retried, 25, "{code}");
        }
    })
    .await;
}

#[tokio::test]
async fn invalid_event_fails_alone_and_its_neighbours_are_stored() {
    in_time(async {
        for invalid in [vec![7], vec![0, 24], vec![3, 4, 5, 20]] {
            let bodies = invalid.iter().map(|&number| body(number));
            let endpoint = Endpoint::start(Script::of([]).poison(bodies)).await;
            let store = store_at(&endpoint).await;
            let puts = put_many(&store, 25).await;
            let keys = keys(&puts);
            let answers = settle(&store, &endpoint, puts).await;

            let batches = endpoint.batches();
            for (number, answer) in answers.into_iter().enumerate() {
                let attempts = match answer {
                    Ok(stored) => {
                        assert!(!invalid.contains(&number), "{number} of {invalid:?}");
                        stored.attempts
                    }
                    Err(error) => {
                        assert!(invalid.contains(&number), "{number} of {invalid:?}: {error}");
                        assert_eq!(error.certainty(), Certainty::NotStored);
                        assert_eq!(error.reason(), FailureReason::NotRetryable);
                        let cause = error.last_cause().unwrap();
                        assert_eq!(cause.code(), Some("ValidationException"));
                        assert!(cause.request_id().is_some());
                        error.attempts()
                    }
                };
                let carried = batches.iter().filter(|batch| batch.keys.contains(&keys[number]));
                assert_eq!(attempts as usize, carried.count());
                // Batches of 25, 13, 7, 4, 2 and 1 events.
                assert!(attempts <= 6);
            }
            assert!(batches.len() <= 1 + 10 * invalid.len());
        }
    })
    .await;
}

#[tokio::test]
async fn batch_rejected_as_invalid_is_split_to_single_events() {
    in_time(async {
        let invalid = Reply::error(400, "ValidationException");
        let endpoint = Endpoint::start(Script::always(invalid)).await;
        let store = store_at(&endpoint).await;
        let puts = put_many(&store, 25).await;
        for answer in settle(&store, &endpoint, puts).await {
            let error = answer.unwrap_err();
            assert_eq!(error.certainty(), Certainty::NotStored);
            let code = error.last_cause().unwrap().code();
            assert_eq!(code, Some("ValidationException"));
        }
        let mut alone = endpoint.batches();
        alone.retain(|batch| batch.keys.len() == 1);
        assert_eq!(alone.len(), 25);
        // The splits form a binary tree with 25 leaves.
        assert_eq!(endpoint.batches().len(), 25 + 24);
    })
    .await;
}

#[tokio::test]
async fn maybe_stored_event_stays_so_after_a_refusal() {
    in_time(async {
        for lost in [
            Reply::HangUp,
            Reply::CutShort,
            Reply::Hang,
            Reply::error(500, "InternalServerError"),
            Reply::raw(502, "<html><body>Bad gateway</body></html>"),
            Reply::raw(200, "{}"),
            Reply::raw(200, "{"),
        ] {
            let denied = Reply::error(400, "AccessDeniedException");
            let endpoint = Endpoint::start(Script::of([lost.once_applied()]).then(denied)).await;
            let store = with_short_waits(endpoint.store()).read_back(false).start().await.unwrap();
            let error = settle_one(&store, &endpoint).await.unwrap_err();
            assert_eq!(error.certainty(), Certainty::MaybeStored);
            assert!(error.attempts() >= 2);
            let code = error.last_cause().unwrap().code();
            assert_eq!(code, Some("AccessDeniedException"));
            assert_eq!(endpoint.table().await.len(), 1);
        }
    })
    .await;
}

/// The error of one event at its deadline, when every call fails like this.
async fn error_at_the_deadline(failure: Reply) -> (WriteError, Endpoint) {
    let endpoint = Endpoint::start(Script::always(failure)).await;
    let store = with_short_waits(endpoint.store())
        .read_back(false)
        .linger(SHORT_DEADLINE / 2)
        .event_deadline(SHORT_DEADLINE)
        .max_attempts(1_000)
        .start()
        .await
        .unwrap();
    let error = settle_one(&store, &endpoint).await.unwrap_err();
    assert_eq!(error.reason(), FailureReason::Deadline);
    assert_eq!(error.attempts() as usize, endpoint.sizes().len());
    assert!(error.attempts() > 1);
    assert!(error.elapsed() < SHORT_DEADLINE + ATTEMPT_TIMEOUT);
    (error, endpoint)
}

#[tokio::test]
async fn server_errors_until_the_deadline_leave_event_maybe_stored() {
    in_time(async {
        let failure = Reply::error(500, "InternalServerError");
        let (error, endpoint) = error_at_the_deadline(failure).await;
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        let cause = error.last_cause().unwrap();
        assert_eq!(cause.code(), Some("InternalServerError"));
        let last = endpoint.last_batch_id();
        assert_eq!(cause.request_id(), Some(last.as_str()));
    })
    .await;
}

#[tokio::test]
async fn throttling_until_the_deadline_leaves_event_not_stored() {
    in_time(async {
        let code = "ProvisionedThroughputExceededException";
        let (error, _endpoint) = error_at_the_deadline(Reply::error(400, code)).await;
        assert_eq!(error.certainty(), Certainty::NotStored);
        assert_eq!(error.last_cause().unwrap().code(), Some(code));
    })
    .await;
}

#[tokio::test]
async fn call_hanging_past_the_deadline_is_awaited_and_not_retried() {
    in_time(async {
        let endpoint = Endpoint::start(Script::always(Reply::Hang)).await;
        let store = with_short_waits(endpoint.store())
            .linger(SHORT_DEADLINE / 2)
            .event_deadline(SHORT_DEADLINE)
            .start()
            .await
            .unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::MaybeStored, 1));
        assert_eq!(error.reason(), FailureReason::Deadline);
        assert!(error.elapsed() >= SHORT_DEADLINE + ATTEMPT_TIMEOUT / 2, "{error}");
    })
    .await;
}

#[tokio::test]
async fn close_during_a_hanging_call_reports_events_maybe_stored() {
    in_time(async {
        let endpoint = Endpoint::start(Script::always(Reply::Hang.once_applied())).await;
        let store = with_short_waits(endpoint.store())
            .read_back(false)
            .attempt_timeout(TIME_LIMIT)
            .start()
            .await
            .unwrap();
        let mut keys = Vec::new();
        let mut tickets = Vec::new();
        for put in put_many(&store, 3).await {
            keys.push(put.ticket.key().to_string());
            tickets.push(put.ticket);
        }
        let report = store.close(Duration::from_millis(200)).await.unwrap();
        assert_eq!((report.stored, report.failed), (0, 3));
        let mut reported = Vec::new();
        for error in &report.errors {
            reported.push(error.key().to_string());
            assert_eq!((error.certainty(), error.attempts()), (Certainty::MaybeStored, 1));
            assert_eq!(error.reason(), FailureReason::CloseDeadline);
        }
        reported.sort();
        assert_eq!(reported, keys);
        for ticket in tickets {
            assert_eq!(ticket.await.unwrap_err().certainty(), Certainty::MaybeStored);
        }
        assert!(endpoint.table().await.into_keys().eq(keys));
    })
    .await;
}

/// The URL of a port on which nothing listens while the socket is held.
fn closed_port() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

fn store_without_endpoint() -> EventStoreBuilder {
    with_short_waits(EventStore::builder())
        .table(TABLE)
        .region("us-east-1")
        .credentials("test", "test")
        .linger(SHORT_DEADLINE / 2)
        .event_deadline(SHORT_DEADLINE)
}

#[tokio::test]
async fn event_without_any_connection_is_not_stored() {
    in_time(async {
        let (_socket, url) = closed_port();
        let store = store_without_endpoint().endpoint_url(url).check_table(false);
        let store = store.start().await.unwrap();
        let ticket = store.put(&json!({ "foo": "bar" })).await.unwrap();
        store.flush().await.unwrap();
        let error = ticket.await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::NotStored);
        assert_eq!(error.reason(), FailureReason::Deadline);
        assert!(error.attempts() > 1);
        let message = error.to_string();
        assert!(
            message.contains("no connection to the service: ") && message.contains("refused"),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn event_for_an_unresolvable_host_is_not_stored() {
    in_time(async {
        let store = store_without_endpoint()
            .endpoint_url("http://nobody.invalid:1")
            .check_table(false)
            // A resolver may take seconds to report an unknown name.
            .attempt_timeout(Duration::from_secs(20));
        let store = store.start().await.unwrap();
        let ticket = store.put(&json!({ "foo": "bar" })).await.unwrap();
        store.flush().await.unwrap();
        let error = ticket.await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::NotStored, "{error}");
    })
    .await;
}

// All faults mixed.

#[tokio::test]
async fn tickets_match_the_table_after_mixed_failures() {
    in_time(async {
        let throttling = [
            Reply::Unprocessed(Selector::Places(vec![24, 0, 12, 5])),
            Reply::error(400, "ProvisionedThroughputExceededException"),
            Reply::Unprocessed(Selector::All),
            Reply::Unprocessed(Selector::Places((0..24).rev().collect())),
        ];
        let faults = [
            Reply::HangUp.once_applied(),
            Reply::Ok,
            Reply::error(500, "InternalServerError").once_applied(),
            Reply::raw(200, "{}").once_applied(),
            Reply::raw(200, "<html></html>"),
            Reply::CutShort.once_applied(),
            Reply::Hang.once_applied(),
            Reply::HangUp,
            Reply::CutShort,
            Reply::Hang,
            Reply::Unprocessed(Selector::PlacesAndUnknownKey(vec![])),
            Reply::error(503, "ServiceUnavailable"),
        ];
        let replies = faults.iter().cycle().take(6 * faults.len());
        let replies = throttling.iter().chain(replies).cloned();
        let endpoint = Endpoint::start(Script::of(replies)).await;
        let store =
            with_short_waits(endpoint.store()).max_batches_in_flight(4).start().await.unwrap();
        let puts = put_many(&store, 1_000).await;
        let answers = settle(&store, &endpoint, puts).await;

        // Only events that the service refused alone as invalid may fail.
        let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(failed.len() <= 6);
        for error in failed {
            let code = error.last_cause().unwrap().code();
            assert_eq!(code, Some("ValidationException"));
        }
        let stats = store.stats();
        assert_eq!(stats.batches as usize, endpoint.batches().len());
        let carried: usize = endpoint.sizes().iter().sum();
        assert_eq!(stats.retried as usize, carried - 1_000);
    })
    .await;
}

#[tokio::test]
async fn batches_of_bodies_that_double_stay_below_16_mb() {
    in_time(async {
        let endpoint = Endpoint::start([]).await;
        let store =
            with_short_waits(endpoint.store()).attempt_timeout(TIME_LIMIT).start().await.unwrap();
        let mut puts = Vec::new();
        for _ in 0..25 {
            let quotes = "\\\"".repeat(204_000);
            puts.push(put_body(&store, format!("\"{quotes}\"")).await);
        }
        let answers = settle(&store, &endpoint, puts).await;
        assert_eq!(attempts(&answers), [1; 25]);
        // The endpoint refuses more than 16 MB. Two requests suffice.
        assert_eq!(endpoint.sizes().iter().sum::<usize>(), 25);
        assert_eq!(endpoint.sizes().len(), 2);
    })
    .await;
}

// Transports.

/// Sets a header of each request before it is signed, and counts the requests.
#[derive(Debug)]
struct HeaderInterceptor {
    name: &'static str,
    value: &'static str,
    requests: Arc<AtomicU32>,
}

impl Intercept for HeaderInterceptor {
    fn name(&self) -> &'static str {
        "HeaderInterceptor"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().insert(self.name, self.value);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn request_changed_by_an_interceptor_goes_through_the_sdk() {
    in_time(async {
        for (name, value) in [("x-team", "billing"), ("content-type", "application/x-amz-json-1.1")]
        {
            let endpoint = Endpoint::start([]).await;
            let requests = Arc::new(AtomicU32::new(0));
            let interceptor = HeaderInterceptor { name, value, requests: Arc::clone(&requests) };
            let config = aws_sdk_dynamodb::config::Builder::from(&endpoint.sdk_config());
            let client = Client::from_conf(config.interceptor(interceptor).build());
            let store = EventStore::builder().client(&client).table(TABLE).check_table(false);
            let store = with_short_waits(store).transport(dynamodb_eventstore::Transport::Direct);
            let store = store.start().await.unwrap();
            let puts = put_many(&store, 60).await;
            let answers = settle(&store, &endpoint, puts).await;
            assert_eq!(attempts(&answers), [1; 60]);
            // The client sent all batches, and the requests for the template.
            let batches = endpoint.sizes().len() as u32;
            assert!(requests.load(Ordering::Relaxed) > batches, "{name}");
        }
    })
    .await;
}

/// A store with this transport and a client of this configuration, and the number of requests that
/// the client has made.
async fn counted_store(
    config: &SdkConfig,
    transport: dynamodb_eventstore::Transport,
) -> (EventStore, Arc<AtomicU32>) {
    let requests = Arc::new(AtomicU32::new(0));
    let interceptor =
        HeaderInterceptor { name: "user-agent", value: "tests", requests: Arc::clone(&requests) };
    let config = aws_sdk_dynamodb::config::Builder::from(config);
    let client = Client::from_conf(config.interceptor(interceptor).build());
    let store = EventStore::builder().client(&client).table(TABLE).check_table(false);
    (with_short_waits(store).transport(transport).start().await.unwrap(), requests)
}

/// The number of requests that the client makes for three batches with this transport.
async fn client_requests(transport: dynamodb_eventstore::Transport) -> u32 {
    let endpoint = Endpoint::start([]).await;
    let (store, requests) = counted_store(&endpoint.sdk_config(), transport).await;
    let puts = put_many(&store, 75).await;
    assert_eq!(attempts(&settle(&store, &endpoint, puts).await), [1; 75]);
    assert_eq!(endpoint.sizes(), [25; 3]);
    requests.load(Ordering::Relaxed)
}

#[tokio::test]
async fn transport_setting_decides_who_sends() {
    in_time(async {
        use dynamodb_eventstore::Transport;
        assert_eq!(client_requests(Transport::Sdk).await, 3);
        // By default a client given by the caller makes every request.
        assert_eq!(client_requests(Transport::Automatic).await, 3);
        // The direct transport needs one request of the client as its template.
        assert_eq!(client_requests(Transport::Direct).await, 1);
    })
    .await;
}

#[tokio::test]
async fn failed_first_request_keeps_the_direct_transport() {
    in_time(async {
        let endpoint = Endpoint::start([]).await;
        // The timeout of the SDK ends the first attempts before the credentials are loaded.
        let limit = Duration::from_millis(400);
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(limit).build();
        let provider = SharedCredentialsProvider::new(SlowProvider(limit * 3));
        let config = endpoint.sdk_config().into_builder().timeout_config(timeouts);
        let config = config.credentials_provider(provider).build();
        log();
        let transport = dynamodb_eventstore::Transport::Direct;
        let (store, requests) = counted_store(&config, transport).await;
        let puts = put_many(&store, 75).await;
        let answers = settle(&store, &endpoint, puts).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().attempts > 1));
        assert_eq!(endpoint.sizes(), [25; 3]);
        assert_eq!(requests.load(Ordering::Relaxed), 1);
        let logged = logged();
        assert!(logged.contains("the SDK's time-out passed before it was signed"), "{logged}");
        assert!(!logged.contains("not one that this crate knows"), "{logged}");
    })
    .await;
}

#[tokio::test]
async fn invalid_endpoint_error_resolves_the_address_again() {
    in_time(async {
        for status in [400, 421] {
            let wrong = Reply::error(status, "InvalidEndpointException");
            let endpoint = Endpoint::start([wrong]).await;
            let transport = dynamodb_eventstore::Transport::Direct;
            let (store, requests) = counted_store(&endpoint.sdk_config(), transport).await;
            let stored = settle_one(&store, &endpoint).await.unwrap();
            assert_eq!((stored.attempts, requests.load(Ordering::Relaxed)), (2, 2), "{status}");
        }
    })
    .await;
}

/// Replaces the result of each attempt by success, as mocks of the SDK do.
#[derive(Debug)]
struct Mock;

impl Intercept for Mock {
    fn name(&self) -> &'static str {
        "Mock"
    }

    fn modify_before_attempt_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let output =
            BatchWriteItemOutput::builder().set_unprocessed_items(Some(HashMap::new())).build();
        context.inner_mut().set_output_or_error(Ok(Output::erase(output)));
        Ok(())
    }
}

#[tokio::test]
async fn mocked_client_answers_every_call() {
    in_time(async {
        // A request that reaches the endpoint would fail.
        let failing = Reply::error(500, "InternalServerError");
        let endpoint = Endpoint::start(Script::always(failing)).await;
        let config = aws_sdk_dynamodb::config::Builder::from(&endpoint.sdk_config());
        let client = Client::from_conf(config.interceptor(Mock).build());
        let store = EventStore::builder().client(&client).table(TABLE).check_table(false);
        let store = with_short_waits(store).transport(dynamodb_eventstore::Transport::Direct);
        log();
        let store = store.start().await.unwrap();
        for _ in 0..3 {
            let ticket = store.put(&1).await.unwrap();
            store.flush().await.unwrap();
            assert_eq!(ticket.await.unwrap().attempts, 1);
        }
        let logged = logged();
        assert_eq!(logged.matches("the client answers by itself").count(), 1, "{logged}");
        assert_eq!(logged.matches("calls go through the SDK").count(), 1, "{logged}");
    })
    .await;
}

#[tokio::test]
async fn log_names_the_transport_once() {
    in_time(async {
        use dynamodb_eventstore::Transport;
        for (transport, line) in [
            (Transport::Sdk, "calls go through the SDK"),
            (Transport::Direct, "calls go without the SDK's orchestrator"),
        ] {
            log();
            client_requests(transport).await;
            let logged = logged();
            assert_eq!(logged.matches(line).count(), 1, "{logged}");
        }
    })
    .await;
}

// Only the store retries.

/// A configuration in which the SDK makes up to five attempts with short waits.
fn eager_sdk(endpoint: &Endpoint) -> SdkConfig {
    let retries =
        RetryConfig::standard().with_max_attempts(5).with_initial_backoff(Duration::from_millis(1));
    endpoint.sdk_config().into_builder().retry_config(retries).build()
}

#[tokio::test]
async fn one_attempt_is_one_request_for_every_client_setup() {
    in_time(async {
        for setup in ["configuration", "sdk_config", "client"] {
            let endpoint = Endpoint::start([
                Reply::error(500, "InternalServerError"),
                Reply::error(400, "ThrottlingException"),
                Reply::HangUp,
            ])
            .await;
            let store = match setup {
                "configuration" => endpoint.store(),
                "sdk_config" => {
                    EventStore::builder().table(TABLE).sdk_config(&eager_sdk(&endpoint))
                }
                _ => EventStore::builder().table(TABLE).client(&Client::new(&eager_sdk(&endpoint))),
            };
            let store = with_short_waits(store).start().await.unwrap();
            let stored = settle_one(&store, &endpoint).await.unwrap();
            assert_eq!(stored.attempts, 4, "{setup}");
            assert_eq!(endpoint.sizes(), [1, 1, 1, 1], "{setup}");
            assert_eq!(store.stats().batches, 4, "{setup}");
        }
    })
    .await;
}

#[tokio::test]
async fn timeout_of_the_sdk_leaves_event_maybe_stored() {
    in_time(async {
        let endpoint = Endpoint::start([Reply::Hang.once_applied()]).await;
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build();
        let sdk_config = eager_sdk(&endpoint).into_builder().timeout_config(timeouts).build();
        let store = EventStore::builder().table(TABLE).sdk_config(&sdk_config);
        let store = with_short_waits(store)
            .read_back(false)
            .attempt_timeout(TIME_LIMIT)
            .max_attempts(1)
            .start()
            .await
            .unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        assert!(error.elapsed() < TIME_LIMIT);
        assert_eq!(endpoint.table().await.len(), 1);
    })
    .await;
}

// Secrets.

thread_local! {
    /// The log of all crates in this thread since [`log`] was called, down to DEBUG.
    static LOGGED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Starts a new log of this thread. The runtime of a test runs all of its tasks in this thread.
///
/// One subscriber serves all threads for the whole process: with one subscriber per test, tracing may
/// disable an event for good because the first test that meets it does not log it.
fn log() {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(|| Logger)
            .init();
    });
    LOGGED.set(Some(Vec::new()));
}

fn logged() -> String {
    String::from_utf8(LOGGED.take().unwrap()).unwrap()
}

struct Logger;

impl io::Write for Logger {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.with_borrow_mut(|log| log.as_mut().map(|log| log.extend_from_slice(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error and all its sources in every format.
fn in_every_format(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| format!("{error}\n{error:#}\n{error:?}\n{error:#?}\n")).collect()
}

/// Puts two events with the marker, an object and a string, each in a call of its own that is answered
/// with `reply`. The marker must not appear in any output or in the log.
async fn assert_marker_is_redacted(reply: Reply) {
    for body in [format!(r#"{{"secret":"{MARKER}"}}"#), format!(r#""{MARKER}""#)] {
        log();
        let endpoint = Endpoint::start(Script::always(reply.clone())).await;
        let store = with_short_waits(endpoint.store())
            .read_back(false)
            .max_attempts(2)
            .start()
            .await
            .unwrap();
        let puts = vec![put_body(&store, body).await];
        let debug_ticket = format!("{:?}", puts[0].ticket);
        let error = settle(&store, &endpoint, puts).await.remove(0).unwrap_err();
        let debug_store = format!("{store:?}");
        let report = store.close(TIME_LIMIT).await.unwrap();

        let logged = logged();
        for logger in ["dynamodb_eventstore", "aws_smithy_runtime"] {
            assert!(logged.contains(logger), "the log of {logger} was not captured");
        }
        for output in
            [in_every_format(&error), debug_ticket, debug_store, format!("{report:?}"), logged]
        {
            assert!(!output.contains(MARKER), "after {reply:?}: {output}");
        }
    }
}

fn echoing(message: &'static str) -> Reply {
    assert!(message.contains(ECHO));
    Reply::Error { status: 400, code: "ValidationException", message }
}

#[tokio::test]
async fn request_echoed_by_dynamodb_is_redacted() {
    in_time(assert_marker_is_redacted(echoing(
        "1 validation error detected: Value '{events=[com.amazonaws.dynamodb.v20120810.WriteRequest\
         (PutRequest=PutRequest(Item={body=AttributeValue: {S:<body>}}))]}' at 'requestItems' \
         failed to satisfy constraint: Map value must satisfy constraint",
    )))
    .await;
}

#[tokio::test]
async fn echo_in_braces_before_a_quoted_value_is_redacted() {
    in_time(assert_marker_is_redacted(echoing(
        "The item {body=<body>} is not valid: Value 'S' is not one of these",
    )))
    .await;
}

#[tokio::test]
async fn echo_in_single_quotes_is_redacted() {
    in_time(assert_marker_is_redacted(echoing(
        "One or more parameter values were invalid: the attribute '<body>' is not valid",
    )))
    .await;
}

#[tokio::test]
async fn unquoted_echo_is_redacted() {
    in_time(assert_marker_is_redacted(echoing("Supplied AttributeValue is not valid: <body>")))
        .await;
}

#[tokio::test]
async fn event_in_an_unreadable_response_is_redacted() {
    in_time(async {
        for (status, body) in [
            (200, "w0nt-be-t0ld"),
            (200, r#"{"UnprocessedItems":"w0nt-be-t0ld"}"#),
            (200, r#"{"UnprocessedItems":{"w0nt-be-t0ld":[{}]}}"#),
            (
                200,
                r#"{"UnprocessedItems":{"events":[{"PutRequest":{"Item":{"w0nt-be-t0ld":1}}}]}}"#,
            ),
            (500, "w0nt-be-t0ld"),
            (502, "<html>w0nt-be-t0ld</html>"),
            (400, "w0nt-be-t0ld"),
        ] {
            assert!(body.contains(MARKER));
            assert_marker_is_redacted(Reply::raw(status, body)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn neither_success_nor_lost_call_reveals_the_event() {
    in_time(async {
        for reply in [
            Reply::Unprocessed(Selector::All),
            Reply::Unprocessed(Selector::PlacesAndUnknownKey(vec![])),
            Reply::error(500, "InternalServerError"),
            Reply::HangUp,
            Reply::CutShort,
            Reply::Hang,
        ] {
            assert_marker_is_redacted(reply).await;
        }

        log();
        let endpoint = Endpoint::start([]).await;
        let store = store_at(&endpoint).await;
        let puts = vec![put_body(&store, format!(r#""{MARKER}""#)).await];
        let key = puts[0].ticket.key().to_string();
        settle(&store, &endpoint, puts).await.remove(0).unwrap();
        let logged = logged();
        assert!(logged.contains(&key), "the log was not captured");
        assert!(!logged.contains(MARKER), "{logged}");
    })
    .await;
}

#[tokio::test]
async fn debug_output_shows_no_password_or_secret() {
    in_time(async {
        let url = "http://user:hunter2@127.0.0.1:1";
        let config = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "id",
                "hunter2",
                Some("hunter2".to_owned()),
                None,
                "tests",
            )))
            .endpoint_url(url)
            .build();
        let client = Client::new(&config);
        let builder = EventStore::builder().table(TABLE).region("us-east-1").endpoint_url(url);
        let builder = builder.session_credentials("id", "hunter2", "hunter2");
        let table = dynamodb_eventstore::Table::new(&client, TABLE);
        let writer = dynamodb_eventstore::SdkBatchWriter::new(&client, TABLE);
        let direct = EventStore::builder().table(TABLE).sdk_config(&config).check_table(false);
        let store = direct.start().await.unwrap();
        for output in [
            format!("{builder:#?}"),
            format!("{:#?}", EventStore::builder().client(&client)),
            format!("{:#?}", EventStore::builder().sdk_config(&config)),
            format!("{table:#?}"),
            format!("{writer:#?}"),
            format!("{store:#?}"),
        ] {
            assert!(output.len() > 5 && !output.contains("hunter2"), "{output}");
        }
    })
    .await;
}

// Starting a store.

async fn start_error(script: Script) -> StartError {
    let endpoint = Endpoint::start(script).await;
    with_short_waits(endpoint.store()).start().await.unwrap_err()
}

#[tokio::test]
async fn wrong_key_error_names_found_and_expected_key() {
    in_time(async {
        let id = KeyPart { name: "id", ..EVENT_KEY };
        let number = KeyPart { of_type: "N", ..EVENT_KEY };
        let range = KeyPart { name: "at", role: "RANGE", of_type: "S" };
        for (key, found) in [
            (vec![id], "hash key `id` of type S"),
            (vec![number], "hash key `key` of type N"),
            (vec![EVENT_KEY, range], "hash key `key` of type S and range key `at` of type S"),
        ] {
            let script = Script::of([]).describing(Described::with_key(key));
            let error = start_error(script).await;
            assert!(matches!(&error, StartError::Table(TableError::WrongKey { .. })), "{error:?}");
            assert_eq!(
                error.to_string(),
                format!(
                    "table `events` has the key {found}, but events need a table whose only key is \
                     the hash key `key` of type S (String): choose another table, or create one"
                )
            );
        }
    })
    .await;
}

#[tokio::test]
async fn missing_table_error_names_region_and_create_command() {
    in_time(async {
        let endpoint = Endpoint::start([]).await;
        let error = endpoint.store().table("evnets").start().await.unwrap_err();
        let message = error.to_string();
        for part in ["no table `evnets`", "region us-east-1", "create-table --table evnets"] {
            assert!(message.contains(part), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn table_being_created_refuses_the_start() {
    in_time(async {
        let creating = Described::creating();
        let error = start_error(Script::of([]).describing(creating)).await;
        assert!(error.to_string().contains("CREATING"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn role_without_describe_permission_may_still_write() {
    in_time(async {
        let denied = Described::Error { status: 400, code: "AccessDeniedException" };
        let endpoint = Endpoint::start(Script::of([]).describing(denied)).await;
        let store = store_at(&endpoint).await;
        settle_one(&store, &endpoint).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn transient_describe_failure_does_not_stop_the_start() {
    in_time(async {
        let hiccup = Described::Error { status: 500, code: "InternalServerError" };
        let endpoint = Endpoint::start(Script::of([]).first_describing([hiccup])).await;
        let store = store_at(&endpoint).await;
        settle_one(&store, &endpoint).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn persistent_describe_failure_is_a_start_error_with_cause() {
    in_time(async {
        let failure = Described::Error { status: 500, code: "InternalServerError" };
        let message = start_error(Script::of([]).describing(failure)).await.to_string();
        assert!(
            message.starts_with("DescribeTable of table `events` failed: InternalServerError: "),
            "{message}"
        );

        let (_socket, url) = closed_port();
        let store = store_without_endpoint().endpoint_url(url);
        let message = store.start().await.unwrap_err().to_string();
        assert!(message.contains("no connection to the service: "), "{message}");
    })
    .await;
}
