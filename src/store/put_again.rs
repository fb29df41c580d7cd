//! [`EventStore::put_event`] and [`EventStore::put_again`]: put events again under the keys that they already have.

use crate::error::{Certainty, PutError, Uncertainty};
use crate::event::Event;
use crate::pending::PutTicket;
use crate::store::EventStore;

impl EventStore {
    /// Puts an event that has a key already: one that an earlier put did not store, or did not confirm.
    ///
    /// The event is stored once, even if it is put several times. But a different event must not have the same key: in
    /// [`WriteMode::Put`](crate::WriteMode::Put) one overwrites the other without an error. So do not make up keys:
    /// take events from [`WriteError::event`](crate::WriteError::event), or from the lines of
    /// [`CloseReport::write_ndjson`](crate::CloseReport::write_ndjson). The body is not checked to be JSON.
    ///
    /// If another item has the event's key, [`WriteMode::Insert`](crate::WriteMode::Insert) fails the event as *maybe
    /// stored*: an earlier put may have stored it under a new key.
    ///
    /// The ticket never answers *not stored*, because earlier calls may have stored the event, or may still store it.
    /// If you know that they did not and cannot, use [`put_again`](Self::put_again).
    ///
    /// # Errors
    ///
    /// [`PutError::Closed`] and [`PutError::WorkerLost`], as for [`put`](Self::put).
    ///
    /// # Cancel safety
    ///
    /// That of [`put`](Self::put).
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore, lines: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// for line in lines {
    ///     store.put_event(serde_json::from_str(&line)?).await?.await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_event(&self, event: Event) -> Result<PutTicket, PutError> {
        self.put_again(event, Certainty::MaybeStored).await
    }

    /// Puts an event that has a key already, like [`put_event`](Self::put_event), with the
    /// [`certainty`](crate::WriteError::certainty) of its earlier failure.
    ///
    /// With [`NotStored`](Certainty::NotStored), the ticket can answer *not stored* again, unless a call of this put
    /// leaves the event maybe stored. `certainty` must cover all earlier puts of the event: if one of their answers was
    /// *maybe stored*, or is missing, it is [`MaybeStored`](Certainty::MaybeStored).
    ///
    /// # Errors
    ///
    /// Those of [`put_event`](Self::put_event).
    ///
    /// # Cancel safety
    ///
    /// That of [`put`](Self::put).
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::{EventStore, WriteError};
    /// # async fn example(store: EventStore, error: WriteError) -> Result<(), Box<dyn std::error::Error>> {
    /// if let Some(event) = error.event() {
    ///     store.put_again(event.clone(), error.certainty()).await?.await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_again(
        &self,
        event: Event,
        certainty: Certainty,
    ) -> Result<PutTicket, PutError> {
        let uncertainty_before = match certainty {
            Certainty::NotStored => Uncertainty::None,
            Certainty::MaybeStored => Uncertainty::CallsMayStillApply,
        };
        #[cfg(feature = "journal")]
        if self.shared.overflow.is_some() {
            let room = self.reserve(event.encoded()).await?;
            return self.send_or_wait(event, uncertainty_before, room);
        }
        let permit = self.acquire(event.buffered_bytes()).await?;
        let room = self.reserve(event.encoded()).await?;
        self.send(event, uncertainty_before, permit, room)
    }
}
