//! [`ListTask`]: lists the stream's shards, and starts a task for each that may be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::batch::{Batch, BatchSender};
use super::error::TailError;
use super::position::{ShardPosition, TailPosition};
use super::retries::with_retries;
use super::shard::{ShardStart, Shared, read_shard};
use crate::clock::now;
use crate::dynamodb::streams::{IteratorStart, ListedShard};
use crate::policy::shards::Shards;

/// How often the shards are listed. This rarely finds a new shard, because a shard gets its children when it ends.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

/// How often the shards are listed after a shard has ended, until its children are known. The service allows 10 calls a
/// second.
const AWAITING_INTERVAL: Duration = Duration::from_secs(1);

/// How many iterators a tail requests at the same time when it opens.
const CALLS_TO_BEGIN: usize = 16;

/// All shards of the stream.
#[derive(Debug)]
pub(super) struct ShardList {
    pub(super) shards: Vec<ListedShard>,
    is_off: bool,
}

impl ShardList {
    /// Lists all shards, page by page.
    pub(super) async fn read(shared: &Shared) -> Result<Self, TailError> {
        let mut list = Self { shards: Vec::new(), is_off: false };
        let mut after: Option<String> = None;
        loop {
            let call = || shared.reader.shards(after.as_deref());
            let page = with_retries(shared.retries, &shared.table, None, call).await?;
            list.shards.extend(page.shards);
            list.is_off = page.is_off;
            after = page.last_shard;
            if after.is_none() {
                return Ok(list);
            }
        }
    }

    /// The shards without children, each with an iterator that begins after its newest record.
    pub(super) async fn newest(
        &self,
        shared: &Shared,
    ) -> Result<BTreeMap<String, String>, TailError> {
        let parents: BTreeSet<&String> =
            self.shards.iter().filter_map(|shard| shard.parent.as_ref()).collect();
        let newest = self.shards.iter().map(|shard| shard.id.clone());
        let newest: Vec<String> = newest.filter(|id| !parents.contains(id)).collect();
        let calls = stream::iter(newest).map(|id| async move {
            let call = || shared.reader.iterator(&id, IteratorStart::Latest);
            let iterator = with_retries(shared.retries, &shared.table, Some(&id), call).await?;
            Ok((id, iterator))
        });
        calls.buffer_unordered(CALLS_TO_BEGIN).try_collect().await
    }

    fn ids(&self) -> BTreeSet<String> {
        self.shards.iter().map(|shard| shard.id.clone()).collect()
    }
}

/// The task. It ends with the first error, or when the tail is dropped.
#[derive(Debug)]
pub(super) struct ListTask {
    shared: Arc<Shared>,
    shards: Shards,
    /// The positions of the shards that an earlier tail has started to read.
    started: BTreeMap<String, ShardPosition>,
    iterators: BTreeMap<String, String>,
    batches: BatchSender,
}

impl ListTask {
    pub(super) fn new(
        shared: Arc<Shared>,
        position: &TailPosition,
        iterators: BTreeMap<String, String>,
        batches: BatchSender,
    ) -> Self {
        let mut shards = Shards::default();
        for (shard, position) in &position.shards {
            match position {
                ShardPosition::End => shards.add_ended(shard),
                _ => shards.add_started(shard),
            }
        }
        Self { shared, shards, started: position.shards.clone(), iterators, batches }
    }

    pub(super) async fn run(mut self, list: ShardList) {
        if let Err(error) = self.read_all(list).await {
            let _ = self.batches.send(Err(error)).await;
        }
    }

    async fn read_all(&mut self, mut list: ShardList) -> Result<(), TailError> {
        // Dropping the set aborts the tasks.
        let mut tasks = JoinSet::new();
        loop {
            let listed_at = now();
            let listed = list.shards.iter();
            self.shards.list(listed.map(|shard| (shard.id.as_str(), shard.parent.as_deref())));
            if self.batches.send(Ok(Batch::Listed(list.ids()))).await.is_err() {
                return Ok(());
            }
            self.start_ready(&mut tasks);
            if list.is_off && self.shards.are_all_ended() {
                return Err(TailError::StreamOff { table: self.shared.table.clone() });
            }
            loop {
                let awaits = self.shards.awaits_children() || self.shards.are_all_ended();
                let interval = if awaits { AWAITING_INTERVAL } else { LIST_INTERVAL };
                tokio::select! {
                    Some(ended) = tasks.join_next() => {
                        self.shards.end(&ended.map_err(|_| TailError::Stopped)??);
                        self.start_ready(&mut tasks);
                    }
                    () = sleep_until((listed_at + interval).into()) => break,
                    () = self.batches.closed() => return Ok(()),
                }
            }
            list = ShardList::read(&self.shared).await?;
        }
    }

    fn start_ready(&mut self, tasks: &mut JoinSet<Result<String, TailError>>) {
        for shard in self.shards.take_ready() {
            let position = self.started.remove(&shard).unwrap_or(ShardPosition::Start);
            let iterator = self.iterators.remove(&shard);
            let start = ShardStart { shard, position, iterator };
            tasks.spawn(read_shard(Arc::clone(&self.shared), start, self.batches.clone()));
        }
    }
}
