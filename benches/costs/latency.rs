//! The time of a put, and the time from put to answer of a single event.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dynamodb_eventstore::EventStore;
use tokio::runtime::Runtime;

use super::Effort;
use super::measure::Spread;
use super::ways::Stage;

const PUTS: usize = 5_000;
const LONE_EVENTS: usize = 300;

pub(crate) fn report(runtime: &Runtime, stage: &Arc<Stage>, effort: Effort) -> String {
    let stage = Arc::clone(stage);
    runtime.block_on(async move {
        let mut report = String::new();
        let (cold, warm) = (puts(&stage, 1).await, puts(&stage, 100).await);
        writeln!(
            report,
            "put of a 200-byte event, from the value to the ticket, in nanoseconds, as the median and the \
             quartiles of {PUTS}: {warm:.0} with 100 puts in a row; {cold:.0} if each put waits for the \
             answer of the one before, so that CPU caches are cold.\n",
        )
        .unwrap();

        let lone = stage.store_with_linger(Duration::ZERO).await;
        let mut items = Vec::new();
        let mut events = Vec::new();
        let mut ratios = Vec::new();
        for _ in 0..=effort.rounds {
            items = lone_items(&stage).await;
            events = lone_events(&stage, &lone).await;
            ratios.push(Spread::of(events.iter().copied()).median / Spread::of(items.iter().copied()).median);
        }
        writeln!(
            report,
            "A single event, with linger zero, from put to answer: {:.0} µs. A PutItem call of the SDK: {:.0} \
             µs. Ratio of the medians of {LONE_EVENTS}, over {} rounds in turns: {}.",
            Spread::of(events).median,
            Spread::of(items).median,
            effort.rounds,
            Spread::of(ratios.into_iter().skip(1)),
        )
        .unwrap();
        report
    })
}

/// The nanoseconds of each put, with `in_a_row` puts before their answers are awaited.
async fn puts(stage: &Stage, in_a_row: usize) -> Spread {
    let mut nanoseconds = Vec::with_capacity(PUTS);
    let mut values = stage.values().iter().cycle();
    while nanoseconds.len() < PUTS {
        let mut tickets = Vec::with_capacity(in_a_row);
        for value in values.by_ref().take(in_a_row) {
            let start = now();
            let ticket = stage.store().put(value).await.unwrap();
            nanoseconds.push(start.elapsed().as_nanos() as f64);
            tickets.push(ticket);
        }
        for ticket in tickets {
            ticket.await.unwrap();
        }
    }
    Spread::of(nanoseconds)
}

/// The microseconds from put to answer, one event after the other.
async fn lone_events(stage: &Stage, store: &EventStore) -> Vec<f64> {
    let mut microseconds = Vec::with_capacity(LONE_EVENTS);
    for value in stage.values().iter().take(LONE_EVENTS) {
        let start = now();
        store.put(value).await.unwrap().await.unwrap();
        microseconds.push(start.elapsed().as_secs_f64() * 1e6);
    }
    microseconds
}

/// The microseconds of a `PutItem` call, one after the other.
async fn lone_items(stage: &Stage) -> Vec<f64> {
    let mut microseconds = Vec::with_capacity(LONE_EVENTS);
    for _ in 0..LONE_EVENTS {
        let start = now();
        stage.put_item().await;
        microseconds.push(start.elapsed().as_secs_f64() * 1e6);
    }
    microseconds
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}
