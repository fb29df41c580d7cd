//! [`TailRecord`]: what a tail returns.

use std::time::Duration;

use crate::event::scanned_item::ScannedItem;

/// One change of a table, or a gap in the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TailRecord {
    /// An item was stored under a free key. It is an event, or something unexpected.
    Inserted(ScannedItem),
    /// An item replaced another one with the same key. A put that changes nothing, such as a retry of this crate, makes no
    /// record.
    Replaced(ScannedItem),
    /// The item with this key was deleted.
    Removed(String),
    /// Records were removed from the stream before they were read. The tail continues with the oldest record that is left.
    Lost(RecordLoss),
}

/// Why records are lost: a stream keeps them for 24 hours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordLoss {
    /// The tail's position in a shard is older than the oldest record that the stream keeps.
    #[error(
        "records of shard {shard} {} may be lost: the stream keeps records for 24 hours", after(sequence_number.as_deref())
    )]
    Trimmed {
        /// The shard.
        shard: String,
        /// The last record that was read; `None` if none was.
        sequence_number: Option<String>,
    },
    /// A shard was removed before it was read to its end.
    #[error(
        "records of shard {shard} {} may be lost: the shard is gone, since the stream keeps records for 24 hours", after(sequence_number.as_deref())
    )]
    ShardRemoved {
        /// The shard.
        shard: String,
        /// The last record that was read; `None` if none was.
        sequence_number: Option<String>,
    },
    /// The position from which the tail resumes is older than the records that the stream keeps.
    #[error(
        "records may be lost: the position is {} h old, and the stream keeps records for 24 hours", age.as_secs() / 3_600
    )]
    PositionTooOld {
        /// Time since the position was taken, by the service's clock.
        age: Duration,
    },
    /// The table has another stream than the position: its stream was switched off and on again. The tail begins with the
    /// oldest record of the new stream.
    #[error(
        "records may be lost: the table's stream was switched off and on, and what its old stream still had was not read"
    )]
    StreamReplaced,
}

fn after(sequence_number: Option<&str>) -> String {
    sequence_number.map_or_else(|| "from its start".to_owned(), |number| format!("after {number}"))
}
