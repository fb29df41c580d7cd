//! [`EventStoreBuilder::on_settled`].

use std::time::Instant;

use tokio::runtime::Handle;

use super::EventStore;
use super::config::Config;
use crate::settled::Settled;
use crate::settled::hook::{SettledHook, SettledSender};
use crate::store::builder::EventStoreBuilder;

impl Config {
    /// Starts the task of the hook, if there is one.
    pub(super) fn start_hook(&self, runtime: &Handle) -> Option<SettledSender> {
        let hook = self.on_settled.as_ref()?;
        Some(hook.spawn(runtime, self.worker.max_buffered_events, self.worker.max_buffered_bytes))
    }
}

impl EventStore {
    /// Waits until the hook has learned of every settled event, but not beyond `until`.
    pub(super) async fn drain_hook(&self, until: Instant) {
        if let Some(hook) = &self.shared.accounting.hook {
            hook.drain(until).await;
        }
    }
}

/// # Answers without tickets
impl EventStoreBuilder {
    /// A hook that is called once for each event when it is settled, for programs that drop their tickets: to count, to
    /// alert, to keep what failed. Default: none, which costs nothing. A second call replaces the hook.
    ///
    /// The hook runs in a task of its own, one call at a time, in the order in which events are settled. Tickets do not
    /// wait for it. It learns of each put once. An event that a journal puts again is settled again.
    ///
    /// It must not block, as it would hold up a thread of the runtime. It should not own a handle of the store, as a
    /// store with handles does not end.
    ///
    /// A slow hook slows nothing: the events make room in the buffer when they are settled, not when the hook is done.
    /// So what waits for the hook has limits of its own, as many events as
    /// [`max_buffered_events`](Self::max_buffered_events) and as many bytes of failed events as
    /// [`max_buffered_bytes`](Self::max_buffered_bytes). Beyond them events are counted, and the hook learns the number
    /// as [`Settled::Missed`].
    ///
    /// [`close`](crate::EventStore::close) waits until the hook has learned of every event, at most until its deadline
    /// and the time to read back after it.
    /// A flush does not wait for it. While the runtime is shut down, events fail without the hook.
    ///
    /// # Panics
    ///
    /// A panic of the hook is contained, and logged as an error. The hook is called for the next event.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "test-util")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let table = dynamodb_eventstore::test_util::FakeTable::new();
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use dynamodb_eventstore::Settled;
    ///
    /// let stored = Arc::new(AtomicU64::new(0));
    /// let counter = Arc::clone(&stored);
    /// let hook = move |settled: &Settled| match settled {
    ///     Settled::Stored(_) => {
    ///         counter.fetch_add(1, Ordering::Relaxed);
    ///     }
    ///     Settled::Failed(error) => eprintln!("{error}"),
    ///     _ => eprintln!("some events were settled unseen"),
    /// };
    /// let store = table.store_builder().on_settled(hook).start().await?;
    /// drop(store.put("nobody waits for this ticket").await?);
    /// store.close(std::time::Duration::from_secs(20)).await?;
    /// assert_eq!(stored.load(Ordering::Relaxed), 1);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "test-util"))]
    /// # fn main() {}
    /// ```
    pub fn on_settled(mut self, hook: impl Fn(&Settled) + Send + Sync + 'static) -> Self {
        self.config.on_settled = Some(SettledHook::new(hook));
        self
    }
}
