//! [`BatchWriter`]: writes one batch of events and reads it back. The only interface between the store and the service.
//!
//! The worker calls it. [`SdkBatchWriter`](super::SdkBatchWriter) and the direct writer implement it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::timeout;

use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;

/// Writes one batch of events, and reads it back: the only interface between the store and the service.
///
/// [`SdkBatchWriter`](crate::SdkBatchWriter) is the implementation for DynamoDB. Implement the trait to wrap
/// it (to count calls, to inject faults) or to replace it.
///
/// # Contract
///
/// - `events` holds 1 to 25 events with distinct keys, which need at most
///   [`MAX_BATCH_WIRE_BYTES`](crate::MAX_BATCH_WIRE_BYTES) in a request. One call writes all of them. Writing
///   an event again under its key must change nothing.
/// - A writer that inserts, for a store with [`WriteMode::Insert`](crate::WriteMode::Insert), must not replace an item.
///   It lists the event [as failed](BatchReceipt::with_failed) with [`FailureClass::Duplicate`], even if the item is
///   the event itself.
/// - `Ok` means that the call was applied to every event that is not listed as unprocessed or failed.
/// - `Err` means that the call failed as a whole. Its [`certainty`](BatchError::certainty) says whether
///   the call may have been applied despite the failure.
/// - A call makes one attempt. The store retries, and sees every attempt.
/// - The future is dropped when the attempt times out. The store then counts the batch as *maybe*
///   stored.
/// - A panic fails the events of the batch as *maybe* stored, and no others.
///
/// # Example
///
/// ```
/// use dynamodb_eventstore::{BatchError, BatchReceipt, BatchWriter, Event, EventStore};
/// use futures::future::BoxFuture;
///
/// /// Prints events instead of storing them.
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

    /// Makes one attempt to write `events`, within `limit`. The store calls this method.
    ///
    /// The default implementation drops the attempt after `limit` and reports its events as *maybe*
    /// stored. A writer that knows that the request was not sent can report them as *not* stored.
    fn write_batch_within<'a>(
        &'a self,
        events: &'a [Event],
        limit: Duration,
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        timeout(limit, self.write_batch(events))
            .map(move |result| result.unwrap_or_else(|_| Err(BatchError::timed_out(limit))))
            .boxed()
    }

    /// Makes one attempt to read the items with these keys: 1 to 25, all distinct.
    ///
    /// The store reads an event back before it reports it as maybe stored. The read must be consistent: it
    /// sees every write that was acknowledged before it began. The future is dropped when its time is up.
    ///
    /// The default implementation fails, so that an event that may be stored is reported as such. If your writer cannot
    /// read, switch [`read_back`](crate::EventStoreBuilder::read_back) off, so that no time is reserved for reads.
    fn read_batch<'a>(
        &'a self,
        keys: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        let _ = keys;
        let error = BatchError::new(
            FailureClass::Fatal,
            Certainty::NotStored,
            "the batch writer does not read",
        );
        std::future::ready(Err(error)).boxed()
    }
}

/// The items that a read found, and the keys that it left unread.
///
/// A requested key that is neither found nor unread is not in the table. Keys and bodies are plain text,
/// as in the response.
#[derive(Debug, Clone, Default)]
pub struct BatchReading {
    bodies: HashMap<String, Option<String>>,
    unread: HashSet<String>,
}

impl BatchReading {
    /// A reading in which none of the keys is in the table.
    #[must_use]
    pub fn nothing_found() -> Self {
        Self::default()
    }

    /// Adds an item of the table: its key, and its body, which is `None` if it is not a string.
    #[must_use]
    pub fn with_item(mut self, key: impl Into<String>, body: Option<String>) -> Self {
        self.bodies.insert(key.into(), body);
        self
    }

    /// Adds a key that was not read, so that it is not known whether it is in the table.
    #[must_use]
    pub fn with_unread(mut self, key: impl Into<String>) -> Self {
        self.unread.insert(key.into());
        self
    }

    /// The body of the item with this key. The outer `None` means that there is no such item, the inner one
    /// that its body is not a string.
    #[must_use]
    pub fn body(&self, key: &EventKey) -> Option<Option<&str>> {
        self.bodies.get(key.as_str()).map(Option::as_deref)
    }

    /// Whether this key was not read.
    #[must_use]
    pub fn is_unread(&self, key: &EventKey) -> bool {
        self.unread.contains(key.as_str())
    }

    /// Whether the reading names no keys but these. Otherwise it belongs to another read, and must not be
    /// used: a key that it does not name may be in the table.
    #[must_use]
    pub fn is_about(&self, keys: &[EventKey]) -> bool {
        let is_requested = |named: &String| keys.iter().any(|key| key.as_str() == named);
        self.bodies.keys().chain(&self.unread).all(is_requested)
    }
}

/// The response to a batch that the service accepted: which of its events were not applied.
#[derive(Debug, Clone, Default)]
pub struct BatchReceipt {
    unprocessed: Vec<String>,
    failed: Vec<(String, Arc<BatchError>)>,
    request_id: Option<String>,
    consumed_write_units: Option<f64>,
}

impl BatchReceipt {
    /// A receipt for a batch of which every event was applied.
    #[must_use]
    pub fn all_processed() -> Self {
        Self::default()
    }

    /// A receipt for a batch of which every event was applied, except those with these keys.
    ///
    /// The keys are plain text, as in the response. The store checks that the batch had them.
    #[must_use]
    pub fn with_unprocessed<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self { unprocessed: keys.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Adds an event of the batch that failed by itself, and how. Its key is plain text, as in the response.
    ///
    /// A key that another item has is a failure of the class [`FailureClass::Duplicate`].
    #[must_use]
    pub fn with_failed(
        mut self,
        key: impl Into<String>,
        failure: impl Into<Arc<BatchError>>,
    ) -> Self {
        self.failed.push((key.into(), failure.into()));
        self
    }

    /// Adds the service's request id.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Adds the write units that the call consumed, as the service counts them.
    #[must_use]
    pub fn with_consumed_write_units(mut self, consumed_write_units: f64) -> Self {
        self.consumed_write_units = Some(consumed_write_units);
        self
    }

    /// The write units that the call consumed, if the response has them; see
    /// [`return_consumed_capacity`](crate::EventStoreBuilder::return_consumed_capacity).
    #[must_use]
    pub fn consumed_write_units(&self) -> Option<f64> {
        self.consumed_write_units
    }

    /// Keys of the events that were left unprocessed.
    #[must_use]
    pub fn unprocessed(&self) -> &[String] {
        &self.unprocessed
    }

    /// Keys of the events that failed by themselves, and how.
    #[must_use]
    pub fn failed(&self) -> &[(String, Arc<BatchError>)] {
        &self.failed
    }

    /// The service's id of the request, if the response has one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}
