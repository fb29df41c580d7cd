//! The labels of a store in its metrics and spans, and what its parts share.

use tokio::runtime::Handle;

use super::builder::EventStoreBuilder;
use super::config::Config;
use crate::accounting::Accounting;
use crate::clock::now;
#[cfg(feature = "metrics")]
use crate::metrics::StoreMetrics;

impl Config {
    /// What handles, worker and events share, with the hook and the metrics.
    pub(super) fn accounting(&self, runtime: &Handle) -> Accounting {
        let mut accounting = Accounting::new(
            self.worker.max_buffered_events,
            self.worker.max_buffered_bytes,
            self.worker.retry.event_deadline,
            now(),
            #[cfg(feature = "metrics")]
            StoreMetrics::register(self.worker.table.as_deref(), self.store_name.as_deref()),
        );
        accounting.hook = self.start_hook(runtime);
        accounting
    }
}

impl EventStoreBuilder {
    /// The configuration, with the name of the table.
    pub(super) fn labelled_config(&self) -> Config {
        let mut config = self.config.clone();
        config.worker.table.clone_from(&self.target.table);
        config
    }
}

/// # Metrics
#[cfg(feature = "metrics")]
impl EventStoreBuilder {
    /// The label `store` of this store's [metrics](crate::guide::metrics). Default: none, as the label `table` is enough
    /// for a program with one store per table.
    ///
    /// A program that has several stores of one table, or a store with its own [`batch_writer`](Self::batch_writer),
    /// should name them. Stores with the same labels share their counters, which add up. Of two gauges, the pace and the
    /// age of the oldest waiting event, the last store that changes them wins.
    ///
    /// Choose one of a few names: each makes a set of time series.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "test-util")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let table = dynamodb_eventstore::test_util::FakeTable::new();
    /// // The recorder of the program's exporter must be installed before.
    /// let store = table.store_builder().store_name("audit").start().await?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "test-util"))]
    /// # fn main() {}
    /// ```
    pub fn store_name(mut self, store_name: impl Into<String>) -> Self {
        self.config.store_name = Some(store_name.into());
        self
    }
}
