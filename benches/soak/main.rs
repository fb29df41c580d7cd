//! Minutes of bad days: the whole store under full load, against an endpoint that misbehaves at
//! random and at times says nothing at all.
//!
//! ```text
//! cargo bench --bench soak -- 5 1234    # minutes (2), and the seed of an earlier run
//! ```
//!
//! Producers put as fast as room allows, others wait for the tickets. Every five seconds a line says
//! how it stands; at the end it is checked that
//!
//! - every accepted event was answered, `accepted = stored + failed`, and none was refused as
//!   invalid;
//! - the endpoint has every event that is called stored, as it was put, none that is called not
//!   stored, and nothing else;
//! - memory was flat and within its bound.
//!
//! It ends with status 1 if one of these does not hold.
//!
//! It stands among the benches, as it needs the process to itself, minutes of time, and at best the
//! optimised build. An example it is not: what a user would learn from it is how to be a bad server.
#![expect(clippy::unwrap_used, reason = "a program that only checks may panic")]

mod endpoint;
mod ledger;
mod load;
mod memory;
mod misbehaviour;
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

use self::endpoint::Endpoint;
use self::ledger::{Ledger, Tally};
use self::memory::{Memory, mebibytes};

const MAX_BUFFERED_BYTES: usize = 64 * 1024 * 1024;

/// For one call. An endpoint that hangs keeps its place among those in flight for so long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// For one event: shorter than the longer ones of the endpoint's stalls, so that some events fail.
const EVENT_DEADLINE: Duration = Duration::from_secs(20);

const PRODUCERS: u64 = 4;

/// After the last put: an event's deadline, its last attempt, and time to spare.
const TIME_TO_CLOSE: Duration = Duration::from_secs(60);

const SAMPLES_PER_LINE: u32 = 20;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    if let Some(seed) = server::order() {
        endpoint::serve(seed.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    // Cargo says `--bench`, which says nothing here.
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
    // Short enough to be typed.
    StdRng::try_from_rng(&mut SysRng).unwrap().random::<u32>().into()
}

/// Whether all held.
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

    let (tickets, to_listener) = mpsc::unbounded_channel();
    let tally = Arc::new(Tally::default());
    let ledger = Ledger::create().unwrap();
    let listener = tokio::spawn(load::listen(to_listener, ledger, Arc::clone(&tally)));
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
    // The store has answered every ticket by now; what remains is to write the last of them down.
    let ledger = timeout(ATTEMPT_TIMEOUT, listener).await.map(Result::unwrap);
    print_line(sampling.tick().await - start, &store.stats(), &tally, &memory);
    // Before the comparison, which takes memory of its own.
    let of_memory = memory.verdict(MAX_BUFFERED_BYTES);

    let mut checks = Checks { all_hold: true };
    checks.of_counts(accepted, &store.stats(), &report, &tally);
    match ledger {
        Ok(ledger) => {
            let differences = ledger.compare(&endpoint.client(), endpoint::TABLE).await;
            let what = "the endpoint has what the tickets say";
            checks.note(what, differences.is_empty(), &differences.join(","));
        }
        Err(_) => checks.note("every ticket is answered", false, ""),
    }
    for (what, holds, figures) in of_memory {
        checks.note(what, holds, &figures);
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
    fn note(&mut self, what: &str, holds: bool, figures: &str) {
        let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
        println!("{verdict}: {what}{figures}");
        self.all_hold &= holds;
    }

    fn of_counts(&mut self, accepted: u64, stats: &Stats, report: &CloseReport, tally: &Tally) {
        let Stats { stored, failed, pending, .. } = *stats;
        self.note(
            "accepted = stored + failed, and nothing is pending",
            accepted == stats.accepted && accepted == stored + failed && pending == 0,
            &format!(": {accepted} = {stored} + {failed}"),
        );
        self.note(
            "every ticket is answered, as the store and its report count",
            (tally.stored(), tally.failed()) == (stored, failed)
                && (report.stored, report.failed) == (stored, failed),
            "",
        );
        self.note("something was stored", stored > 0, "");
        self.note("nothing was refused as invalid", tally.refused() == 0, "");
    }
}
