//! Counts allocations and wake-ups.

use std::alloc::System;
use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;

use super::ways::{Stage, Way};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const EVENTS: usize = 10_000;

const WAYS: [Way; 5] =
    [Way::PutItem, Way::ReadyBatches, Way::Transport, Way::StoreAlone, Way::Store];

pub(crate) fn report(runtime: &Runtime, stage: &Arc<Stage>) -> String {
    let mut table = format!(
        "Per event of 200 bytes, counted over {EVENTS} on one thread. A wake-up is a poll of the task \
         that puts. A sleep is a wait of the thread because it has nothing to do.\n\n\
         | way | allocations | bytes allocated | wake-ups | sleeps |\n|---|---:|---:|---:|---:|\n",
    );
    for way in WAYS {
        // The first run opens the connections and grows the buffers.
        let _ = count(runtime, stage, way);
        let Counts { allocations, bytes, polls, parks } = count(runtime, stage, way);
        let per_event = |count: u64| count as f64 / EVENTS as f64;
        writeln!(
            table,
            "| {} | {:.2} | {:.0} | {:.4} | {:.4} |",
            way.name(),
            per_event(allocations),
            per_event(bytes),
            per_event(polls),
            per_event(parks),
        )
        .unwrap();
    }
    table
}

struct Counts {
    allocations: u64,
    bytes: u64,
    polls: u64,
    parks: u64,
}

/// A run of a way includes its preparation, such as building batches. So the preparation is counted alone
/// first, and subtracted.
fn count(runtime: &Runtime, stage: &Arc<Stage>, way: Way) -> Counts {
    let prepared = Region::new(ALLOCATOR);
    stage.prepare(way, EVENTS);
    let prepared = prepared.change();

    let parks = || runtime.metrics().worker_park_count(0);
    let parks_before = parks();
    let region = Region::new(ALLOCATOR);
    let task = Arc::clone(stage);
    let mut polls = 0;
    let polls = runtime.block_on(async {
        let mut run = pin!(async move { task.run(way, EVENTS).await });
        std::future::poll_fn(|context| {
            polls += 1;
            run.as_mut().poll(context).map(drop)
        })
        .await;
        polls
    });
    let change = region.change();
    let allocations = change.allocations + change.reallocations;
    let prepared_allocations = prepared.allocations + prepared.reallocations;
    Counts {
        allocations: (allocations - prepared_allocations) as u64,
        bytes: (change.bytes_allocated - prepared.bytes_allocated) as u64,
        polls,
        parks: parks() - parks_before,
    }
}
