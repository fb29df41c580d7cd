//! The hook of `on_settled`: what it learns, and that it holds up nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dynamodb_eventstore::test_util::{FakeTable, FaultRates, Reply};
use dynamodb_eventstore::{Certainty, EventStore, EventStoreBuilder, FailureClass, Settled};
use proptest::prelude::*;

use support::clock;
use support::watchdog;

const SECOND: Duration = Duration::from_secs(1);

/// What a hook has learned, in order.
#[derive(Debug, Clone, Default)]
struct Learned(Arc<Mutex<Vec<Settled>>>);

impl Learned {
    fn hook(&self) -> impl Fn(&Settled) + Send + Sync + 'static {
        let learned = self.clone();
        move |settled| learned.0.lock().unwrap().push(settled.clone())
    }

    fn all(&self) -> Vec<Settled> {
        self.0.lock().unwrap().clone()
    }

    /// How many events were stored, failed and missed.
    fn counts(&self) -> (u64, u64, u64) {
        let (mut stored, mut failed, mut missed) = (0, 0, 0);
        for settled in self.all() {
            match settled {
                Settled::Stored(_) => stored += 1,
                Settled::Failed(_) => failed += 1,
                Settled::Missed { events, .. } => missed += events,
                other => panic!("{other:?}"),
            }
        }
        (stored, failed, missed)
    }
}

#[tokio::test(start_paused = true)]
async fn hook_learns_of_every_event_before_close_returns() {
    watchdog::start();
    let (table, learned) = (FakeTable::new(), Learned::default());
    table.reject("7");
    let store = table.store_builder().on_settled(learned.hook()).start().await.unwrap();
    let mut keys = Vec::new();
    for number in 0..1_000 {
        keys.push(*store.put(&number).await.unwrap().key());
    }
    let report = store.close(SECOND).await.unwrap();
    assert_eq!((report.stored, report.failed), (999, 1));
    let mut seen: Vec<_> = learned.all().iter().map(key).collect();
    seen.sort();
    assert_eq!(seen, keys);
    let failed = learned.all().into_iter().find_map(|settled| match settled {
        Settled::Failed(error) => Some(error),
        _ => None,
    });
    assert_eq!(failed.unwrap().event().unwrap().body(), "7");
}

fn key(settled: &Settled) -> dynamodb_eventstore::EventKey {
    match settled {
        Settled::Stored(stored) => stored.key,
        Settled::Failed(error) => *error.key(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn hook_that_panics_is_called_for_the_next_event() {
    watchdog::start();
    let (table, learned) = (FakeTable::new(), Learned::default());
    let inner = learned.hook();
    let hook = move |settled: &Settled| {
        inner(settled);
        assert!(!matches!(settled, Settled::Failed(_)), "the hook panics, as the test wants it");
    };
    table.reject("0");
    let store = table.store_builder().on_settled(hook).max_batch_events(1).start().await.unwrap();
    store.put(&0).await.unwrap().await.unwrap_err();
    store.put(&1).await.unwrap().await.unwrap();
    assert_eq!(store.close(SECOND).await.unwrap().stored, 1);
    assert_eq!(learned.counts(), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn hook_learns_of_events_after_the_last_handle() {
    watchdog::start();
    let (table, learned) = (FakeTable::always(Reply::Store.after(SECOND)), Learned::default());
    let store = table.store_builder().on_settled(learned.hook()).start().await.unwrap();
    for number in 0..30 {
        drop(store.put(&number).await.unwrap());
    }
    drop(store);
    clock::wait(SECOND * 5).await;
    assert_eq!(learned.counts(), (30, 0, 0));
    // The task of the hook has ended, and the hook is gone.
    assert_eq!(Arc::strong_count(&learned.0), 1);
}

/// A store whose hook stands still at its first call, until something is sent.
async fn with_blocked_hook(
    builder: EventStoreBuilder,
    learned: &Learned,
) -> (EventStore, Sender<()>) {
    watchdog::start();
    let (release, blocked): (Sender<()>, Receiver<()>) = channel();
    let (inner, blocked) = (learned.hook(), Mutex::new(blocked));
    let hook = move |settled: &Settled| {
        inner(settled);
        // Later calls go on, as the sender is gone.
        let _ = blocked.lock().unwrap().recv();
    };
    (builder.on_settled(hook).start().await.unwrap(), release)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn slow_hook_delays_no_event_and_learns_what_it_missed() {
    let (table, learned) = (FakeTable::new(), Learned::default());
    let builder = table.store_builder().max_buffered_events(4);
    let (store, release) = with_blocked_hook(builder, &learned).await;
    for number in 0..50 {
        // The hook has learned of one event at most.
        store.put(&number).await.unwrap().await.unwrap();
    }
    assert!(learned.all().len() <= 1);
    drop(release);
    store.close(SECOND * 30).await.unwrap();
    // One in the hook at most, and four in the channel.
    let (stored, failed, missed) = learned.counts();
    assert!((4..=5).contains(&stored), "{stored}");
    assert_eq!((stored + missed, failed), (50, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn failed_events_waiting_for_the_hook_are_bounded_in_bytes() {
    let table = FakeTable::always(Reply::Fail(FailureClass::Invalid, Certainty::NotStored));
    let (builder, learned) = (table.store_builder(), Learned::default());
    let builder = builder.max_buffered_bytes(500_000).max_buffered_events(1_000);
    let (store, release) = with_blocked_hook(builder, &learned).await;
    for _ in 0..20 {
        store.put(&"x".repeat(100_000)).await.unwrap().await.unwrap_err();
    }
    drop(release);
    store.close(SECOND * 30).await.unwrap();
    let (stored, failed, missed) = learned.counts();
    assert_eq!((stored, failed + missed), (0, 20));
    assert!((4..=5).contains(&failed), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn close_waits_for_the_hook_until_its_deadline() {
    let (table, learned) = (FakeTable::new(), Learned::default());
    let (store, release) = with_blocked_hook(table.store_builder(), &learned).await;
    for number in 0..3 {
        store.put(&number).await.unwrap().await.unwrap();
    }
    let report = store.close(Duration::from_millis(50)).await.unwrap();
    assert_eq!(report.stored, 3);
    assert!(learned.all().len() <= 1);
    drop(release);
    // A later close finds the rest learned.
    store.close(SECOND * 30).await.unwrap();
    assert_eq!(learned.counts(), (3, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hook_learns_what_the_counters_show(seed: u64, events in 0_u64..200, buffer in 1_usize..50) {
        watchdog::start();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async move {
            let table = FakeTable::seeded(seed, FaultRates::default());
            let learned = Learned::default();
            let builder = table.store_builder().max_buffered_events(buffer).event_deadline(SECOND);
            let builder = builder.deterministic(seed).on_settled(learned.hook());
            let store = builder.start().await.unwrap();
            for number in 0..events {
                drop(store.put(&number).await.unwrap());
            }
            let report = store.close(SECOND * 3).await.unwrap();
            let (stored, failed, missed) = learned.counts();
            prop_assert_eq!(stored + failed + missed, events);
            prop_assert!(stored <= report.stored && failed <= report.failed);
            if missed == 0 {
                prop_assert_eq!((stored, failed), (report.stored, report.failed));
            }
            Ok(())
        })?;
    }
}
