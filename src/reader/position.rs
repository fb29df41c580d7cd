//! [`ReadPosition`]: how far an unsorted reader has come.

use crate::event::key_bounds::KeyBounds;

/// How far an unsorted [`EventReader`](crate::EventReader) has come, for another one to go on.
///
/// It serialises with serde, for example to JSON. It has the name of the table, the range of times, and one key for
/// each segment; no bodies. It can be kept for any time: a key that was deleted in the meantime is a valid position.
///
/// ```no_run
/// # async fn example(client: aws_sdk_dynamodb::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use dynamodb_eventstore::{EventReader, ReadPosition};
///
/// let saved = std::fs::read_to_string("position.json")?;
/// let position: ReadPosition = serde_json::from_str(&saved)?;
/// let reader = EventReader::builder(&client, "all-events").resume_from(position).open().await?;
/// # drop(reader);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReadPosition {
    pub(super) table: String,
    pub(super) bounds: KeyBounds,
    pub(super) segments: Vec<SegmentPosition>,
}

/// How far one segment is read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SegmentPosition {
    Start,
    /// This is the last key of the pages that were read.
    After(String),
    End,
}

impl ReadPosition {
    pub(super) fn start(table: String, bounds: KeyBounds, segments: usize) -> Self {
        Self { table, bounds, segments: vec![SegmentPosition::Start; segments] }
    }

    /// Whether every segment is read to its end.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.segments.iter().all(|segment| *segment == SegmentPosition::End)
    }

    pub(super) fn advance(&mut self, (segment, position): &(usize, SegmentPosition)) {
        if let Some(segment) = self.segments.get_mut(*segment) {
            segment.clone_from(position);
        }
    }
}
