//! Feature `reader`: reads the events of a table back, by a parallel scan.
//!
//! [`segments`] has a task for each segment, which reads its pages. Their batches go to the [`EventReader`], or through
//! the thread that sorts them ([`sort`]).

mod batch;
pub(crate) mod builder;
pub(crate) mod error;
pub(crate) mod position;
pub(crate) mod progress;
mod segments;
pub(crate) mod sort;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::vec;

use aws_sdk_dynamodb::Client;
use futures::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::event::scanned_item::ScannedItem;
use batch::{Batch, Batches};
use builder::EventReaderBuilder;
use error::ReadError;
use position::{ReadPosition, SegmentPosition};
use progress::{ReadProgress, SharedProgress};
use segments::Segments;
use sort::SortSettings;

/// Reads the events of a table, by a parallel `Scan`: a [`Stream`] of [`ScannedItem`]s.
///
/// It reads what this crate and what the npm module has written. An item that is not an event is reported with its key
/// ([`ScannedItem::Unexpected`]), and does not stop the rest. Bodies are byte for byte as they are stored.
///
/// # What it costs
///
/// The table has no index by time, so every reader reads the whole table. A range of times
/// ([`time_range`](EventReaderBuilder::time_range)) saves transfer and not read units, because the service filters
/// after it has read
/// ([Scan](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html#Scan.FilterExpression)). An
/// eventually consistent read, the default, takes half a read unit for 4 KB: 1 GB takes about 131,000 units.
/// [`progress`](Self::progress) has an estimate before the first page is read. For a whole large table the operation
/// `ExportTableToPointInTime` is cheaper: it needs point-in-time recovery, and no read units.
///
/// # Order
///
/// Items arrive in no order, unless they are [sorted](EventReaderBuilder::sorted): then by their keys as text. A key
/// begins with its time to the millisecond, so that is the order of the times in the keys. Within a millisecond it is
/// that of the digits, which for keys of the npm module, whose last part is not padded, is not a time.
///
/// # What it sees
///
/// A scan is no snapshot. Events that are put, replaced or deleted while it runs are found or not. An event that was
/// stored before it began, and is not deleted, is found once, by an eventually consistent read if its write is some
/// time ago ([`consistent_read`](EventReaderBuilder::consistent_read)).
///
/// # Errors
///
/// Pages that are throttled, or fail with a 5xx, a broken connection or a broken answer, are read again. A page that
/// cannot be read ends the stream with one [`ReadError`]. A stream that ends without an error has read every segment to
/// its end.
///
/// # Cancel safety
///
/// Awaiting the next item is cancel safe: no item is lost. Dropping the reader ends its calls, and removes its
/// temporary files.
///
/// ```
/// # #[cfg(feature = "local")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dynamodb_eventstore::{EventReader, LocalTable, ScannedItem};
/// use futures::TryStreamExt;
///
/// let table = LocalTable::in_memory().await?;
/// let store = table.store_builder().start().await?;
/// for number in 0..3 {
///     store.put(&serde_json::json!({ "number": number })).await?.await?;
/// }
///
/// let reader = EventReader::builder(table.client(), table.name()).sorted(true);
/// let mut reader = reader.open().await?;
/// let mut bodies = Vec::new();
/// while let Some(item) = reader.try_next().await? {
///     match item {
///         ScannedItem::Event(event) => bodies.push(event.body),
///         ScannedItem::Unexpected(item) => eprintln!("{}: {}", item.key, item.defect),
///     }
/// }
/// assert_eq!(bodies, [r#"{"number":0}"#, r#"{"number":1}"#, r#"{"number":2}"#]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "local"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
#[must_use = "a reader reads nothing until it is polled"]
pub struct EventReader {
    state: State,
    current: vec::IntoIter<ScannedItem>,
    /// Where the segment of `current` goes on after it.
    next_position: Option<(usize, SegmentPosition)>,
    position: ReadPosition,
    sort: Option<SortSettings>,
    progress: SharedProgress,
}

#[derive(Debug)]
enum State {
    /// Nothing has been read yet.
    Opened(Box<Segments>),
    Reading {
        batches: mpsc::Receiver<Result<Batch, ReadError>>,
        /// Aborts the tasks when it is dropped.
        _tasks: JoinSet<()>,
    },
    Ended,
}

impl EventReader {
    /// A builder for a reader of this table, by name or ARN. The client's retries are not used: the reader has its own.
    pub fn builder(client: &Client, table: impl Into<String>) -> EventReaderBuilder {
        EventReaderBuilder::new(client.clone(), table.into())
    }

    /// How large the table is, and what was read so far.
    #[must_use]
    pub fn progress(&self) -> ReadProgress {
        self.progress.get()
    }

    /// Where another reader goes on ([`resume_from`](EventReaderBuilder::resume_from)). `None` for a sorted reader,
    /// which reads the whole table before its first item.
    ///
    /// A position is at the start of a page. A page of which not every item was taken from the stream is read again, so
    /// some items can come twice: those of one page, 1 MB at most. None is left out.
    #[must_use]
    pub fn position(&self) -> Option<ReadPosition> {
        if self.sort.is_some() {
            return None;
        }
        let mut position = self.position.clone();
        if let Some(next) = &self.next_position
            && self.current.len() == 0
        {
            position.advance(next);
        }
        Some(position)
    }

    /// The [`position`](Self::position), if a reader that resumes from it repeats no item. `None` within a page, whose
    /// items would be repeated, and for a sorted reader.
    ///
    /// A program that saves its output together with such a position has each item in it once.
    #[must_use]
    pub fn exact_position(&self) -> Option<ReadPosition> {
        if self.current.len() > 0 { None } else { self.position() }
    }

    /// Counts the items within the range of times, events or not. The service sends no bodies. It costs as many
    /// read units as reading them.
    ///
    /// # Errors
    ///
    /// Those of the stream: [`ReadError::Page`] and [`ReadError::Stopped`]. [`ReadError::AlreadyRead`] if the reader has
    /// been polled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the calls.
    pub async fn count(self) -> Result<u64, ReadError> {
        self.count_with_progress(|_| {}).await
    }

    /// As [`count`](Self::count), and shows `on_page` the progress after each page.
    ///
    /// # Errors
    ///
    /// Those of [`count`](Self::count).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the calls.
    pub async fn count_with_progress(
        mut self,
        mut on_page: impl FnMut(&ReadProgress),
    ) -> Result<u64, ReadError> {
        let State::Opened(mut segments) = std::mem::replace(&mut self.state, State::Ended) else {
            return Err(ReadError::AlreadyRead);
        };
        segments.scanner_mut().counts_only = true;
        let (mut batches, _tasks) = start(*segments);
        let mut matching = 0;
        while let Some(batch) = batches.recv().await {
            if let Batch::Page(page) = batch? {
                matching += page.matching;
                self.position.advance(&page.next);
                on_page(&self.progress.get());
            }
        }
        if self.position.is_at_end() { Ok(matching) } else { Err(ReadError::Stopped) }
    }

    /// Starts what the first poll needs.
    fn start(&mut self, segments: Segments) -> Result<(), ReadError> {
        let position = self.position.clone();
        let (pages, tasks) = start(segments);
        let batches = match &self.sort {
            Some(settings) => sort::start(settings.clone(), pages, position)?,
            None => pages,
        };
        self.state = State::Reading { batches, _tasks: tasks };
        Ok(())
    }

    /// Takes a batch. `true` if it was the last one of a sorted reader.
    fn accept(&mut self, batch: Batch) -> bool {
        match batch {
            Batch::Page(page) => {
                self.current = page.items.into_iter();
                self.next_position = Some(page.next);
                false
            }
            Batch::Sorted(items) => {
                self.current = items.into_iter();
                false
            }
            Batch::SortedToTheEnd => true,
        }
    }
}

fn start(segments: Segments) -> (Batches, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let batches = segments.spawn(&mut tasks);
    (batches, tasks)
}

impl Stream for EventReader {
    type Item = Result<ScannedItem, ReadError>;

    /// # Panics
    ///
    /// If the first poll is outside of a tokio runtime.
    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reader = self.get_mut();
        loop {
            if let Some(item) = reader.current.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            if let Some(next) = reader.next_position.take() {
                reader.position.advance(&next);
            }
            let end = match &mut reader.state {
                State::Ended => return Poll::Ready(None),
                State::Opened(_) => match std::mem::replace(&mut reader.state, State::Ended) {
                    State::Opened(segments) => reader.start(*segments).err(),
                    _ => None,
                },
                State::Reading { batches, .. } => match ready!(batches.poll_recv(context)) {
                    Some(Ok(batch)) => {
                        if reader.accept(batch) {
                            reader.state = State::Ended;
                        }
                        None
                    }
                    Some(Err(error)) => Some(error),
                    // The senders are gone: they have come to the end, or they were dropped before it.
                    None if reader.sort.is_none() && reader.position.is_at_end() => {
                        reader.state = State::Ended;
                        None
                    }
                    None => Some(ReadError::Stopped),
                },
            };
            if let Some(error) = end {
                reader.state = State::Ended;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
