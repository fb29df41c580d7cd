//! [`TailPosition`]: how far a tail has come.

use std::collections::{BTreeMap, BTreeSet};

/// Version of the format of saved positions. Positions of other versions are refused.
const VERSION: u32 = 1;

/// How far an [`EventTail`](crate::EventTail) has come, so that another one can resume there.
///
/// It serialises with serde, for example to JSON. It has the name of the table, the ARN of the stream, and one sequence
/// number for each shard. It has no keys and no bodies. It is good for 24 hours, as long as the stream keeps its records.
/// A tail that resumes from an older one reports that records may be lost.
///
/// ```no_run
/// # async fn example(sdk_config: aws_config::SdkConfig) -> Result<(), Box<dyn std::error::Error>> {
/// use dynamodb_eventstore::{EventTail, TailPosition};
///
/// let saved = std::fs::read_to_string("position.json")?;
/// let position: TailPosition = serde_json::from_str(&saved)?;
/// let tail = EventTail::builder(&sdk_config, "all-events").resume_from(position).open().await?;
/// # drop(tail);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TailPosition {
    version: u32,
    pub(super) table: String,
    pub(super) stream_arn: String,
    /// The service's clock when the position was taken, in seconds after the Unix epoch.
    pub(super) taken_at: Option<i64>,
    /// A shard that is not in the map has not been read yet.
    pub(super) shards: BTreeMap<String, ShardPosition>,
}

/// How far one shard is read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ShardPosition {
    /// Before its oldest record.
    Start,
    /// Before the first record of this time or later, by the service's clock in seconds after the Unix epoch.
    Since(i64),
    /// After the record with this sequence number.
    After(String),
    End,
}

impl ShardPosition {
    pub(super) fn sequence_number(&self) -> Option<&str> {
        match self {
            Self::After(number) => Some(number),
            Self::Start | Self::Since(_) | Self::End => None,
        }
    }
}

impl TailPosition {
    pub(super) fn new(table: String, stream_arn: String) -> Self {
        let (taken_at, shards) = (None, BTreeMap::new());
        Self { version: VERSION, table, stream_arn, taken_at, shards }
    }

    pub(super) fn is_of_this_version(&self) -> bool {
        self.version == VERSION
    }

    pub(super) fn advance(&mut self, shard: &str, position: ShardPosition) {
        match self.shards.get_mut(shard) {
            Some(old) => *old = position,
            None => drop(self.shards.insert(shard.to_owned(), position)),
        }
    }

    /// Removes shards that are read to their end and that the stream no longer has.
    pub(super) fn forget_all_but(&mut self, listed: &BTreeSet<String>) {
        self.shards
            .retain(|shard, position| *position != ShardPosition::End || listed.contains(shard));
    }
}
