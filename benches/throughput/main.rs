//! Throughput and CPU time per event of the store, and of the AWS SDK without the store.
//!
//! ```text
//! cargo bench --all-features --bench throughput
//! ```
//!
//! All measurements use one server on loopback that answers as cheaply as possible. So the figures show
//! the cost of the client. They say nothing about DynamoDB, where a call takes milliseconds and the
//! number of calls in flight determines the throughput.
//!
//! First criterion measures each way of writing alone, for comparisons between commits. Further
//! arguments, such as a filter, are passed to criterion, and then nothing else runs. Without further
//! arguments all ways then take turns in rounds, and a table shows the medians over the rounds. A busy
//! machine slows all ways of a round, so their ratios stay valid even if the figures do not.
//!
//! All ways share the runtime, the client's configuration (the SDK's defaults, including its retries)
//! and the number of calls in flight. The measured process runs on one thread, so that its CPU time is
//! free of contention between threads. Further settings have two worker threads.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run panics")]

#[path = "../support/cores.rs"]
mod cores;
#[path = "../support/endpoint.rs"]
mod endpoint;
#[path = "../support/measure.rs"]
mod measure;
#[path = "../support/server.rs"]
mod server;
mod table;
#[path = "../support/value.rs"]
mod value;
#[path = "../support/ways.rs"]
#[expect(dead_code, reason = "shared with the benchmark of costs")]
mod ways;

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use tokio::runtime::{Builder, Runtime};

use self::cores::Cores;
use self::endpoint::Endpoint;
use self::measure::Sample;
use self::table::Table;
use self::ways::{Stage, Transport, Way};

const ROUNDS: usize = 15;

/// The threads of the measured process.
#[derive(Debug, Clone, Copy)]
enum Flavour {
    OneThread,
    TwoWorkers,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::OneThread => "one thread",
            Self::TwoWorkers => "two workers",
        }
    }

    fn runtime(self) -> Runtime {
        let mut builder = match self {
            Self::OneThread => Builder::new_current_thread(),
            Self::TwoWorkers => Builder::new_multi_thread(),
        };
        builder.worker_threads(2).enable_all().build().unwrap()
    }
}

/// One set of rounds.
#[derive(Debug, Clone, Copy)]
struct Setting {
    flavour: Flavour,
    transport: Transport,
    body_bytes: usize,
}

impl Setting {
    const ALL: [Self; 6] = [
        Self { flavour: Flavour::OneThread, transport: Transport::Http, body_bytes: 200 },
        Self { flavour: Flavour::OneThread, transport: Transport::Http, body_bytes: 1_000 },
        Self { flavour: Flavour::OneThread, transport: Transport::Https, body_bytes: 200 },
        Self { flavour: Flavour::OneThread, transport: Transport::Https, body_bytes: 1_000 },
        Self { flavour: Flavour::TwoWorkers, transport: Transport::Http, body_bytes: 200 },
        Self { flavour: Flavour::TwoWorkers, transport: Transport::Http, body_bytes: 1_000 },
    ];

    fn name(self) -> String {
        let Self { flavour, transport, body_bytes } = self;
        format!("{body_bytes} B, {}, {}", transport.name(), flavour.name())
    }

    fn stage(self, runtime: &Runtime, endpoint: &Endpoint) -> Arc<Stage> {
        let Self { transport, body_bytes, .. } = self;
        Arc::new(runtime.block_on(Stage::new(endpoint, transport, body_bytes)))
    }
}

fn main() {
    if server::role().is_some() {
        return endpoint::serve();
    }
    let arguments: Vec<String> = std::env::args().collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    let endpoint = Endpoint::start();
    // `cargo bench` passes `--bench`. Without it, for example in `cargo test`, a short trial is enough.
    if !has("--bench") || has("--test") {
        return try_each_way(&endpoint);
    }
    if let Some(place) = arguments.iter().position(|given| given == "--once") {
        return run_once(&endpoint, arguments.get(place + 1..).unwrap());
    }
    let cores = Cores::given();
    cores.keep_off_last();
    measure_with_criterion(&endpoint);
    // Further arguments are for criterion: a filter, a baseline, or a time to profile.
    if arguments.iter().skip(1).any(|argument| argument != "--bench") {
        return;
    }
    let mut table = Table::new();
    for setting in Setting::ALL {
        if let Flavour::TwoWorkers = setting.flavour {
            cores.keep_to_none();
        }
        measure_in_turns(&endpoint, setting, &mut table);
    }
    println!("\n{table}");
}

fn try_each_way(endpoint: &Endpoint) {
    for setting in Setting::ALL {
        let runtime = setting.flavour.runtime();
        let stage = setting.stage(&runtime, endpoint);
        for way in Way::ALL {
            run(&runtime, &stage, way, 50);
        }
    }
}

/// Runs one way without a measurement, for tools that count what the process does. The arguments are the names of the
/// setting and of the way, and a number of events.
fn run_once(endpoint: &Endpoint, arguments: &[String]) {
    let [setting, way, events] = arguments else {
        panic!("--once takes a setting, a way and a number of events")
    };
    let setting = Setting::ALL.into_iter().find(|known| known.name() == *setting).unwrap();
    let way = Way::ALL.into_iter().find(|known| known.name() == *way).unwrap();
    let runtime = setting.flavour.runtime();
    let Setting { transport, body_bytes, .. } = setting;
    // Such a tool may slow the program so much that a batch would be sent before it is full.
    let linger = Duration::from_secs(10);
    let stage = runtime.block_on(Stage::with_linger(endpoint, transport, body_bytes, linger));
    run(&runtime, &Arc::new(stage), way, events.parse().unwrap());
}

fn measure_with_criterion(endpoint: &Endpoint) {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for setting in Setting::ALL {
        if let Flavour::TwoWorkers = setting.flavour {
            continue;
        }
        let runtime = setting.flavour.runtime();
        let stage = setting.stage(&runtime, endpoint);
        let mut group = criterion.benchmark_group(setting.name());
        group.sampling_mode(SamplingMode::Flat);
        for way in Way::ALL {
            let events = way.events();
            group.throughput(Throughput::Elements(events as u64));
            group.bench_function(way.name(), |bencher| {
                bencher.iter_custom(|times| {
                    (0..times).map(|_| run(&runtime, &stage, way, events).wall).sum()
                });
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

fn measure_in_turns(endpoint: &Endpoint, setting: Setting, table: &mut Table) {
    let runtime = setting.flavour.runtime();
    let stage = setting.stage(&runtime, endpoint);
    let round = || Way::ALL.map(|way| run(&runtime, &stage, way, way.events()));
    // The first round opens the connections and touches the memory.
    round();
    let rounds: Vec<[Sample; Way::ALL.len()]> = (0..ROUNDS).map(|_| round()).collect();
    table.add(&setting.name(), &rounds, &stage.stats());
}

/// Runs in a task, as in a program: the thread in `block_on` is not a worker thread.
fn run(runtime: &Runtime, stage: &Arc<Stage>, way: Way, events: usize) -> Sample {
    let stage = Arc::clone(stage);
    runtime.block_on(runtime.spawn(async move { stage.run(way, events).await })).unwrap()
}
