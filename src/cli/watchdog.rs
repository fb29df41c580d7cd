//! Notices that the table takes nothing any more.

use std::time::Duration;

use dynamodb_eventstore::EventStore;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::progress::now;

/// Looks at the store so often before it calls it stalled.
const LOOKS: u32 = 20;

const SHORTEST_PERIOD: Duration = Duration::from_millis(20);

/// Watches one store. An event that the table takes later than others is no reason to worry: as
/// long as the table takes any, each has its turn.
#[derive(Debug)]
pub(crate) struct Watchdog {
    store: EventStore,
    ticks: Interval,
    /// Events settled when it last looked.
    settled: u64,
    /// Looks in a row at which events were waiting and none had been settled. Counted rather than
    /// measured: a process that was suspended for an hour has not waited for an hour.
    idle_looks: u32,
}

impl Watchdog {
    /// `patience` is how long events may wait without one of them being settled.
    pub(crate) fn new(store: &EventStore, patience: Duration) -> Self {
        let period = (patience / LOOKS).max(SHORTEST_PERIOD);
        let mut ticks = interval_at(now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { store: store.clone(), ticks, settled: 0, idle_looks: 0 }
    }

    /// Ends when the store has stalled; the next call waits for the whole patience anew. Cancel
    /// safe.
    pub(crate) async fn stalled(&mut self) {
        while self.idle_looks < LOOKS {
            self.ticks.tick().await;
            let stats = self.store.stats();
            let settled = stats.stored + stats.failed;
            let is_idle = stats.pending > 0 && settled == self.settled;
            self.idle_looks = if is_idle { self.idle_looks + 1 } else { 0 };
            self.settled = settled;
        }
        self.idle_looks = 0;
    }
}
