//! [`Batch`]: what the tasks of a reader send to it.

use tokio::sync::mpsc;

use super::error::ReadError;
use super::position::SegmentPosition;
use crate::event::scanned_item::ScannedItem;

pub(super) type Batches = mpsc::Receiver<Result<Batch, ReadError>>;
pub(super) type BatchSender = mpsc::Sender<Result<Batch, ReadError>>;

/// Items on their way to the reader.
#[derive(Debug)]
pub(super) enum Batch {
    Page(SegmentPage),
    Sorted(Vec<ScannedItem>),
    /// Every sorted item was sent.
    SortedToTheEnd,
}

/// The items of one page of a segment.
#[derive(Debug)]
pub(super) struct SegmentPage {
    /// Empty if they are only counted.
    pub(super) items: Vec<ScannedItem>,
    pub(super) matching: u64,
    /// The segment, and where it goes on.
    pub(super) next: (usize, SegmentPosition),
}
