//! The whole store against a model: whatever is put, awaited, flushed, dropped or closed in
//! whatever order, with whatever answers from the service, the promises hold.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dynamodb_eventstore::{
    Certainty, EventStore, FailureClass, PutError, PutTicket, Stored, WriteError,
};
use futures::FutureExt;
use proptest::prelude::*;
use tokio::task::unconstrained;

use dynamodb_eventstore::test_util::{FakeTable, Reply};
use support::{clock, watchdog};

const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);
const EVENT_DEADLINE: Duration = Duration::from_secs(3);
const MAX_IN_FLIGHT: usize = 3;
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// The runtime's timer is good to a millisecond, and several waits add up.
const SLACK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
enum Step {
    Put {
        count: usize,
        bytes: usize,
    },
    /// A put that is dropped after its first poll.
    CancelPut,
    DropTicket,
    Advance {
        milliseconds: u64,
    },
    Flush,
    Clone,
    DropHandle,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..60_usize, prop_oneof![9 => 0..200_usize, 1 => 100_000..300_000_usize])
            .prop_map(|(count, bytes)| Step::Put { count, bytes }),
        1 => Just(Step::CancelPut),
        1 => Just(Step::DropTicket),
        6 => (0..400_u64).prop_map(|milliseconds| Step::Advance { milliseconds }),
        2 => Just(Step::Flush),
        1 => Just(Step::Clone),
        1 => Just(Step::DropHandle),
        1 => Just(Step::Close),
    ]
}

fn answer() -> impl Strategy<Value = Reply> {
    let at_once = prop_oneof![
        4 => Just(Reply::Store),
        4 => prop::collection::vec(0..25_usize, 0..25).prop_map(Reply::HandBack),
        1 => Just(Reply::HandBackStranger),
        2 => Just(Reply::throttle()),
        2 => Just(Reply::server_error()),
        1 => Just(Reply::Fail(FailureClass::Fatal, Certainty::NotStored)),
        1 => Just(Reply::Fail(FailureClass::Poison, Certainty::NotStored)),
        2 => Just(Reply::StoreThenFail),
        1 => Just(Reply::Hang),
        1 => Just(Reply::StoreThenHang),
        1 => Just(Reply::Panic),
    ];
    (at_once, 0..100_u64)
        .prop_map(|(answer, milliseconds)| answer.after(Duration::from_millis(milliseconds)))
}

/// An accepted event as the caller knows it.
#[derive(Debug)]
struct Put {
    key: String,
    body: String,
    accepted_at: tokio::time::Instant,
    /// `None` once it was dropped or has answered.
    ticket: Option<PutTicket>,
    answer: Option<Result<Stored, WriteError>>,
}

impl Put {
    /// Takes the answer if there is one.
    fn look(&mut self) {
        // Unconstrained, or tokio would let a task see no more than 128 answers at one go.
        let answer = self.ticket.as_mut().and_then(|ticket| unconstrained(ticket).now_or_never());
        if let Some(answer) = answer {
            self.ticket = None;
            self.answer = Some(answer);
        }
    }

    fn is_settled(&mut self) -> bool {
        self.look();
        self.ticket.is_none()
    }
}

type Puts = Arc<Mutex<Vec<Put>>>;

/// Everything that a caller sees of one run.
struct Run {
    handles: Vec<EventStore>,
    puts: Puts,
    background: Vec<tokio::task::JoinHandle<()>>,
    closed: bool,
    numbers: usize,
}

impl Run {
    async fn step(&mut self, step: Step) {
        let Some(store) = self.handles.last().cloned() else {
            if let Step::Advance { milliseconds } = step {
                clock::wait_milliseconds(milliseconds).await;
            }
            return;
        };
        match step {
            Step::Put { count, bytes } => {
                for _ in 0..count {
                    self.put(&store, bytes).await;
                }
            }
            Step::CancelPut => {
                // With room it is accepted at once, and then it is a put like any other.
                if let Some(Ok(ticket)) = store.put_json("0").now_or_never() {
                    self.accepted(ticket, "0".to_owned());
                }
            }
            Step::DropTicket => {
                if let Some(put) = self.puts.lock().unwrap().last_mut() {
                    put.look();
                    put.ticket = None;
                }
            }
            Step::Advance { milliseconds } => clock::wait_milliseconds(milliseconds).await,
            Step::Flush => self.flush(store),
            Step::Clone => self.handles.push(store),
            Step::DropHandle => drop(self.handles.pop()),
            Step::Close => self.close(store),
        }
    }

    async fn put(&mut self, store: &EventStore, bytes: usize) {
        let body = format!("[{},\"{}\"]", self.numbers, "\\\"".repeat(bytes / 2));
        self.numbers += 1;
        match store.put_json(&body).await {
            Ok(ticket) => self.accepted(ticket, body),
            Err(refused) => {
                assert!(matches!(refused, PutError::Closed), "{refused}");
                assert!(self.closed, "a put was refused as closed before close");
            }
        }
        let stats = store.stats();
        assert_eq!(stats.accepted, stats.stored + stats.failed + stats.pending);
    }

    fn accepted(&self, ticket: PutTicket, body: String) {
        let (key, accepted_at) = (ticket.key().to_string(), clock::now());
        let put = Put { key, body, accepted_at, ticket: Some(ticket), answer: None };
        self.puts.lock().unwrap().push(put);
    }

    fn flush(&mut self, store: EventStore) {
        let puts = Arc::clone(&self.puts);
        let was_closed = self.closed;
        self.background.push(tokio::spawn(async move {
            // The call is here: what was put between the spawn and this is before it as well.
            let (before, start) = (puts.lock().unwrap().len(), clock::now());
            let Ok(report) = store.flush().await else {
                assert!(was_closed, "a flush was refused before close");
                return;
            };
            let mut puts = puts.lock().unwrap();
            let settled =
                puts[..before].iter_mut().filter_map(|put| put.is_settled().then_some(()));
            assert_eq!(settled.count(), before, "a flush came back early");
            assert!(report.stored + report.failed <= before as u64);
            let took = clock::now() - start;
            assert!(took <= EVENT_DEADLINE + ATTEMPT_TIMEOUT + SLACK, "a flush took {took:?}");
        }));
    }

    fn close(&mut self, store: EventStore) {
        self.closed = true;
        let puts = Arc::clone(&self.puts);
        self.background.push(tokio::spawn(async move {
            let start = clock::now();
            let report = store.close(CLOSE_DEADLINE).await.expect("a report");
            let took = clock::now() - start;
            assert!(took <= CLOSE_DEADLINE + SLACK, "close took {took:?}");
            let mut puts = puts.lock().unwrap();
            assert!(puts.iter_mut().all(Put::is_settled), "close came back early");
            assert_eq!(report.stored + report.failed, puts.len() as u64);
            assert!(report.not_stored.len() as u64 + report.not_listed <= report.failed);
        }));
    }
}

async fn run(steps: Vec<Step>, answers: Vec<Reply>, settings: (usize, usize, u64)) {
    let (max_batch_events, max_buffered_events, linger) = settings;
    watchdog::start();
    let writer = FakeTable::scripted(answers);
    let store = writer
        .store_builder()
        .max_batch_events(max_batch_events)
        .max_buffered_events(max_buffered_events)
        .max_buffered_bytes(2_000_000)
        .max_batches_in_flight(MAX_IN_FLIGHT)
        .linger(Duration::from_millis(linger))
        .attempt_timeout(ATTEMPT_TIMEOUT)
        .event_deadline(EVENT_DEADLINE)
        .start()
        .await
        .unwrap();
    let watched = store.clone();
    let puts = Puts::default();
    let mut run = Run {
        handles: vec![store],
        puts: Arc::clone(&puts),
        background: Vec::new(),
        closed: false,
        numbers: 0,
    };
    for step in steps {
        run.step(step).await;
    }
    let Run { handles, background, .. } = run;
    drop(handles);
    for task in background {
        task.await.expect("a promise was broken");
    }

    // Every ticket answers within its deadline and one attempt time-out.
    let end = {
        let puts = puts.lock().unwrap();
        let last = puts.last().map_or_else(clock::now, |put| put.accepted_at);
        last + EVENT_DEADLINE + ATTEMPT_TIMEOUT + SLACK
    };
    if let Some(left) = end.checked_duration_since(clock::now()) {
        clock::wait(left).await;
    }
    judge(&writer, &watched, &mut puts.lock().unwrap());

    // All room is back: as many events as at the start fit at once.
    if !run_is_closed(&watched).await {
        let refilled = (0..max_buffered_events).filter(|_| watched.try_put(&0).is_ok()).count();
        assert_eq!(refilled, max_buffered_events);
        assert!(matches!(watched.try_put(&0), Err(PutError::Full { .. })));
    }
}

/// Compares what the tickets said with what the table holds.
fn judge(writer: &FakeTable, store: &EventStore, puts: &mut [Put]) {
    assert_eq!(writer.violations(), Vec::<String>::new());
    assert!(writer.calls().iter().all(|call| call.in_flight <= MAX_IN_FLIGHT));
    let table = writer.rows();
    for put in puts.iter_mut() {
        assert!(put.is_settled(), "{} has no answer", put.key);
        match &put.answer {
            Some(Ok(stored)) => {
                assert_eq!(stored.key.as_str(), put.key);
                assert_eq!(table.get(&put.key), Some(&put.body), "stored means stored");
            }
            Some(Err(error)) if error.certainty() == Certainty::NotStored => {
                assert_eq!(table.get(&put.key), None, "not stored means not stored: {error}");
            }
            // A maybe may be either, and a dropped ticket tells nothing.
            Some(Err(_)) | None => {}
        }
    }
    assert!(table.keys().all(|key| puts.iter().any(|put| put.key == *key)));
    let stats = store.stats();
    assert_eq!((stats.accepted, stats.pending), (puts.len() as u64, 0));
}

async fn run_is_closed(store: &EventStore) -> bool {
    matches!(store.put(&0).await, Err(PutError::Closed)) || store.flush().await.is_err()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_settled_once_and_truly(
        steps in prop::collection::vec(step(), 1..40),
        answers in prop::collection::vec(answer(), 0..60),
        settings in (1..=25_usize, 1..200_usize, 0..50_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(steps, answers, settings));
    }
}
