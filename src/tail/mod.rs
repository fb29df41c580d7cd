//! Feature `tail`: follows a table's stream, and returns the events that are stored.
//!
//! The task of [`shard_list`] lists the stream's shards. For each shard that may be read it starts a task of [`shard`],
//! which sends its records to the [`EventTail`].

mod batch;
pub(crate) mod builder;
pub(crate) mod error;
pub(crate) mod position;
pub(crate) mod record;
mod retries;
mod shard;
mod shard_list;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use aws_config::SdkConfig;
use futures::Stream;
use tokio::task::JoinSet;

use batch::{Batch, Batches, ShardBatch};
use builder::EventTailBuilder;
use error::TailError;
use position::TailPosition;
use record::TailRecord;
use shard::Shared;

/// Follows a table: a [`Stream`] of what is stored in it from now on, or up to 24 hours back, from DynamoDB Streams.
///
/// The table needs a stream with the view type `NEW_IMAGE` or `NEW_AND_OLD_IMAGES`. Without one
/// [`open`](EventTailBuilder::open) fails, and its error has the command that switches it on. A stream has what is stored
/// after it was switched on, and keeps it for 24 hours. Reading it takes no capacity of the table.
///
/// An item that is not an event is reported with its key ([`ScannedItem::Unexpected`](crate::ScannedItem::Unexpected)),
/// and a deleted one as [`TailRecord::Removed`]. Neither stops the rest. The stream does not end by itself.
///
/// # Order
///
/// The records of one key arrive in their order. Those of different keys do not, not even those of one writer: a stream
/// has many shards, which are read side by side.
///
/// # At least once
///
/// A tail [resumes](EventTailBuilder::resume_from) from the [`position`](Self::position) of another one, and leaves no
/// record out, if the position is less than 24 hours old. Records that the other one returned after its position come
/// again. So save a position after the records before it are processed. Where the stream has removed records before they
/// were read, the tail returns a [`TailRecord::Lost`], and continues.
///
/// A position of a tail that began [`Now`](TailStart::Now) has no record of a shard that had none yet. A tail that
/// resumes from it may return records of that shard from up to a minute before the first tail began.
///
/// # Errors
///
/// Calls that are throttled, or fail with a 5xx, a broken connection or a broken answer, are repeated. If one fails for
/// [`call_deadline`](EventTailBuilder::call_deadline), or is refused, the stream ends with one [`TailError`].
///
/// # Cancel safety
///
/// Awaiting the next record is cancel safe: none is lost. Dropping the tail ends its calls.
///
/// ```
/// # #[cfg(feature = "local")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dynamodb_eventstore::{EventTail, LocalTable, ScannedItem, TailRecord};
/// use futures::TryStreamExt;
/// # use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
///
/// let table = LocalTable::in_memory().await?;
/// # let stream = StreamSpecification::builder().stream_enabled(true);
/// # let stream = stream.stream_view_type(StreamViewType::NewImage).build()?;
/// # let update = table.client().update_table().table_name(table.name());
/// # update.stream_specification(stream).send().await?;
/// let mut tail = EventTail::builder(table.sdk_config(), table.name()).open().await?;
///
/// let store = table.store_builder().start().await?;
/// store.put(&serde_json::json!({ "foo": "bar" })).await?.await?;
///
/// let record = tail.try_next().await?;
/// match record {
///     Some(TailRecord::Inserted(ScannedItem::Event(event))) => assert_eq!(event.body, r#"{"foo":"bar"}"#),
///     other => panic!("{other:?}"),
/// }
/// let position = serde_json::to_string(&tail.position())?;
/// # drop(position);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "local"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
#[must_use = "a tail returns nothing until it is polled"]
pub struct EventTail {
    shared: Arc<Shared>,
    position: TailPosition,
    /// Losses that belong to no shard. They are returned first.
    losses: VecDeque<TailRecord>,
    current: Option<ShardBatch>,
    /// `None` after an error.
    batches: Option<Batches>,
    /// Aborts the tasks when it is dropped.
    tasks: JoinSet<()>,
}

/// Where a tail begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TailStart {
    /// Now: it returns everything that is stored after [`open`](EventTailBuilder::open) has returned.
    #[default]
    Now,
    /// With the oldest record that the stream still has, up to 24 hours ago.
    Beginning,
}

impl EventTail {
    /// A builder for a tail of this table, by name or ARN. The configuration's retry settings are ignored, because the tail
    /// has its own.
    ///
    /// Streams have an endpoint of their own, which follows from the region. An endpoint URL in the configuration is used
    /// for both.
    pub fn builder(sdk_config: &SdkConfig, table: impl Into<String>) -> EventTailBuilder {
        EventTailBuilder::new(sdk_config.clone(), table.into())
    }

    fn new(
        shared: Arc<Shared>,
        position: TailPosition,
        losses: Vec<TailRecord>,
        batches: Batches,
        tasks: JoinSet<()>,
    ) -> Self {
        let (losses, batches) = (losses.into(), Some(batches));
        Self { shared, position, losses, current: None, batches, tasks }
    }

    /// The position after every record that this tail has returned, for another tail to
    /// [resume from](EventTailBuilder::resume_from).
    #[must_use]
    pub fn position(&self) -> TailPosition {
        let mut position = self.position.clone();
        position.taken_at = self.shared.reader.service_time();
        if let Some(ShardBatch { shard, records, end }) = &self.current
            && records.len() == 0
        {
            position.advance(shard, end.clone());
        }
        position
    }

    /// ARN of the stream.
    #[must_use]
    pub fn stream_arn(&self) -> &str {
        self.shared.reader.stream_arn()
    }

    /// The next record of the current batch. Advances the position past it.
    fn next_record(&mut self) -> Option<TailRecord> {
        if let Some(loss) = self.losses.pop_front() {
            return Some(loss);
        }
        let batch = self.current.as_mut()?;
        match batch.records.next() {
            Some((after, record)) => {
                self.position.advance(&batch.shard, after);
                Some(record)
            }
            None => {
                let ShardBatch { shard, end, .. } = self.current.take()?;
                self.position.advance(&shard, end);
                None
            }
        }
    }

    fn stop(&mut self) {
        self.batches = None;
        self.tasks.abort_all();
    }
}

impl Stream for EventTail {
    type Item = Result<TailRecord, TailError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let tail = self.get_mut();
        loop {
            if let Some(record) = tail.next_record() {
                return Poll::Ready(Some(Ok(record)));
            }
            let Some(batches) = &mut tail.batches else { return Poll::Ready(None) };
            match ready!(batches.poll_recv(context)) {
                Some(Ok(Batch::Shard(batch))) => tail.current = Some(batch),
                Some(Ok(Batch::Listed(listed))) => tail.position.forget_all_but(&listed),
                Some(Err(error)) => {
                    tail.stop();
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    tail.stop();
                    return Poll::Ready(Some(Err(TailError::Stopped)));
                }
            }
        }
    }
}
