//! Faults of the service and the network, over HTTP, over HTTPS and through an SDK client.
//!
//! Every test compares the answer of each ticket with a real table.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed set-up fails the test")]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_dynamodb::config::IdentityCache;
use aws_smithy_async::time::TimeSource;
use dynamodb_eventstore::{
    BatchError, Certainty, EventStore, FailureClass, FailureReason, Proof, ReadBack, StartError,
    TableError, WriteError,
};
use tokio::task::yield_now;

use support::credentials::SlowProvider;
use support::endpoint::{
    Described, Endpoint, ReadReply, Reply, Script, Selector, TABLE, Transport,
};
use support::puts::{
    ATTEMPT_TIMEOUT, Answer, TIME_LIMIT, assert_stored_after, attempts, compare, in_time, keys,
    put_body, put_many, settle, settle_one, store_at, with_short_waits,
};

/// Makes a test of each scenario for each transport.
macro_rules! for_each_transport {
    ($($scenario:ident)*) => {
        mod over_http {
            $(
                #[tokio::test]
                async fn $scenario() {
                    super::in_time(super::$scenario(super::Transport::Http)).await;
                }
            )*
        }

        mod over_https {
            $(
                #[tokio::test]
                async fn $scenario() {
                    super::in_time(super::$scenario(super::Transport::Https)).await;
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
    without_faults_each_event_is_sent_once
    unprocessed_items_alone_are_sent_again
    item_listed_twice_as_unprocessed_is_retried_once
    throttled_batch_is_stored_when_capacity_returns
    batch_throttled_until_its_deadline_is_not_stored
    server_error_before_the_write_is_stored
    server_error_after_the_write_is_stored_once
    server_error_is_retried_over_another_connection
    hang_before_the_write_is_stored
    hang_after_the_write_is_stored_once
    reset_during_request_is_maybe_stored_until_retried
    reset_during_response_is_stored_once
    truncated_response_is_stored_once
    response_with_wrong_checksum_is_retried
    endless_response_is_cancelled_and_retried
    event_refused_as_too_large_fails_alone
    briefly_refused_event_is_stored
    rotated_keys_are_reloaded_but_not_too_often
    renewed_credentials_keep_the_connections
    dropped_store_releases_its_credentials_provider
    byte_order_mark_is_skipped
    credentials_slower_than_an_attempt_are_used_and_renewed
    late_credentials_are_awaited
    briefly_misconfigured_provider_is_asked_again
    unpreparable_request_names_its_cause
    disabled_clock_correction_is_respected
    role_without_read_permission_keeps_its_credentials
    slow_response_within_the_timeout_is_accepted
    slow_response_beyond_the_timeout_is_retried
    batch_after_an_idle_connection_closed_is_stored_once
    unacknowledged_write_is_found_and_stored
    event_not_found_after_a_response_is_not_stored
    event_not_found_after_an_unfinished_call_stays_maybe_stored
    failed_read_is_retried_and_denied_read_is_not
    event_in_flight_at_the_close_deadline_is_found
    expired_credentials_are_replaced_without_loss
    credentials_revoked_early_are_reloaded
    wrong_clock_is_corrected_by_the_service_date
    clock_that_goes_wrong_is_corrected_without_loss
    store_starts_with_a_wrong_clock
    clock_that_is_set_right_is_noticed_without_loss
    refusal_with_a_wrong_clock_is_final
    briefly_unavailable_credentials_are_awaited
    table_deleted_midway_refuses_the_remaining_events
    table_deleted_under_many_calls_refuses_the_rest
    store_starts_only_when_its_table_is_active
    event_before_the_table_is_active_fails_alone
}

/// A script that denies all reads, so that an event that may be stored stays maybe stored.
fn without_reads(script: impl Into<Script>) -> Script {
    script.into().reading(ReadReply::error(400, "AccessDeniedException"))
}

/// The errors of three events whose only attempt gets this reply.
async fn errors_after_one_attempt(transport: Transport, reply: Reply) -> Vec<WriteError> {
    let endpoint = Endpoint::start_over(transport, without_reads([reply])).await;
    let store = with_short_waits(endpoint.store()).max_attempts(1).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(endpoint.batches().len(), 1);
    answers.into_iter().map(Result::unwrap_err).collect()
}

async fn without_faults_each_event_is_sent_once(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 60).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [1; 60]);
    let mut sizes = endpoint.sizes();
    sizes.sort();
    assert_eq!(sizes, [10, 25, 25]);
}

async fn unprocessed_items_alone_are_sent_again(transport: Transport) {
    let unprocessed = |places: &[usize]| Reply::Unprocessed(Selector::Places(places.to_vec()));
    let endpoint = Endpoint::start_over(transport, [unprocessed(&[3, 1]), unprocessed(&[0])]).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 5).await;
    let keys = keys(&puts);
    let answers = settle(&store, &endpoint, puts).await;

    let batches = endpoint.batches();
    assert_eq!(endpoint.sizes(), [5, 2, 1]);
    for (key, attempts) in keys.iter().zip(attempts(&answers)) {
        let carried = batches.iter().filter(|batch| batch.keys.contains(key)).count();
        assert_eq!(attempts as usize, carried, "{key}");
    }
}

async fn item_listed_twice_as_unprocessed_is_retried_once(transport: Transport) {
    let twice = Reply::Unprocessed(Selector::Places(vec![1, 1]));
    let endpoint = Endpoint::start_over(transport, [twice]).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [1, 2, 1]);
    assert_eq!(endpoint.sizes(), [3, 1]);
}

// Throttling.

/// DynamoDB's throttling codes, each with the reasons that come with it.
const THROTTLED: [Reply; 6] = [
    Reply::Throttled {
        code: "ProvisionedThroughputExceededException",
        reason: "TableWriteProvisionedThroughputExceeded",
    },
    Reply::Throttled {
        code: "ProvisionedThroughputExceededException",
        reason: "TableWriteKeyRangeThroughputExceeded",
    },
    Reply::Throttled {
        code: "ThrottlingException",
        reason: "TableWriteMaxOnDemandThroughputExceeded",
    },
    Reply::Throttled {
        code: "ThrottlingException",
        reason: "TableWriteKeyRangeThroughputExceeded",
    },
    Reply::Throttled { code: "RequestLimitExceeded", reason: "TableWriteAccountLimitExceeded" },
    Reply::Throttled { code: "ThrottlingException", reason: "SomethingNew" },
];

async fn throttled_batch_is_stored_when_capacity_returns(transport: Transport) {
    for throttled in THROTTLED {
        assert_stored_after(transport, [throttled.clone(), throttled]).await;
    }
}

async fn batch_throttled_until_its_deadline_is_not_stored(transport: Transport) {
    for throttled in THROTTLED {
        let Reply::Throttled { code, reason } = throttled else { unreachable!() };
        for error in errors_after_one_attempt(transport, throttled).await {
            assert_eq!(error.certainty(), Certainty::NotStored);
            let cause = error.last_cause().unwrap();
            assert_eq!((cause.class(), cause.code()), (FailureClass::Throttled, Some(code)));
            let [named] = cause.throttling_reasons() else { panic!("{cause:?}") };
            assert_eq!(named.reason(), reason);
            assert!(named.resource().unwrap().ends_with(":table/events"), "{named}");
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}

// Server errors and hanging calls, before and after the write.

fn server_errors() -> [Reply; 2] {
    [Reply::error(500, "InternalServerError"), Reply::error(503, "ServiceUnavailable")]
}

async fn server_error_before_the_write_is_stored(transport: Transport) {
    for failed in server_errors() {
        assert_stored_after(transport, [failed.clone(), failed]).await;
    }
}

async fn server_error_after_the_write_is_stored_once(transport: Transport) {
    for failed in server_errors() {
        assert_stored_after(transport, [failed.clone().once_applied(), failed]).await;
    }
}

async fn server_error_is_retried_over_another_connection(transport: Transport) {
    for (reply, connections) in [
        (Reply::error(400, "ThrottlingException"), 1),
        (Reply::error(500, "InternalServerError"), 2),
        (Reply::raw(503, ""), 2),
        (Reply::error(421, "InvalidEndpointException"), 2),
        (Reply::raw(421, ""), 2),
    ] {
        let endpoint = Endpoint::start_over(transport, [reply]).await;
        let store = with_short_waits(endpoint.store()).check_table(false).start().await.unwrap();
        let stored = settle_one(&store, &endpoint).await.unwrap();
        assert_eq!((stored.attempts, endpoint.connections()), (2, connections));
    }
}

async fn hang_before_the_write_is_stored(transport: Transport) {
    assert_stored_after(transport, [Reply::Hang]).await;
}

async fn hang_after_the_write_is_stored_once(transport: Transport) {
    assert_stored_after(transport, [Reply::Hang.once_applied()]).await;
}

// Broken connections.

async fn reset_during_request_is_maybe_stored_until_retried(transport: Transport) {
    let bodies = || (0..4).map(|number| format!("\"{number}{}\"", "x".repeat(400_000)));
    for (max_attempts, stored_after_attempts) in [(1, None), (2, Some(2))] {
        let script = without_reads([Reply::ResetInRequest]);
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = with_short_waits(endpoint.store()).attempt_timeout(TIME_LIMIT);
        let store = store.max_attempts(max_attempts).start().await.unwrap();
        let mut puts = Vec::new();
        for body in bodies() {
            puts.push(put_body(&store, body).await);
        }
        for answer in settle(&store, &endpoint, puts).await {
            let attempts = answer.as_ref().ok().map(|stored| stored.attempts);
            assert_eq!(attempts, stored_after_attempts);
            if let Err(error) = answer {
                assert_eq!(error.certainty(), Certainty::MaybeStored);
                let message = error.to_string();
                assert!(
                    message.contains("the connection broke before a response came"),
                    "{message}"
                );
                assert!(message.contains("reset") || message.contains("Broken pipe"), "{message}");
            }
        }
        let read = endpoint.batches()[0].bytes;
        assert!(
            (1..1_600_000).contains(&read),
            "the endpoint read {read} bytes of the first request"
        );
    }
}

/// Checks a response that is cut short, before or after the batch was applied. Each event may be
/// stored, its error has the request id, and a retry leaves one row.
async fn assert_stored_once_after_broken_response(transport: Transport, broken: Reply) {
    assert_stored_after(transport, [broken.clone()]).await;
    assert_stored_after(transport, [broken.clone().once_applied()]).await;
    assert_stored_after(transport, [broken.clone().once_applied(), broken.clone().once_applied()])
        .await;
    for reply in [broken.clone(), broken.once_applied()] {
        for error in errors_after_one_attempt(transport, reply).await {
            assert_eq!(error.certainty(), Certainty::MaybeStored);
            let cause = error.last_cause().unwrap();
            assert_eq!(cause.class(), FailureClass::Transient);
            assert!(cause.request_id().is_some(), "{error}");
        }
    }
}

async fn reset_during_response_is_stored_once(transport: Transport) {
    assert_stored_once_after_broken_response(transport, Reply::ResetInResponse).await;
}

async fn truncated_response_is_stored_once(transport: Transport) {
    assert_stored_once_after_broken_response(transport, Reply::CutShort).await;
}

async fn batch_after_an_idle_connection_closed_is_stored_once(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let store = store_at(&endpoint).await;
    let mut puts = put_many(&store, 3).await;
    store.flush().await.unwrap();
    let connections = endpoint.connections();

    endpoint.close_connections().await;
    puts.extend(put_many(&store, 3).await);
    store.flush().await.unwrap();
    let answers = compare(&endpoint, puts).await;
    assert_eq!(attempts(&answers), [1; 6]);
    assert_eq!(endpoint.sizes(), [3, 3]);
    assert_eq!(endpoint.connections(), connections + 1);
}

// Slow responses.

async fn slow_response_within_the_timeout_is_accepted(transport: Transport) {
    let drip = Reply::Drip { pause: Duration::from_millis(10) };
    let endpoint = Endpoint::start_over(transport, [drip.once_applied()]).await;
    let store =
        with_short_waits(endpoint.store()).attempt_timeout(TIME_LIMIT).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [1; 3]);
}

async fn slow_response_beyond_the_timeout_is_retried(transport: Transport) {
    // The response has more than twenty bytes, so it takes longer than the timeout.
    let drip = Reply::Drip { pause: ATTEMPT_TIMEOUT / 10 };
    assert_stored_after(transport, [drip.clone()]).await;
    assert_stored_after(transport, [drip.clone().once_applied()]).await;
    for error in errors_after_one_attempt(transport, drip).await {
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        assert!(error.elapsed() >= ATTEMPT_TIMEOUT);
    }
}

// Credentials and clocks.

const OLD: &str = "OLD";
const NEW: &str = "NEW";

/// How long the credentials of a role are valid.
const SESSION: Duration = Duration::from_secs(60 * 60);

/// A clock that stops until [`end_session`](Self::end_session) advances it by one session.
#[derive(Debug, Clone)]
struct SessionClock {
    start: SystemTime,
    sessions: Arc<AtomicU32>,
}

impl SessionClock {
    #[expect(clippy::disallowed_methods, reason = "the SDK's clock begins at the time of day")]
    fn start() -> Self {
        Self { start: SystemTime::now(), sessions: Arc::new(AtomicU32::new(0)) }
    }

    fn end_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }
}

impl TimeSource for SessionClock {
    fn now(&self) -> SystemTime {
        self.start + SESSION * self.sessions.load(Ordering::Relaxed)
    }
}

/// Provides credentials for one session: [`OLD`] in the first session, [`NEW`] later.
#[derive(Debug)]
struct Role(SessionClock);

impl ProvideCredentials for Role {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let Self(clock) = self;
        let access_key = if clock.now() == clock.start { OLD } else { NEW };
        let (token, expires) = (Some("token".to_owned()), Some(clock.now() + SESSION));
        let credentials = Credentials::new(access_key, "secret", token, expires, "Role");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

async fn expired_credentials_are_replaced_without_loss(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let clock = SessionClock::start();
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(Role(clock.clone())))
        .time_source(clock.clone())
        .build();
    let store = endpoint.store_with(&config);
    let store = with_short_waits(store).max_attempts(100_000).start().await.unwrap();
    let mut puts = put_many(&store, 3).await;
    store.flush().await.unwrap();

    // The service treats the credentials as expired, while the client does not yet.
    endpoint.accept_only(NEW);
    puts.extend(put_many(&store, 3).await);
    let end_session = async {
        while endpoint.batches().len() < 4 {
            yield_now().await;
        }
        clock.end_session();
    };
    let (flushed, ()) = tokio::join!(store.flush(), end_session);
    flushed.unwrap();
    let answers = compare(&endpoint, puts).await;
    let attempts = attempts(&answers);
    assert_eq!(attempts[..3], [1; 3]);
    // At least three calls were refused before the events were stored.
    assert!(attempts[3] >= 4, "{attempts:?}");
    assert_eq!(attempts[3..], [endpoint.batches().len() as u32 - 1; 3]);
}

/// The error codes for a signature with a wrong time.
const SKEWED: [&str; 3] =
    ["InvalidSignatureException", "RequestTimeTooSkewed", "SignatureDoesNotMatch"];

async fn wrong_clock_is_corrected_by_the_service_date(transport: Transport) {
    for code in SKEWED {
        for hours_ahead in [3, -3] {
            let script = Script::of([]).with_clock_ahead(hours_ahead, code);
            let endpoint = Endpoint::start_over(transport, script).await;
            let store =
                with_short_waits(endpoint.store()).check_table(false).start().await.unwrap();
            let mut puts = put_many(&store, 3).await;
            store.flush().await.unwrap();
            puts.extend(put_many(&store, 3).await);
            store.flush().await.unwrap();
            let answers = compare(&endpoint, puts).await;
            // The first call is refused, and the clock is corrected from then on.
            assert_eq!(attempts(&answers), [2, 2, 2, 1, 1, 1], "{code} {hours_ahead}");
            assert_eq!(endpoint.sizes(), [3, 3, 3]);
        }
    }
}

async fn clock_that_goes_wrong_is_corrected_without_loss(transport: Transport) {
    for code in SKEWED {
        let endpoint = Endpoint::start_over(transport, []).await;
        let store = store_at(&endpoint).await;
        let mut puts = put_many(&store, 3).await;
        store.flush().await.unwrap();
        // A change of the service's clock looks like a change of the client's.
        endpoint.set_clock_ahead(-3, code);
        puts.extend(put_many(&store, 3).await);
        store.flush().await.unwrap();
        let answers = compare(&endpoint, puts).await;
        assert_eq!(attempts(&answers), [1, 1, 1, 2, 2, 2], "{code}");
    }
}

async fn store_starts_with_a_wrong_clock(transport: Transport) {
    for code in SKEWED {
        let script = Script::of([]).with_clock_ahead(3, code);
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = store_at(&endpoint).await;
        let stored = settle_one(&store, &endpoint).await.unwrap();
        assert!(stored.attempts <= 2, "{code}");
    }
}

async fn clock_that_is_set_right_is_noticed_without_loss(transport: Transport) {
    for code in SKEWED {
        let script = Script::of([]).with_clock_ahead(3, code);
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = with_short_waits(endpoint.store()).check_table(false).start().await.unwrap();
        let mut puts = put_many(&store, 3).await;
        store.flush().await.unwrap();
        // A change of the service's clock looks like a change of the client's.
        endpoint.set_clock_ahead(0, code);
        puts.extend(put_many(&store, 3).await);
        store.flush().await.unwrap();
        let answers = compare(&endpoint, puts).await;
        assert_eq!(attempts(&answers), [2; 6], "{code}");
    }
}

async fn disabled_clock_correction_is_respected(transport: Transport) {
    let script = Script::of([]).with_clock_ahead(3, "RequestTimeTooSkewed");
    let endpoint = Endpoint::start_over(transport, script).await;
    let config = endpoint.sdk_config().into_builder().disable_clock_skew_correction(true).build();
    let store = with_short_waits(endpoint.store_with(&config)).check_table(false).max_attempts(3);
    let store = store.start().await.unwrap();
    let error = settle_one(&store, &endpoint).await.unwrap_err();
    assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 3));
    assert_eq!(error.last_cause().unwrap().class(), FailureClass::ClockSkew);
}

async fn refusal_with_a_wrong_clock_is_final(transport: Transport) {
    for code in ["AccessDeniedException", "InvalidSignatureException"] {
        let script =
            Script::always(Reply::error(400, code)).with_clock_ahead(3, "RequestTimeTooSkewed");
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = with_short_waits(endpoint.store()).check_table(false).start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        // The call is refused first because of its time, and then with this code.
        assert_eq!(error.certainty(), Certainty::NotStored, "{error}");
        assert!(error.attempts() >= 2, "{error}");
        assert_eq!(error.reason(), FailureReason::NotRetryable);
    }
}

async fn response_with_wrong_checksum_is_retried(transport: Transport) {
    assert_stored_after(transport, [Reply::WrongChecksum, Reply::WrongChecksum, Reply::Ok]).await;
    assert_stored_after(transport, [Reply::WrongChecksum.once_applied(), Reply::Ok]).await;
    // A response with a wrong checksum proves nothing.
    for error in errors_after_one_attempt(transport, Reply::WrongChecksum).await {
        assert_eq!(error.certainty(), Certainty::MaybeStored, "{error}");
    }
}

async fn endless_response_is_cancelled_and_retried(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, [Reply::Endless]).await;
    // The timeout is long, so it is the limit on the response's size that ends the call.
    let store =
        with_short_waits(endpoint.store()).attempt_timeout(TIME_LIMIT).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [2; 3]);
}

async fn byte_order_mark_is_skipped(transport: Transport) {
    let acknowledged = Reply::raw(200, "\u{feff}{\"UnprocessedItems\":{}}").once_applied();
    let throttled = "\u{feff}{\"__type\":\"a#ThrottlingException\"}";
    let endpoint =
        Endpoint::start_over(transport, [Reply::raw(400, throttled), acknowledged]).await;
    let store = store_at(&endpoint).await;
    let stored = settle_one(&store, &endpoint).await.unwrap();
    assert_eq!((stored.attempts, stored.proof), (2, Proof::Acknowledged));
    let failure = stored.history()[0].failure().unwrap();
    assert_eq!(failure.code(), Some("ThrottlingException"));
}

async fn event_refused_as_too_large_fails_alone(transport: Transport) {
    for too_large in [Reply::raw(413, "<html>"), Reply::error(413, "RequestEntityTooLarge")] {
        let endpoint = Endpoint::start_over(transport, [too_large.clone(), too_large]).await;
        let store = store_at(&endpoint).await;
        let puts = put_many(&store, 3).await;
        let answers = settle(&store, &endpoint, puts).await;
        assert_eq!(endpoint.sizes(), [3, 1, 2]);
        let error = answers[0].as_ref().unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 2));
        assert!(answers[1..].iter().all(Result::is_ok));
    }
}

async fn put_and_flush(store: &EventStore) -> Answer {
    let ticket = store.put(&1).await.unwrap();
    store.flush().await.unwrap();
    ticket.await
}

/// Provides the access key `BEFORE` at the first load and `AFTER` at every later one. Counts its loads.
#[derive(Debug, Clone, Default)]
struct RotatedKeys(Arc<AtomicU32>);

impl ProvideCredentials for RotatedKeys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let key = if self.0.fetch_add(1, Ordering::Relaxed) == 0 { "BEFORE" } else { "AFTER" };
        let credentials = Credentials::new(key, "secret", None, None, "tests");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

async fn rotated_keys_are_reloaded_but_not_too_often(transport: Transport) {
    for code in ["UnrecognizedClientException", "InvalidSignatureException", "InvalidClientTokenId"]
    {
        let endpoint = Endpoint::start_over(transport, Script::of([])).await;
        endpoint.accept_only_with("AFTER", code);
        let provider = RotatedKeys::default();
        let config = endpoint.sdk_config().into_builder();
        let config = config.credentials_provider(SharedCredentialsProvider::new(provider.clone()));
        let store = with_short_waits(endpoint.store_with(&config.build())).check_table(false);
        let store = store.start().await.unwrap();
        put_and_flush(&store).await.unwrap();
        assert_eq!(provider.0.load(Ordering::Relaxed), 2, "{code}");
        // Now no key is valid. The provider is not called again at every refusal.
        endpoint.accept_only_with("NEVER", code);
        put_and_flush(&store).await.unwrap_err();
        assert!(endpoint.batches().len() > 3);
        assert_eq!(provider.0.load(Ordering::Relaxed), 2, "{code}");
    }
}

async fn renewed_credentials_keep_the_connections(transport: Transport) {
    let expired = || Reply::error(400, "ExpiredTokenException");
    let replies = (0..10).flat_map(|_| [expired(), Reply::Ok]);
    let endpoint = Endpoint::start_over(transport, Script::of(replies)).await;
    let provider = RotatedKeys::default();
    let config = endpoint.sdk_config().into_builder();
    let config = config.credentials_provider(SharedCredentialsProvider::new(provider.clone()));
    let store = with_short_waits(endpoint.store_with(&config.build()));
    let store = store.check_table(false).max_batches_in_flight(1).start().await.unwrap();
    for _ in 0..10 {
        put_and_flush(&store).await.unwrap();
    }
    assert!(provider.0.load(Ordering::Relaxed) >= 2, "no credentials were renewed");
    assert_eq!(endpoint.connections(), 1);
}

/// A provider that shows by an `Arc` whether it was dropped.
#[derive(Debug)]
struct CountedProvider {
    _alive: Arc<()>,
}

impl ProvideCredentials for CountedProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Ok(Credentials::new("test", "test", None, None, "tests")))
    }
}

async fn dropped_store_releases_its_credentials_provider(transport: Transport) {
    let expired = || Reply::error(400, "ExpiredTokenException");
    let endpoint = Endpoint::start_over(transport, [expired(), expired()]).await;
    let alive = Arc::new(());
    let provider = SharedCredentialsProvider::new(CountedProvider { _alive: Arc::clone(&alive) });
    let config = endpoint.sdk_config().into_builder().credentials_provider(provider).build();
    let store =
        with_short_waits(endpoint.store_with(&config)).check_table(false).start().await.unwrap();
    drop(config);
    settle_one(&store, &endpoint).await.unwrap();
    store.close(ATTEMPT_TIMEOUT).await.unwrap();
    drop(store);
    // The task of the worker is dropped shortly after its report.
    while Arc::strong_count(&alive) > 1 {
        yield_now().await;
    }
}

/// Credentials without an expiry, which the test replaces by setting the number to 1.
#[derive(Debug, Clone, Default)]
struct ReplacedKeys(Arc<AtomicU32>);

impl ReplacedKeys {
    fn access_key(&self) -> &'static str {
        if self.0.load(Ordering::Relaxed) == 0 { "BEFORE" } else { "AFTER" }
    }
}

impl ProvideCredentials for ReplacedKeys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let credentials = Credentials::new(self.access_key(), "secret", None, None, "ReplacedKeys");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

async fn credentials_revoked_early_are_reloaded(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let provider = ReplacedKeys::default();
    endpoint.accept_only(provider.access_key());
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider.clone()))
        .build();
    let store = endpoint.store_with(&config);
    let store = with_short_waits(store).start().await.unwrap();
    let mut puts = put_many(&store, 3).await;
    store.flush().await.unwrap();
    provider.0.store(1, Ordering::Relaxed);
    endpoint.accept_only(provider.access_key());
    puts.extend(put_many(&store, 3).await);
    store.flush().await.unwrap();
    let answers = compare(&endpoint, puts).await;
    assert_eq!(attempts(&answers), [1, 1, 1, 2, 2, 2]);
}

/// A role whose provider fails this many times after the first session.
#[derive(Debug)]
struct FailingRole {
    role: Role,
    failures_left: AtomicU32,
}

impl ProvideCredentials for FailingRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let Role(clock) = &self.role;
        let fails = || {
            let left = &self.failures_left;
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        };
        if clock.now() != clock.start && fails() {
            let error = CredentialsError::not_loaded("no answer");
            return future::ProvideCredentials::ready(Err(error));
        }
        self.role.provide_credentials()
    }
}

async fn briefly_unavailable_credentials_are_awaited(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let clock = SessionClock::start();
    let provider = FailingRole { role: Role(clock.clone()), failures_left: AtomicU32::new(2) };
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .time_source(clock.clone())
        .build();
    let store = endpoint.store_with(&config);
    let store = with_short_waits(store).start().await.unwrap();
    let mut puts = put_many(&store, 3).await;
    store.flush().await.unwrap();
    clock.end_session();
    puts.extend(put_many(&store, 3).await);
    store.flush().await.unwrap();
    let answers = compare(&endpoint, puts).await;
    assert_eq!(attempts(&answers), [1, 1, 1, 3, 3, 3]);
}

// Reading back.

/// The answers of three events whose only attempt meets this script.
async fn answers_after_one_attempt(
    transport: Transport,
    script: Script,
) -> (Vec<Answer>, Endpoint) {
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = with_short_waits(endpoint.store()).max_attempts(1).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(endpoint.batches().len(), 1);
    (answers, endpoint)
}

async fn unacknowledged_write_is_found_and_stored(transport: Transport) {
    for lost in [
        Reply::error(500, "InternalServerError"),
        Reply::Hang,
        Reply::HangUp,
        Reply::ResetInResponse,
        Reply::CutShort,
        Reply::raw(200, ""),
        Reply::raw(200, "<html>hello</html>"),
    ] {
        let script = Script::of([lost.once_applied()]);
        let (answers, endpoint) = answers_after_one_attempt(transport, script).await;
        for answer in answers {
            assert_eq!(answer.unwrap().proof, Proof::ReadBack);
        }
        assert_eq!(endpoint.calls("BatchGetItem").len(), 1);
    }
}

async fn event_not_found_after_a_response_is_not_stored(transport: Transport) {
    for lost in [Reply::CutShort, Reply::raw(200, "{"), Reply::raw(200, "<html>hello</html>")] {
        let (answers, _) = answers_after_one_attempt(transport, Script::of([lost])).await;
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(error.certainty(), Certainty::NotStored, "{error}");
            assert!(matches!(error.read_back(), Some(ReadBack::NotFound { .. })), "{error:?}");
        }
    }
}

async fn event_not_found_after_an_unfinished_call_stays_maybe_stored(transport: Transport) {
    for lost in [
        Reply::error(500, "InternalServerError"),
        Reply::error(503, "ServiceUnavailable"),
        Reply::Hang,
        Reply::HangUp,
        // These are complete responses to other requests. This call may still be in flight.
        Reply::Unprocessed(Selector::PlacesAndUnknownKey(vec![0, 1, 2])),
        Reply::raw(200, r#"{"UnprocessedItems":{"other":[{"PutRequest":{"Item":{}}}]}}"#),
        Reply::raw(200, r#"{"Responses":{"events":[]},"UnprocessedKeys":{}}"#),
        Reply::raw(200, "{}"),
        Reply::raw(200, ""),
    ] {
        let (answers, _) = answers_after_one_attempt(transport, Script::of([lost])).await;
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(error.certainty(), Certainty::MaybeStored, "{error}");
            assert!(matches!(error.read_back(), Some(ReadBack::NotFound { .. })), "{error:?}");
        }
    }
}

async fn failed_read_is_retried_and_denied_read_is_not(transport: Transport) {
    let lost = || Script::of([Reply::CutShort.once_applied()]);
    let script = lost().first_reading([
        ReadReply::error(500, "InternalServerError"),
        ReadReply::error(400, "ProvisionedThroughputExceededException"),
        ReadReply::error(400, "UnrecognizedClientException"),
        ReadReply::HangUp,
        ReadReply::WithoutResponses,
        ReadReply::Raw { status: 200, body: r#"{"Responses":{},"UnprocessedKeys":{}}"# },
        ReadReply::Raw { status: 200, body: "" },
        ReadReply::Unprocessed(Selector::Places(vec![1])),
    ]);
    let (answers, endpoint) = answers_after_one_attempt(transport, script).await;
    for answer in answers {
        assert_eq!(answer.unwrap().proof, Proof::ReadBack);
    }
    assert_eq!(endpoint.calls("BatchGetItem").len(), 9);

    let (answers, endpoint) = answers_after_one_attempt(transport, without_reads(lost())).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        assert!(error.to_string().contains("grant dynamodb:BatchGetItem"), "{error}");
    }
    assert_eq!(endpoint.calls("BatchGetItem").len(), 1);
}

async fn role_without_read_permission_keeps_its_credentials(transport: Transport) {
    let lost = || Reply::CutShort.once_applied();
    let endpoint = Endpoint::start_over(transport, without_reads([lost(), lost()])).await;
    let provider = RotatedKeys::default();
    let config = endpoint.sdk_config().into_builder();
    let config = config.credentials_provider(SharedCredentialsProvider::new(provider.clone()));
    let store =
        with_short_waits(endpoint.store_with(&config.build())).check_table(false).max_attempts(1);
    let store = store.start().await.unwrap();
    for _ in 0..2 {
        put_and_flush(&store).await.unwrap_err();
    }
    put_and_flush(&store).await.unwrap();
    assert_eq!(endpoint.calls("BatchGetItem").len(), 2);
    assert_eq!(provider.0.load(Ordering::Relaxed), 1);
}

async fn event_in_flight_at_the_close_deadline_is_found(transport: Transport) {
    let script = Script::always(Reply::Hang.once_applied());
    let endpoint = Endpoint::start_over(transport, script).await;
    let store =
        with_short_waits(endpoint.store()).attempt_timeout(TIME_LIMIT).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    // Enough time for a handshake and for the write.
    let report = store.close(ATTEMPT_TIMEOUT * 2).await.unwrap();
    assert_eq!((report.stored, report.failed), (3, 0), "{:?}", report.errors);
    for answer in compare(&endpoint, puts).await {
        assert_eq!(answer.unwrap().proof, Proof::ReadBack);
    }
}

/// A provider that never answers.
#[derive(Debug)]
struct HangingProvider;

impl ProvideCredentials for HangingProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(std::future::pending())
    }
}

#[tokio::test]
async fn event_whose_credentials_never_come_is_not_stored() {
    in_time(async {
        let endpoint = Endpoint::start([]).await;
        let config = endpoint
            .sdk_config()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(HangingProvider))
            .build();
        let store =
            with_short_waits(endpoint.store_with(&config)).check_table(false).max_attempts(2);
        let store = store.start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 2), "{error}");
        assert!(error.to_string().contains("no AWS credentials were loaded within"), "{error}");
        assert!(endpoint.batches().is_empty());
    })
    .await;
}

/// A role whose credentials take [`SLOW_LOAD`] to load. Counts its loads.
#[derive(Debug, Clone)]
struct SlowRole {
    role: Arc<Role>,
    loads: Arc<AtomicU32>,
}

/// Longer than two attempts.
const SLOW_LOAD: Duration = Duration::from_millis(1_200);
const SHORT_ATTEMPT: Duration = Duration::from_millis(500);

impl ProvideCredentials for SlowRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.loads.fetch_add(1, Ordering::Relaxed);
            support::clock::wait(SLOW_LOAD).await;
            self.role.provide_credentials().await
        })
    }
}

async fn credentials_slower_than_an_attempt_are_used_and_renewed(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let clock = SessionClock::start();
    let role = Arc::new(Role(clock.clone()));
    let provider = SlowRole { role, loads: Arc::default() };
    let loads = Arc::clone(&provider.loads);
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .time_source(clock.clone())
        .build();
    let store = with_short_waits(endpoint.store_with(&config)).check_table(false);
    let store = store.attempt_timeout(SHORT_ATTEMPT).start().await.unwrap();
    for sessions in 1..=2 {
        let stored = put_and_flush(&store).await.unwrap();
        assert!(stored.attempts > 1, "the first attempt waited for the credentials");
        for attempt in stored.history() {
            let certainty = attempt.failure().map_or(Certainty::NotStored, BatchError::certainty);
            assert_eq!(certainty, Certainty::NotStored);
        }
        assert_eq!(loads.load(Ordering::Relaxed), sessions);
        clock.end_session();
    }
}

/// Fails with these errors first, and then provides credentials.
#[derive(Debug)]
struct FailsAtFirst(Mutex<Vec<CredentialsError>>);

impl FailsAtFirst {
    fn provider(errors: impl IntoIterator<Item = CredentialsError>) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Self(Mutex::new(errors.into_iter().collect())))
    }
}

impl ProvideCredentials for FailsAtFirst {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let error = self.0.lock().unwrap().pop();
        let credentials = Credentials::new("test", "test", None, None, "tests");
        future::ProvideCredentials::ready(error.map_or(Ok(credentials), Err))
    }
}

async fn late_credentials_are_awaited(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let missing = || CredentialsError::not_loaded("none yet");
    let provider = FailsAtFirst::provider([missing(), missing()]);
    let config = endpoint.sdk_config().into_builder().credentials_provider(provider).build();
    let store =
        with_short_waits(endpoint.store_with(&config)).check_table(false).start().await.unwrap();
    let stored = settle_one(&store, &endpoint).await.unwrap();
    assert_eq!((stored.attempts, endpoint.batches().len()), (3, 1));
    let message = stored.history()[0].failure().unwrap().to_string();
    assert!(message.starts_with("no AWS credentials were found"), "{message}");
}

async fn briefly_misconfigured_provider_is_asked_again(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let provider = FailsAtFirst::provider([CredentialsError::invalid_configuration("half a file")]);
    let config = endpoint.sdk_config().into_builder().credentials_provider(provider).build();
    let store =
        with_short_waits(endpoint.store_with(&config)).check_table(false).start().await.unwrap();
    let error = put_and_flush(&store).await.unwrap_err();
    assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 1));
    let message = error.to_string();
    assert!(message.contains("the AWS credentials are set up wrong: half a file"), "{message}");
    settle_one(&store, &endpoint).await.unwrap();
}

async fn unpreparable_request_names_its_cause(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let config = || endpoint.sdk_config().into_builder();
    let impatient = IdentityCache::lazy().load_timeout(SHORT_ATTEMPT).build();
    let silent = SharedCredentialsProvider::new(HangingProvider);
    let late = config().credentials_provider(silent).identity_cache(impatient).build();
    let nowhere = config().endpoint_url("http://user:hunter2@[::1").build();
    for (config, cause) in [(late, "identity resolver timed out after 500ms"), (nowhere, "")] {
        let store =
            with_short_waits(endpoint.store_with(&config)).check_table(false).max_attempts(2);
        let store = store.start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 2), "{error}");
        let message = error.to_string();
        let names_cause = message.contains(&format!("the request could not be prepared: {cause}"))
            || message.contains(&format!("the AWS credentials could not be loaded: {cause}"));
        assert!(
            names_cause && !message.contains("connection") && !message.contains("hunter2"),
            "{message}"
        );
    }
    assert!(endpoint.requests().is_empty());
}

#[tokio::test]
async fn credentials_that_take_seven_seconds_are_used() {
    let stored = |transport| async move {
        let endpoint = Endpoint::start_over(transport, []).await;
        // Longer than the SDK waits for credentials when its retries are off.
        let provider = SlowProvider(Duration::from_millis(6_600));
        let config = endpoint.sdk_config().into_builder();
        let config = config.credentials_provider(SharedCredentialsProvider::new(provider)).build();
        let store = with_short_waits(endpoint.store_with(&config)).check_table(false);
        let store = store.attempt_timeout(Duration::from_secs(20)).max_attempts(1);
        let store = store.start().await.unwrap();
        settle_one(&store, &endpoint).await.unwrap();
    };
    let both = async { tokio::join!(stored(Transport::Http), stored(Transport::Client)) };
    in_time(Box::pin(both)).await;
}

// Tables that are deleted or created.

const NO_TABLE: &str = "ResourceNotFoundException";

async fn table_deleted_midway_refuses_the_remaining_events(transport: Transport) {
    let script = Script::of([Reply::Ok, Reply::Ok]).then(Reply::error(400, NO_TABLE));
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = with_short_waits(endpoint.store()).max_batches_in_flight(1).start().await.unwrap();
    let puts = put_many(&store, 110).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert!(endpoint.sizes().len() > 3, "a table that was there before may come back");
    assert_eq!(attempts(&answers[..50]), [1; 50]);
    for answer in answers.into_iter().skip(50) {
        let error = answer.unwrap_err();
        assert_eq!(error.certainty(), Certainty::NotStored);
        assert_eq!(error.reason(), FailureReason::NotRetryable);
        assert_eq!(error.last_cause().unwrap().code(), Some(NO_TABLE));
    }
}

async fn table_deleted_under_many_calls_refuses_the_rest(transport: Transport) {
    let script = Script::of([Reply::Ok]).then(Reply::error(400, NO_TABLE));
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = with_short_waits(endpoint.store()).max_batches_in_flight(4).start().await.unwrap();
    let puts = put_many(&store, 120).await;
    let answers = settle(&store, &endpoint, puts).await;
    let (stored, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(attempts(&stored), [1; 25]);
    let mut sent = 0;
    for error in failed.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.certainty(), Certainty::NotStored);
        assert_eq!(error.reason(), FailureReason::NotRetryable);
        sent += error.attempts() as usize;
    }
    assert_eq!(sent + 25, endpoint.sizes().iter().sum::<usize>());
}

async fn store_starts_only_when_its_table_is_active(transport: Transport) {
    let script = Script::of([]).first_describing([Described::creating()]);
    let endpoint = Endpoint::start_over(transport, script).await;
    let error = endpoint.store().start().await.unwrap_err();
    assert!(
        matches!(&error, StartError::Table(TableError::NotActive { status, .. }) if status == "CREATING"),
        "{error:?}"
    );
    assert!(endpoint.batches().is_empty());

    let store = store_at(&endpoint).await;
    settle_one(&store, &endpoint).await.unwrap();
}

async fn event_before_the_table_is_active_fails_alone(transport: Transport) {
    let script = Script::of([Reply::error(400, NO_TABLE)]).describing(Described::creating());
    let endpoint = Endpoint::start_over(transport, script).await;
    // With the check of the table the store would not start.
    let store = with_short_waits(endpoint.store()).check_table(false).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    for answer in settle(&store, &endpoint, puts).await {
        let error = answer.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 1));
        assert_eq!(error.reason(), FailureReason::NotRetryable);
        assert_eq!(error.last_cause().unwrap().code(), Some(NO_TABLE));
    }
    settle_one(&store, &endpoint).await.unwrap();
    assert_eq!(endpoint.sizes(), [3, 1]);
}

async fn briefly_refused_event_is_stored(transport: Transport) {
    for code in [
        "AccessDeniedException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "ResourceInUseException",
        "TransactionConflictException",
        "UnrecognizedClientException",
    ] {
        assert_stored_after(transport, [Reply::error(400, code), Reply::Ok]).await;
    }
    assert_stored_after(transport, [Reply::error(421, "InvalidEndpointException"), Reply::Ok])
        .await;
}

#[tokio::test]
async fn untrusted_endpoint_receives_no_event() {
    in_time(async {
        let endpoint = Endpoint::start_over(Transport::Https, []).await;
        let store = EventStore::builder()
            .table(TABLE)
            .region("us-east-1")
            .credentials("test", "test")
            .endpoint_url(endpoint.url());
        let store =
            with_short_waits(store).check_table(false).max_attempts(3).start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 3));
        assert!(error.to_string().contains("no connection to the service: "), "{error}");
        assert!(endpoint.requests().is_empty());
    })
    .await;
}
