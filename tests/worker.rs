//! The worker of the store, on a paused clock and with a fake writer: what it sends and when, and how
//! it settles tickets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use dynamodb_eventstore::{
    Backoff, BatchError, BatchReceipt, BatchWriter, Certainty, Event, EventStore, FailureClass,
    FailureReason, FlushReport, Proof, PutError, PutTicket, WriteError,
};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use futures::task::{ArcWake, waker};
use serde_json::json;

use dynamodb_eventstore::test_util::{FakeTable, Reply};
use support::clock::{self, wait_milliseconds};
use support::watchdog;
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// A backoff without randomness: each wait is this long.
fn constant_backoff(milliseconds: u64) -> Backoff {
    let wait = Duration::from_millis(milliseconds);
    Backoff { floor: wait, base: wait, ceiling: wait }
}

/// The reply of a transient failure. Nothing is stored.
fn not_applied() -> Reply {
    Reply::Fail(FailureClass::Transient, Certainty::NotStored)
}

async fn put_many(store: &EventStore, count: usize) -> Vec<PutTicket> {
    watchdog::start();
    let mut tickets = Vec::new();
    for number in 0..count {
        tickets.push(store.put(&json!({ "number": number })).await.unwrap());
    }
    tickets
}

async fn failure(ticket: PutTicket) -> WriteError {
    watchdog::start();
    ticket.await.unwrap_err()
}

/// Awaits `future`, and returns its output and the milliseconds it took on the paused clock.
async fn took<T>(future: impl Future<Output = T>) -> (T, u128) {
    let start = clock::now();
    let output = future.await;
    (output, (clock::now() - start).as_millis())
}

#[tokio::test(start_paused = true)]
async fn single_event_is_sent_after_its_linger() {
    let writer = FakeTable::new();
    let store = writer.store_builder().start().await.unwrap();
    let ticket = store.put(&json!({ "foo": "bar" })).await.unwrap();
    let key = *ticket.key();

    let (stored, milliseconds) = took(ticket).await;
    let stored = stored.unwrap();
    assert_eq!((stored.key, stored.attempts), (key, 1));
    assert_eq!(milliseconds, 5);
    assert_eq!(writer.rows()[key.as_str()], r#"{"foo":"bar"}"#);
}

#[tokio::test(start_paused = true)]
async fn events_just_over_a_write_unit_are_counted() {
    let store = FakeTable::new().store_builder().start().await.unwrap();
    // An item has 34 bytes besides its body, and the body has two quotation marks.
    for body_bytes in [1, 988, 989, 1_052, 1_053] {
        store.put(&"x".repeat(body_bytes)).await.unwrap().await.unwrap();
    }
    assert_eq!(store.stats().just_over_write_unit, 2);
}

#[tokio::test(start_paused = true)]
async fn full_batch_is_sent_at_once() {
    let writer = FakeTable::new();
    let store = writer.store_builder().linger(SECOND * 30).start().await.unwrap();
    let tickets = put_many(&store, 25).await;
    let (_, milliseconds) = took(join_all(tickets)).await;
    assert_eq!(milliseconds, 0);
    assert_eq!(writer.sizes(), [25]);
}

#[tokio::test(start_paused = true)]
async fn batches_under_load_are_full_and_use_every_call() {
    let writer = FakeTable::always(Reply::Store.after(Duration::from_millis(10)));
    let store = writer.store_builder().max_batches_in_flight(4).start().await.unwrap();
    let tickets = put_many(&store, 1_000).await;
    let (answers, milliseconds) = took(join_all(tickets)).await;

    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(writer.sizes(), [25; 40]);
    assert_eq!(writer.calls().iter().map(|call| call.in_flight).max(), Some(4));
    // 40 batches of 10 ms each, 4 in flight at a time.
    assert_eq!(milliseconds, 100);
    assert!((store.stats().fill_ratio - 1.0).abs() < f64::EPSILON);
    assert_eq!(writer.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn unprocessed_events_are_matched_by_key_and_retried() {
    let writer = FakeTable::scripted([Reply::Unprocessed(vec![7, 0, 3])]);
    let store = writer.store_builder().start().await.unwrap();
    let tickets = put_many(&store, 10).await;
    let keys: Vec<String> = tickets.iter().map(|ticket| ticket.key().to_string()).collect();

    let answers = join_all(tickets).await;
    for (place, answer) in answers.into_iter().enumerate() {
        let attempts = if [0, 3, 7].contains(&place) { 2 } else { 1 };
        assert_eq!(answer.unwrap().attempts, attempts, "event {place}");
    }
    let calls = writer.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].keys, [keys[0].clone(), keys[3].clone(), keys[7].clone()]);
    assert_eq!(writer.rows().len(), 10);
    assert_eq!(store.stats().retried, 3);
}

/// A table with an index, for which each item is charged twice. It leaves the first event of its first call
/// unprocessed.
#[derive(Debug, Default)]
struct Indexed(AtomicBool);

impl BatchWriter for Indexed {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        let unprocessed = usize::from(!self.0.swap(true, Ordering::Relaxed));
        let (unprocessed, stored) = events.split_at(unprocessed);
        let units: u64 = stored.iter().map(Event::write_units).sum();
        let keys = unprocessed.iter().map(|event| event.key().as_str());
        let receipt = BatchReceipt::with_unprocessed(keys);
        Box::pin(async move { Ok(receipt.with_consumed_write_units(2.0 * units as f64)) })
    }
}

#[tokio::test(start_paused = true)]
async fn stored_events_share_the_units_of_their_call() {
    let store = EventStore::builder().batch_writer(Indexed::default()).start().await.unwrap();
    let mut tickets = Vec::new();
    for bytes in [4_000, 2_000, 1_000, 1] {
        tickets.push(store.put(&"x".repeat(bytes)).await.unwrap());
    }
    let mut shares = Vec::new();
    for ticket in tickets {
        shares.push(ticket.await.unwrap().write_units().unwrap());
    }
    assert_eq!(shares, [8.0, 4.0, 4.0, 2.0]);
    assert_eq!(store.stats().consumed_write_units, 18.0);
}

#[tokio::test(start_paused = true)]
async fn new_events_fill_the_batch_of_a_retry() {
    let writer = FakeTable::scripted([not_applied()]);
    let linger = Duration::from_millis(100);
    let builder = writer.store_builder().linger(linger).backoff(constant_backoff(100));
    let store = builder.start().await.unwrap();
    let mut tickets = put_many(&store, 3).await;
    wait_milliseconds(150).await;
    tickets.extend(put_many(&store, 22).await);

    let (_, milliseconds) = took(join_all(tickets)).await;
    assert_eq!(writer.sizes(), [3, 25]);
    assert_eq!(milliseconds, 50);
}

#[tokio::test(start_paused = true)]
async fn waiting_retry_does_not_delay_new_events() {
    let writer = FakeTable::scripted([not_applied()]);
    let builder = writer.store_builder().max_batches_in_flight(1).backoff(constant_backoff(1_000));
    let store = builder.start().await.unwrap();
    let throttled = put_many(&store, 25).await;
    wait_milliseconds(1).await;

    let (_, milliseconds) = took(join_all(put_many(&store, 25).await)).await;
    assert_eq!(milliseconds, 0);
    let (_, milliseconds) = took(join_all(throttled)).await;
    assert_eq!(milliseconds, 999);
}

#[tokio::test(start_paused = true)]
async fn failed_batch_is_retried_under_the_same_keys() {
    for (answer, certainty) in [
        (Reply::throttle(), "not stored"),
        (Reply::server_error(), "not known"),
        (Reply::StoreThenFail, "stored"),
    ] {
        let writer = FakeTable::scripted([answer.clone(), answer]);
        let store = writer.store_builder().start().await.unwrap();
        let tickets = put_many(&store, 3).await;
        for answer in join_all(tickets).await {
            assert_eq!(answer.unwrap().attempts, 3, "after two attempts that {certainty}");
        }
        let calls = writer.calls();
        assert_eq!(calls[0].keys, calls[1].keys);
        assert_eq!(calls[0].keys, calls[2].keys);
        assert_eq!(writer.rows().len(), 3);
        assert_eq!(writer.violations(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn retries_back_off_exponentially() {
    let writer = FakeTable::scripted(vec![Reply::throttle(); 8]);
    let (floor, base) = (Duration::from_millis(10), Duration::from_millis(100));
    let backoff = Backoff { floor, base, ceiling: SECOND };
    let store = writer.store_builder().backoff(backoff).start().await.unwrap();
    store.put(&1).await.unwrap().await.unwrap();

    let calls = writer.calls();
    for (attempt, pair) in (1_u32..).zip(calls.windows(2)) {
        let wait = pair[1].at - pair[0].at;
        let longest = SECOND.min(base * 2_u32.pow(attempt - 1));
        // The timer has a resolution of a millisecond.
        let longest = longest + Duration::from_millis(1);
        assert!(floor <= wait && wait <= longest, "wait {attempt} is {wait:?} of {longest:?}");
    }
    assert_eq!(calls.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn never_applied_event_is_not_stored_at_its_deadline() {
    let writer = FakeTable::always(Reply::throttle());
    let store = writer.store_builder().event_deadline(SECOND * 5).start().await.unwrap();
    let ticket = store.put(&json!({ "foo": "bar" })).await.unwrap();
    let key = *ticket.key();

    let (error, milliseconds) = took(failure(ticket)).await;
    assert!(milliseconds <= 5_000, "{milliseconds}");
    assert_eq!(*error.key(), key);
    assert_eq!(error.certainty(), Certainty::NotStored);
    assert_eq!(error.reason(), FailureReason::Deadline);
    assert_eq!(error.attempts() as usize, writer.calls().len());
    assert_eq!(error.last_cause().unwrap().code(), Some("FakeException"));
    assert_eq!(error.event().unwrap().body(), r#"{"foo":"bar"}"#);
    assert!(error.to_string().contains("not stored"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn maybe_stored_event_stays_maybe_stored() {
    let writer = FakeTable::scripted([Reply::StoreThenFail]);
    writer.reply_from_now_on(Reply::throttle());
    let builder = writer.store_builder().event_deadline(SECOND * 5).read_back(false);
    let store = builder.start().await.unwrap();
    let error = failure(store.put(&1).await.unwrap()).await;
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert_eq!(error.last_cause().unwrap().class(), FailureClass::Throttled);
    assert!(error.read_back().is_none() && writer.reads().is_empty());
}

#[tokio::test(start_paused = true)]
async fn event_without_a_response_is_maybe_stored_after_one_timeout() {
    let writer = FakeTable::scripted([Reply::StoreThenHang]);
    let builder = writer.store_builder().attempt_timeout(SECOND).linger(Duration::ZERO);
    let store = builder.backoff(constant_backoff(100)).start().await.unwrap();
    let (stored, milliseconds) = took(store.put(&1).await.unwrap()).await;
    assert_eq!(stored.unwrap().attempts, 2);
    assert_eq!(milliseconds, 1_100);

    writer.reply_from_now_on(Reply::Hang);
    let (error, milliseconds) = took(failure(store.put(&2).await.unwrap())).await;
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(milliseconds <= 60_000 + 1_000, "{milliseconds}");
    assert!(error.to_string().contains("no response within 1s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn never_sent_event_fails_at_its_deadline() {
    let writer = FakeTable::always(Reply::Hang);
    let builder = writer.store_builder().max_batches_in_flight(1).attempt_timeout(SECOND * 3_600);
    let store = builder.start().await.unwrap();
    let mut tickets = put_many(&store, 26).await;
    let waiting = tickets.pop().unwrap();
    let (error, milliseconds) = took(failure(waiting)).await;
    assert_eq!((error.attempts(), error.certainty()), (0, Certainty::NotStored));
    assert_eq!(milliseconds, 60_000);
}

#[tokio::test(start_paused = true)]
async fn attempts_end_at_the_configured_maximum() {
    let writer = FakeTable::always(Reply::throttle());
    let store = writer.store_builder().max_attempts(3).start().await.unwrap();
    let error = failure(store.put(&1).await.unwrap()).await;
    assert_eq!((error.attempts(), error.reason()), (3, FailureReason::Attempts));
    assert_eq!(writer.calls().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn failure_that_is_not_retryable_settles_at_once() {
    for class in [FailureClass::Fatal, FailureClass::Invalid] {
        let writer = FakeTable::scripted([Reply::Fail(class, Certainty::NotStored)]);
        let store = writer.store_builder().linger(Duration::ZERO).start().await.unwrap();
        let (error, milliseconds) = took(failure(store.put(&1).await.unwrap())).await;
        assert_eq!(error.reason(), FailureReason::NotRetryable);
        assert_eq!(error.certainty(), Certainty::NotStored);
        assert_eq!(milliseconds, 0);
        assert_eq!(writer.calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_event_fails_alone_and_the_others_are_stored() {
    for invalid in 0..25 {
        let writer = FakeTable::new();
        let store = writer.store_builder().start().await.unwrap();
        writer.reject(format!("{{\"number\":{invalid}}}"));
        let tickets = put_many(&store, 25).await;
        for (place, answer) in join_all(tickets).await.into_iter().enumerate() {
            if place == invalid {
                let error = answer.unwrap_err();
                assert_eq!(error.reason(), FailureReason::NotRetryable);
                assert_eq!(error.certainty(), Certainty::NotStored);
                assert_eq!(error.event().unwrap().body(), format!("{{\"number\":{invalid}}}"));
            } else {
                assert!(answer.is_ok(), "event {place}: {answer:?}");
            }
        }
        // The whole batch, and two halves in each of the five steps that split 25 events.
        assert!(writer.calls().len() <= 11, "{} calls", writer.calls().len());
    }
}

#[tokio::test(start_paused = true)]
async fn several_invalid_events_cost_a_few_calls_each() {
    let writer = FakeTable::new();
    let store = writer.store_builder().start().await.unwrap();
    for invalid in [3, 11, 12, 24, 30] {
        writer.reject(format!("{{\"number\":{invalid}}}"));
    }
    let tickets = put_many(&store, 50).await;
    let answers = join_all(tickets).await;
    let failed: Vec<usize> = (0..50).filter(|&place| answers[place].is_err()).collect();
    assert_eq!(failed, [3, 11, 12, 24, 30]);
    assert!(writer.calls().len() <= 5 * 11, "{} calls", writer.calls().len());
    assert_eq!(writer.rows().len(), 45);
    assert_eq!(writer.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn fatal_error_fails_every_waiting_ticket_at_once() {
    let fatal = Reply::Fail(FailureClass::Fatal, Certainty::NotStored);
    let writer = FakeTable::scripted([not_applied(), fatal.after(Duration::from_millis(20))]);
    let builder = writer.store_builder().max_batches_in_flight(1).backoff(constant_backoff(10));
    let store = builder.start().await.unwrap();
    let tickets = put_many(&store, 1_000).await;
    let (answers, milliseconds) = took(join_all(tickets)).await;
    assert_eq!(milliseconds, 20);
    assert_eq!(writer.calls().len(), 2);
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.reason(), FailureReason::NotRetryable);
        assert_eq!(error.last_cause().unwrap().class(), FailureClass::Fatal);
        assert_eq!(error.certainty(), Certainty::NotStored);
    }
    // A later event is tried again.
    assert!(store.put(&1).await.unwrap().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unsent_event_is_not_stored_when_another_is_uncertain() {
    let writer = FakeTable::always(Reply::Fail(FailureClass::Fatal, Certainty::MaybeStored));
    let store = writer.store_builder().max_batches_in_flight(1).start().await.unwrap();
    let tickets = put_many(&store, 26).await;
    for (place, ticket) in tickets.into_iter().enumerate() {
        let error = failure(ticket).await;
        let (certainty, attempts) =
            if place < 25 { (Certainty::MaybeStored, 1) } else { (Certainty::NotStored, 0) };
        assert_eq!((error.certainty(), error.attempts()), (certainty, attempts), "event {place}");
    }
}

#[tokio::test(start_paused = true)]
async fn response_with_unknown_unprocessed_key_is_rejected() {
    let writer = FakeTable::scripted([Reply::UnprocessedUnknownKey]);
    let store = writer.store_builder().read_back(false).start().await.unwrap();
    assert_eq!(store.put(&1).await.unwrap().await.unwrap().attempts, 2);

    writer.reply_from_now_on(Reply::UnprocessedUnknownKey);
    let error = failure(store.put(&2).await.unwrap()).await;
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(error.to_string().contains("1 keys that were not sent"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn flush_sends_lingering_events_and_counts_each_once() {
    let writer = FakeTable::scripted([not_applied()]);
    let builder = writer.store_builder().linger(SECOND * 30).backoff(constant_backoff(100));
    let store = builder.start().await.unwrap();
    let tickets = put_many(&store, 3).await;

    let (report, milliseconds) = took(store.flush()).await;
    let FlushReport { stored, failed, .. } = report.unwrap();
    assert_eq!((stored, failed), (3, 0));
    assert_eq!(milliseconds, 100);
    assert!(tickets.into_iter().all(|ticket| ticket.now_or_never().unwrap().is_ok()));

    writer.reply_from_now_on(Reply::Fail(FailureClass::Fatal, Certainty::NotStored));
    let error = store.put(&1).await.unwrap();
    let FlushReport { stored, failed, .. } = store.flush().await.unwrap();
    assert_eq!((stored, failed), (0, 1));
    assert!(error.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn flush_does_not_wait_for_later_events() {
    let writer = FakeTable::scripted([Reply::Store.after(Duration::from_millis(10))]);
    let store = writer.store_builder().linger(SECOND * 30).start().await.unwrap();
    let before = store.put(&1).await.unwrap();
    let flush = store.flush();
    tokio::pin!(flush);
    assert!(flush.as_mut().now_or_never().is_none());
    wait_milliseconds(1).await;
    let after = store.put(&2).await.unwrap();
    let (_, milliseconds) = took(flush).await;
    assert_eq!(milliseconds, 9);
    assert!(before.now_or_never().is_some());
    assert!(after.now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn close_drains_reports_and_refuses_later_puts() {
    let writer = FakeTable::scripted([not_applied().after(Duration::from_millis(10))]);
    let builder = writer.store_builder().linger(SECOND * 30).backoff(constant_backoff(100));
    let store = builder.start().await.unwrap();
    let tickets = put_many(&store, 5).await;
    let clone = store.clone();

    let (report, milliseconds) = took(store.close(SECOND * 10)).await;
    let report = report.unwrap();
    assert_eq!((report.stored, report.failed), (5, 0));
    assert!(report.is_complete() && report.errors.is_empty());
    assert_eq!(milliseconds, 110);
    assert!(join_all(tickets).await.iter().all(Result::is_ok));

    assert!(matches!(clone.put(&1).await, Err(PutError::Closed)));
    assert!(matches!(clone.try_put(&1), Err(PutError::Closed)));
    assert!(clone.flush().await.is_err());
    assert_eq!(clone.close(SECOND).await.unwrap().stored, 5);
}

#[tokio::test(start_paused = true)]
async fn close_at_its_deadline_reports_the_certainty_of_each_event() {
    let writer = FakeTable::always(Reply::Hang);
    let builder = writer.store_builder().max_batches_in_flight(1).attempt_timeout(SECOND * 3_600);
    let store = builder.start().await.unwrap();
    let tickets = put_many(&store, 27).await;
    wait_milliseconds(1).await;

    let (report, milliseconds) = took(store.close(SECOND * 3)).await;
    let report = report.unwrap();
    assert_eq!(milliseconds, 3_000);
    assert_eq!((report.stored, report.failed, report.errors.len()), (0, 27, 27));
    for (place, ticket) in tickets.into_iter().enumerate() {
        let error = ticket.now_or_never().unwrap().unwrap_err();
        let (certainty, attempts) =
            if place < 25 { (Certainty::MaybeStored, 1) } else { (Certainty::NotStored, 0) };
        assert_eq!((error.certainty(), error.attempts()), (certainty, attempts), "event {place}");
        assert_eq!(error.reason(), FailureReason::CloseDeadline);
        assert!(report.errors.iter().any(|listed| listed.key() == error.key()));
    }
}

#[tokio::test(start_paused = true)]
async fn earliest_close_deadline_counts() {
    let writer = FakeTable::always(Reply::Hang);
    let store = writer.store_builder().start().await.unwrap();
    let _ticket = store.put(&1).await.unwrap();
    let patient = store.clone();
    let both = async { tokio::join!(patient.close(Duration::MAX), store.close(SECOND)) };
    let ((first, second), milliseconds) = took(both).await;
    assert_eq!(milliseconds, 1_000);
    assert_eq!((first.unwrap().failed, second.unwrap().failed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn failure_without_a_ticket_is_in_the_close_report() {
    let writer = FakeTable::always(Reply::Fail(FailureClass::Fatal, Certainty::NotStored));
    let store = writer.store_builder().max_buffered_events(30).start().await.unwrap();
    let awaited = store.put(&"awaited").await.unwrap();
    drop(store.put(&"dropped").await.unwrap());
    assert!(awaited.await.is_err());
    for number in 0..30 {
        drop(store.put(&number).await.unwrap());
    }
    store.flush().await.unwrap();

    let report = store.close(SECOND).await.unwrap();
    assert_eq!(report.failed, 32);
    assert_eq!(report.errors.len(), 30);
    assert_eq!(report.not_listed, 1);
    assert_eq!(report.errors[0].event().unwrap().body(), r#""dropped""#);
}

#[tokio::test(start_paused = true)]
async fn failures_without_a_ticket_are_bounded_by_buffer_memory() {
    let writer = FakeTable::always(Reply::Fail(FailureClass::Fatal, Certainty::NotStored));
    let store = writer.store_builder().max_buffered_bytes(409_600).start().await.unwrap();
    for _ in 0..7 {
        drop(store.put(&"x".repeat(100_000)).await.unwrap());
        store.flush().await.unwrap();
    }
    let report = store.close(SECOND).await.unwrap();
    assert_eq!((report.failed, report.errors.len(), report.not_listed), (7, 4, 3));
}

#[tokio::test(start_paused = true)]
async fn dropped_ticket_does_not_cancel_the_write() {
    let writer = FakeTable::new();
    let store = writer.store_builder().start().await.unwrap();
    drop(store.put(&1).await.unwrap());
    assert_eq!(store.flush().await.unwrap().stored, 1);
    assert_eq!(writer.rows().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn worker_drains_when_the_last_handle_is_dropped() {
    let writer = FakeTable::scripted([not_applied()]);
    let builder = writer.store_builder().linger(SECOND * 30).backoff(constant_backoff(100));
    let store = builder.start().await.unwrap();
    let tickets = put_many(&store, 3).await;
    drop(store.clone());
    drop(store);
    let (answers, milliseconds) = took(join_all(tickets)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(milliseconds, 100);
}

#[tokio::test(start_paused = true)]
async fn full_buffer_refuses_try_put_and_makes_put_wait() {
    let writer = FakeTable::always(Reply::Store.after(Duration::from_millis(10)));
    let builder = writer.store_builder().max_buffered_events(2).linger(SECOND * 30);
    let store = builder.start().await.unwrap();
    let tickets = put_many(&store, 2).await;
    let refused = store.try_put(&3).unwrap_err();
    assert!(matches!(refused, PutError::Full { .. }), "{refused}");
    assert_eq!(store.stats().accepted, 2);

    // The waiting put makes the store flush the buffered events after a millisecond, instead of after
    // their linger of half a minute.
    let (third, milliseconds) = took(store.put(&3)).await;
    assert_eq!(milliseconds, 11);
    assert!(join_all(tickets).await.iter().all(Result::is_ok));
    drop(third.unwrap());
    let fourth = store.try_put(&4).unwrap();
    store.flush().await.unwrap();
    assert!(fourth.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn buffer_is_bounded_by_bytes() {
    let writer = FakeTable::always(Reply::Store.after(Duration::from_millis(10)));
    let store = writer.store_builder().max_buffered_bytes(409_600).start().await.unwrap();
    let half = "x".repeat(204_000);
    let tickets = [store.put(&half).await.unwrap(), store.put(&half).await.unwrap()];
    assert!(matches!(store.try_put(&half), Err(PutError::Full { .. })));
    assert!(join_all(tickets).await.iter().all(Result::is_ok));
    assert!(store.try_put(&half).is_ok());
}

#[tokio::test(start_paused = true)]
async fn small_events_count_with_the_memory_they_take() {
    let writer = FakeTable::always(Reply::Hang);
    let store = writer.store_builder().max_buffered_bytes(409_600).start().await.unwrap();
    let accepted = (0..10_000).take_while(|number| store.try_put(number).is_ok()).count();
    assert!((900..1_300).contains(&accepted), "{accepted} events of some 350 bytes");
}

#[tokio::test(start_paused = true)]
async fn event_larger_than_the_buffer_is_accepted_alone() {
    let writer = FakeTable::always(Reply::Store.after(SECOND));
    let store = writer.store_builder().max_buffered_bytes(409_600).start().await.unwrap();
    for _ in 0..2 {
        let small = store.put(&1).await.unwrap();
        assert!(matches!(store.try_put(&larger_than_the_buffer()), Err(PutError::Full { .. })));
        small.await.unwrap();
        let large = timeout(SECOND * 60, store.put(&larger_than_the_buffer())).await.unwrap();
        assert!(matches!(store.try_put(&1), Err(PutError::Full { .. })));
        large.unwrap().await.unwrap();
    }
    assert_eq!(store.close(SECOND).await.unwrap().stored, 4);
}

#[tokio::test(start_paused = true)]
async fn settled_event_releases_exactly_its_bytes() {
    let writer = FakeTable::scripted([
        not_applied(),
        Reply::Fail(FailureClass::Transient, Certainty::MaybeStored),
        Reply::Fail(FailureClass::Fatal, Certainty::NotStored),
    ]);
    let store = writer.store_builder().max_buffered_bytes(409_600).start().await.unwrap();
    let short_key = "20130927T0052406525".parse().unwrap();
    for round in 0..4 {
        let _stored = store.put(&json!({ "round": round, "text": "\"quoted\"\n" })).await.unwrap();
        let _stored = store.try_put(&"é\u{1}").unwrap();
        let _stored = store.put_json("{ \n\t\"spaced\": \"\\\"\" }").await.unwrap();
        let event = Event::new(short_key, "[\"put before\"]").unwrap();
        let _stored = store.put_event(event).await.unwrap();
        store.flush().await.unwrap();
        // This event takes all bytes of the buffer.
        let large = store.try_put(&larger_than_the_buffer()).unwrap();
        assert!(matches!(store.try_put(&1), Err(PutError::Full { .. })), "round {round}");
        large.await.unwrap();
    }
}

/// A text in which each quote takes four bytes in a request.
fn larger_than_the_buffer() -> String {
    "\"".repeat(200_000)
}

#[tokio::test(start_paused = true)]
async fn cancelled_put_stores_nothing_and_holds_no_permit() {
    let writer = FakeTable::always(Reply::Store.after(Duration::from_millis(10)));
    let store = writer.store_builder().max_buffered_events(1).linger(SECOND).start().await.unwrap();
    let first = store.put(&1).await.unwrap();
    assert!(store.put(&2).now_or_never().is_none());
    assert!(store.put(&3).now_or_never().is_none());
    assert!(first.await.is_ok());
    let fourth = store.try_put(&4).unwrap();
    assert!(fourth.await.is_ok());
    assert_eq!(store.close(SECOND).await.unwrap().stored, 2);
    assert_eq!(writer.rows().into_values().collect::<Vec<_>>(), ["1", "4"]);
}

#[tokio::test(start_paused = true)]
async fn invalid_input_is_refused_and_takes_no_permits() {
    let writer = FakeTable::new();
    let store = writer.store_builder().max_buffered_events(1).start().await.unwrap();

    let too_large = "x".repeat(409_565);
    assert!(matches!(store.put(&too_large).await, Err(PutError::TooLarge(_))));
    assert!(matches!(store.try_put(&too_large), Err(PutError::TooLarge(_))));
    for text in ["", "{", "{} {}", "nonsense", "{'foo': 1}", "\u{feff}{}"] {
        assert!(matches!(store.put_json(text).await, Err(PutError::NotJson(_))), "{text}");
    }
    let no_json = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(matches!(store.put(&no_json).await, Err(PutError::NotSerializable(_))));

    assert_eq!(store.stats().accepted, 0);
    assert!(store.try_put(&1).is_ok());

    // Such input is refused without waiting for permits.
    let refused = store.put(&too_large).now_or_never();
    assert!(matches!(refused, Some(Err(PutError::TooLarge(_)))));
    let text = format!("\"{too_large}\"");
    let refused = store.put_json(&text).now_or_never();
    assert!(matches!(refused, Some(Err(PutError::TooLarge(_)))));
}

#[tokio::test(start_paused = true)]
async fn json_text_is_stored_unchanged() {
    let writer = FakeTable::new();
    let store = writer.store_builder().start().await.unwrap();
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    for text in ["{ \"foo\":\n 1e3 }", "null", "\"\\ud800 é \\u00e9\"", &deep] {
        let stored = store.put_json(text).await.unwrap().await.unwrap();
        assert_eq!(writer.rows()[stored.key.as_str()], text);
    }
}

#[tokio::test(start_paused = true)]
async fn counters_add_up_at_every_moment() {
    let writer = FakeTable::scripted([
        Reply::Unprocessed(vec![0, 1]).after(Duration::from_millis(3)),
        Reply::Panic.after(Duration::from_millis(3)),
        Reply::throttle().after(Duration::from_millis(3)),
    ]);
    let store = writer.store_builder().start().await.unwrap();
    let tickets = put_many(&store, 100).await;
    let mut last = store.stats();
    while last.pending > 0 {
        wait_milliseconds(1).await;
        let stats = store.stats();
        assert_eq!(stats.accepted, stats.stored + stats.failed + stats.pending);
        assert!(stats.stored >= last.stored && stats.failed >= last.failed);
        last = stats;
    }
    let answers = join_all(tickets).await;
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((last.stored, last.failed), (stored as u64, (100 - stored) as u64));
    assert_eq!(last.failed, 25);
    assert_eq!(last.retried, 27);
    assert_eq!(last.batches as usize, writer.calls().len());
}

#[tokio::test(start_paused = true)]
async fn panicking_writer_fails_its_batch_alone() {
    let writer = FakeTable::scripted([Reply::Panic]);
    let store = writer.store_builder().start().await.unwrap();
    let error = failure(store.put(&1).await.unwrap()).await;
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(store.put(&2).await.unwrap().await.is_ok());
}

#[test]
fn runtime_shutdown_settles_every_ticket() {
    for runtime in [
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ] {
        let (store, tickets) = runtime.block_on(async {
            let writer = FakeTable::always(Reply::Hang);
            let store = writer.store_builder().max_batches_in_flight(1).start().await.unwrap();
            let tickets = put_many(&store, 26).await;
            while writer.calls().is_empty() {
                tokio::task::yield_now().await;
            }
            (store, tickets)
        });
        runtime.shutdown_timeout(SECOND * 10);

        for (place, ticket) in tickets.into_iter().enumerate() {
            let error = ticket.now_or_never().expect("an answer").unwrap_err();
            assert!(matches!(error.reason(), FailureReason::WorkerLost(_)), "{error}");
            let certainty = if place < 25 { Certainty::MaybeStored } else { Certainty::NotStored };
            assert_eq!(error.certainty(), certainty, "event {place}");
        }
        let refused = store.try_put(&1).unwrap_err();
        assert!(matches!(refused, PutError::WorkerLost(_)), "{refused}");
        let refused = store.put(&1).now_or_never().unwrap().unwrap_err();
        assert!(matches!(refused, PutError::WorkerLost(_)), "{refused}");
        assert!(store.flush().now_or_never().unwrap().is_err());
        assert!(store.close(SECOND).now_or_never().unwrap().is_err());
        let stats = store.stats();
        assert_eq!((stats.accepted, stats.failed, stats.pending), (26, 26, 0));
    }
}

/// Puts from several threads as fast as possible until the store refuses puts. Returns the tickets.
fn put_from_threads(store: &EventStore) -> Vec<std::thread::JoinHandle<Vec<PutTicket>>> {
    let put_until_refused = |store: EventStore| {
        move || {
            let mut tickets = Vec::new();
            while let Ok(ticket) = store.try_put(&1) {
                tickets.push(ticket);
            }
            tickets
        }
    };
    (0..6).map(|_| std::thread::spawn(put_until_refused(store.clone()))).collect()
}

/// How often a race is repeated. Its fault shows up at most once in some thousand tries.
const RACES: usize = 300;

#[test]
fn runtime_shutdown_during_puts_settles_every_ticket() {
    for _ in 0..RACES {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let store = runtime.block_on(FakeTable::new().store_builder().start()).unwrap();
        let threads = put_from_threads(&store);
        runtime.shutdown_background();
        for thread in threads {
            for ticket in thread.join().unwrap() {
                // Blocks until the ticket settles. The watchdog ends a test that blocks for ever.
                let _ = futures::executor::block_on(ticket);
            }
        }
        let stats = store.stats();
        assert_eq!((stats.pending, stats.accepted), (0, stats.stored + stats.failed));
    }
}

#[test]
fn close_counts_every_event_accepted_before_it() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for _ in 0..RACES {
        runtime.block_on(async {
            let store = FakeTable::new().store_builder().start().await.unwrap();
            let threads = put_from_threads(&store);
            let report = store.close(Duration::ZERO).await.unwrap();
            let mut accepted = 0;
            for thread in threads {
                for ticket in thread.join().unwrap() {
                    accepted += 1;
                    if let Err(error) = ticket.await {
                        assert_eq!(error.reason(), FailureReason::CloseDeadline, "{error}");
                    }
                }
            }
            assert_eq!(report.stored + report.failed, accepted);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn close_without_time_fails_queued_events() {
    let store = FakeTable::new().store_builder().start().await.unwrap();
    let tickets = put_many(&store, 30).await;
    let report = store.close(Duration::ZERO).await.unwrap();
    assert_eq!((report.failed, report.errors.len()), (30, 30));
    for ticket in tickets {
        assert_eq!(failure(ticket).await.reason(), FailureReason::CloseDeadline);
    }
}

#[tokio::test(start_paused = true)]
async fn flush_sends_the_event_left_by_a_full_batch() {
    let writer = FakeTable::new();
    let store = writer.store_builder().linger(SECOND * 30).start().await.unwrap();
    let _tickets = put_many(&store, 26).await;
    let (report, milliseconds) = took(store.flush()).await;
    assert_eq!((report.unwrap().stored, milliseconds), (26, 0));
    assert_eq!(writer.sizes(), [25, 1]);
}

#[tokio::test(start_paused = true)]
async fn retry_and_fill_counters_count_events() {
    let writer = FakeTable::scripted([not_applied()]);
    let store = writer.store_builder().backoff(constant_backoff(20)).start().await.unwrap();
    let first = store.put(&1).await.unwrap();
    wait_milliseconds(20).await;
    let second = store.put(&2).await.unwrap();
    assert!(first.await.is_ok() && second.await.is_ok());
    assert_eq!(writer.sizes(), [1, 2]);
    let stats = store.stats();
    assert_eq!((stats.retried, stats.batches), (1, 2));
    assert!((stats.fill_ratio - 3.0 / 50.0).abs() < f64::EPSILON, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn stores_throttled_together_do_not_retry_together() {
    let mut waits = std::collections::HashSet::new();
    for _ in 0..10 {
        let writer = FakeTable::scripted([Reply::throttle()]);
        let backoff = Backoff { floor: Duration::ZERO, base: SECOND, ceiling: SECOND };
        let store = writer.store_builder().backoff(backoff).start().await.unwrap();
        store.put(&1).await.unwrap().await.unwrap();
        let calls = writer.calls();
        waits.insert(calls[1].at - calls[0].at);
    }
    assert!(waits.len() >= 5, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn small_buffer_sends_nearly_full_batches() {
    let writer = FakeTable::always(Reply::Store.after(Duration::from_millis(20)));
    let store = writer.store_builder().max_buffered_events(50).start().await.unwrap();
    let producers: Vec<_> = (0..200)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for ticket in put_many(&store, 5).await {
                    ticket.await.unwrap();
                }
            })
        })
        .collect();
    for producer in join_all(producers).await {
        producer.unwrap();
    }
    assert!(store.stats().fill_ratio > 0.9, "{:?}", store.stats());
}

#[tokio::test(start_paused = true)]
async fn full_buffer_is_sent_at_once_while_a_call_hangs() {
    let writer = FakeTable::scripted([Reply::Hang]);
    let builder = writer.store_builder().max_buffered_events(30).linger(SECOND * 20);
    let store = builder.attempt_timeout(SECOND * 100).event_deadline(SECOND * 60);
    let store = store.read_back(false).start().await.unwrap();
    let (tickets, took) = took(put_many(&store, 40)).await;
    // A call with 25 events hangs and five events linger. The next put waits until these five are stored.
    assert!(took < 10, "{took} ms, of a linger of 20 s");
    assert_eq!(writer.sizes(), [25, 5, 5]);
    drop(tickets);
}

#[tokio::test(start_paused = true)]
async fn in_flight_requests_stay_within_their_share_of_memory() {
    let writer = FakeTable::always(Reply::Store.after(SECOND));
    let large = format!("\"{}\"", "x".repeat(400_000));
    for (max_buffered_bytes, most_in_flight) in [(21_000_000, 1), (100_000_000, 3)] {
        let store = writer.store_builder().max_buffered_bytes(max_buffered_bytes);
        let store = store.start().await.unwrap();
        let calls_before = writer.calls().len();
        for _ in 0..150 {
            drop(store.put_json(&large).await.unwrap());
        }
        assert_eq!(store.flush().await.unwrap().stored, 150);
        let calls = &writer.calls()[calls_before..];
        assert_eq!(calls.iter().map(|call| call.in_flight).max(), Some(most_in_flight));
    }
}

#[test]
fn several_threads_put_concurrently() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let writer = FakeTable::new();
        let store = writer.store_builder().max_buffered_events(100).start().await.unwrap();
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut keys = Vec::new();
                    for ticket in put_many(&store, 500).await {
                        keys.push(ticket.await.unwrap().key);
                    }
                    keys
                })
            })
            .collect();
        for keys in join_all(producers).await {
            assert!(keys.unwrap().is_sorted_by(|a, b| a < b));
        }
        assert_eq!(writer.rows().len(), 2_000);
        assert_eq!(store.close(SECOND * 10).await.unwrap().stored, 2_000);
        assert_eq!(writer.violations(), Vec::<String>::new());
    });
}

#[tokio::test(start_paused = true)]
async fn puts_polled_together_take_keys_in_call_order() {
    let store = FakeTable::new().store_builder().start().await.unwrap();
    let events: Vec<_> = (0..1_000).map(|number| json!({ "number": number })).collect();
    let tickets = join_all(events.iter().map(|event| store.put(event))).await;
    let keys: Vec<_> = tickets.iter().map(|ticket| *ticket.as_ref().unwrap().key()).collect();
    assert!(keys.is_sorted());
}

/// Panics when the task that polls a ticket is woken.
struct PanickingWaker;

impl ArcWake for PanickingWaker {
    fn wake_by_ref(_: &Arc<Self>) {
        panic!("the waker panics, as the test expects");
    }
}

#[tokio::test(start_paused = true)]
async fn other_tickets_are_answered_when_a_waker_panics() {
    let table = FakeTable::new();
    let store = table.store_builder().start().await.unwrap();
    let mut tickets = put_many(&store, 3).await;
    let mut polled = tickets.remove(0);
    let waker = waker(Arc::new(PanickingWaker));
    assert!(polled.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    for ticket in tickets {
        assert_eq!(ticket.await.unwrap().proof, Proof::Acknowledged);
    }
    assert!(polled.await.is_ok());
    let stats = store.stats();
    assert_eq!((stats.stored, stats.failed, stats.pending), (3, 0, 0));
    assert_eq!(table.rows().len(), 3);
}

// Refusals of every event.

fn refused() -> Reply {
    Reply::Fail(FailureClass::Refused, Certainty::NotStored)
}

/// A table whose calls fail depending on their number and on the table's age.
#[derive(Clone)]
struct FailingTable {
    table: FakeTable,
    start: Instant,
    calls: Arc<AtomicUsize>,
    failure: fn(usize, Duration) -> Option<FailureClass>,
}

impl FailingTable {
    fn new(failure: fn(usize, Duration) -> Option<FailureClass>) -> Self {
        Self { table: FakeTable::new(), start: clock::now(), calls: Arc::default(), failure }
    }

    async fn store(&self) -> EventStore {
        EventStore::builder().batch_writer(self.clone()).start().await.unwrap()
    }
}

impl BatchWriter for FailingTable {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        async move {
            let number = self.calls.fetch_add(1, Ordering::Relaxed);
            wait_milliseconds(5).await;
            if let Some(class) = (self.failure)(number, clock::now() - self.start) {
                let failure = BatchError::new(class, Certainty::NotStored, "as scripted");
                return Err(failure.with_code("ScriptedException"));
            }
            self.table.write_batch(events).await
        }
        .boxed()
    }
}

/// For the first three seconds nine in ten servers do not know the caller.
#[tokio::test(start_paused = true)]
async fn new_role_refused_by_some_servers_loses_no_event() {
    let role = FailingTable::new(|number, age| {
        (age < SECOND * 3 && number % 10 != 9).then_some(FailureClass::Refused)
    });
    let store = role.store().await;
    let answers = join_all(put_many(&store, 5_000).await).await;
    let lost = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!((lost, role.table.rows().len()), (0, 5_000));
    assert!(clock::now() >= role.start + SECOND * 3, "the refusals ended too early");
    // 200 of the calls store the events.
    let calls = role.calls.load(Ordering::Relaxed);
    assert!(calls < 1_500, "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn refusals_do_not_count_as_attempts() {
    let writer = FakeTable::scripted([refused(), refused(), refused(), not_applied()]);
    let store = writer.store_builder().max_attempts(2).start().await.unwrap();
    let stored = put_many(&store, 1).await.remove(0).await.unwrap();
    assert_eq!(stored.attempts, 5);
}

#[tokio::test(start_paused = true)]
async fn refused_call_does_not_stop_others_while_one_hangs() {
    let writer = FakeTable::scripted([Reply::Hang, refused()]);
    let store = writer.store_builder().attempt_timeout(SECOND * 30).start().await.unwrap();
    let mut tickets = put_many(&store, 50).await;
    let others = tickets.split_off(25);
    let (answers, milliseconds) = took(join_all(others)).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(milliseconds < 1_000, "{milliseconds} ms");
}

#[tokio::test(start_paused = true)]
async fn refused_store_sends_one_call_at_a_time() {
    let writer = FakeTable::always(refused().after(Duration::from_millis(20)));
    let store = writer.store_builder().start().await.unwrap();
    let tickets = put_many(&store, 1_000).await;
    let began = clock::now();
    for answer in join_all(tickets).await {
        let error = answer.unwrap_err();
        assert_eq!(error.certainty(), Certainty::NotStored);
        assert_eq!(error.reason(), FailureReason::NotRetryable);
    }
    let took = clock::now() - began;
    assert!((SECOND * 5..SECOND * 7).contains(&took), "{took:?}");
    let first = Duration::from_millis(20);
    let later: Vec<_> = writer.calls().into_iter().filter(|call| call.at > first).collect();
    assert!(later.len() < 30 && later.iter().all(|call| call.in_flight == 1), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn single_refusal_hours_after_a_final_one_fails_no_event() {
    let writer = FailingTable::new(|_, age| {
        let moment = SECOND * 7_200..SECOND * 7_200 + Duration::from_millis(20);
        (age < SECOND * 60 || moment.contains(&age)).then_some(FailureClass::Refused)
    });
    let store = writer.store().await;
    failure(put_many(&store, 1).await.remove(0)).await;
    // If another event follows soon, it fails after one attempt.
    let (error, milliseconds) = took(failure(put_many(&store, 1).await.remove(0))).await;
    assert_eq!((error.attempts(), milliseconds), (1, 10));

    clock::wait(SECOND * 7_200 - (clock::now() - writer.start)).await;
    let answers = join_all(put_many(&store, 100).await).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.as_ref().unwrap().attempts > 1));
}

/// Refuses calls for 100 ms at the start and for 300 ms after six seconds. In between they fail with
/// `between`.
fn refused_twice(between: FailureClass) -> FailingTable {
    fn refused_or(between: FailureClass, age: Duration) -> Option<FailureClass> {
        match age.as_millis() {
            0..100 | 6_000..6_300 => Some(FailureClass::Refused),
            100..6_000 => Some(between),
            _ => None,
        }
    }
    FailingTable::new(match between {
        FailureClass::Throttled => |_, age| refused_or(FailureClass::Throttled, age),
        _ => |_, age| refused_or(FailureClass::Transient, age),
    })
}

#[tokio::test(start_paused = true)]
async fn refusal_after_other_failures_starts_its_timeout_anew() {
    for between in [FailureClass::Throttled, FailureClass::Transient] {
        let writer = refused_twice(between);
        let store = writer.store().await;
        let answers = join_all(put_many(&store, 100).await).await;
        assert!(answers.iter().all(Result::is_ok), "{between:?}: {answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_call_among_refusals_restarts_their_timeout() {
    let writer = FailingTable::new(|_, age| match age.as_secs() {
        4 => Some(FailureClass::Throttled),
        0..8 => Some(FailureClass::Refused),
        _ => None,
    });
    let store = writer.store().await;
    let stored = put_many(&store, 1).await.remove(0).await.unwrap();
    assert!(clock::now() >= writer.start + SECOND * 8 && stored.attempts > 9);
}

#[tokio::test(start_paused = true)]
async fn calls_run_concurrently_soon_after_a_refusal() {
    for failing in [Reply::server_error().after(SECOND), Reply::Hang] {
        let writer = FakeTable::scripted([refused()]);
        writer.reply_from_now_on(failing);
        let store = writer.store_builder().start().await.unwrap();
        let _tickets = put_many(&store, 1_000).await;
        clock::wait(SECOND * 8).await;
        let in_flight = writer.calls().last().unwrap().in_flight;
        assert!(in_flight >= 8, "{in_flight} calls at a time");
    }
}
