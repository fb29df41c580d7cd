//! [`EventReaderBuilder`]: the settings of a reader.

use std::fmt;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use chrono::{DateTime, Utc};

use super::error::ReadError;
use super::position::ReadPosition;
use super::progress::SharedProgress;
use super::segments::{PageRetries, Segments};
use super::sort::{MIN_MEMORY_BYTES, SortSettings};
use super::{EventReader, State};
use crate::dynamodb::scan::{Scanner, TableSize};
use crate::error::ConfigError;
use crate::event::key_bounds::KeyBounds;
use crate::policy::read_pace::ReadPace;
use crate::policy::retry::Backoff;

/// The most segments. The service allows 1,000,000; each takes a connection and a page of memory here.
const MAX_SEGMENTS: u32 = 256;

const DEFAULT_SEGMENTS: u32 = 8;

const DEFAULT_MEMORY_BYTES: usize = 256 * 1024 * 1024;

const DEFAULT_RETRIES: PageRetries = PageRetries {
    attempt_timeout: Duration::from_secs(30),
    max_attempts: 10,
    page_deadline: Duration::from_secs(5 * 60),
    backoff: Backoff {
        floor: Duration::from_millis(25),
        base: Duration::from_millis(50),
        ceiling: Duration::from_secs(5),
    },
};

/// Sets up an [`EventReader`]; made by [`EventReader::builder`].
///
/// A value out of range is an error of [`open`](Self::open); none is adjusted silently.
#[must_use = "a builder does nothing until open()"]
#[derive(Clone)]
pub struct EventReaderBuilder {
    client: Client,
    table: String,
    bounds: KeyBounds,
    is_sorted: bool,
    max_memory_bytes: usize,
    directory: Option<PathBuf>,
    segments: Option<u32>,
    is_consistent: bool,
    max_read_units_per_second: Option<u32>,
    retries: PageRetries,
    resume_from: Option<ReadPosition>,
}

impl fmt::Debug for EventReaderBuilder {
    /// Omits the client: the endpoint in its configuration can contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventReaderBuilder")
            .field("table", &self.table)
            .field("is_sorted", &self.is_sorted)
            .finish_non_exhaustive()
    }
}

impl EventReaderBuilder {
    pub(super) fn new(client: Client, table: String) -> Self {
        Self {
            client,
            table,
            bounds: KeyBounds::default(),
            is_sorted: false,
            max_memory_bytes: DEFAULT_MEMORY_BYTES,
            directory: None,
            segments: None,
            is_consistent: false,
            max_read_units_per_second: None,
            retries: DEFAULT_RETRIES,
            resume_from: None,
        }
    }

    /// Reads only events whose keys have a time in this range, for example `from..to`. Default: all.
    ///
    /// It saves transfer and no read units: the service reads the whole table in any case. Keys have milliseconds. An
    /// item whose key is not an event key is within the range if its key is between those of events as text.
    pub fn time_range(mut self, range: impl RangeBounds<DateTime<Utc>>) -> Self {
        self.bounds = KeyBounds::of(&range);
        self
    }

    /// Whether items are sorted by their keys. Default: `false`.
    ///
    /// A sorted reader reads all pages before its first item. What does not fit into
    /// [`max_memory_bytes`](Self::max_memory_bytes) goes into temporary files, which take about as much space as the
    /// events, and up to twice that of tables of more than 60 times the memory. They can be accessed by their user only.
    /// On Unix they have no name, so that they are gone when the process ends, however it ends.
    pub fn sorted(mut self, sorted: bool) -> Self {
        self.is_sorted = sorted;
        self
    }

    /// Memory for sorting, in bytes: items in memory, and buffers for temporary files. 4 MiB or more. Default: 256 MiB.
    ///
    /// Pages on their way come on top of it: one of up to 1 MB for each [segment](Self::segments), and two more. A page
    /// takes a few times its bytes while the SDK parses it.
    pub fn max_memory_bytes(mut self, max_memory_bytes: usize) -> Self {
        self.max_memory_bytes = max_memory_bytes;
        self
    }

    /// Directory for the temporary files of a sorted reader. It must exist. Default: [`std::env::temp_dir`].
    pub fn temporary_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Segments of the table that are read at the same time, each with one call at a time. 1 to 256. Default: 8.
    ///
    /// AWS advises one segment for each 2 GB
    /// ([parallel scan](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Scan.html#Scan.ParallelScan)).
    pub fn segments(mut self, segments: u32) -> Self {
        self.segments = Some(segments);
        self
    }

    /// Whether the read sees every write that was acknowledged before it began. It takes twice the read units.
    /// Default: `false`.
    pub fn consistent_read(mut self, consistent_read: bool) -> Self {
        self.is_consistent = consistent_read;
        self
    }

    /// Read units that the reader uses per second, to leave capacity to others. 1 or more. Default: no limit.
    ///
    /// What a page costs is known when it is read, so the limit holds on average. With a limit of less than a full page
    /// costs (128 read units, or 256 for a consistent read), pages are smaller.
    pub fn max_read_units_per_second(mut self, read_units: u32) -> Self {
        self.max_read_units_per_second = Some(read_units);
        self
    }

    /// Time for one attempt at one page. 1 ms or more. Default: 30 s.
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.retries.attempt_timeout = attempt_timeout;
        self
    }

    /// Attempts at one page that may fail for a 5xx, a broken connection or a broken answer. 1 or more. Default: 10.
    ///
    /// Throttled attempts are not counted; [`page_deadline`](Self::page_deadline) limits them.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.retries.max_attempts = max_attempts;
        self
    }

    /// Time from the first attempt at a page until no other one is made. Default: 5 minutes.
    pub fn page_deadline(mut self, page_deadline: Duration) -> Self {
        self.retries.page_deadline = page_deadline;
        self
    }

    /// Waits after failed and throttled attempts. Default: 25 ms to 5 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.retries.backoff = backoff;
        self
    }

    /// Goes on where an unsorted reader of the same table and the same range of times has ended.
    ///
    /// The segments are those of the position.
    pub fn resume_from(mut self, position: ReadPosition) -> Self {
        self.resume_from = Some(position);
        self
    }

    /// Describes the table, and returns a reader. It reads nothing until it is polled.
    ///
    /// A role without `dynamodb:DescribeTable` can read; there is no estimate then.
    ///
    /// # Errors
    ///
    /// [`ReadError::Config`] for a setting, [`ReadError::Table`] if the table cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn open(self) -> Result<EventReader, ReadError> {
        let start = self.start_position()?;
        self.validate()?;
        let size = TableSize::of(&self.client, &self.table).await?;
        let mut scanner = Scanner::new(&self.client, self.table, self.bounds);
        scanner.is_consistent = self.is_consistent;
        scanner.total_segments = u32::try_from(start.segments.len()).unwrap_or(MAX_SEGMENTS);
        let mean = size.filter(|size| size.items > 0);
        let mean = mean.map(|size| size.bytes as f64 / size.items as f64);
        let pace = ReadPace::new(self.max_read_units_per_second, self.is_consistent, mean);
        let progress = SharedProgress::of(size, self.is_consistent);
        let sort = self.is_sorted.then(|| SortSettings {
            max_memory_bytes: self.max_memory_bytes,
            directory: self.directory.unwrap_or_else(std::env::temp_dir),
        });
        let segments = Segments {
            scanner,
            pace,
            retries: self.retries,
            progress: progress.clone(),
            start: start.clone(),
        };
        Ok(EventReader {
            state: State::Opened(Box::new(segments)),
            current: Vec::new().into_iter(),
            next_position: None,
            position: start,
            sort,
            progress,
        })
    }

    /// Where the segments begin.
    fn start_position(&self) -> Result<ReadPosition, ConfigError> {
        let Some(position) = &self.resume_from else {
            let segments = self.segments.unwrap_or(DEFAULT_SEGMENTS);
            if !(1..=MAX_SEGMENTS).contains(&segments) {
                let limit = format!("be 1 to {MAX_SEGMENTS}");
                return Err(ConfigError::new("segments", segments, limit));
            }
            let (table, bounds) = (self.table.clone(), self.bounds.clone());
            return Ok(ReadPosition::start(table, bounds, segments as usize));
        };
        let error = |value: &str, limit: &str| Err(ConfigError::new("resume_from", value, limit));
        let segments = position.segments.len();
        if self.is_sorted {
            return error(
                "set",
                "not be given together with `sorted`, which reads the whole table",
            );
        }
        if self.segments.is_some_and(|given| given as usize != segments) {
            return error("a position of other segments", "have as many segments as `segments`");
        }
        if !(1..=MAX_SEGMENTS as usize).contains(&segments) {
            return error("a position that no reader made", "be the position of a reader");
        }
        if position.table != self.table {
            return error("a position in another table", "be of the same table, named as it was");
        }
        if position.bounds != self.bounds {
            return error("a position in another range of times", "be of the same `time_range`");
        }
        Ok(position.clone())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=1_024).contains(&self.table.len()) {
            let limit = "be a table's name or ARN: 1 to 1024 characters";
            return Err(ConfigError::new("table", format_args!("`{}`", self.table), limit));
        }
        if self.bounds.is_empty() {
            let limit = "begin before it ends; its end is not part of `from..to`";
            return Err(ConfigError::new("time_range", "empty", limit));
        }
        if self.is_sorted && self.max_memory_bytes < MIN_MEMORY_BYTES {
            let limit = format!("be {MIN_MEMORY_BYTES} bytes or more");
            return Err(ConfigError::new("max_memory_bytes", self.max_memory_bytes, limit));
        }
        if self.max_read_units_per_second == Some(0) {
            return Err(ConfigError::new("max_read_units_per_second", 0, "be 1 or more"));
        }
        if self.retries.max_attempts == 0 {
            return Err(ConfigError::new("max_attempts", 0, "be 1 or more"));
        }
        let Backoff { floor, base, ceiling } = self.retries.backoff;
        let millisecond = Duration::from_millis(1);
        if self.retries.attempt_timeout < millisecond {
            let value = format!("{:?}", self.retries.attempt_timeout);
            return Err(ConfigError::new("attempt_timeout", value, "be 1 ms or more"));
        }
        if floor > base || base < millisecond || base > ceiling {
            let value = format!("{:?}", self.retries.backoff);
            let limit = "have a floor of at most its base, and a base of 1 ms to its ceiling";
            return Err(ConfigError::new("backoff", value, limit));
        }
        Ok(())
    }
}
