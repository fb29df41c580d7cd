//! Detects a table that no longer acknowledges events.

use std::time::Duration;

use dynamodb_eventstore::EventStore;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::time::now;

/// After this many checks in a row without progress the store counts as stalled.
const CHECKS: u32 = 20;

const MIN_PERIOD: Duration = Duration::from_millis(20);

/// Watches one store. An event that waits longer than others is no stall: as long as the table
/// acknowledges events, each gets its turn.
#[derive(Debug)]
pub(crate) struct Watchdog {
    store: EventStore,
    ticks: Interval,
    /// Events settled at the last check.
    settled: u64,
    /// Checks in a row that found events waiting and none settled since the check before. Checks
    /// are counted instead of time, because the time between two checks may include a suspension
    /// of the process.
    idle_checks: u32,
}

impl Watchdog {
    /// `timeout` is how long events may wait without one of them being settled.
    pub(crate) fn new(store: &EventStore, timeout: Duration) -> Self {
        let period = (timeout / CHECKS).max(MIN_PERIOD);
        let mut ticks = interval_at(now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { store: store.clone(), ticks, settled: 0, idle_checks: 0 }
    }

    /// Waits until the store has stalled. The next call starts a new timeout. Cancel safe.
    pub(crate) async fn stalled(&mut self) {
        while self.idle_checks < CHECKS {
            self.ticks.tick().await;
            let stats = self.store.stats();
            let settled = stats.stored + stats.failed;
            let is_idle = stats.pending > 0 && settled == self.settled;
            self.idle_checks = if is_idle { self.idle_checks + 1 } else { 0 };
            self.settled = settled;
        }
        self.idle_checks = 0;
    }
}
