//! The cost of an event outside of its call: each part is measured alone, without a runtime.
//!
//! ```text
//! cargo bench --all-features --bench put
//! ```
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run panics")]

#[path = "../src/flow_control.rs"]
#[expect(dead_code, unused_imports, reason = "neither waiting puts nor its unit tests are here")]
mod flow_control;

/// The primitives that the measured file imports.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
}

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dynamodb_eventstore::bench_internals::{Expiring, fill_batches, make_keys, reconcile_batch};
use dynamodb_eventstore::{Event, EventKey, MAX_BATCH_EVENTS};
use serde_json::json;
use tokio::sync::Semaphore;

use self::flow_control::FlowControl;

/// Enough events to exceed small caches, and a multiple of a batch.
const EVENTS: u64 = 1_000;

/// 2013-09-27T00:52:40.652Z, the time of the key in the npm module's README.
const NOW: u64 = 1_380_243_160_652;

fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("all in one millisecond", |bencher| {
        bencher.iter(|| make_keys((0..EVENTS).map(|_| black_box(NOW))).unwrap());
    });
    group.bench_function("each in its own millisecond", |bencher| {
        bencher.iter(|| make_keys((0..EVENTS).map(|later| black_box(NOW) + later)).unwrap());
    });
    group.finish();
}

/// Bytes of memory that an event of 200 bytes takes in the buffer.
const EVENT_BYTES: u32 = 570;

/// Permits for events and for bytes: acquired one by one and released by the batch.
trait Permits: Sync {
    fn acquire(&self);
    fn release(&self, events: usize);
}

impl Permits for FlowControl {
    fn acquire(&self) {
        self.try_acquire(EVENT_BYTES).unwrap().forget();
    }

    fn release(&self, events: usize) {
        self.release(events as u64, events as u64 * u64::from(EVENT_BYTES));
    }
}

/// The same with tokio's semaphore, which has one count: one for events and one for bytes.
struct TwoSemaphores {
    events: Semaphore,
    bytes: Semaphore,
}

impl Permits for TwoSemaphores {
    fn acquire(&self) {
        self.events.try_acquire().unwrap().forget();
        self.bytes.try_acquire_many(EVENT_BYTES).unwrap().forget();
    }

    fn release(&self, events: usize) {
        self.events.add_permits(events);
        self.bytes.add_permits(events * EVENT_BYTES as usize);
    }
}

/// Acquires and releases permits for `batches` batches, on each of `threads` threads at
/// once.
fn use_permits(permits: &impl Permits, batches: u64, threads: usize) -> Duration {
    let start = now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..batches {
                    (0..MAX_BATCH_EVENTS).for_each(|_| permits.acquire());
                    permits.release(MAX_BATCH_EVENTS);
                }
            });
        }
    });
    now() - start
}

fn permits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("permits of 25 events");
    for threads in [1, 2] {
        let (events, bytes) = (10_000, 64 * 1024 * 1024);
        let flow_control = FlowControl::new(events, bytes);
        group.bench_function(format!("FlowControl, {threads} threads"), |bencher| {
            bencher.iter_custom(|batches| use_permits(&flow_control, batches, threads));
        });
        let semaphores =
            TwoSemaphores { events: Semaphore::new(events), bytes: Semaphore::new(bytes) };
        group.bench_function(format!("two semaphores, {threads} threads"), |bencher| {
            bencher.iter_custom(|batches| use_permits(&semaphores, batches, threads));
        });
    }
    group.finish();
}

/// Makes an event from a value: serialises, checks and measures it.
fn admit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    let key: EventKey = "20130927T005240652508858176".parse().unwrap();
    for remarks in [4, 36, 400] {
        let value = value(remarks);
        let bytes = value.to_string().len();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("{bytes} bytes"), |bencher| {
            bencher.iter(|| {
                let body = serde_json::to_string(black_box(&value)).unwrap();
                Event::new(key, body).unwrap()
            });
        });
    }
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    let now = now();
    let events = events(EVENTS, now);
    let mut group = criterion.benchmark_group("batches");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("through the buffer", |bencher| {
        bencher.iter_batched(
            || events.clone(),
            |events| fill_batches(events, now),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn reconcile(criterion: &mut Criterion) {
    let sent = events(MAX_BATCH_EVENTS as u64, now());
    let keys: Vec<String> = sent.iter().map(|(event, ..)| event.key().to_string()).collect();
    let mut group = criterion.benchmark_group("reconcile");
    group.throughput(Throughput::Elements(MAX_BATCH_EVENTS as u64));
    for (name, left) in [("all stored", 0), ("5 unprocessed", 5), ("none stored", 25)] {
        let unprocessed: Vec<String> = keys.iter().rev().take(left).cloned().collect();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || sent.clone(),
                |sent| reconcile_batch(sent, black_box(&unprocessed)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Events of about 200 bytes with distinct keys.
fn events(count: u64, now: Instant) -> Vec<Expiring> {
    let body = value(4).to_string();
    (0..count)
        .map(|later| {
            let key = make_keys([NOW + later]).unwrap();
            let event = Event::new(key, body.as_str()).unwrap();
            (event, now, now + Duration::from_secs(60))
        })
        .collect()
}

/// A value with about one quote in ten bytes of JSON, as in real events.
fn value(remarks: usize) -> serde_json::Value {
    json!({
        "kind": "page.visited",
        "visitor": "198.51.100.7",
        "milliseconds": 12.5,
        "returning": true,
        "remarks": vec!["the quick brown fox ju"; remarks],
    })
}

#[expect(clippy::disallowed_methods, reason = "an origin for deadlines")]
fn now() -> Instant {
    Instant::now()
}

criterion_group!(benches, permits, keys, admit, batches, reconcile);
criterion_main!(benches);
