//! The cost of an event before and after its call, part by part, in pure functions without a runtime.
//!
//! ```text
//! cargo bench --all-features --bench put
//! ```
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot run panics")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dynamodb_eventstore::bench_internals::{Expiring, fill_batches, make_keys, reconcile_batch};
use dynamodb_eventstore::{Event, EventKey, MAX_BATCH_EVENTS};
use serde_json::json;

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

/// From a value to an event: serialised, checked and measured.
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

criterion_group!(benches, keys, admit, batches, reconcile);
criterion_main!(benches);
