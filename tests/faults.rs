//! Everything that can go wrong between the store and the service: over HTTP, over HTTPS, and through a
//! client of the SDK.
//!
//! Every scenario compares, event by event, what the tickets said with what a real table holds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what cannot be had fails the test"
)]

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

use support::endpoint::{
    Described, Endpoint, ReadReply, Reply, Script, Selector, TABLE, Transport,
};
use support::puts::{
    ATTEMPT_TIMEOUT, Answer, TIME_LIMIT, attempts, brisk, compare, in_time, keys, put_body,
    put_many, settle, settle_one, store_at, stored_after,
};

/// Makes a test of each scenario, once for each way to the service.
macro_rules! each_way {
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

each_way! {
    without_trouble_each_event_is_sent_once
    what_is_handed_back_is_sent_again_and_nothing_else_is
    what_is_handed_back_twice_is_sent_again_once
    a_batch_throttled_for_whatever_reason_is_stored_when_there_is_capacity_again
    a_batch_throttled_to_the_end_is_not_stored_whatever_the_reason
    a_batch_that_failed_with_500_or_503_before_it_was_applied_is_stored
    a_batch_that_failed_with_500_or_503_after_it_was_applied_is_stored_once
    a_service_that_is_not_well_is_asked_again_over_another_connection
    a_batch_that_hung_before_it_was_applied_is_stored
    a_batch_that_hung_after_it_was_applied_is_stored_once
    a_connection_reset_in_the_middle_of_the_request_is_a_maybe_and_the_batch_is_stored
    a_connection_reset_in_the_middle_of_the_answer_leads_to_one_row
    a_body_cut_short_leads_to_one_row
    an_answer_with_a_wrong_checksum_is_asked_for_again
    an_answer_without_an_end_is_given_up_and_asked_for_again
    an_event_that_is_too_large_on_the_way_fails_alone
    an_event_refused_for_a_moment_is_stored
    rotated_keys_are_fetched_anew_and_not_too_often
    renewed_credentials_use_the_same_connections
    nothing_of_a_store_is_left_when_it_is_dropped
    a_byte_order_mark_is_read_over
    credentials_slower_than_an_attempt_come_and_are_renewed
    credentials_that_come_late_are_waited_for
    a_provider_that_is_set_up_wrong_for_once_is_asked_again
    a_request_that_cannot_be_prepared_says_so
    a_clock_that_is_not_to_be_corrected_is_not
    a_role_that_may_not_read_keeps_its_credentials
    an_answer_that_trickles_in_before_the_time_is_up_is_an_answer
    an_answer_that_trickles_beyond_the_time_is_a_maybe_and_asked_for_again
    after_a_connection_was_closed_while_idle_the_next_batch_is_stored_once
    what_was_applied_without_an_acknowledgement_is_found_and_stored
    what_is_not_found_after_an_answer_of_the_service_is_not_stored
    what_is_not_found_after_a_call_that_may_still_be_applied_stays_maybe_stored
    a_read_that_fails_is_repeated_and_one_that_is_refused_is_not
    an_event_in_flight_at_the_deadline_of_close_is_found_and_stored
    expired_credentials_are_replaced_without_losing_an_event
    credentials_revoked_before_their_time_are_fetched_anew
    a_clock_that_is_hours_off_is_corrected_by_what_the_service_says
    a_clock_that_goes_wrong_in_the_middle_is_corrected_without_losing_an_event
    a_store_starts_although_its_clock_is_hours_off
    a_clock_that_is_set_right_again_is_noticed_without_losing_an_event
    a_refusal_is_final_though_the_clock_is_hours_off
    credentials_that_cannot_be_had_for_a_moment_are_waited_for
    a_table_deleted_in_the_middle_keeps_what_it_had_and_the_rest_is_refused
    a_table_deleted_under_many_calls_refuses_the_rest
    a_store_starts_when_its_table_has_been_created_and_not_before
    what_is_put_while_the_table_is_being_created_is_not_stored_and_what_is_put_later_is
}

/// A script under which a maybe stays a maybe: nobody may read what became of it.
fn unreadable(script: impl Into<Script>) -> Script {
    script.into().reading(ReadReply::error(400, "AccessDeniedException"))
}

/// What three events are told whose one attempt is answered like this.
async fn told_after_one_attempt(transport: Transport, reply: Reply) -> Vec<WriteError> {
    let endpoint = Endpoint::start_over(transport, unreadable([reply])).await;
    let store = brisk(endpoint.store()).max_attempts(1).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(endpoint.batches().len(), 1);
    answers.into_iter().map(Result::unwrap_err).collect()
}

async fn without_trouble_each_event_is_sent_once(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 60).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [1; 60]);
    let mut sizes = endpoint.sizes();
    sizes.sort();
    assert_eq!(sizes, [10, 25, 25]);
}

async fn what_is_handed_back_is_sent_again_and_nothing_else_is(transport: Transport) {
    let back = |places: &[usize]| Reply::Unprocessed(Selector::Places(places.to_vec()));
    let endpoint = Endpoint::start_over(transport, [back(&[3, 1]), back(&[0])]).await;
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

async fn what_is_handed_back_twice_is_sent_again_once(transport: Transport) {
    let twice = Reply::Unprocessed(Selector::Places(vec![1, 1]));
    let endpoint = Endpoint::start_over(transport, [twice]).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [1, 2, 1]);
    assert_eq!(endpoint.sizes(), [3, 1]);
}

// Throttled.

/// Each of DynamoDB's codes with a reason that comes with it.
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

async fn a_batch_throttled_for_whatever_reason_is_stored_when_there_is_capacity_again(
    transport: Transport,
) {
    for throttled in THROTTLED {
        stored_after(transport, [throttled.clone(), throttled]).await;
    }
}

async fn a_batch_throttled_to_the_end_is_not_stored_whatever_the_reason(transport: Transport) {
    for throttled in THROTTLED {
        let Reply::Throttled { code, reason } = throttled else { unreachable!() };
        for error in told_after_one_attempt(transport, throttled).await {
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

// Failed or hung, before or after.

fn server_errors() -> [Reply; 2] {
    [Reply::error(500, "InternalServerError"), Reply::error(503, "ServiceUnavailable")]
}

async fn a_batch_that_failed_with_500_or_503_before_it_was_applied_is_stored(transport: Transport) {
    for failed in server_errors() {
        stored_after(transport, [failed.clone(), failed]).await;
    }
}

async fn a_batch_that_failed_with_500_or_503_after_it_was_applied_is_stored_once(
    transport: Transport,
) {
    for failed in server_errors() {
        stored_after(transport, [failed.clone().once_applied(), failed]).await;
    }
}

async fn a_service_that_is_not_well_is_asked_again_over_another_connection(transport: Transport) {
    for (reply, connections) in [
        (Reply::error(400, "ThrottlingException"), 1),
        (Reply::error(500, "InternalServerError"), 2),
        (Reply::raw(503, ""), 2),
        (Reply::error(421, "InvalidEndpointException"), 2),
        (Reply::raw(421, ""), 2),
    ] {
        let endpoint = Endpoint::start_over(transport, [reply]).await;
        let store = brisk(endpoint.store()).check_table(false).start().await.unwrap();
        let stored = settle_one(&store, &endpoint).await.unwrap();
        assert_eq!((stored.attempts, endpoint.connections()), (2, connections));
    }
}

async fn a_batch_that_hung_before_it_was_applied_is_stored(transport: Transport) {
    stored_after(transport, [Reply::Hang]).await;
}

async fn a_batch_that_hung_after_it_was_applied_is_stored_once(transport: Transport) {
    stored_after(transport, [Reply::Hang.once_applied()]).await;
}

// Connections that break.

async fn a_connection_reset_in_the_middle_of_the_request_is_a_maybe_and_the_batch_is_stored(
    transport: Transport,
) {
    let bodies = || (0..4).map(|number| format!("\"{number}{}\"", "x".repeat(400_000)));
    for (max_attempts, told) in [(1, None), (2, Some(2))] {
        let script = unreadable([Reply::ResetInRequest]);
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = brisk(endpoint.store()).attempt_timeout(TIME_LIMIT);
        let store = store.max_attempts(max_attempts).start().await.unwrap();
        let mut puts = Vec::new();
        for body in bodies() {
            puts.push(put_body(&store, body).await);
        }
        for answer in settle(&store, &endpoint, puts).await {
            assert_eq!(answer.as_ref().ok().map(|stored| stored.attempts), told);
            if let Err(error) = answer {
                assert_eq!(error.certainty(), Certainty::MaybeStored);
                let said = error.to_string();
                assert!(said.contains("the connection broke before a response came"), "{said}");
                assert!(said.contains("reset") || said.contains("Broken pipe"), "{said}");
            }
        }
        let read = endpoint.batches()[0].bytes;
        assert!((1..1_600_000).contains(&read), "{read} bytes were read of the first request");
    }
}

/// An answer that breaks off, before or after the batch was applied, is a maybe that is known by
/// its request id, and ends as one row.
async fn leads_to_one_row(transport: Transport, broken: Reply) {
    stored_after(transport, [broken.clone()]).await;
    stored_after(transport, [broken.clone().once_applied()]).await;
    stored_after(transport, [broken.clone().once_applied(), broken.clone().once_applied()]).await;
    for reply in [broken.clone(), broken.once_applied()] {
        for error in told_after_one_attempt(transport, reply).await {
            assert_eq!(error.certainty(), Certainty::MaybeStored);
            let cause = error.last_cause().unwrap();
            assert_eq!(cause.class(), FailureClass::Transient);
            assert!(cause.request_id().is_some(), "{error}");
        }
    }
}

async fn a_connection_reset_in_the_middle_of_the_answer_leads_to_one_row(transport: Transport) {
    leads_to_one_row(transport, Reply::ResetInAnswer).await;
}

async fn a_body_cut_short_leads_to_one_row(transport: Transport) {
    leads_to_one_row(transport, Reply::CutShort).await;
}

async fn after_a_connection_was_closed_while_idle_the_next_batch_is_stored_once(
    transport: Transport,
) {
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

// Answers that take their time.

async fn an_answer_that_trickles_in_before_the_time_is_up_is_an_answer(transport: Transport) {
    let drip = Reply::Drip { pause: Duration::from_millis(10) };
    let endpoint = Endpoint::start_over(transport, [drip.once_applied()]).await;
    let store = brisk(endpoint.store()).attempt_timeout(TIME_LIMIT).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [1; 3]);
}

async fn an_answer_that_trickles_beyond_the_time_is_a_maybe_and_asked_for_again(
    transport: Transport,
) {
    // The answer has more than twenty bytes.
    let drip = Reply::Drip { pause: ATTEMPT_TIMEOUT / 10 };
    stored_after(transport, [drip.clone()]).await;
    stored_after(transport, [drip.clone().once_applied()]).await;
    for error in told_after_one_attempt(transport, drip).await {
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        assert!(error.elapsed() >= ATTEMPT_TIMEOUT);
    }
}

// Credentials and clocks.

const OLD: &str = "OLD";
const NEW: &str = "NEW";

/// How long a role's credentials are good.
const SESSION: Duration = Duration::from_secs(60 * 60);

/// A clock that stands still unless a session ends.
#[derive(Debug, Clone)]
struct StandingClock {
    start: SystemTime,
    sessions: Arc<AtomicU32>,
}

impl StandingClock {
    #[expect(clippy::disallowed_methods, reason = "the SDK's clock is to begin at the time of day")]
    fn start() -> Self {
        Self { start: SystemTime::now(), sessions: Arc::new(AtomicU32::new(0)) }
    }

    fn end_session(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }
}

impl TimeSource for StandingClock {
    fn now(&self) -> SystemTime {
        self.start + SESSION * self.sessions.load(Ordering::Relaxed)
    }
}

/// Hands out credentials for a session: [`OLD`] ones in the first, [`NEW`] ones after that.
#[derive(Debug)]
struct Role(StandingClock);

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

async fn expired_credentials_are_replaced_without_losing_an_event(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let clock = StandingClock::start();
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(Role(clock.clone())))
        .time_source(clock.clone())
        .build();
    let store = endpoint.store_with(&config);
    let store = brisk(store).max_attempts(100_000).start().await.unwrap();
    let mut puts = put_many(&store, 3).await;
    store.flush().await.unwrap();

    // The service is the first to hold them for expired, the client has yet to notice.
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
    // Refused three times and more, and then stored: in as many calls as there were.
    assert!(attempts[3] >= 4, "{attempts:?}");
    assert_eq!(attempts[3..], [endpoint.batches().len() as u32 - 1; 3]);
}

/// What the service says of a signature by another clock than its own.
const SKEWED: [&str; 3] =
    ["InvalidSignatureException", "RequestTimeTooSkewed", "SignatureDoesNotMatch"];

async fn a_clock_that_is_hours_off_is_corrected_by_what_the_service_says(transport: Transport) {
    for code in SKEWED {
        for hours_ahead in [3, -3] {
            let script = Script::of([]).with_clock_ahead(hours_ahead, code);
            let endpoint = Endpoint::start_over(transport, script).await;
            let store = brisk(endpoint.store()).check_table(false).start().await.unwrap();
            let mut puts = put_many(&store, 3).await;
            store.flush().await.unwrap();
            puts.extend(put_many(&store, 3).await);
            store.flush().await.unwrap();
            let answers = compare(&endpoint, puts).await;
            // Refused once, and right from then on.
            assert_eq!(attempts(&answers), [2, 2, 2, 1, 1, 1], "{code} {hours_ahead}");
            assert_eq!(endpoint.sizes(), [3, 3, 3]);
        }
    }
}

async fn a_clock_that_goes_wrong_in_the_middle_is_corrected_without_losing_an_event(
    transport: Transport,
) {
    for code in SKEWED {
        let endpoint = Endpoint::start_over(transport, []).await;
        let store = store_at(&endpoint).await;
        let mut puts = put_many(&store, 3).await;
        store.flush().await.unwrap();
        // To the service it is all one whose clock was set.
        endpoint.set_clock_ahead(-3, code);
        puts.extend(put_many(&store, 3).await);
        store.flush().await.unwrap();
        let answers = compare(&endpoint, puts).await;
        assert_eq!(attempts(&answers), [1, 1, 1, 2, 2, 2], "{code}");
    }
}

async fn a_store_starts_although_its_clock_is_hours_off(transport: Transport) {
    for code in SKEWED {
        let script = Script::of([]).with_clock_ahead(3, code);
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = store_at(&endpoint).await;
        let stored = settle_one(&store, &endpoint).await.unwrap();
        assert!(stored.attempts <= 2, "{code}");
    }
}

async fn a_clock_that_is_set_right_again_is_noticed_without_losing_an_event(transport: Transport) {
    for code in SKEWED {
        let script = Script::of([]).with_clock_ahead(3, code);
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = brisk(endpoint.store()).check_table(false).start().await.unwrap();
        let mut puts = put_many(&store, 3).await;
        store.flush().await.unwrap();
        // To the service it is all one whose clock was set.
        endpoint.set_clock_ahead(0, code);
        puts.extend(put_many(&store, 3).await);
        store.flush().await.unwrap();
        let answers = compare(&endpoint, puts).await;
        assert_eq!(attempts(&answers), [2; 6], "{code}");
    }
}

async fn a_clock_that_is_not_to_be_corrected_is_not(transport: Transport) {
    let script = Script::of([]).with_clock_ahead(3, "RequestTimeTooSkewed");
    let endpoint = Endpoint::start_over(transport, script).await;
    let config = endpoint.sdk_config().into_builder().disable_clock_skew_correction(true).build();
    let store = brisk(endpoint.store_with(&config)).check_table(false).max_attempts(3);
    let store = store.start().await.unwrap();
    let error = settle_one(&store, &endpoint).await.unwrap_err();
    assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 3));
    assert_eq!(error.last_cause().unwrap().class(), FailureClass::ClockSkew);
}

async fn a_refusal_is_final_though_the_clock_is_hours_off(transport: Transport) {
    for code in ["AccessDeniedException", "InvalidSignatureException"] {
        let script =
            Script::always(Reply::error(400, code)).with_clock_ahead(3, "RequestTimeTooSkewed");
        let endpoint = Endpoint::start_over(transport, script).await;
        let store = brisk(endpoint.store()).check_table(false).start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        // Refused for its clock, and then for what it asks.
        assert_eq!(error.certainty(), Certainty::NotStored, "{error}");
        assert!(error.attempts() >= 2, "{error}");
        assert_eq!(error.reason(), FailureReason::NotRetryable);
    }
}

async fn an_answer_with_a_wrong_checksum_is_asked_for_again(transport: Transport) {
    stored_after(transport, [Reply::WrongChecksum, Reply::WrongChecksum, Reply::Ok]).await;
    stored_after(transport, [Reply::WrongChecksum.once_applied(), Reply::Ok]).await;
    // The last answer is worth nothing, so what it says of its batch is read back.
    for error in told_after_one_attempt(transport, Reply::WrongChecksum).await {
        assert_eq!(error.certainty(), Certainty::MaybeStored, "{error}");
    }
}

async fn an_answer_without_an_end_is_given_up_and_asked_for_again(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, [Reply::Endless]).await;
    // Its bytes end it, not its time.
    let store = brisk(endpoint.store()).attempt_timeout(TIME_LIMIT).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(attempts(&answers), [2; 3]);
}

async fn a_byte_order_mark_is_read_over(transport: Transport) {
    let taken = Reply::raw(200, "\u{feff}{\"UnprocessedItems\":{}}").once_applied();
    let throttled = "\u{feff}{\"__type\":\"a#ThrottlingException\"}";
    let endpoint = Endpoint::start_over(transport, [Reply::raw(400, throttled), taken]).await;
    let store = store_at(&endpoint).await;
    let stored = settle_one(&store, &endpoint).await.unwrap();
    assert_eq!((stored.attempts, stored.proof), (2, Proof::Acknowledged));
    let failure = stored.history()[0].failure().unwrap();
    assert_eq!(failure.code(), Some("ThrottlingException"));
}

async fn an_event_that_is_too_large_on_the_way_fails_alone(transport: Transport) {
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

/// Keys that the service does not know until it has been asked for the second time.
#[derive(Debug, Clone, Default)]
struct Rotated(Arc<AtomicU32>);

impl ProvideCredentials for Rotated {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let key = if self.0.fetch_add(1, Ordering::Relaxed) == 0 { "BEFORE" } else { "AFTER" };
        let credentials = Credentials::new(key, "secret", None, None, "tests");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

async fn rotated_keys_are_fetched_anew_and_not_too_often(transport: Transport) {
    for code in ["UnrecognizedClientException", "InvalidSignatureException", "InvalidClientTokenId"]
    {
        let endpoint = Endpoint::start_over(transport, Script::of([])).await;
        endpoint.accept_only_with("AFTER", code);
        let provider = Rotated::default();
        let config = endpoint.sdk_config().into_builder();
        let config = config.credentials_provider(SharedCredentialsProvider::new(provider.clone()));
        let store = brisk(endpoint.store_with(&config.build())).check_table(false);
        let store = store.start().await.unwrap();
        put_and_flush(&store).await.unwrap();
        assert_eq!(provider.0.load(Ordering::Relaxed), 2, "{code}");
        // Now none are good any more, and the provider is not asked at each refusal.
        endpoint.accept_only_with("NEVER", code);
        put_and_flush(&store).await.unwrap_err();
        assert!(endpoint.batches().len() > 3);
        assert_eq!(provider.0.load(Ordering::Relaxed), 2, "{code}");
    }
}

async fn renewed_credentials_use_the_same_connections(transport: Transport) {
    let expired = || Reply::error(400, "ExpiredTokenException");
    let replies = (0..10).flat_map(|_| [expired(), Reply::Ok]);
    let endpoint = Endpoint::start_over(transport, Script::of(replies)).await;
    let provider = Rotated::default();
    let config = endpoint.sdk_config().into_builder();
    let config = config.credentials_provider(SharedCredentialsProvider::new(provider.clone()));
    let store = brisk(endpoint.store_with(&config.build()));
    let store = store.check_table(false).max_batches_in_flight(1).start().await.unwrap();
    for _ in 0..10 {
        put_and_flush(&store).await.unwrap();
    }
    assert!(provider.0.load(Ordering::Relaxed) >= 2, "nothing was renewed");
    assert_eq!(endpoint.connections(), 1);
}

/// Notes how many of it there are.
#[derive(Debug)]
struct Counted {
    _alive: Arc<()>,
}

impl ProvideCredentials for Counted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Ok(Credentials::new("test", "test", None, None, "tests")))
    }
}

async fn nothing_of_a_store_is_left_when_it_is_dropped(transport: Transport) {
    let expired = || Reply::error(400, "ExpiredTokenException");
    let endpoint = Endpoint::start_over(transport, [expired(), expired()]).await;
    let alive = Arc::new(());
    let provider = SharedCredentialsProvider::new(Counted { _alive: Arc::clone(&alive) });
    let config = endpoint.sdk_config().into_builder().credentials_provider(provider).build();
    let store = brisk(endpoint.store_with(&config)).check_table(false).start().await.unwrap();
    drop(config);
    settle_one(&store, &endpoint).await.unwrap();
    store.close(ATTEMPT_TIMEOUT).await.unwrap();
    drop(store);
    // The worker's task is dropped a moment after it has reported.
    while Arc::strong_count(&alive) > 1 {
        yield_now().await;
    }
}

/// Credentials that are replaced before their time, which their provider does not know.
#[derive(Debug, Clone, Default)]
struct Replaced(Arc<AtomicU32>);

impl Replaced {
    fn access_key(&self) -> &'static str {
        if self.0.load(Ordering::Relaxed) == 0 { "BEFORE" } else { "AFTER" }
    }
}

impl ProvideCredentials for Replaced {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let credentials = Credentials::new(self.access_key(), "secret", None, None, "Replaced");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

async fn credentials_revoked_before_their_time_are_fetched_anew(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let provider = Replaced::default();
    endpoint.accept_only(provider.access_key());
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider.clone()))
        .build();
    let store = endpoint.store_with(&config);
    let store = brisk(store).start().await.unwrap();
    let mut puts = put_many(&store, 3).await;
    store.flush().await.unwrap();
    provider.0.store(1, Ordering::Relaxed);
    endpoint.accept_only(provider.access_key());
    puts.extend(put_many(&store, 3).await);
    store.flush().await.unwrap();
    let answers = compare(&endpoint, puts).await;
    assert_eq!(attempts(&answers), [1, 1, 1, 2, 2, 2]);
}

/// A role whose provider cannot be reached when the first session has ended, but for a moment.
#[derive(Debug)]
struct Hiccup {
    role: Role,
    left: AtomicU32,
}

impl ProvideCredentials for Hiccup {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let Role(clock) = &self.role;
        let left = || {
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        };
        if clock.now() != clock.start && left().is_ok() {
            let error = CredentialsError::not_loaded("no answer");
            return future::ProvideCredentials::ready(Err(error));
        }
        self.role.provide_credentials()
    }
}

async fn credentials_that_cannot_be_had_for_a_moment_are_waited_for(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let clock = StandingClock::start();
    let provider = Hiccup { role: Role(clock.clone()), left: AtomicU32::new(2) };
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .time_source(clock.clone())
        .build();
    let store = endpoint.store_with(&config);
    let store = brisk(store).start().await.unwrap();
    let mut puts = put_many(&store, 3).await;
    store.flush().await.unwrap();
    clock.end_session();
    puts.extend(put_many(&store, 3).await);
    store.flush().await.unwrap();
    let answers = compare(&endpoint, puts).await;
    assert_eq!(attempts(&answers), [1, 1, 1, 3, 3, 3]);
}

// Reading back.

/// What three events are answered that one attempt carries, with this reply and whatever reads.
async fn answers_after_one_attempt(
    transport: Transport,
    script: Script,
) -> (Vec<Answer>, Endpoint) {
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = brisk(endpoint.store()).max_attempts(1).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert_eq!(endpoint.batches().len(), 1);
    (answers, endpoint)
}

async fn what_was_applied_without_an_acknowledgement_is_found_and_stored(transport: Transport) {
    for lost in [
        Reply::error(500, "InternalServerError"),
        Reply::Hang,
        Reply::HangUp,
        Reply::ResetInAnswer,
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

async fn what_is_not_found_after_an_answer_of_the_service_is_not_stored(transport: Transport) {
    for lost in [Reply::CutShort, Reply::raw(200, "{"), Reply::raw(200, "<html>hello</html>")] {
        let (answers, _) = answers_after_one_attempt(transport, Script::of([lost])).await;
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(error.certainty(), Certainty::NotStored, "{error}");
            assert!(matches!(error.read_back(), Some(ReadBack::NotFound { .. })), "{error:?}");
        }
    }
}

async fn what_is_not_found_after_a_call_that_may_still_be_applied_stays_maybe_stored(
    transport: Transport,
) {
    for lost in [
        Reply::error(500, "InternalServerError"),
        Reply::error(503, "ServiceUnavailable"),
        Reply::Hang,
        Reply::HangUp,
        // Whole answers, but not to this call: it may still be out.
        Reply::Unprocessed(Selector::PlacesAndStranger(vec![0, 1, 2])),
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

async fn a_read_that_fails_is_repeated_and_one_that_is_refused_is_not(transport: Transport) {
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

    let (answers, endpoint) = answers_after_one_attempt(transport, unreadable(lost())).await;
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        assert!(error.to_string().contains("grant dynamodb:BatchGetItem"), "{error}");
    }
    assert_eq!(endpoint.calls("BatchGetItem").len(), 1);
}

async fn a_role_that_may_not_read_keeps_its_credentials(transport: Transport) {
    let lost = || Reply::CutShort.once_applied();
    let endpoint = Endpoint::start_over(transport, unreadable([lost(), lost()])).await;
    let provider = Rotated::default();
    let config = endpoint.sdk_config().into_builder();
    let config = config.credentials_provider(SharedCredentialsProvider::new(provider.clone()));
    let store = brisk(endpoint.store_with(&config.build())).check_table(false).max_attempts(1);
    let store = store.start().await.unwrap();
    for _ in 0..2 {
        put_and_flush(&store).await.unwrap_err();
    }
    put_and_flush(&store).await.unwrap();
    assert_eq!(endpoint.calls("BatchGetItem").len(), 2);
    assert_eq!(provider.0.load(Ordering::Relaxed), 1);
}

async fn an_event_in_flight_at_the_deadline_of_close_is_found_and_stored(transport: Transport) {
    let script = Script::always(Reply::Hang.once_applied());
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = brisk(endpoint.store()).attempt_timeout(TIME_LIMIT).start().await.unwrap();
    let puts = put_many(&store, 3).await;
    // Time to be applied, and for a handshake before.
    let report = store.close(ATTEMPT_TIMEOUT * 2).await.unwrap();
    assert_eq!((report.stored, report.failed), (3, 0), "{:?}", report.not_stored);
    for answer in compare(&endpoint, puts).await {
        assert_eq!(answer.unwrap().proof, Proof::ReadBack);
    }
}

/// Who never says who the caller is.
#[derive(Debug)]
struct Silent;

impl ProvideCredentials for Silent {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(std::future::pending())
    }
}

#[tokio::test]
async fn an_event_for_which_credentials_never_come_is_not_stored() {
    in_time(async {
        let endpoint = Endpoint::start([]).await;
        let config = endpoint
            .sdk_config()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(Silent))
            .build();
        let store = brisk(endpoint.store_with(&config)).check_table(false).max_attempts(2);
        let store = store.start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 2), "{error}");
        assert!(error.to_string().contains("no AWS credentials were loaded within"), "{error}");
        assert!(endpoint.batches().is_empty());
    })
    .await;
}

/// Credentials for a session that take their time. It is counted how often they were asked for.
#[derive(Debug, Clone)]
struct Slowly {
    role: Arc<Role>,
    asked: Arc<AtomicU32>,
}

/// Long enough for three attempts.
const SLOW_LOAD: Duration = Duration::from_millis(1_200);
const SHORT_ATTEMPT: Duration = Duration::from_millis(500);

impl ProvideCredentials for Slowly {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.asked.fetch_add(1, Ordering::Relaxed);
            support::clock::wait(SLOW_LOAD).await;
            self.role.provide_credentials().await
        })
    }
}

async fn credentials_slower_than_an_attempt_come_and_are_renewed(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let clock = StandingClock::start();
    let role = Arc::new(Role(clock.clone()));
    let provider = Slowly { role, asked: Arc::default() };
    let asked = Arc::clone(&provider.asked);
    let config = endpoint
        .sdk_config()
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .time_source(clock.clone())
        .build();
    let store = brisk(endpoint.store_with(&config)).check_table(false);
    let store = store.attempt_timeout(SHORT_ATTEMPT).start().await.unwrap();
    for loads in 1..=2 {
        let stored = put_and_flush(&store).await.unwrap();
        assert!(stored.attempts > 1, "an attempt waited for them");
        for attempt in stored.history() {
            let certainty = attempt.failure().map_or(Certainty::NotStored, BatchError::certainty);
            assert_eq!(certainty, Certainty::NotStored);
        }
        assert_eq!(asked.load(Ordering::Relaxed), loads);
        clock.end_session();
    }
}

/// Answers with these errors first, and then with credentials.
#[derive(Debug)]
struct AtFirst(Mutex<Vec<CredentialsError>>);

impl AtFirst {
    fn provider(errors: impl IntoIterator<Item = CredentialsError>) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Self(Mutex::new(errors.into_iter().collect())))
    }
}

impl ProvideCredentials for AtFirst {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let error = self.0.lock().unwrap().pop();
        let credentials = Credentials::new("test", "test", None, None, "tests");
        future::ProvideCredentials::ready(error.map_or(Ok(credentials), Err))
    }
}

async fn credentials_that_come_late_are_waited_for(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let missing = || CredentialsError::not_loaded("none yet");
    let provider = AtFirst::provider([missing(), missing()]);
    let config = endpoint.sdk_config().into_builder().credentials_provider(provider).build();
    let store = brisk(endpoint.store_with(&config)).check_table(false).start().await.unwrap();
    let stored = settle_one(&store, &endpoint).await.unwrap();
    assert_eq!((stored.attempts, endpoint.batches().len()), (3, 1));
    let said = stored.history()[0].failure().unwrap().to_string();
    assert!(said.starts_with("no AWS credentials were found"), "{said}");
}

async fn a_provider_that_is_set_up_wrong_for_once_is_asked_again(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let provider = AtFirst::provider([CredentialsError::invalid_configuration("half a file")]);
    let config = endpoint.sdk_config().into_builder().credentials_provider(provider).build();
    let store = brisk(endpoint.store_with(&config)).check_table(false).start().await.unwrap();
    let error = put_and_flush(&store).await.unwrap_err();
    assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 1));
    let said = error.to_string();
    assert!(said.contains("the AWS credentials are set up wrong: half a file"), "{said}");
    settle_one(&store, &endpoint).await.unwrap();
}

async fn a_request_that_cannot_be_prepared_says_so(transport: Transport) {
    let endpoint = Endpoint::start_over(transport, []).await;
    let config = || endpoint.sdk_config().into_builder();
    let impatient = IdentityCache::lazy().load_timeout(SHORT_ATTEMPT).build();
    let silent = SharedCredentialsProvider::new(Silent);
    let late = config().credentials_provider(silent).identity_cache(impatient).build();
    let nowhere = config().endpoint_url("http://user:hunter2@[::1").build();
    for (config, why) in [(late, "identity resolver timed out after 500ms"), (nowhere, "")] {
        let store = brisk(endpoint.store_with(&config)).check_table(false).max_attempts(2);
        let store = store.start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 2), "{error}");
        let said = error.to_string();
        let is_said = said.contains(&format!("the request could not be prepared: {why}"))
            || said.contains(&format!("the AWS credentials could not be loaded: {why}"));
        assert!(is_said && !said.contains("connection") && !said.contains("hunter2"), "{said}");
    }
    assert!(endpoint.requests().is_empty());
}

/// Credentials that take longer than the SDK gives them where its retries are off.
#[derive(Debug)]
struct Slow;

impl ProvideCredentials for Slow {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            support::clock::wait(Duration::from_millis(6_600)).await;
            Ok(Credentials::new("test", "test", None, None, "tests"))
        })
    }
}

#[tokio::test]
async fn credentials_that_take_seven_seconds_come() {
    let stored = |transport| async move {
        let endpoint = Endpoint::start_over(transport, []).await;
        let config = endpoint.sdk_config().into_builder();
        let config = config.credentials_provider(SharedCredentialsProvider::new(Slow)).build();
        let store = brisk(endpoint.store_with(&config)).check_table(false);
        let store = store.attempt_timeout(Duration::from_secs(20)).max_attempts(1);
        let store = store.start().await.unwrap();
        settle_one(&store, &endpoint).await.unwrap();
    };
    let both = async { tokio::join!(stored(Transport::Http), stored(Transport::Client)) };
    in_time(Box::pin(both)).await;
}

// The table comes and goes.

const NO_TABLE: &str = "ResourceNotFoundException";

async fn a_table_deleted_in_the_middle_keeps_what_it_had_and_the_rest_is_refused(
    transport: Transport,
) {
    let script = Script::of([Reply::Ok, Reply::Ok]).then(Reply::error(400, NO_TABLE));
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = brisk(endpoint.store()).max_batches_in_flight(1).start().await.unwrap();
    let puts = put_many(&store, 110).await;
    let answers = settle(&store, &endpoint, puts).await;
    assert!(endpoint.sizes().len() > 3, "it may come back, as it was there before");
    assert_eq!(attempts(&answers[..50]), [1; 50]);
    for answer in answers.into_iter().skip(50) {
        let error = answer.unwrap_err();
        assert_eq!(error.certainty(), Certainty::NotStored);
        assert_eq!(error.reason(), FailureReason::NotRetryable);
        assert_eq!(error.last_cause().unwrap().code(), Some(NO_TABLE));
    }
}

async fn a_table_deleted_under_many_calls_refuses_the_rest(transport: Transport) {
    let script = Script::of([Reply::Ok]).then(Reply::error(400, NO_TABLE));
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = brisk(endpoint.store()).max_batches_in_flight(4).start().await.unwrap();
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

async fn a_store_starts_when_its_table_has_been_created_and_not_before(transport: Transport) {
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

async fn what_is_put_while_the_table_is_being_created_is_not_stored_and_what_is_put_later_is(
    transport: Transport,
) {
    let script = Script::of([Reply::error(400, NO_TABLE)]).describing(Described::creating());
    let endpoint = Endpoint::start_over(transport, script).await;
    // With the check the store would not start.
    let store = brisk(endpoint.store()).check_table(false).start().await.unwrap();
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

async fn an_event_refused_for_a_moment_is_stored(transport: Transport) {
    for code in [
        "AccessDeniedException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "ResourceInUseException",
        "TransactionConflictException",
        "UnrecognizedClientException",
    ] {
        stored_after(transport, [Reply::error(400, code), Reply::Ok]).await;
    }
    stored_after(transport, [Reply::error(421, "InvalidEndpointException"), Reply::Ok]).await;
}

#[tokio::test]
async fn an_endpoint_that_nobody_vouches_for_is_not_told_a_single_event() {
    in_time(async {
        let endpoint = Endpoint::start_over(Transport::Https, []).await;
        let store = EventStore::builder()
            .table(TABLE)
            .region("us-east-1")
            .credentials("test", "test")
            .endpoint_url(endpoint.url());
        let store = brisk(store).check_table(false).max_attempts(3).start().await.unwrap();
        let error = settle_one(&store, &endpoint).await.unwrap_err();
        assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 3));
        assert!(error.to_string().contains("no connection to the service: "), "{error}");
        assert!(endpoint.requests().is_empty());
    })
    .await;
}
