//! [`EventTailBuilder`]: the settings of a tail.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::error::TailError;
use super::position::{ShardPosition, TailPosition};
use super::record::{RecordLoss, TailRecord};
use super::retries::CallRetries;
use super::shard::{MIN_CALL_INTERVAL, Shared};
use super::shard_list::{ListTask, ShardList};
use super::{EventTail, TailStart};
use crate::dynamodb::streams::{StreamReader, TableStream};
use crate::error::ConfigError;
use crate::policy::retry::Backoff;

/// View types whose records have the new item.
const VIEW_TYPES: [&str; 2] = ["NEW_IMAGE", "NEW_AND_OLD_IMAGES"];

/// How long a stream keeps its records
/// ([Streams](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html)).
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Pages that are being read, or wait to be sent to the tail. Each has up to 1 MB.
const MAX_PAGES: usize = 16;

/// Batches in the channel to the tail. With the one that the tail returns records of, and those that hold one of the
/// [`MAX_PAGES`] permits, at most 18 pages are in memory.
const WAITING_BATCHES: usize = 1;

/// Sets up an [`EventTail`]; made by [`EventTail::builder`].
///
/// A value out of range is an error of [`open`](Self::open); none is adjusted silently.
#[must_use = "a builder does nothing until open()"]
#[derive(Clone)]
pub struct EventTailBuilder {
    sdk_config: SdkConfig,
    table: String,
    start: TailStart,
    resume_from: Option<TailPosition>,
    poll_interval: Duration,
    attempt_timeout: Duration,
    retries: CallRetries,
}

impl fmt::Debug for EventTailBuilder {
    /// Omits the configuration: its endpoint can contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventTailBuilder")
            .field("table", &self.table)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl EventTailBuilder {
    pub(super) fn new(sdk_config: SdkConfig, table: String) -> Self {
        Self {
            sdk_config,
            table,
            start: TailStart::Now,
            resume_from: None,
            poll_interval: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(10),
            retries: CallRetries {
                deadline: Duration::from_secs(5 * 60),
                backoff: Backoff::default(),
            },
        }
    }

    /// Where the tail begins, unless it [resumes](Self::resume_from). Default: [`TailStart::Now`].
    pub fn start_at(mut self, start: TailStart) -> Self {
        self.start = start;
        self
    }

    /// Resumes from the position of another tail of the same table, which must be named as it was: by its name or its ARN.
    /// No record is left out, and some may come again. With a position older than 24 hours, or of a stream that was switched
    /// off and on, the first record is a [`TailRecord::Lost`].
    pub fn resume_from(mut self, position: TailPosition) -> Self {
        self.resume_from = Some(position);
        self
    }

    /// The time between two reads of a shard that has no new record. 200 ms or more. Default: 1 s.
    ///
    /// AWS charges for each call, also for one that returns nothing. A shard is called once in this time, and a table has
    /// about one open shard for each of its partitions.
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.poll_interval = poll_interval;
        self
    }

    /// Time for one attempt at a call. 1 ms or more. Default: 10 s.
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.attempt_timeout = attempt_timeout;
        self
    }

    /// How long one call may fail, with all of its attempts, before the tail ends with an error. Default: 5 minutes.
    ///
    /// A refusal, such as a missing permission, ends the tail at once.
    pub fn call_deadline(mut self, call_deadline: Duration) -> Self {
        self.retries.deadline = call_deadline;
        self
    }

    /// How long to wait between the attempts at a call, also after a throttled one. 0 ≤ floor ≤ base ≤ ceiling, and 1 ms ≤
    /// base. The defaults are those of [`Backoff`].
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.retries.backoff = backoff;
        self
    }

    /// Finds the table's stream and begins to read it. With [`TailStart::Now`] the tail has everything that is stored
    /// after `open` has returned.
    ///
    /// # Errors
    ///
    /// [`TailError::Config`] for a setting, [`TailError::Table`] if the table cannot be described,
    /// [`TailError::NoStream`] and [`TailError::WrongViewType`] if it has no stream that can be followed,
    /// [`TailError::Call`] if its shards cannot be listed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends its calls. Nothing is left behind.
    pub async fn open(self) -> Result<EventTail, TailError> {
        self.validate()?;
        let stream = TableStream::of(&self.sdk_config, &self.table).await?;
        let stream_arn = self.check(stream)?;
        let reader = StreamReader::new(&self.sdk_config, stream_arn.clone(), self.attempt_timeout);
        let shared = Arc::new(Shared {
            reader,
            table: self.table.clone(),
            retries: self.retries,
            poll_interval: self.poll_interval,
            pages: Semaphore::new(MAX_PAGES),
        });
        let list = ShardList::read(&shared).await?;
        let mut position = TailPosition::new(self.table, stream_arn);
        let mut iterators = Default::default();
        let mut losses = Vec::new();
        match self.resume_from {
            Some(saved) => {
                let age = age(&saved, shared.reader.service_time());
                if saved.stream_arn == position.stream_arn {
                    losses.extend(age.map(|age| RecordLoss::PositionTooOld { age }));
                    position = saved;
                } else {
                    losses.push(RecordLoss::StreamReplaced);
                }
            }
            None if self.start == TailStart::Beginning => {}
            None => {
                let began = shared.reader.service_time();
                iterators = list.newest(&shared).await?;
                let start = began.map_or(ShardPosition::Start, ShardPosition::Since);
                for shard in &list.shards {
                    let is_newest = iterators.contains_key(&shard.id);
                    let start = if is_newest { start.clone() } else { ShardPosition::End };
                    position.advance(&shard.id, start);
                }
            }
        }
        let (sender, batches) = mpsc::channel(WAITING_BATCHES);
        let task = ListTask::new(Arc::clone(&shared), &position, iterators, sender);
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(list));
        let losses: Vec<_> = losses.into_iter().map(TailRecord::Lost).collect();
        Ok(EventTail::new(shared, position, losses, batches, tasks))
    }

    /// The ARN of a stream that can be followed.
    fn check(&self, stream: Option<TableStream>) -> Result<String, TailError> {
        let table = self.table.clone();
        let region = self.sdk_config.region().map_or("(none)", |region| region.as_ref()).to_owned();
        match stream {
            None => Err(TailError::NoStream { table, region }),
            Some(TableStream { view_type, .. }) if !VIEW_TYPES.contains(&view_type.as_str()) => {
                Err(TailError::WrongViewType { table, region, view_type })
            }
            Some(stream) => Ok(stream.arn),
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let millisecond = Duration::from_millis(1);
        if !(1..=1_024).contains(&self.table.len()) {
            let limit = "be a table's name or ARN: 1 to 1024 characters";
            return Err(ConfigError::new("table", format_args!("`{}`", self.table), limit));
        }
        if let Some(position) = &self.resume_from {
            let error =
                |value: &str, limit: &str| Err(ConfigError::new("resume_from", value, limit));
            if !position.is_of_this_version() {
                return error(
                    "a position of another version",
                    "be the position of a tail of this version",
                );
            }
            if position.table != self.table {
                return error(
                    "a position in another table",
                    "be of the same table, named as it was",
                );
            }
        }
        if self.poll_interval < MIN_CALL_INTERVAL {
            let value = format!("{:?}", self.poll_interval);
            return Err(ConfigError::new("poll_interval", value, "be 200 ms or more"));
        }
        if self.attempt_timeout < millisecond {
            let value = format!("{:?}", self.attempt_timeout);
            return Err(ConfigError::new("attempt_timeout", value, "be 1 ms or more"));
        }
        let Backoff { floor, base, ceiling } = self.retries.backoff;
        if floor > base || base < millisecond || base > ceiling {
            let value = format!("{:?}", self.retries.backoff);
            let limit = "have a floor of at most its base, and a base of 1 ms to its ceiling";
            return Err(ConfigError::new("backoff", value, limit));
        }
        Ok(())
    }
}

/// The age of a position, if it is so old that the stream may have removed records since. Else `None`.
fn age(position: &TailPosition, service_time: Option<i64>) -> Option<Duration> {
    let seconds = service_time? - position.taken_at?;
    let age = Duration::from_secs(u64::try_from(seconds).ok()?);
    (age >= RETENTION).then_some(age)
}
