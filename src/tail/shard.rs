//! The task that reads one shard, until its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::sleep_until;

use super::batch::{Batch, BatchSender, ShardBatch};
use super::error::TailError;
use super::position::ShardPosition;
use super::record::{RecordLoss, TailRecord};
use super::retries::{Attempts, CallRetries};
use crate::clock::now;
use crate::dynamodb::streams::{
    Change, IteratorStart, RecordPage, StreamFailure, StreamReader, StreamRecord,
};

/// Shortest time between two calls for one shard: 5 a second.
pub(super) const MIN_CALL_INTERVAL: Duration = Duration::from_millis(200);

/// Seconds by which the clocks of the service's servers may differ.
const CLOCK_DIFFERENCE: i64 = 60;

/// A shard from whose oldest record the service cannot read this many times in a row has no records left.
const MAX_TRIMMED: u32 = 3;

/// What the tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) reader: StreamReader,
    pub(super) table: String,
    pub(super) retries: CallRetries,
    /// Wait before a shard without new records is read again.
    pub(super) poll_interval: Duration,
    /// Permits for calls whose records are not sent to the tail yet. They bound the memory.
    pub(super) pages: Semaphore,
}

/// A shard, and the position from which it is read.
#[derive(Debug)]
pub(super) struct ShardStart {
    pub(super) shard: String,
    pub(super) position: ShardPosition,
    /// An iterator for this position, if there is one already.
    pub(super) iterator: Option<String>,
}

/// Reads a shard until its end, or until the tail is dropped. Returns its id.
pub(super) async fn read_shard(
    shared: Arc<Shared>,
    start: ShardStart,
    batches: BatchSender,
) -> Result<String, TailError> {
    let ShardStart { shard, position, iterator } = start;
    let mut task = ShardTask {
        // An iterator that begins after the newest record returns no older ones.
        since: match position {
            ShardPosition::Since(since) if iterator.is_none() => Some(since - CLOCK_DIFFERENCE),
            _ => None,
        },
        trimmed: 0,
        attempts: Attempts::new(shared.retries),
        shared,
        shard,
        position,
        iterator,
        batches,
    };
    while let Some(next_call) = task.step().await? {
        sleep_until(next_call.into()).await;
    }
    Ok(task.shard)
}

struct ShardTask {
    shared: Arc<Shared>,
    shard: String,
    /// The position after the records that were sent to the tail.
    position: ShardPosition,
    iterator: Option<String>,
    /// Records from before this time are left out, in seconds after the Unix epoch.
    since: Option<i64>,
    /// The number of answers in a row that said that the position is too old.
    trimmed: u32,
    attempts: Attempts,
    batches: BatchSender,
}

impl ShardTask {
    /// Makes one call for records, and sends them to the tail. Returns when the next call is due; `None` at the end.
    async fn step(&mut self) -> Result<Option<Instant>, TailError> {
        let shared = Arc::clone(&self.shared);
        // The semaphore is never closed.
        let permit = shared.pages.acquire().await;
        let called_at = now();
        match self.read().await {
            Ok(page) => {
                self.attempts.succeed();
                self.trimmed = 0;
                let has_more = !page.records.is_empty();
                let is_received = self.send_page(page).await;
                if !is_received || self.position == ShardPosition::End {
                    return Ok(None);
                }
                let wait = if has_more { MIN_CALL_INTERVAL } else { shared.poll_interval };
                Ok(Some(called_at + wait))
            }
            Err(failure) => {
                drop(permit);
                self.recover(failure).await
            }
        }
    }

    async fn read(&mut self) -> Result<RecordPage, StreamFailure> {
        let reader = &self.shared.reader;
        let iterator = match &self.iterator {
            Some(iterator) => iterator,
            None => {
                let start = match &self.position {
                    ShardPosition::After(number) => IteratorStart::After(number),
                    _ => IteratorStart::Oldest,
                };
                let iterator = reader.iterator(&self.shard, start).await?;
                self.iterator.insert(iterator)
            }
        };
        reader.records(iterator).await
    }

    /// Sends the records of a page to the tail. `false` if the tail is dropped.
    async fn send_page(&mut self, page: RecordPage) -> bool {
        let mut next = page.records.last().map(after);
        let is_new = |record: &StreamRecord| match (self.since, record.created_at) {
            (Some(since), Some(created_at)) => created_at >= since,
            _ => true,
        };
        let records = page.records.into_iter().filter(is_new);
        let records: Vec<_> = records.map(|record| (after(&record), tail_record(record))).collect();
        if !records.is_empty() {
            self.since = None;
        }
        self.iterator = page.next_iterator;
        if self.iterator.is_none() {
            next = Some(ShardPosition::End);
        }
        let Some(next) = next else { return true };
        self.position = next.clone();
        self.send(records, next).await
    }

    async fn send(&self, records: Vec<(ShardPosition, TailRecord)>, end: ShardPosition) -> bool {
        let batch = ShardBatch { shard: self.shard.clone(), records: records.into_iter(), end };
        self.batches.send(Ok(Batch::Shard(batch))).await.is_ok()
    }

    /// Handles a failed call. Returns when the next call is due; `None` at the end of the shard.
    async fn recover(&mut self, failure: StreamFailure) -> Result<Option<Instant>, TailError> {
        if failure.is_missing() {
            return self.end_if_removed(failure).await;
        }
        if failure.is_expired_iterator() || failure.is_trimmed() {
            self.iterator = None;
        }
        // The iterator began after the newest record. Its replacement begins with the oldest one.
        if let (true, ShardPosition::Since(since)) = (self.iterator.is_none(), &self.position) {
            self.since = Some(since - CLOCK_DIFFERENCE);
        }
        if failure.is_trimmed() {
            self.trimmed += 1;
            let is_over = self.trimmed >= MAX_TRIMMED;
            let next = if is_over { ShardPosition::End } else { ShardPosition::Start };
            let loss = RecordLoss::Trimmed {
                shard: self.shard.clone(),
                sequence_number: self.position.sequence_number().map(str::to_owned),
            };
            if !self.report_loss(loss, next).await || is_over {
                return Ok(None);
            }
        }
        self.attempts.retry_at(failure, &self.shared.table, Some(&self.shard)).map(Some)
    }

    /// Handles an answer that there is no such shard: the shard was removed, or the whole stream.
    async fn end_if_removed(
        &mut self,
        failure: StreamFailure,
    ) -> Result<Option<Instant>, TailError> {
        if let Err(stream) = self.shared.reader.shards(None).await {
            // If the whole stream is missing, the first failure is final. Any other failure says nothing about the shard.
            let failure = if stream.is_missing() { failure } else { stream };
            return self
                .attempts
                .retry_at(failure, &self.shared.table, Some(&self.shard))
                .map(Some);
        }
        let loss = RecordLoss::ShardRemoved {
            shard: self.shard.clone(),
            sequence_number: self.position.sequence_number().map(str::to_owned),
        };
        self.report_loss(loss, ShardPosition::End).await;
        Ok(None)
    }

    async fn report_loss(&mut self, loss: RecordLoss, next: ShardPosition) -> bool {
        tracing::warn!(%loss, "records of the stream are lost");
        self.position = next.clone();
        self.since = None;
        self.send(vec![(next.clone(), TailRecord::Lost(loss))], next).await
    }
}

fn after(record: &StreamRecord) -> ShardPosition {
    ShardPosition::After(record.sequence_number.clone())
}

fn tail_record(record: StreamRecord) -> TailRecord {
    match record.change {
        Change::Inserted(item) => TailRecord::Inserted(item),
        Change::Replaced(item) => TailRecord::Replaced(item),
        Change::Removed(key) => TailRecord::Removed(key),
    }
}
