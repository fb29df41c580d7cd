//! [`NewKeys`]: the wait for the journal before events are sent under new keys.

use std::time::Duration;

use tokio::time::timeout;

use crate::error::{BatchError, Certainty, FailureClass};
use crate::journal::Position;
use crate::pending::PendingEvent;

/// The places in the journal of those events of a batch that got new keys.
///
/// A process that ended after the insert, and before the new key was in the journal, would leave the event there under
/// its old key. The next process would find that key taken, and store the event again under a third.
pub(super) struct NewKeys(Vec<Position>);

impl NewKeys {
    pub(super) fn of(batch: &[PendingEvent]) -> Self {
        Self(batch.iter().filter_map(PendingEvent::position_of_new_key).collect())
    }

    /// Waits until the journal has the new keys, or has failed to write them.
    pub(super) async fn durable(self, limit: Duration) -> Result<(), BatchError> {
        let wait = async {
            for position in self.0 {
                if let Err(error) = position.durable().await {
                    tracing::warn!(%error, "an event is sent under a new key that the journal does not have");
                }
            }
        };
        timeout(limit, wait).await.map_err(|_| {
            let message = format!("the journal has not synced a new key within {limit:?}");
            BatchError::new(FailureClass::Transient, Certainty::NotStored, message)
        })
    }
}
