//! A soak test: the whole store under full load for minutes, against an endpoint that fails at random
//! and sometimes stops answering.
//!
//! ```text
//! cargo bench --bench soak -- 5 1234    # minutes (2), and the seed of an earlier run
//! ```
//!
//! Producers put as fast as the buffer accepts, and another task awaits the tickets. A line every five
//! seconds shows the counters. At the end the program checks that
//!
//! - every accepted event was settled, `accepted = stored + failed`, and none was refused as invalid;
//! - the endpoint has every event that is called stored, with its body, no event that is called not
//!   stored, and nothing else;
//! - memory was flat and within its bound.
//!
//! It ends with status 1 if one of these does not hold.
//!
//! It is a bench, because it needs its own process, minutes of time, and preferably an optimised build.
#![expect(clippy::unwrap_used, reason = "a check that cannot run panics")]

mod answers;
mod endpoint;
mod faults;
mod load;
mod memory;
#[path = "../support/server.rs"]
mod server;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dynamodb_eventstore::{CloseReport, EventStore, Stats};
use rand::rngs::{StdRng, SysRng};
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::answers::{AnswerLog, Tally};
use self::endpoint::Endpoint;
use self::memory::{Memory, mebibytes};

const MAX_BUFFERED_BYTES: usize = 64 * 1024 * 1024;

/// The timeout of one call. A hanging call stays in flight for this time.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The deadline of one event. It is shorter than the longest stalls of the endpoint, so that some events
/// fail.
const EVENT_DEADLINE: Duration = Duration::from_secs(20);

const PRODUCERS: u64 = 4;

/// The deadline of close: the event deadline, the last attempt, and a margin.
const TIME_TO_CLOSE: Duration = Duration::from_secs(60);

const SAMPLES_PER_LINE: u32 = 20;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    if let Some(seed) = server::role() {
        endpoint::serve(seed.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    // `cargo bench` passes `--bench`, which has no meaning here.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let minutes: f64 = arguments.next().map_or(2.0, |minutes| minutes.parse().unwrap());
    let seed = arguments.next().map_or_else(drawn_seed, |seed| seed.parse().unwrap());
    println!("{minutes} minutes, seed {seed}");

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let soaked = runtime.unwrap().block_on(soak(Duration::from_secs_f64(minutes * 60.0), seed));
    if soaked { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn drawn_seed() -> u64 {
    // A `u32` is short enough to type.
    StdRng::try_from_rng(&mut SysRng).unwrap().random::<u32>().into()
}

/// Runs the test, and returns whether all checks hold.
async fn soak(time: Duration, seed: u64) -> bool {
    let endpoint = Endpoint::start(seed);
    let store = EventStore::builder()
        .table(endpoint::TABLE)
        .region("us-east-1")
        .credentials("test", "test")
        .endpoint_url(endpoint.url())
        .max_buffered_bytes(MAX_BUFFERED_BYTES)
        .attempt_timeout(ATTEMPT_TIMEOUT)
        .event_deadline(EVENT_DEADLINE)
        .start()
        .await
        .unwrap();

    let (tickets, received) = mpsc::unbounded_channel();
    let tally = Arc::new(Tally::default());
    let answers = AnswerLog::create().unwrap();
    let recorder = tokio::spawn(load::record_answers(received, answers, Arc::clone(&tally)));
    let text: Arc<str> = load::random_text(seed).into();
    let mut memory = Memory::before_the_first_put();
    println!("{} MiB resident before the first put", mebibytes(memory.baseline()));

    let mut sampling = interval(SAMPLE_EVERY);
    sampling.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = sampling.tick().await;
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let (store, tickets, text) = (store.clone(), tickets.clone(), Arc::clone(&text));
            let seed = seed.wrapping_add(producer);
            tokio::spawn(load::produce(store, tickets, text, seed, start + time))
        })
        .collect();
    drop(tickets);

    let mut samples = 0;
    loop {
        let now = sampling.tick().await;
        memory.sample();
        samples += 1;
        if samples % SAMPLES_PER_LINE == 0 || now >= start + time {
            print_line(now - start, &store.stats(), &tally, &memory);
        }
        if now >= start + time {
            break;
        }
    }
    let mut accepted = 0;
    for producer in producers {
        accepted += producer.await.unwrap();
    }
    let report = store.close(TIME_TO_CLOSE).await.unwrap();
    // All tickets are settled. Only the last answers are still to be recorded.
    let answers = timeout(ATTEMPT_TIMEOUT, recorder).await.map(Result::unwrap);
    print_line(sampling.tick().await - start, &store.stats(), &tally, &memory);
    // Measured before the comparison, which needs memory itself.
    let memory_checks = memory.checks(MAX_BUFFERED_BYTES);

    let mut checks = Checks { all_hold: true };
    checks.check_counts(accepted, &store.stats(), &report, &tally);
    match answers {
        Ok(answers) => {
            let differences = answers.compare(&endpoint.client(), endpoint::TABLE).await;
            let name = "the endpoint has what the tickets say";
            checks.add(name, differences.is_empty(), &differences.join(","));
        }
        Err(_) => checks.add("every ticket is answered", false, ""),
    }
    for (name, holds, figures) in memory_checks {
        checks.add(name, holds, &figures);
    }
    checks.all_hold
}

fn print_line(elapsed: Duration, stats: &Stats, tally: &Tally, memory: &Memory) {
    let Stats { stored, failed, pending, retried, .. } = stats;
    println!(
        "{:>4} s: {stored} stored, {failed} failed ({} of them maybe stored), {pending} pending, \
         {retried} retries; {} MiB may be buffered, {} MiB resident, at most {}",
        elapsed.as_secs(),
        tally.maybe_stored(),
        mebibytes(MAX_BUFFERED_BYTES as u64),
        mebibytes(memory.now()),
        mebibytes(memory.peak()),
    );
}

struct Checks {
    all_hold: bool,
}

impl Checks {
    fn add(&mut self, name: &str, holds: bool, figures: &str) {
        let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
        println!("{verdict}: {name}{figures}");
        self.all_hold &= holds;
    }

    fn check_counts(&mut self, accepted: u64, stats: &Stats, report: &CloseReport, tally: &Tally) {
        let Stats { stored, failed, pending, .. } = *stats;
        self.add(
            "accepted = stored + failed, and nothing is pending",
            accepted == stats.accepted && accepted == stored + failed && pending == 0,
            &format!(": {accepted} = {stored} + {failed}"),
        );
        self.add(
            "every ticket is answered, as the store and its report count",
            (tally.stored(), tally.failed()) == (stored, failed)
                && (report.stored, report.failed) == (stored, failed),
            "",
        );
        self.add("something was stored", stored > 0, "");
        self.add("nothing was refused as invalid", tally.refused() == 0, "");
    }
}
