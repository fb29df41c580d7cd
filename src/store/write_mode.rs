//! The builder's settings of how events are written.

use super::builder::EventStoreBuilder;
use crate::write_mode::{OnDuplicate, WriteMode};

/// # Overwriting
impl EventStoreBuilder {
    /// Whether an event may replace an item with its key. Default: [`WriteMode::Put`], as npm `dynamodb-eventstore`
    /// writes. With [`WriteMode::Insert`] no event overwrites an item, even if another writer makes the same key.
    ///
    /// If the answer to an insert is lost, the store inserts again and may find the key taken. It then reads the item.
    /// If the item is the event itself, the event is stored. It reads also if [`read_back`](Self::read_back) is off. So
    /// the role needs `dynamodb:BatchGetItem`: without it such an event fails as *maybe stored*.
    ///
    /// Your own [`batch_writer`](Self::batch_writer) decides how it writes. If it inserts, set [`WriteMode::Insert`],
    /// so that the store knows what another item under the key of an event means.
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
        self.config.worker.write_mode = write_mode;
        self
    }

    /// What happens in [`WriteMode::Insert`] to an event whose key another item has. Default: [`OnDuplicate::NewKey`].
    pub fn on_duplicate(mut self, on_duplicate: OnDuplicate) -> Self {
        self.config.worker.on_duplicate = on_duplicate;
        self
    }
}
