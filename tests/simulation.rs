//! Simulations of the whole store on a paused clock, with a table that fails at random. One seed
//! determines the settings, every put, flush, drop and close, and every reply of the table. The store
//! must keep its promises for each seed.
//!
//! The seeds are 0 to 499 by default; `SIMULATION_SEEDS` sets their number, and `SIMULATION_SEED` runs
//! one seed alone. A failing seed is printed with the command that runs it again.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod support;

use std::collections::HashMap;
use std::env;
use std::fmt::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, FaultRates};
use dynamodb_eventstore::{
    Backoff, Certainty, Event, EventStore, OnDuplicate, PutError, PutTicket, Stored, WriteCapacity,
    WriteError, WriteMode,
};
use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::unconstrained;

use support::{clock, watchdog};

const SEEDS: u64 = 500;

/// The runtime's timer has a resolution of a millisecond, and several waits add up.
const SLACK: Duration = Duration::from_millis(6);

/// The longest time after which the table applies a call that it does not answer.
const LATEST_WRITE: Duration = Duration::from_secs(11);

/// The time after the last refusal in which the buffer regains its full size.
const UNLIMITED_AGAIN: Duration = Duration::from_secs(61);

/// The settings of one simulation.
#[derive(Debug, Clone)]
struct Plan {
    max_batch_events: usize,
    max_buffered_events: usize,
    max_batches_in_flight: usize,
    max_attempts: u32,
    linger: Duration,
    attempt_timeout: Duration,
    event_deadline: Duration,
    close_deadline: Duration,
    read_back: bool,
    mode: WriteMode,
    on_duplicate: OnDuplicate,
    backoff: Backoff,
    rates: FaultRates,
    poison: bool,
    /// `None` for a table without limits.
    capacity: Option<WriteCapacity>,
    max_write_units_per_second: Option<u32>,
}

impl Plan {
    fn draw(random: &mut StdRng) -> Self {
        let event_deadline = milliseconds(random, 500..8_000);
        let severity = [0.0, 0.3, 1.0, 3.0][random.random_range(0..4)];
        let rates = FaultRates::default();
        let inserts = random.random_bool(0.4);
        Self {
            mode: if inserts { WriteMode::Insert } else { WriteMode::Put },
            on_duplicate: if inserts && random.random_bool(0.3) {
                OnDuplicate::Fail
            } else {
                OnDuplicate::NewKey
            },
            max_batch_events: random.random_range(1..=25),
            max_buffered_events: random.random_range(1..200),
            max_batches_in_flight: random.random_range(1..5),
            max_attempts: [1, 2, 5, 100][random.random_range(0..4)],
            linger: milliseconds(random, 0..50),
            attempt_timeout: milliseconds(random, 60..1_000),
            event_deadline,
            close_deadline: milliseconds(random, 0..4_000),
            read_back: random.random_bool(0.8),
            backoff: Backoff {
                floor: milliseconds(random, 1..10),
                base: milliseconds(random, 10..60),
                ceiling: milliseconds(random, 60..1_000),
            },
            rates: FaultRates {
                throttled: rates.throttled * severity,
                unprocessed: rates.unprocessed * severity,
                failed_before: rates.failed_before * severity,
                failed_after: rates.failed_after * severity,
                answer_lost: rates.answer_lost * severity,
                hanging_before: rates.hanging_before * severity,
                hanging_after: rates.hanging_after * severity,
                read_failed: rates.read_failed * severity,
                ..rates
            },
            poison: random.random_bool(0.3),
            capacity: random.random_bool(0.4).then(|| draw_capacity(random)),
            max_write_units_per_second: random
                .random_bool(0.1)
                .then(|| random.random_range(20..2_000)),
        }
    }
}

/// A table's capacity, from far too little to more than enough. It changes once, and one partition is
/// busy for some time.
fn draw_capacity(random: &mut StdRng) -> WriteCapacity {
    let busy_from = milliseconds(random, 0..5_000);
    WriteCapacity::provisioned(random.random_range(1..3_000))
        .partitions(random.random_range(1..8))
        .burst(milliseconds(random, 0..5_000))
        .saved(milliseconds(random, 0..2_000))
        .changed_to(random.random_range(1..3_000), milliseconds(random, 0..10_000))
        .busy_partition(
            random.random_range(0..1_000),
            busy_from,
            busy_from + milliseconds(random, 0..5_000),
        )
        .latency(milliseconds(random, 0..20))
}

fn milliseconds(random: &mut StdRng, range: Range<u64>) -> Duration {
    Duration::from_millis(random.random_range(range))
}

/// The body of an event that the table refuses as invalid.
const INVALID_BODY: &str = "\"poison\"";

/// The body of another writer's items, with which it takes the keys of events.
const OTHER_BODY: &str = "\"another writer's\"";

/// An accepted event as the caller knows it.
#[derive(Debug)]
struct Put {
    key: String,
    body: String,
    accepted_at: tokio::time::Instant,
    /// `None` after it was dropped or settled.
    ticket: Option<PutTicket>,
    /// Whether it was put under the key of an event that had failed.
    is_repeated: bool,
    answer: Option<Result<Stored, WriteError>>,
}

impl Put {
    /// Takes the answer if the ticket is settled.
    fn poll(&mut self) {
        // Unconstrained, because otherwise tokio's budget ends after 128 answers in one poll of the task.
        let answer = self.ticket.as_mut().and_then(|ticket| unconstrained(ticket).now_or_never());
        if let Some(answer) = answer {
            self.ticket = None;
            self.answer = Some(answer);
        }
    }

    fn is_settled(&mut self) -> bool {
        self.poll();
        self.ticket.is_none()
    }
}

type Puts = Arc<Mutex<Vec<Put>>>;

/// The state of the caller in one simulation.
struct Run {
    plan: Plan,
    table: FakeTable,
    random: StdRng,
    handles: Vec<EventStore>,
    puts: Puts,
    background: Vec<tokio::task::JoinHandle<()>>,
    closed: bool,
    numbers: usize,
}

impl Run {
    async fn step(&mut self) {
        let Some(store) = self.handles.last().cloned() else {
            clock::wait(milliseconds(&mut self.random, 0..400)).await;
            return;
        };
        match self.random.random_range(0..27) {
            24.. => self.take_keys(),
            0..=8 => {
                for _ in 0..self.random.random_range(1..60) {
                    self.put(&store).await;
                }
            }
            9..=14 => clock::wait(milliseconds(&mut self.random, 0..400)).await,
            15 | 16 => self.flush(store),
            17 | 18 => self.put_again(&store).await,
            19 => {
                // A put that is dropped after its first poll. If the buffer is not full it is accepted
                // in that poll, and then it is a put like any other.
                if let Some(Ok(ticket)) = store.put_json("0").now_or_never() {
                    self.accepted(ticket, "0".to_owned(), false);
                }
            }
            20 => {
                if let Some(put) = self.puts.lock().unwrap().last_mut() {
                    put.poll();
                    put.ticket = None;
                }
            }
            21 => self.handles.push(store),
            22 => drop(self.handles.pop()),
            _ => self.close(store),
        }
        let stats = self.handles.last().map(EventStore::stats);
        assert!(
            stats.is_none_or(|stats| stats.accepted == stats.stored + stats.failed + stats.pending)
        );
    }

    async fn put(&mut self, store: &EventStore) {
        let number = self.numbers;
        self.numbers += 1;
        let body = match self.random.random_range(0..200) {
            0 => format!("[{number},\"{}\"]", "\\\"".repeat(self.random.random_range(0..150_000))),
            1 if self.plan.poison => INVALID_BODY.to_owned(),
            _ => format!("[{number},\"{}\"]", "x".repeat(self.random.random_range(0..100))),
        };
        match store.put_json(&body).await {
            Ok(ticket) => self.accepted(ticket, body, false),
            Err(refused) => self.refused(&refused),
        }
    }

    /// Another writer takes the keys of some events that are not in the table, in a simulation of inserts.
    fn take_keys(&mut self) {
        if self.plan.mode == WriteMode::Put {
            return;
        }
        for put in self.puts.lock().unwrap().iter() {
            let key = put.key.parse().unwrap();
            if self.table.body(&key).is_none() && self.random.random_bool(0.2) {
                self.table.insert(&key, OTHER_BODY);
            }
        }
    }

    /// Puts a failed event again, under the same key.
    async fn put_again(&mut self, store: &EventStore) {
        let failed: Option<Event> = {
            let mut puts = self.puts.lock().unwrap();
            puts.iter_mut().for_each(Put::poll);
            let events = puts.iter().filter_map(|put| put.answer.as_ref()?.as_ref().err()?.event());
            let is_in_doubt = |body: &str| {
                // A caller that puts an event twice at a time may find both under new keys.
                self.plan.mode == WriteMode::Put
                    || puts
                        .iter()
                        .filter(|put| put.body == body)
                        .all(|put| matches!(&put.answer, Some(Err(_))))
            };
            let events: Vec<&Event> = events
                .filter(|event| event.body() != INVALID_BODY && is_in_doubt(&event.body()))
                .collect();
            (!events.is_empty()).then(|| events[self.random.random_range(0..events.len())].clone())
        };
        let Some(event) = failed else { return };
        match store.put_event(event.clone()).await {
            Ok(ticket) => self.accepted(ticket, event.body().into_owned(), true),
            Err(refused) => self.refused(&refused),
        }
    }

    fn refused(&self, refused: &PutError) {
        assert!(matches!(refused, PutError::Closed), "{refused}");
        assert!(self.closed, "a put was refused as closed before close");
    }

    fn accepted(&self, ticket: PutTicket, body: String, is_repeated: bool) {
        let (key, accepted_at) = (ticket.key().to_string(), clock::now());
        let put = Put { key, body, accepted_at, ticket: Some(ticket), is_repeated, answer: None };
        self.puts.lock().unwrap().push(put);
    }

    fn flush(&mut self, store: EventStore) {
        let (puts, plan) = (Arc::clone(&self.puts), self.plan.clone());
        let was_closed = self.closed;
        self.background.push(tokio::spawn(async move {
            // The flush is called here, so it also covers puts since the spawn.
            let (before, start) = (puts.lock().unwrap().len(), clock::now());
            let Ok(report) = store.flush().await else {
                assert!(was_closed, "a flush was refused before close");
                return;
            };
            let mut puts = puts.lock().unwrap();
            let unsettled =
                puts[..before].iter_mut().filter_map(|put| (!put.is_settled()).then_some(()));
            assert_eq!(unsettled.count(), 0, "a flush returned early");
            assert!(report.stored + report.failed <= before as u64);
            let took = clock::now() - start;
            let at_most = plan.event_deadline + plan.attempt_timeout + SLACK;
            assert!(took <= at_most, "a flush took {took:?}");
        }));
    }

    fn close(&mut self, store: EventStore) {
        self.closed = true;
        let (puts, plan) = (Arc::clone(&self.puts), self.plan.clone());
        self.background.push(tokio::spawn(async move {
            let start = clock::now();
            let report = store.close(plan.close_deadline).await.expect("a report");
            let took = clock::now() - start;
            let reading = if plan.read_back {
                plan.attempt_timeout.min(plan.close_deadline / 4)
            } else {
                Duration::ZERO
            };
            assert!(took <= plan.close_deadline + reading + SLACK, "close took {took:?}");
            let mut puts = puts.lock().unwrap();
            assert!(puts.iter_mut().all(Put::is_settled), "close returned early");
            assert_eq!(report.stored + report.failed, puts.len() as u64);
            assert!(report.errors.len() as u64 + report.not_listed <= report.failed);
        }));
    }
}

/// Runs the simulation of one seed, and returns a transcript of it.
async fn simulate(seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    let plan = Plan::draw(&mut random);
    let table = FakeTable::seeded(random.random(), plan.rates.clone());
    table.reject(INVALID_BODY);
    table.set_write_mode(plan.mode);
    if let Some(capacity) = &plan.capacity {
        table.limit(capacity.clone());
    }
    let mut builder = table.store_builder();
    if let Some(budget) = plan.max_write_units_per_second {
        builder = builder.max_write_units_per_second(budget);
    }
    let store = builder
        .deterministic(random.random())
        .max_batch_events(plan.max_batch_events)
        .max_buffered_events(plan.max_buffered_events)
        .max_buffered_bytes(2_000_000)
        .max_batches_in_flight(plan.max_batches_in_flight)
        .max_attempts(plan.max_attempts)
        .linger(plan.linger)
        .attempt_timeout(plan.attempt_timeout)
        .event_deadline(plan.event_deadline)
        .read_back(plan.read_back)
        .backoff(plan.backoff)
        .on_duplicate(plan.on_duplicate)
        .start()
        .await
        .unwrap();
    let observer = store.clone();
    let puts = Puts::default();
    let mut run = Run {
        plan: plan.clone(),
        table: table.clone(),
        random,
        handles: vec![store],
        puts: Arc::clone(&puts),
        background: Vec::new(),
        closed: false,
        numbers: 0,
    };
    for _ in 0..run.random.random_range(1..40) {
        run.step().await;
    }
    let Run { handles, background, closed, .. } = run;
    drop(handles);
    for task in background {
        task.await.expect("a promise was broken");
    }

    // Every ticket settles within the event deadline and one attempt timeout.
    let last = puts.lock().unwrap().last().map_or_else(clock::now, |put| put.accepted_at);
    let answered_by = last + plan.event_deadline + plan.attempt_timeout + SLACK;
    if let Some(left) = answered_by.checked_duration_since(clock::now()) {
        clock::wait(left).await;
    }
    assert!(puts.lock().unwrap().iter_mut().all(Put::is_settled), "a ticket is not settled");
    // After this time no unanswered call can still be applied.
    clock::wait(LATEST_WRITE).await;
    let transcript = compare(&plan, &table, &observer, &mut puts.lock().unwrap());

    // A table that has throttled nothing for a minute counts as unlimited again.
    clock::wait(UNLIMITED_AGAIN).await;
    // All permits are released: the buffer accepts as many events as at the start.
    if !closed {
        let capacity = plan.max_buffered_events;
        let accepted = (0..capacity).filter(|_| observer.try_put(&0).is_ok()).count();
        if plan.max_write_units_per_second.is_some() {
            // With a budget the store accepts what it can send in time, and at least a few batches.
            let at_least = capacity.min(4 * plan.max_batch_events);
            assert!((at_least..=capacity).contains(&accepted), "{accepted}");
        } else {
            assert_eq!(accepted, capacity);
        }
        let full = observer.try_put(&0);
        assert!(matches!(full, Err(PutError::Full { .. } | PutError::Throttled { .. })));
    }
    transcript
}

/// Compares the answers of the tickets with the table, and returns a transcript of both.
fn compare(plan: &Plan, table: &FakeTable, store: &EventStore, puts: &mut [Put]) -> String {
    assert_eq!(table.violations(), Vec::<String>::new());
    for call in table.calls().iter().chain(&table.reads()) {
        assert!(call.in_flight <= plan.max_batches_in_flight, "too many calls at a time");
    }
    let rows = table.rows();
    let mut times_put: HashMap<&str, usize> = HashMap::new();
    for put in puts.iter() {
        *times_put.entry(&put.key).or_default() += 1;
    }
    let mut transcript = String::new();
    let takes_new_keys = plan.on_duplicate == OnDuplicate::NewKey && plan.mode == WriteMode::Insert;
    let mut replaced = 0;
    for Put { key, body, is_repeated, answer, .. } in puts.iter() {
        let put_key = key.as_str();
        match answer {
            Some(Ok(stored)) => {
                let is_own_key = stored.key.as_str() == key;
                assert!(is_own_key || (takes_new_keys && rows[key] == OTHER_BODY), "{key}");
                let row = rows.get(stored.key.as_str());
                assert_eq!(row, Some(body), "the row of {key}, which is called stored");
                replaced += u64::from(!is_own_key);
                writeln!(transcript, "{key} {:?} {}", stored.proof, stored.attempts).unwrap();
            }
            Some(Err(error)) => {
                assert!(error.key().as_str() == key || takes_new_keys);
                let key = error.key().as_str();
                // If the event was put more than once, another put may have stored it.
                let others =
                    times_put.get(key).map_or(0, |times| times - usize::from(key == put_key));
                if error.certainty() == Certainty::NotStored && others == 0 {
                    let row = rows.get(key).filter(|row| *row != OTHER_BODY);
                    assert_eq!(row, None, "the row of an event with the error {error}");
                }
                let is_certain = error.certainty() == Certainty::NotStored;
                assert!(
                    !(is_certain && *is_repeated),
                    "an earlier put may have stored the event: {error}"
                );
                // To find one invalid event among 25 takes five calls after the first.
                assert!(error.attempts() <= plan.max_attempts + 5, "{error}");
                writeln!(transcript, "{error}").unwrap();
            }
            None => writeln!(transcript, "{key} without a ticket").unwrap(),
        }
    }
    let stats = store.stats();
    if takes_new_keys {
        // No event is in the table twice. Those with these bodies are not told apart.
        let mut bodies: Vec<&String> = rows.values().collect();
        bodies.retain(|body| ![OTHER_BODY, "0"].contains(&body.as_str()));
        let rows_of_events = bodies.len();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), rows_of_events, "an event is stored twice");
        assert!(stats.replaced_keys >= replaced);
    } else {
        assert!(rows.keys().all(|key| times_put.contains_key(key.as_str())));
        assert_eq!((stats.replaced_keys, replaced), (0, 0));
    }
    assert_eq!((stats.accepted, stats.pending), (puts.len() as u64, 0));
    for call in table.calls() {
        writeln!(transcript, "{:?} {:?}", call.at, call.keys).unwrap();
    }
    transcript
}

fn run_seed(seed: u64) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(simulate(seed))
}

/// A number in an environment variable.
fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, and is `{text}`")))
}

#[test]
fn every_seed_settles_each_event_in_time_and_truthfully() {
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    if catch_unwind(AssertUnwindSafe(|| run_seed(seed))).is_err() {
                        eprintln!(
                            "seed {seed} fails; run it again: SIMULATION_SEED={seed} cargo test \
                             --all-features --test simulation"
                        );
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), Vec::<u64>::new(), "seeds that fail");
}

#[test]
fn same_seed_gives_the_same_run() {
    // A run of many seeds takes as long as it needs.
    if env::var_os("SIMULATION_SEEDS").is_none() {
        watchdog::start();
    }
    let mut transcript_bytes = 0;
    for seed in 0..20 {
        let transcript = run_seed(seed);
        assert_eq!(transcript, run_seed(seed), "seed {seed}");
        transcript_bytes += transcript.len();
    }
    assert!(transcript_bytes > 100_000, "the simulations did too little");
}
