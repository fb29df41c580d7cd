//! The builder's settings of how events are written.

use super::builder::EventStoreBuilder;
use crate::write_mode::{OnDuplicate, WriteMode};

/// # Overwriting
impl EventStoreBuilder {
    /// Whether an event may replace an item with its key. Default: [`WriteMode::Put`], as npm `dynamodb-eventstore`
    /// writes. With [`WriteMode::Insert`] nothing is overwritten, whatever keys other writers make.
    ///
    /// An insert whose answer was lost finds its key taken when it is repeated. The store then reads the item: if it is
    /// the event, the event is stored. So [`read_back`](Self::read_back) should be on; without it such an event fails as
    /// *maybe stored*.
    ///
    /// An own [`batch_writer`](Self::batch_writer) decides itself how it writes. For one that inserts, set
    /// [`WriteMode::Insert`]: the store then knows what another item under the key of an event means.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), dynamodb_eventstore::StartError> {
    /// use dynamodb_eventstore::{EventStore, WriteMode};
    ///
    /// let store =
    ///     EventStore::builder().table("all-events").write_mode(WriteMode::Insert).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_mode(mut self, write_mode: WriteMode) -> Self {
        self.config.write_mode = write_mode;
        self
    }

    /// What becomes of an event in [`WriteMode::Insert`] if another item has its key. Default: [`OnDuplicate::NewKey`].
    pub fn on_duplicate(mut self, on_duplicate: OnDuplicate) -> Self {
        self.config.on_duplicate = on_duplicate;
        self
    }
}
