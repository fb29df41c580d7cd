//! The trait at the edge: performs one batch write, and says what became of it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;

/// Writes one batch of events, and reads it back: the one seam between the store and the outside.
///
/// [`SdkBatchWriter`] is the real one. Implement it to wrap that one (to count, to pace, to inject
/// faults) or to replace it.
///
/// # Contract
///
/// - `events` holds 1 to 25 events with distinct keys, at most 16 MB on the wire. All are to be
///   written with the one call; writing an event again under its key changes nothing.
/// - `Ok` says that the call was applied to every event, except those listed as unprocessed.
/// - `Err` says that the whole call failed, and with
///   [`certainty`](BatchError::certainty) whether it may have been applied all the same.
/// - It makes one attempt. The store retries, and sees every attempt.
/// - The future is dropped when the attempt times out. The store then counts the batch as *maybe*
///   stored.
/// - A panic fails the batch's events as *maybe* stored, and no others.
///
/// # Example
///
/// ```
/// use dynamodb_eventstore::{BatchError, BatchReceipt, BatchWriter, Event, EventStore};
/// use futures::future::BoxFuture;
///
/// /// Prints what it is given.
/// struct Printer;
///
/// impl BatchWriter for Printer {
///     fn write_batch<'a>(
///         &'a self,
///         events: &'a [Event],
///     ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
///         Box::pin(async move {
///             for event in events {
///                 println!("{} {}", event.key(), event.body());
///             }
///             Ok(BatchReceipt::all_processed())
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = EventStore::builder().batch_writer(Printer).start().await?;
/// store.put(&serde_json::json!({ "foo": "bar" })).await?.await?;
/// # Ok(())
/// # }
/// ```
pub trait BatchWriter: Send + Sync + 'static {
    /// Makes one attempt to write `events`.
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>>;

    /// Makes one attempt to write `events` that takes no longer than `limit`.
    ///
    /// By itself, an attempt that is late counts as *maybe* stored, for nothing more is known of it. A
    /// writer that knows how far the attempt had come can say more: that the request had not left.
    fn write_batch_within<'a>(
        &'a self,
        events: &'a [Event],
        limit: Duration,
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        timeout(limit, self.write_batch(events))
            .map(move |answer| answer.unwrap_or_else(|_| Err(BatchError::timed_out(limit))))
            .boxed()
    }

    /// Makes one attempt to read what is stored under `keys`, 1 to 25 of them, all distinct.
    ///
    /// The store asks before it reports an event as maybe stored. The read is consistent: it sees
    /// every write that was acknowledged before it began. The future is dropped when its time is up.
    ///
    /// Without an implementation of its own a writer cannot read, and what may be stored stays so. Switch
    /// [`read_back`](crate::EventStoreBuilder::read_back) off then, so that no time is kept for it.
    fn read_batch<'a>(
        &'a self,
        keys: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        let _ = keys;
        let cannot = BatchError::new(
            FailureClass::Fatal,
            Certainty::NotStored,
            "the batch writer does not read",
        );
        std::future::ready(Err(cannot)).boxed()
    }
}

/// What is stored under the keys that were asked for.
///
/// A key that is neither found nor left unread is not in the table. Keys and bodies are plain text, as
/// the answer gave them.
#[derive(Debug, Clone, Default)]
pub struct BatchReading {
    bodies: HashMap<String, Option<String>>,
    unread: HashSet<String>,
}

impl BatchReading {
    /// None of the keys is in the table.
    #[must_use]
    pub fn nothing_found() -> Self {
        Self::default()
    }

    /// Adds an item of the table: its key and its body, `None` where that is no text.
    #[must_use]
    pub fn with_item(mut self, key: impl Into<String>, body: Option<String>) -> Self {
        self.bodies.insert(key.into(), body);
        self
    }

    /// Adds a key that the answer left out: what is stored under it is not known.
    #[must_use]
    pub fn with_unread(mut self, key: impl Into<String>) -> Self {
        self.unread.insert(key.into());
        self
    }

    /// The item under this key: its body, in its turn `None` where that is no text.
    #[must_use]
    pub fn body(&self, key: &EventKey) -> Option<Option<&str>> {
        self.bodies.get(key.as_str()).map(Option::as_deref)
    }

    /// Whether the answer left this key out.
    #[must_use]
    pub fn is_unread(&self, key: &EventKey) -> bool {
        self.unread.contains(key.as_str())
    }

    /// Whether the answer names no key but these. One that does is the answer to another read, and
    /// nothing in it counts: least of all what it does not name.
    #[must_use]
    pub fn is_about(&self, keys: &[EventKey]) -> bool {
        let is_asked_for = |named: &String| keys.iter().any(|key| key.as_str() == named);
        self.bodies.keys().chain(&self.unread).all(is_asked_for)
    }
}

/// The answer to a batch that was taken: which of its events were handed back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchReceipt {
    unprocessed: Vec<String>,
    request_id: Option<String>,
    consumed_write_units: Option<f64>,
}

impl BatchReceipt {
    /// Every event of the batch was applied.
    #[must_use]
    pub fn all_processed() -> Self {
        Self::default()
    }

    /// Every event of the batch was applied, except those with these keys.
    ///
    /// The keys are plain text, as the answer gave them: one that was never sent is the store's to
    /// notice.
    #[must_use]
    pub fn with_unprocessed<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self { unprocessed: keys.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Adds the service's request id.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Adds the write units that the call took, as the service counts them.
    #[must_use]
    pub fn with_consumed_write_units(mut self, consumed_write_units: f64) -> Self {
        self.consumed_write_units = Some(consumed_write_units);
        self
    }

    /// The write units that the call took, where the answer says so; see
    /// [`return_consumed_capacity`](crate::EventStoreBuilder::return_consumed_capacity).
    #[must_use]
    pub fn consumed_write_units(&self) -> Option<f64> {
        self.consumed_write_units
    }

    /// Keys of the events that were handed back.
    #[must_use]
    pub fn unprocessed(&self) -> &[String] {
        &self.unprocessed
    }

    /// The service's id of the request.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}
