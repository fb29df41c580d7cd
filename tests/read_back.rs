//! Reading back events that may be stored: what a read proves, how long it takes, and the history of
//! attempts in answers. The tests use a paused clock.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, ReadReply, Reply};
use dynamodb_eventstore::{
    BatchError, BatchReceipt, BatchWriter, Certainty, Event, EventStore, EventStoreBuilder,
    FailureClass, FailureReason, Proof, ReadBack, Stored, WriteError,
};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use support::{clock, watchdog};

const SECOND: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const EVENT_DEADLINE: Duration = Duration::from_secs(10);

/// A store with short timeouts.
fn store_at(table: &FakeTable) -> EventStoreBuilder {
    watchdog::start();
    table.store_builder().attempt_timeout(ATTEMPT_TIMEOUT).event_deadline(EVENT_DEADLINE)
}

async fn answer_of_one(store: EventStoreBuilder) -> Result<Stored, WriteError> {
    store.start().await.unwrap().put(&1).await.unwrap().await
}

/// Whether a read has shown that the event was not in the table.
fn not_found(error: &WriteError) -> bool {
    matches!(error.read_back(), Some(ReadBack::NotFound { .. }))
}

// What a read proves.

#[tokio::test(start_paused = true)]
async fn event_whose_responses_were_lost_is_stored_when_found() {
    for lost in [Reply::StoreThenFail, Reply::StoreThenLoseAnswer, Reply::StoreThenHang] {
        let table = FakeTable::always(lost);
        let stored = answer_of_one(store_at(&table).max_attempts(2)).await.unwrap();
        assert_eq!((stored.attempts, stored.proof), (2, Proof::ReadBack));
        assert_eq!(table.body(&stored.key).unwrap(), "1");
        assert_eq!(table.reads().len(), 1);
    }
}

/// The writer ids in the keys before and after a read that found another event under the first key.
async fn writer_ids_around_a_shared_key(
    store: impl Fn(&FakeTable) -> EventStoreBuilder,
) -> [String; 2] {
    let table = FakeTable::always(Reply::LoseAnswer.after(SECOND));
    let store = store(&table).max_attempts(1).start().await.unwrap();
    let first = store.put(&1).await.unwrap();
    let first_key = *first.key();
    table.insert(&first_key, "2");
    let error = first.await.unwrap_err();
    assert!(error.to_string().ends_with("would overwrite the other one"), "{error}");
    let second_key = *store.put(&3).await.unwrap().key();
    assert!(second_key > first_key, "{first_key} {second_key}");
    [first_key, second_key].map(|key| key.as_str()[18..23].to_owned())
}

#[tokio::test(start_paused = true)]
async fn drawn_writer_id_is_replaced_when_another_has_it() {
    let [before, after] = writer_ids_around_a_shared_key(store_at).await;
    assert_ne!(before, after);
}

#[tokio::test(start_paused = true)]
async fn assigned_writer_id_is_kept_when_another_has_it() {
    let ids = writer_ids_around_a_shared_key(|table| store_at(table).writer_id(7)).await;
    assert_eq!(ids, ["00007", "00007"]);
}

#[tokio::test(start_paused = true)]
async fn event_not_found_after_its_calls_ended_is_not_stored() {
    let table = FakeTable::always(Reply::LoseAnswer);
    let error = answer_of_one(store_at(&table).max_attempts(3)).await.unwrap_err();
    assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 3));
    assert!(not_found(&error), "{error:?}");
    assert!(table.rows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn event_not_found_before_its_calls_ended_stays_maybe_stored() {
    for lost in [Reply::server_error(), Reply::Hang] {
        let table = FakeTable::scripted([lost]);
        // The end of the second call does not show that the first one has ended.
        table.reply_from_now_on(Reply::LoseAnswer);
        let error = answer_of_one(store_at(&table).max_attempts(2)).await.unwrap_err();
        assert_eq!(error.certainty(), Certainty::MaybeStored);
        assert!(not_found(&error), "{error:?}");
        assert!(error.to_string().contains("it was not in the table"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn write_applied_after_the_read_was_called_maybe_stored() {
    let table = FakeTable::always(Reply::HangThenStore(SECOND * 6));
    let error = answer_of_one(store_at(&table).max_attempts(1)).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(not_found(&error) && table.rows().is_empty());
    clock::wait(SECOND * 3).await;
    assert_eq!(table.body(error.key()).unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn other_body_under_the_key_is_reported_as_maybe_stored() {
    let table = FakeTable::always(Reply::LoseAnswer.after(SECOND));
    let store = store_at(&table).max_attempts(1).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    table.insert(ticket.key(), "2");
    let error = ticket.await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(matches!(error.read_back(), Some(ReadBack::OtherBody { .. })), "{error:?}");
    assert!(error.to_string().contains("give each writer an id of its own"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn event_certainly_not_stored_is_not_read() {
    let table = FakeTable::always(Reply::throttle());
    let error = answer_of_one(store_at(&table)).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::NotStored);
    assert!(error.read_back().is_none() && table.reads().is_empty());
}

#[tokio::test(start_paused = true)]
async fn event_refused_after_a_possible_write_is_read() {
    let refused = Reply::Fail(FailureClass::Fatal, Certainty::NotStored);
    let table = FakeTable::scripted([Reply::StoreThenFail, refused]);
    let stored = answer_of_one(store_at(&table)).await.unwrap();
    assert_eq!((stored.attempts, stored.proof), (2, Proof::ReadBack));
}

#[tokio::test(start_paused = true)]
async fn events_that_fail_together_are_read_together() {
    let table = FakeTable::scripted([Reply::StoreThenFail]);
    let store = store_at(&table).max_attempts(1).start().await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..25 {
        tickets.push(store.put(&number).await.unwrap());
    }
    for answer in join_all(tickets).await {
        assert_eq!(answer.unwrap().proof, Proof::ReadBack);
    }
    let keys: Vec<usize> = table.reads().iter().map(|read| read.keys.len()).collect();
    assert_eq!(keys, [25]);
}

// Failing reads.

#[tokio::test(start_paused = true)]
async fn transient_read_failure_is_retried() {
    let table = FakeTable::always(Reply::StoreThenHang);
    table.script_reads([
        ReadReply::Fail(FailureClass::Throttled),
        ReadReply::Fail(FailureClass::Transient),
        ReadReply::LeaveOut(vec![0]),
    ]);
    let stored = answer_of_one(store_at(&table).max_attempts(1)).await.unwrap();
    assert_eq!(stored.proof, Proof::ReadBack);
    assert_eq!(table.reads().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn only_keys_left_unread_are_read_again() {
    let table = FakeTable::scripted([Reply::StoreThenFail]);
    table.script_reads([ReadReply::LeaveOut(vec![0, 2])]);
    let store = store_at(&table).max_attempts(1).max_batch_events(3).start().await.unwrap();
    let puts = [store.put(&0).await, store.put(&1).await, store.put(&2).await];
    let tickets = puts.map(Result::unwrap);
    let keys = tickets.each_ref().map(|ticket| ticket.key().to_string());
    for answer in join_all(tickets).await {
        assert_eq!(answer.unwrap().proof, Proof::ReadBack);
    }
    let again = table.reads().pop().unwrap().keys;
    assert_eq!(again, [keys.first().unwrap().clone(), keys.last().unwrap().clone()]);
}

#[tokio::test(start_paused = true)]
async fn denied_read_names_the_permission_to_grant() {
    let table = FakeTable::always(Reply::StoreThenFail);
    table.reply_to_reads_from_now_on(ReadReply::Deny);
    let error = answer_of_one(store_at(&table).max_attempts(2)).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(error.to_string().contains("grant dynamodb:BatchGetItem"), "{error}");
    // A retry would be denied as well.
    assert_eq!(table.reads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn read_that_names_other_keys_is_rejected() {
    let table = FakeTable::always(Reply::LoseAnswer);
    table.script_reads([ReadReply::NameUnknownKey]);
    let error = answer_of_one(store_at(&table).max_attempts(1)).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::NotStored);
    assert_eq!(table.reads().len(), 2, "the invalid read was not repeated once");

    table.reply_to_reads_from_now_on(ReadReply::NameUnknownKey);
    let error = answer_of_one(store_at(&table).max_attempts(1)).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(matches!(error.read_back(), Some(ReadBack::Failed(_))), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn panicking_read_leaves_event_maybe_stored() {
    let table = FakeTable::always(Reply::StoreThenFail);
    table.reply_to_reads_from_now_on(ReadReply::Panic);
    let error = answer_of_one(store_at(&table).max_attempts(1)).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn panicking_read_fails_no_other_read() {
    let table = FakeTable::always(Reply::StoreThenFail.after(SECOND));
    table.script_reads([ReadReply::After(SECOND, Box::new(ReadReply::Panic))]);
    let store = store_at(&table).max_attempts(1).max_batch_events(1).max_batches_in_flight(1);
    let store = store.start().await.unwrap();
    let puts = [store.put(&0).await, store.put(&1).await, store.put(&2).await];
    let answers = join_all(puts.map(Result::unwrap)).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_err()).count(), 1, "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn disabled_read_back_reads_nothing() {
    let table = FakeTable::always(Reply::StoreThenFail);
    let error = answer_of_one(store_at(&table).max_attempts(1).read_back(false)).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(error.read_back().is_none() && table.reads().is_empty());
}

/// A writer without `read_batch`.
struct WriteOnly(FakeTable);

impl BatchWriter for WriteOnly {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        self.0.write_batch(events)
    }
}

#[tokio::test(start_paused = true)]
async fn writer_without_reads_leaves_event_maybe_stored() {
    let writer = WriteOnly(FakeTable::always(Reply::StoreThenFail));
    let store = EventStore::builder().batch_writer(writer).max_attempts(1);
    let error = answer_of_one(store).await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    assert!(error.to_string().contains("does not read"), "{error}");
}

// The time of a read-back.

#[tokio::test(start_paused = true)]
async fn tickets_settle_within_deadline_plus_timeout_without_answers() {
    let table = FakeTable::always(Reply::Hang);
    table.reply_to_reads_from_now_on(ReadReply::Hang);
    let store = store_at(&table).start().await.unwrap();
    // Each attempt takes 4 s, so the deadline comes at different moments of an attempt.
    for _ in 0..8 {
        let start = clock::now();
        let error = store.put(&1).await.unwrap().await.unwrap_err();
        let took = clock::now() - start;
        assert!(took <= EVENT_DEADLINE + ATTEMPT_TIMEOUT + Duration::from_millis(5), "{took:?}");
        assert!(matches!(error.read_back(), Some(ReadBack::Failed(_))), "{error:?}");
        assert_eq!(error.reason(), FailureReason::Deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_begun_at_the_deadline_leaves_time_to_read() {
    // The first attempt is throttled just before the deadline; the second one hangs.
    let table = FakeTable::scripted([Reply::throttle().after(SECOND * 3), Reply::StoreThenHang]);
    let store = store_at(&table).event_deadline(Duration::from_millis(3_200));
    let stored = answer_of_one(store).await.unwrap();
    assert_eq!((stored.attempts, stored.proof), (2, Proof::ReadBack));
    let read_at = table.reads().first().unwrap().at;
    assert!(read_at <= Duration::from_millis(3_200) + ATTEMPT_TIMEOUT / 2 + SECOND / 100);
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_the_reads() {
    let table = FakeTable::always(Reply::StoreThenFail);
    table.script_reads([ReadReply::After(SECOND * 2, Box::new(ReadReply::Read))]);
    let store = store_at(&table).max_attempts(1).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    let start = clock::now();
    let report = store.flush().await.unwrap();
    assert_eq!((report.stored, report.failed), (1, 0));
    assert!(clock::now() - start >= SECOND * 2);
    assert!(ticket.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn close_reads_back_events_in_flight_at_its_deadline() {
    let table = FakeTable::always(Reply::StoreThenHang);
    let store = store_at(&table).attempt_timeout(SECOND * 60).event_deadline(SECOND * 600);
    let store = store.start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    let report = store.close(SECOND * 5).await.unwrap();
    assert_eq!((report.stored, report.failed), (1, 0));
    assert_eq!(ticket.await.unwrap().proof, Proof::ReadBack);
}

#[tokio::test(start_paused = true)]
async fn close_bounds_the_time_of_its_reads() {
    let table = FakeTable::always(Reply::StoreThenHang);
    table.reply_to_reads_from_now_on(ReadReply::Hang);
    for (given, at_most) in [(0, 0), (8, 10), (20, 24)] {
        let store = store_at(&table).event_deadline(SECOND * 600).start().await.unwrap();
        let ticket = store.put(&1).await.unwrap();
        clock::wait(SECOND).await;
        let start = clock::now();
        let report = store.close(SECOND * given).await.unwrap();
        assert!(clock::now() - start <= SECOND * at_most + SECOND / 100);
        assert_eq!((report.failed, report.errors.len()), (1, 1));
        assert_eq!(ticket.await.unwrap_err().certainty(), Certainty::MaybeStored);
    }
}

#[tokio::test(start_paused = true)]
async fn close_without_time_ends_the_reads_of_an_earlier_close() {
    let table = FakeTable::always(Reply::StoreThenHang);
    table.reply_to_reads_from_now_on(ReadReply::Hang);
    let store = store_at(&table).event_deadline(SECOND * 600).start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    let patient = tokio::spawn({
        let store = store.clone();
        async move { store.close(SECOND * 8).await.unwrap() }
    });
    clock::wait(SECOND * 9).await;
    assert_eq!(table.reads().len(), 1, "close has not begun to read");
    let start = clock::now();
    store.close(Duration::ZERO).await.unwrap();
    assert!(clock::now() - start <= SECOND / 100);
    assert_eq!(patient.await.unwrap().failed, 1);
    let error = ticket.await.unwrap_err();
    assert_eq!(
        (error.certainty(), error.reason()),
        (Certainty::MaybeStored, FailureReason::CloseDeadline)
    );
}

// Events put again.

#[tokio::test(start_paused = true)]
async fn event_put_again_is_never_called_not_stored() {
    let table = FakeTable::always(Reply::HangThenStore(SECOND * 6));
    let error = answer_of_one(store_at(&table).max_attempts(1)).await.unwrap_err();
    let event = error.event().unwrap().clone();

    // Throttled, while the first call has not been applied yet.
    table.reply_from_now_on(Reply::throttle());
    let store = store_at(&table).max_attempts(1).start().await.unwrap();
    let again = store.put_event(event.clone()).await.unwrap().await.unwrap_err();
    assert_eq!(again.certainty(), Certainty::MaybeStored);
    assert!(not_found(&again), "{again:?}");

    // Throttled, after the first call was applied.
    clock::wait(SECOND * 3).await;
    let again = store.put_event(event.clone()).await.unwrap().await.unwrap();
    assert_eq!(again.proof, Proof::ReadBack);

    // This time the event is neither sent nor read.
    let ticket = store.put_event(event).await.unwrap();
    store.close(Duration::ZERO).await.unwrap();
    let again = ticket.await.unwrap_err();
    assert_eq!((again.certainty(), again.attempts()), (Certainty::MaybeStored, 0));
}

#[tokio::test(start_paused = true)]
async fn unfinished_put_keeps_a_second_put_maybe_stored() {
    let table = FakeTable::scripted([Reply::Store.after(SECOND), Reply::LoseAnswer]);
    let store = store_at(&table).max_attempts(1).max_batch_events(1).start().await.unwrap();
    let event = Event::new("20130927T005240652508858176".parse().unwrap(), "1").unwrap();
    let first = store.put_event(event.clone()).await.unwrap();
    let second = store.put_event(event).await.unwrap();
    assert_eq!(second.await.unwrap_err().certainty(), Certainty::MaybeStored);
    assert!(first.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn event_put_again_keeps_the_certainty_it_came_with() {
    let table = FakeTable::always(Reply::throttle());
    let store = store_at(&table).max_attempts(1).read_back(false).start().await.unwrap();
    let event = Event::new("20130927T005240652508858176".parse().unwrap(), "1").unwrap();
    let put = |certainty| {
        let (store, event) = (store.clone(), event.clone());
        async move {
            let ticket = store.put_again(event, certainty).await.unwrap();
            ticket.await.unwrap_err().certainty()
        }
    };
    assert_eq!(put(Certainty::NotStored).await, Certainty::NotStored);
    assert_eq!(put(Certainty::MaybeStored).await, Certainty::MaybeStored);
    table.reply_from_now_on(Reply::LoseAnswer);
    assert_eq!(put(Certainty::NotStored).await, Certainty::MaybeStored);

    // Never sent.
    let ticket = store.put_again(event, Certainty::NotStored).await.unwrap();
    store.close(Duration::ZERO).await.unwrap();
    let error = ticket.await.unwrap_err();
    assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 0));
}

// The history of attempts.

#[tokio::test(start_paused = true)]
async fn event_stored_at_the_first_attempt_has_no_history() {
    let stored = answer_of_one(store_at(&FakeTable::new())).await.unwrap();
    assert!(stored.history().is_empty());
    assert_eq!((stored.attempts, stored.proof), (1, Proof::Acknowledged));
}

#[tokio::test(start_paused = true)]
async fn retried_event_lists_time_and_failure_of_each_attempt() {
    let table = FakeTable::scripted([
        Reply::throttle().after(SECOND),
        Reply::Unprocessed(vec![0]).after(SECOND * 2),
        Reply::Store.after(SECOND * 3),
    ]);
    let stored = answer_of_one(store_at(&table).linger(Duration::ZERO)).await.unwrap();
    let attempts: Vec<_> = stored
        .history()
        .iter()
        .map(|attempt| (attempt.took(), attempt.failure().map(BatchError::class)))
        .collect();
    let (throttled, unprocessed) = (FailureClass::Throttled, FailureClass::Unprocessed);
    assert_eq!(
        attempts,
        [(SECOND, Some(throttled)), (SECOND * 2, Some(unprocessed)), (SECOND * 3, None)]
    );
    let began: Vec<Duration> = stored.history().iter().map(|attempt| attempt.began()).collect();
    let calls: Vec<Duration> = table.calls().iter().map(|call| call.at).collect();
    assert_eq!(began, calls);
    let ids = stored.history().iter().filter_map(|attempt| attempt.failure()?.request_id());
    assert_eq!(ids.collect::<Vec<_>>(), ["FAKE"]);
}

#[tokio::test(start_paused = true)]
async fn event_dropped_by_close_names_the_last_real_cause() {
    let table = FakeTable::scripted([Reply::throttle(), Reply::Hang]);
    let store = store_at(&table).attempt_timeout(SECOND * 60).event_deadline(SECOND * 600);
    let store = store.start().await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    store.close(SECOND).await.unwrap();
    let error = ticket.await.unwrap_err();
    assert_eq!(error.last_cause().unwrap().class(), FailureClass::Throttled);
    let last = error.history().last().unwrap().failure().unwrap().to_string();
    assert!(last.contains("the deadline of close came before the answer"), "{last}");
}

// The lines of a close report.

#[tokio::test(start_paused = true)]
async fn close_report_lines_put_the_same_events_again() {
    let table = FakeTable::always(Reply::throttle());
    let store = store_at(&table).start().await.unwrap();
    for body in ["\"a\"", "{\"b\":\"line\\nbreak\"}"] {
        drop(store.put_json(body).await.unwrap());
    }
    let report = store.close(SECOND).await.unwrap();
    let mut written = Vec::new();
    report.write_ndjson(&mut written).unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&written).unwrap().lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, error) in lines.iter().zip(&report.errors) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["certainty"], "not stored");
        assert_eq!(line["failure_reason"], "close_deadline");
        assert_eq!(line["attempts"], error.attempts());
        assert_eq!(line["last_cause"]["class"], "throttled");
        assert_eq!(line["last_cause"]["code"], "FakeException");
        assert_eq!(line["history"].as_array().unwrap().len(), error.history().len());
        assert_eq!(line["reason"], error.to_string());
    }

    table.reply_from_now_on(Reply::Store);
    let store = store_at(&table).start().await.unwrap();
    // Each line is put twice, as a shell user might do.
    for line in lines.iter().chain(&lines) {
        let event: Event = serde_json::from_str(line).unwrap();
        let stored = store.put_event(event.clone()).await.unwrap().await.unwrap();
        assert_eq!(stored.key, *event.key());
    }
    let mut expected: Vec<(String, String)> = report
        .errors
        .iter()
        .map(|error| (error.key().to_string(), error.event().unwrap().body().into_owned()))
        .collect();
    expected.sort();
    assert_eq!(table.rows().into_iter().collect::<Vec<_>>(), expected);
    assert!(table.violations().is_empty());
}
