//! Stores that write to tables with limits, on a paused clock: how much of the capacity they use, how much
//! is throttled, and how long events wait. A seed makes each run deterministic.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod support;

use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, Reply, Throughput};
use dynamodb_eventstore::{
    Certainty, EventStore, EventStoreBuilder, FailureClass, PutError, WriteCapacity,
};
use futures::future::join_all;
use tokio::task::JoinHandle;

use support::clock;

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(5);
const SEED: u64 = 20_130_927;

/// A table with this many units a second, on partitions of 1,000, that keeps unused units for a second.
fn capacity(units: u32) -> WriteCapacity {
    WriteCapacity::provisioned(units).burst(SECOND).saved(SECOND).latency(LATENCY)
}

async fn start(table: &FakeTable, seed: u64) -> EventStore {
    start_with(table.store_builder(), seed).await
}

async fn start_with(builder: EventStoreBuilder, seed: u64) -> EventStore {
    builder.deterministic(seed).start().await.unwrap()
}

fn body(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// Puts events of these sizes in turn, as fast as they are accepted, until it is aborted.
fn overload(store: &EventStore, body_bytes: &[usize]) -> JoinHandle<()> {
    let store = store.clone();
    let bodies: Vec<String> = body_bytes.iter().map(|&bytes| body(bytes)).collect();
    tokio::spawn(async move {
        for body in bodies.iter().cycle() {
            if store.put_json(body).await.is_err() {
                break;
            }
        }
    })
}

/// The sums of accepted and throttled units of these seconds.
fn sum(seconds: &[Throughput]) -> (f64, f64) {
    let accepted: u64 = seconds.iter().map(|second| second.accepted_units).sum();
    let refused: u64 = seconds.iter().map(|second| second.throttled_units).sum();
    (accepted as f64, refused as f64)
}

/// Overloads a table for this many seconds, and returns its throughput in each.
async fn overloaded(
    capacity: WriteCapacity,
    body_bytes: &[usize],
    seconds: u64,
) -> Vec<Throughput> {
    let table = FakeTable::with_capacity(capacity);
    let store = start(&table, SEED).await;
    let producer = overload(&store, body_bytes);
    clock::wait(SECOND * seconds as u32).await;
    producer.abort();
    table.throughput()[..seconds as usize].to_vec()
}

/// The share of the capacity that was used, and the share of the sent units that was throttled, both after
/// the third second.
fn use_of(throughput: &[Throughput], units: u32) -> (f64, f64) {
    let steady = &throughput[3..];
    let (accepted, refused) = sum(steady);
    (accepted / (f64::from(units) * steady.len() as f64), refused / (accepted + refused))
}

#[tokio::test(start_paused = true)]
async fn events_that_outlived_an_outage_are_paced_like_others() {
    let table = FakeTable::with_capacity(capacity(1_000));
    table.reply_from_now_on(Reply::Fail(FailureClass::Transient, Certainty::NotStored));
    let store = start(&table, SEED).await;
    let producer = overload(&store, &[200]);
    // In this time every event in the full buffer fails several attempts.
    clock::wait(SECOND * 10).await;
    table.reply_from_now_on(Reply::Store);
    clock::wait(SECOND * 9).await;
    producer.abort();
    let (accepted, refused) = sum(&table.throughput()[13..19]);
    let (used, refused) = (accepted / 6_000.0, refused / (accepted + refused));
    assert!(used >= 0.95 && refused <= 0.03, "{used} used, {refused} refused");
}

#[tokio::test(start_paused = true)]
async fn overloaded_table_is_fully_used_with_little_throttling() {
    for (units, seconds) in [(100, 43), (1_000, 43), (4_000, 43), (40_000, 18)] {
        let throughput = overloaded(capacity(units), &[200], seconds).await;
        let (used, refused) = use_of(&throughput, units);
        assert!(used >= 0.97, "{used} of {units} units/s");
        assert!(refused <= 0.02, "{refused} at {units} units/s");
    }
}

#[tokio::test(start_paused = true)]
async fn large_and_mixed_events_use_the_whole_capacity() {
    for (units, sizes) in [
        (1_000, &[10_000][..]),
        (4_000, &[10_000]),
        (1_000, &[200, 3_000, 10_000]),
        (4_000, &[200, 3_000, 10_000]),
    ] {
        let throughput = overloaded(capacity(units), sizes, 63).await;
        let (used, refused) = use_of(&throughput, units);
        assert!(used >= 0.97, "{used} of {units} units/s, {sizes:?}");
        assert!(refused <= 0.02, "{refused} at {units} units/s, {sizes:?}");
    }
}

/// Seconds from the change in second 20 until 95 % of the capacity is used for two seconds, with little
/// throttling.
fn settled_after(throughput: &[Throughput], units: u32) -> Option<usize> {
    let is_used = |second: &Throughput| second.accepted_units as f64 >= 0.95 * f64::from(units);
    let is_calm = |second: &Throughput| second.throttled_units as f64 <= 0.05 * f64::from(units);
    throughput[20..].windows(2).position(|two| two.iter().all(|s| is_used(s) && is_calm(s)))
}

#[tokio::test(start_paused = true)]
async fn doubled_capacity_is_used_within_ten_seconds() {
    for (before, after) in [(100, 200), (1_000, 2_000), (4_000, 8_000)] {
        let capacity = capacity(before).partitions(8).changed_to(after, SECOND * 20);
        let throughput = overloaded(capacity, &[200], 36).await;
        let seconds = settled_after(&throughput, after).unwrap();
        assert!(seconds <= 10, "{before} to {after}: {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn halved_capacity_is_respected_within_three_seconds() {
    for (before, after) in [(200, 100), (2_000, 1_000), (8_000, 4_000)] {
        let capacity = capacity(before).partitions(8).changed_to(after, SECOND * 20);
        let throughput = overloaded(capacity, &[200], 36).await;
        let late = &throughput[23..];
        let (accepted, refused) = sum(late);
        let used = accepted / (f64::from(after) * late.len() as f64);
        assert!(used >= 0.95, "{before} to {after}: {used}");
        assert!(refused <= 0.04 * accepted, "{before} to {after}: {refused} of {accepted}");
    }
}

#[tokio::test(start_paused = true)]
async fn busy_partition_slows_none_of_the_others() {
    let (from, until) = (SECOND * 20, SECOND * 30);
    for (partitions, left) in [(8, 200), (8, 0), (20, 0)] {
        let units = partitions as u32 * 1_000;
        let capacity = capacity(units).busy_partition(left, from, until);
        let throughput = overloaded(capacity, &[200], 30).await;
        let available = f64::from(units - 1_000 + left) * 10.0;
        let (accepted, refused) = sum(&throughput[20..]);
        let used = accepted / available;
        assert!(used >= 0.9, "{used} of {partitions} partitions, one of which gives {left}");
        // Events of the busy partition are retried from time to time.
        let refused = refused / (accepted + refused);
        assert!(refused <= 0.3, "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_single_events_of_one_partition_leave_the_pace() {
    let capacity = capacity(16_000).busy_partition(0, Duration::ZERO, SECOND * 60);
    let table = FakeTable::with_capacity(capacity);
    let store = start_with(table.store_builder().linger(Duration::ZERO), SEED).await;
    for _ in 0..1_000 {
        drop(store.put_json("1").await.unwrap());
        clock::wait(Duration::from_millis(5)).await;
    }
    let stats = store.stats();
    assert!(stats.throttled_batches_by_limit.key_range > 0, "{stats:?}");
    assert_eq!(stats.throttled_batches_by_limit.key_range, stats.throttled_batches);
    assert_eq!(stats.write_units_per_second, None);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_busy_partition_are_stored_later() {
    let capacity = capacity(8_000).busy_partition(0, SECOND * 10, SECOND * 20);
    let table = FakeTable::with_capacity(capacity);
    let store = start(&table, SEED).await;
    let producer = overload(&store, &[200]);
    clock::wait(SECOND * 20).await;
    producer.abort();
    let report = store.close(SECOND * 20).await.unwrap();
    assert_eq!(report.failed, 0);
}

/// Puts `puts` events, one per `every`. Returns their times from put to answer, in ascending order.
async fn waits(store: &EventStore, puts: u32, every: Duration) -> Vec<Duration> {
    let mut answers = Vec::new();
    for _ in 0..puts {
        let put_at = clock::now();
        let ticket = store.put_json(&body(200)).await.unwrap();
        answers.push(tokio::spawn(async move {
            ticket.await.unwrap();
            clock::now() - put_at
        }));
        clock::wait(every).await;
    }
    let mut waits: Vec<Duration> =
        join_all(answers).await.into_iter().map(Result::unwrap).collect();
    waits.sort();
    waits
}

#[tokio::test(start_paused = true)]
async fn load_below_the_capacity_is_not_delayed() {
    let latency = Duration::from_millis(10);
    let table = FakeTable::with_capacity(capacity(1_000).latency(latency));
    let store = start(&table, SEED).await;
    let waits = waits(&store, 8_000, SECOND / 800).await;
    assert!(waits[waits.len() * 99 / 100] <= 2 * latency, "{:?}", waits.last());
    assert_eq!(store.stats().write_units_per_second, None);
}

#[tokio::test(start_paused = true)]
async fn events_wait_about_equally_long_under_overload() {
    let table = FakeTable::with_capacity(capacity(1_000));
    let store = start(&table, SEED).await;
    let mut answers = Vec::new();
    for _ in 0..60_000 {
        let ticket = store.put_json(&body(200)).await.unwrap();
        let put_at = clock::now();
        answers.push(tokio::spawn(async move {
            ticket.await.unwrap();
            clock::now() - put_at
        }));
    }
    // The first events found an empty buffer and the table's saved units.
    let waits: Vec<Duration> = join_all(answers).await.into_iter().map(Result::unwrap).collect();
    let mut steady = waits[20_000..].to_vec();
    steady.sort();
    let (half, most) = (steady[steady.len() / 2], steady[steady.len() * 99 / 100]);
    assert!(most.as_secs_f64() <= 1.5 * half.as_secs_f64(), "{half:?}, {most:?}");
}

#[tokio::test(start_paused = true)]
async fn backlog_of_a_slow_table_is_stored_without_loss() {
    let table = FakeTable::with_capacity(WriteCapacity::provisioned(50).latency(LATENCY));
    // To store the events that are accepted before the first throttling takes 200 s.
    let builder = table.store_builder().event_deadline(SECOND * 300);
    let store = start_with(builder, SEED).await;
    for _ in 0..15_000 {
        drop(store.put_json("1").await.unwrap());
    }
    let report = store.close(Duration::MAX).await.unwrap();
    assert_eq!((report.stored, report.failed), (15_000, 0));
}

#[tokio::test(start_paused = true)]
async fn events_that_would_expire_are_not_accepted() {
    let table = FakeTable::with_capacity(capacity(50));
    let store = start_with(table.store_builder().max_buffered_events(500), SEED).await;
    let producer = overload(&store, &[200]);
    clock::wait(SECOND * 120).await;
    // In half a minute the table takes 1,500 units, more than the buffer holds.
    assert_eq!((store.stats().pending, store.stats().failed), (500, 0));
    producer.abort();

    let builder = table.store_builder().event_deadline(SECOND * 8);
    let store = start_with(builder, SEED + 1).await;
    let producer = overload(&store, &[200]);
    clock::wait(SECOND * 120).await;
    assert!(store.stats().pending <= 250, "{:?}", store.stats());
    let failed = store.stats().failed;
    let refused = store.try_put(&1).unwrap_err();
    assert!(matches!(refused, PutError::Throttled { .. }), "{refused}");
    clock::wait(SECOND * 120).await;
    assert_eq!(store.stats().failed, failed, "an event expired while it waited");
    producer.abort();
}

#[tokio::test(start_paused = true)]
async fn slow_table_is_fully_used_with_default_settings() {
    let latency = Duration::from_millis(20);
    let table = FakeTable::with_capacity(capacity(40_000).latency(latency));
    let store = start(&table, SEED).await;
    let producer = overload(&store, &[200]);
    clock::wait(SECOND * 12).await;
    producer.abort();
    let (used, _) = use_of(&table.throughput()[..12], 40_000);
    assert!(used >= 0.95, "{used}");
}

#[tokio::test(start_paused = true)]
async fn budget_is_kept_to_one_percent_over_ten_seconds() {
    for budget in [20, 500, 10_000] {
        let table = FakeTable::with_capacity(capacity(40_000));
        let builder = table.store_builder().max_write_units_per_second(budget);
        let store = start_with(builder, SEED).await;
        let producer = overload(&store, &[200]);
        clock::wait(SECOND * 31).await;
        producer.abort();
        let throughput = table.throughput();
        for ten_seconds in throughput[..31].windows(10) {
            let (accepted, _) = sum(ten_seconds);
            let share = accepted / (10.0 * f64::from(budget));
            assert!((0.99..=1.011).contains(&share), "{share} of {budget}");
        }
        let most = throughput.iter().map(|second| second.accepted_units).max().unwrap();
        assert!(most <= 2 * u64::from(budget));
    }
}

#[tokio::test(start_paused = true)]
async fn pace_is_unlimited_a_minute_after_throttling_ends() {
    let table = FakeTable::with_capacity(capacity(1_000));
    let store = start(&table, SEED).await;
    let producer = overload(&store, &[200]);
    clock::wait(SECOND * 10).await;
    producer.abort();
    let stats = store.stats();
    let pace = stats.write_units_per_second.unwrap();
    assert!((700.0..1_300.0).contains(&pace), "{pace}");
    assert!(stats.throttled_units > 0 && stats.oldest_waiting > SECOND, "{stats:?}");
    clock::wait(SECOND * 80).await;
    let stats = store.stats();
    assert_eq!((stats.write_units_per_second, stats.oldest_waiting), (None, Duration::ZERO));
}

/// Jain's index of fairness: 1 if all shares are equal, 1/n if one store has everything.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// Starts `stores` stores on one table, the last one after `late`. Waits for `from` more, and returns how
/// many events each store writes in the next `seconds`.
async fn shares(
    capacity: WriteCapacity,
    stores: u64,
    late: Duration,
    from: Duration,
    seconds: u32,
) -> Vec<f64> {
    let table = FakeTable::with_capacity(capacity);
    let mut running = Vec::new();
    for number in 0..stores {
        if number + 1 == stores {
            clock::wait(late).await;
        }
        let store = start(&table, SEED + number).await;
        let producer = overload(&store, &[200]);
        running.push((store, producer));
        clock::wait(Duration::from_millis(20)).await;
    }
    clock::wait(from).await;
    let before: Vec<u64> = running.iter().map(|(store, _)| store.stats().stored).collect();
    clock::wait(SECOND * seconds).await;
    let stored = running
        .iter()
        .zip(before)
        .map(|((store, _), before)| (store.stats().stored - before) as f64);
    let stored = stored.collect();
    running.iter().for_each(|(_, producer)| producer.abort());
    stored
}

#[tokio::test(start_paused = true)]
async fn many_stores_share_a_table_equally() {
    for (stores, units) in [(2, 4_000), (10, 4_000), (10, 1_000), (100, 4_000)] {
        let shares = shares(capacity(units), stores, Duration::ZERO, SECOND * 30, 60).await;
        let used = shares.iter().sum::<f64>() / (60.0 * f64::from(units));
        assert!(used >= 0.95, "{stores} stores use {used} of {units} units/s");
        assert!(jain(&shares) >= 0.95, "{stores} stores at {units} units/s: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_store_has_its_share_after_half_a_minute() {
    let shares = shares(capacity(4_000), 10, SECOND * 30, SECOND * 30, 30).await;
    let new_share = shares[9] / (shares.iter().sum::<f64>() / 10.0);
    assert!((0.6..1.6).contains(&new_share), "{shares:?}");
}
