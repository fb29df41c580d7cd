//! The costs of an event besides CPU time: memory, allocations, wake-ups and latency. Also how the costs
//! scale with many events and many producers.
//!
//! ```text
//! cargo bench --all-features --bench costs
//! cargo bench --all-features --bench costs -- latency producers    # or allocations, events, memory
//! ```
//!
//! All use the endpoint of the throughput benchmark, which acknowledges everything and stores nothing.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run panics")]

mod allocations;
#[path = "../support/cores.rs"]
mod cores;
#[path = "../support/endpoint.rs"]
mod endpoint;
mod latency;
#[path = "../support/measure.rs"]
mod measure;
mod memory;
mod scale;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/value.rs"]
mod value;
#[path = "../support/ways.rs"]
#[expect(dead_code, reason = "shared with the throughput benchmark")]
mod ways;

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use self::cores::Cores;
use self::endpoint::Endpoint;
use self::ways::{Stage, Transport};

/// The amount of work: enough for the figures, or just enough to show that the benchmark works.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: usize,
    most_events: usize,
    buffered_bytes: usize,
}

impl Effort {
    const FULL: Self = Self { rounds: 15, most_events: 10_000_000, buffered_bytes: 64 << 20 };
    const TRIAL: Self = Self { rounds: 1, most_events: 1_000, buffered_bytes: 1 << 20 };
}

fn main() {
    match server::role().as_deref() {
        None => {}
        Some(role) if role.starts_with(memory::ROLE) => return memory::fill(role),
        Some(_) => return endpoint::serve(),
    }
    let arguments: Vec<String> = std::env::args().collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    let effort = if has("--bench") && !has("--test") { Effort::FULL } else { Effort::TRIAL };
    let endpoint = Endpoint::start();
    let cores = Cores::given();
    cores.keep_off_last();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let stage = stage(&runtime, &endpoint);
    // The arguments name the parts to run. Without a name all of them run.
    let names: Vec<&String> =
        arguments.iter().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wants = |name: &str| names.is_empty() || names.iter().any(|given| *given == name);
    if wants("allocations") {
        println!("{}", allocations::report(&runtime, &stage));
    }
    if wants("latency") {
        println!("{}", latency::report(&runtime, &stage, effort));
    }
    if wants("events") {
        println!("{}", scale::over_events(&runtime, &stage, effort));
    }
    cores.keep_to_none();
    if wants("producers") {
        println!("{}", scale::over_producers(&endpoint, effort));
    }
    if wants("memory") {
        println!("{}", memory::report(effort));
    }
}

/// A stage with events of 200 bytes.
fn stage(runtime: &Runtime, endpoint: &Endpoint) -> Arc<Stage> {
    Arc::new(runtime.block_on(Stage::new(endpoint, Transport::Http, 200)))
}
