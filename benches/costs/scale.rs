//! The cost of an event by the number of events and by the number of producers.

use std::fmt::Write;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use super::Effort;
use super::endpoint::Endpoint;
use super::measure::{Sample, Spread};
use super::ways::{Stage, Way};

const EVENTS: usize = 100_000;
const PRODUCERS: [usize; 4] = [1, 2, 4, 8];

/// More events than this are put in one round only.
const MAX_EVENTS_FOR_ROUNDS: usize = 100_000;

/// From a thousand events to ten million.
pub(crate) fn over_events(runtime: &Runtime, stage: &Arc<Stage>, effort: Effort) -> String {
    let mut table = "The store, one thread, 200 B, by the number of events put in one go:\n\n\
                     | events | CPU µs/event | events/s |\n|---:|---:|---:|\n"
        .to_owned();
    runtime.block_on(stage.run(Way::Store, 1_000));
    let sizes = std::iter::successors(Some(1_000), |events| Some(events * 10));
    for events in sizes.take_while(|events| *events <= effort.most_events) {
        let rounds = if events <= MAX_EVENTS_FOR_ROUNDS { effort.rounds } else { 1 };
        let samples: Vec<Sample> =
            (0..rounds).map(|_| runtime.block_on(stage.run(Way::Store, events))).collect();
        writeln!(table, "| {events} | {} |", figures(&samples)).unwrap();
    }
    table
}

/// One task for each producer, on two worker threads.
pub(crate) fn over_producers(endpoint: &Endpoint, effort: Effort) -> String {
    let events = EVENTS.min(effort.most_events);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stage = super::stage(&runtime, endpoint);
    let mut table = "The store on two worker threads, 200 B, by the number of tasks that put:\n\n\
                     | way | producers | CPU µs/event | events/s |\n|---|---:|---:|---:|\n"
        .to_owned();
    for way in [Way::Store, Way::StoreAlone] {
        let round =
            || PRODUCERS.map(|producers| put_from(&runtime, &stage, way, producers, events));
        round();
        let rounds: Vec<[Sample; PRODUCERS.len()]> = (0..effort.rounds).map(|_| round()).collect();
        for (place, producers) in PRODUCERS.iter().enumerate() {
            let samples: Vec<Sample> =
                rounds.iter().filter_map(|round| round.get(place).copied()).collect();
            writeln!(table, "| {} | {producers} | {} |", way.name(), figures(&samples)).unwrap();
        }
    }
    table
}

fn put_from(
    runtime: &Runtime,
    stage: &Arc<Stage>,
    way: Way,
    producers: usize,
    events: usize,
) -> Sample {
    let stage = Arc::clone(stage);
    let put = async move { stage.put_from(way, producers, events).await };
    runtime.block_on(runtime.spawn(put)).unwrap()
}

fn figures(samples: &[Sample]) -> String {
    let cost = Spread::of(samples.iter().map(Sample::cpu_microseconds_per_event));
    let rate = Spread::of(samples.iter().map(Sample::events_per_second));
    format!("{:.2} | {:.0}", cost.median, rate.median)
}
