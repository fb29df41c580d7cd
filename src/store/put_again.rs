//! Putting events that have their keys already.

use crate::error::Uncertainty;
use crate::error::{Certainty, PutError};
use crate::event::Event;
use crate::pending::PutTicket;
use crate::store::EventStore;

impl EventStore {
    /// Puts an event that has its key already: one that an earlier store could not store, or not
    /// say for sure that it did.
    ///
    /// However often it is put, it cannot be stored twice. An event that differs must have another
    /// key:
    /// `BatchWriteItem` overwrites in silence. So do not make up keys; take them from
    /// [`WriteError::event`](crate::WriteError::event), or from the lines of
    /// [`CloseReport::write_ndjson`](crate::CloseReport::write_ndjson). That the body is JSON is
    /// not checked.
    ///
    /// The ticket never says *not stored*: what earlier calls have done, or may yet do, is not
    /// known here. Where it is known, say so: [`put_again`](Self::put_again).
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put), except that the event has been measured already. Cancel safe as well.
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

    /// Puts an event that has its key already, as [`put_event`](Self::put_event) does, with the
    /// [`certainty`](crate::WriteError::certainty) with which it was given up.
    ///
    /// The ticket of an event that was *not stored* says *not stored* again, unless a call of this
    /// put leaves doubt. `certainty` is about all earlier puts of the event: where one of several
    /// answers was *maybe stored*, or one is missing, it is
    /// [`MaybeStored`](Certainty::MaybeStored).
    ///
    /// # Errors
    ///
    /// As [`put_event`](Self::put_event). Cancel safe as well.
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
        let permit = self.acquire(event.buffered_bytes()).await?;
        let uncertainty_before = match certainty {
            Certainty::NotStored => Uncertainty::None,
            Certainty::MaybeStored => Uncertainty::Open,
        };
        self.send(event, uncertainty_before, permit)
    }
}
