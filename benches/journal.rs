//! What the journal costs, and how long it takes to open one.
//!
//! ```text
//! cargo bench --all-features --bench journal
//! ```
//!
//! Stores with and without a journal take turns. Their `BatchWriter` does nothing. The CPU time is that of all threads of
//! the process, including the journal's. The journal is in the folder for temporary files, on the disk that has this folder.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run panics"
)]

#[path = "support/measure.rs"]
mod measure;
#[path = "support/value.rs"]
mod value;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dynamodb_eventstore::{
    BatchError, BatchReceipt, BatchWriter, Certainty, Event, EventStore, FailureClass, Journal,
    PutTicket, SyncPolicy,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use measure::{Sample, Spread, Watch};
use value::Value;

const VALUES: usize = 1_000;
const HELD_TICKETS: usize = 5_000;

/// Answers every call at once, or never answers.
#[derive(Debug, Clone, Copy)]
enum Writer {
    Noop,
    Hanging,
}

impl BatchWriter for Writer {
    fn write_batch<'a>(
        &'a self,
        _events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        match self {
            Self::Noop => std::future::ready(Ok(BatchReceipt::all_processed())).boxed(),
            Self::Hanging => std::future::pending().boxed(),
        }
    }
}

/// Fails every call until it is opened.
struct Gate(Arc<AtomicBool>);

impl BatchWriter for Gate {
    fn write_batch<'a>(
        &'a self,
        _events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        let answer = if self.0.load(Ordering::Relaxed) {
            Ok(BatchReceipt::all_processed())
        } else {
            Err(BatchError::new(FailureClass::Transient, Certainty::NotStored, "closed"))
        };
        std::future::ready(answer).boxed()
    }
}

async fn start(journal: Option<(&Path, SyncPolicy)>) -> EventStore {
    let mut store = EventStore::builder().batch_writer(Writer::Noop);
    if let Some((directory, sync)) = journal {
        store = store.journal(Journal::options().sync(sync).open(directory).await.unwrap());
    }
    store.start().await.unwrap()
}

/// Puts events, and waits until each is stored.
async fn put(store: &EventStore, values: &[Value], events: usize) -> Sample {
    let mut tickets: VecDeque<PutTicket> = VecDeque::with_capacity(HELD_TICKETS);
    let watch = Watch::start();
    for value in values.iter().cycle().take(events) {
        if tickets.len() == HELD_TICKETS
            && let Some(oldest) = tickets.pop_front()
        {
            oldest.await.unwrap();
        }
        tickets.push_back(store.put(value).await.unwrap());
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    watch.stop(events)
}

async fn measure_cost(events: usize, rounds: usize) {
    println!("| body | journal | events/s | CPU µs/event | CPU, ÷ none |");
    println!("|---|---|---:|---:|---:|");
    for body_bytes in [200, 1_000] {
        let values: Vec<Value> = (0..VALUES).map(|number| Value::new(number, body_bytes)).collect();
        let policies = [
            ("none", None),
            ("Every(10 ms)", Some(SyncPolicy::Every(Duration::from_millis(10)))),
            ("Always", Some(SyncPolicy::Always)),
            ("Os", Some(SyncPolicy::Os)),
        ];
        let mut stores = Vec::new();
        for (name, sync) in policies {
            let folder = tempfile::tempdir().unwrap();
            let store = start(sync.map(|sync| (folder.path(), sync))).await;
            put(&store, &values, events / 10).await;
            stores.push((name, folder, store, Vec::<Sample>::new()));
        }
        for _ in 0..rounds {
            for (_, _, store, samples) in &mut stores {
                samples.push(put(store, &values, events).await);
            }
        }
        let cpu = |samples: &[Sample]| {
            Spread::of(samples.iter().map(Sample::cpu_microseconds_per_event)).median
        };
        let without = cpu(&stores[0].3);
        for (name, _, store, samples) in stores {
            let rate = Spread::of(samples.iter().map(Sample::events_per_second)).median;
            let cpu = cpu(&samples);
            println!("| {body_bytes} B | {name} | {rate:.0} | {cpu:.2} | {:.2} |", cpu / without);
            store.close(Duration::from_secs(60)).await.unwrap();
        }
    }
}

/// The time from put to journalled, under a light load.
async fn measure_delay(events: usize) {
    let folder = tempfile::tempdir().unwrap();
    println!("\n| journal | put to journalled: median | p99 |\n|---|---:|---:|");
    for (name, sync) in [
        ("Every(10 ms)", SyncPolicy::Every(Duration::from_millis(10))),
        ("Always", SyncPolicy::Always),
    ] {
        let store = start(Some((folder.path(), sync))).await;
        let mut milliseconds = Vec::new();
        for number in 0..events {
            let watch = Watch::start();
            let ticket = store.put(&number).await.unwrap();
            ticket.journalled().await.unwrap();
            milliseconds.push(watch.stop(1).wall.as_secs_f64() * 1e3);
        }
        milliseconds.sort_by(f64::total_cmp);
        let at = |share: f64| milliseconds[((milliseconds.len() - 1) as f64 * share) as usize];
        println!("| {name} | {:.1} ms | {:.1} ms |", at(0.5), at(0.99));
        store.close(Duration::from_secs(60)).await.unwrap();
    }
}

/// How long it takes to open a journal of unsettled events, and the size of its files.
async fn measure_recovery(events: usize) {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::options().sync(SyncPolicy::Os).open(folder.path()).await.unwrap();
    let store = EventStore::builder().batch_writer(Writer::Hanging).journal(journal);
    let store = store.start().await.unwrap();
    let value = Value::new(0, 200);
    for _ in 0..events {
        drop(store.put(&value).await.unwrap());
    }
    store.close(Duration::ZERO).await.unwrap();
    let bytes: u64 = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let watch = Watch::start();
    let journal = Journal::open(folder.path()).await.unwrap();
    let opened = watch.stop(events);
    assert_eq!(journal.report().unsettled, events as u64);
    let watch = Watch::start();
    assert_eq!(journal.unsettled().filter(Result::is_ok).count(), events);
    let read = watch.stop(events);
    println!(
        "\nTo open a journal of {events} unsettled events of 200 B takes {:.2} s, and to read them {:.2} s. Its files \
         take {:.2} bytes for each byte of body and key.",
        opened.wall.as_secs_f64(),
        read.wall.as_secs_f64(),
        bytes as f64 / (events * 227) as f64,
    );
}

/// What an event costs that waits on disk.
async fn measure_overflow(events: usize) {
    let folder = tempfile::tempdir().unwrap();
    let is_open = Arc::new(AtomicBool::new(false));
    let store = EventStore::builder().batch_writer(Gate(Arc::clone(&is_open)));
    let store = store.journal(Journal::open(folder.path()).await.unwrap()).start().await.unwrap();
    let value = Value::new(0, 200);
    let watch = Watch::start();
    for _ in 0..events {
        drop(store.put(&value).await.unwrap());
    }
    let put = watch.stop(events);
    let waiting = store.stats().waiting_on_disk;
    let watch = Watch::start();
    is_open.store(true, Ordering::Relaxed);
    assert!(store.close(Duration::from_secs(600)).await.unwrap().is_complete());
    let sent = watch.stop(events);
    println!(
        "\nWhile the table takes nothing: {events} events of 200 B are put, {waiting} of them wait on disk; {:.0} \
         events/s, {:.2} µs of CPU time each. When it takes everything: {:.0} events/s, {:.2} µs.",
        put.events_per_second(),
        put.cpu_microseconds_per_event(),
        sent.events_per_second(),
        sent.cpu_microseconds_per_event(),
    );
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (events, rounds, delays, recovered, waiting) = if is_bench {
        (200_000, 9, 300, 10_000_000, 1_000_000)
    } else {
        (2_000, 1, 5, 2_000, 20_000)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        measure_cost(events, rounds).await;
        measure_delay(delays).await;
        measure_recovery(recovered).await;
        measure_overflow(waiting).await;
    });
}
