//! [`Batch`]: what the tasks of a tail send to it.

use std::collections::BTreeSet;
use std::vec;

use tokio::sync::mpsc;

use super::error::TailError;
use super::position::ShardPosition;
use super::record::TailRecord;

pub(super) type BatchSender = mpsc::Sender<Result<Batch, TailError>>;
pub(super) type Batches = mpsc::Receiver<Result<Batch, TailError>>;

#[derive(Debug)]
pub(super) enum Batch {
    Shard(ShardBatch),
    /// The ids of all shards that the stream has.
    Listed(BTreeSet<String>),
}

/// The records of one page of a shard.
#[derive(Debug)]
pub(super) struct ShardBatch {
    pub(super) shard: String,
    /// Each with the position after it.
    pub(super) records: vec::IntoIter<(ShardPosition, TailRecord)>,
    /// The position after all of them.
    pub(super) end: ShardPosition,
}
