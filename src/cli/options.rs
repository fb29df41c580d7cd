//! Where `put` and `resume` store, and how.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use dynamodb_eventstore::{ConfigError, EventStore, StartError};

use crate::aws::Aws;
use crate::durations;
use crate::output::Output;
use crate::target::{DEFAULT_FILE, Target};

/// The store's own deadline is out of reach: `--deadline` is about progress, not about one event.
const EVENT_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Attempts of one event, for the same reason.
const MAX_ATTEMPTS: u32 = 1_000_000;

/// The store's own, of which a check of what is on its way has to know.
const DEFAULT_BUFFER: usize = 10_000;

/// Write units of the largest event.
const MOST_WRITE_UNITS: u32 = 400;

/// Where the events go, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// DynamoDB table to store in: its name or its ARN.
    #[arg(long, conflicts_with = "local", value_parser = NonEmptyStringValueParser::new())]
    table: Option<String>,

    /// Local table to store in: an SQLite file, made if it is not there. `put` takes events.sqlite
    /// where neither this nor --table is given.
    #[arg(long, value_name = "PATH")]
    local: Option<PathBuf>,

    /// File that receives each line that was not stored, with its number, its key and the reason,
    /// as JSON, for `resume` to take up again. It must not exist, or be empty.
    #[arg(long, value_name = "FILE")]
    pub(crate) failed: Option<PathBuf>,

    /// How long to go on while the table takes nothing at all. As long as it takes some events,
    /// none is given up for being late. A TIME is 500ms, 20s, 2m; a number alone is seconds.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = durations::parse)]
    pub(crate) deadline: Duration,

    /// How long to wait for accepted events after SIGINT or SIGTERM, or once the table has taken
    /// nothing for the time of --deadline.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = durations::parse)]
    pub(crate) grace: Duration,

    /// How long one call may take [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = durations::parse)]
    attempt_timeout: Option<Duration>,

    /// How long an event waits for others to share its call [default: 5ms].
    #[arg(long, value_name = "TIME", value_parser = durations::parse)]
    linger: Option<Duration>,

    /// Most events that wait in memory [default: 10000].
    #[arg(long, value_name = "EVENTS")]
    buffer: Option<usize>,

    /// Most BatchWriteItem calls at the same time [default: 64; begins with 8].
    #[arg(long, value_name = "N")]
    batches_in_flight: Option<usize>,

    /// Most write units a second to use, to leave capacity to others.
    #[arg(long, value_name = "N")]
    pub(crate) write_units: Option<u32>,

    /// Do not read events back that may be stored without an acknowledgement; for roles without
    /// dynamodb:BatchGetItem.
    #[arg(long)]
    no_read_back: bool,

    /// Say on standard output what became of each line, as JSON, one object a line: its number, its
    /// key and its certainty. The last object has the totals, under `summary`.
    #[arg(long)]
    pub(crate) json: bool,

    /// Say nothing but errors.
    #[arg(long, short, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    #[command(flatten)]
    aws: Aws,
}

impl Options {
    /// Whether it is said where to store.
    pub(crate) fn has_target(&self) -> bool {
        self.table.is_some() || self.local.is_some()
    }

    pub(crate) async fn open_target(&self, output: &Output) -> Result<Target, Box<dyn Error>> {
        if let Some(table) = &self.table {
            let sdk_config = Box::new(self.aws.sdk_config().await?);
            return Ok(Target::Aws { sdk_config, table: table.clone() });
        }
        if self.aws.is_given() {
            return Err(
                "--region, --profile and --endpoint-url go with --table: name the table".into()
            );
        }
        match &self.local {
            Some(file) => Target::open_local(file).await,
            None => {
                output.note(format_args!(
                    "no --table is given: storing in the local table in {DEFAULT_FILE}, in the \
                     current directory"
                ));
                Target::open_local(DEFAULT_FILE.as_ref()).await
            }
        }
    }

    /// How long the table may take nothing, beside what these options themselves make it wait.
    pub(crate) fn patience(&self) -> Duration {
        let largest_event = self.write_units.map_or(Duration::ZERO, |write_units| {
            Duration::from_secs(1) * MOST_WRITE_UNITS / write_units.max(1)
        });
        self.deadline + self.linger.unwrap_or_default() + largest_event
    }

    /// Most events that are on their way into the table.
    pub(crate) fn buffered_events(&self) -> usize {
        self.buffer.unwrap_or(DEFAULT_BUFFER)
    }

    pub(crate) async fn start(
        &self,
        target: &Target,
        writer_id: Option<u32>,
    ) -> Result<EventStore, Box<dyn Error>> {
        let mut builder = target
            .store_builder()
            .event_deadline(EVENT_DEADLINE)
            .max_attempts(MAX_ATTEMPTS)
            .read_back(!self.no_read_back);
        if let Some(batches_in_flight) = self.batches_in_flight {
            builder = builder.max_batches_in_flight(batches_in_flight);
        }
        if let Some(attempt_timeout) = self.attempt_timeout {
            builder = builder.attempt_timeout(attempt_timeout);
        }
        if let Some(linger) = self.linger {
            builder = builder.linger(linger);
        }
        if let Some(events) = self.buffer {
            builder = builder.max_buffered_events(events);
        }
        if let Some(write_units) = self.write_units {
            builder = builder.max_write_units_per_second(write_units);
        }
        if let Some(writer_id) = writer_id {
            builder = builder.writer_id(writer_id);
        }
        match builder.start().await {
            Ok(store) => Ok(store),
            Err(StartError::Config(error)) => Err(in_words(&error).into()),
            Err(error) => {
                let cause = match target {
                    Target::Aws { sdk_config, .. } => {
                        self.aws.missing_credentials(sdk_config).await
                    }
                    Target::Local { .. } => None,
                };
                let cause = cause.unwrap_or_else(|| super::with_causes(&error));
                Err(format!("cannot store in {}: {cause}", target.in_words()).into())
            }
        }
    }
}

/// A setting that is out of range, by the name of its option.
fn in_words(error: &ConfigError) -> String {
    let option = match error.field {
        "attempt_timeout" => "--attempt-timeout",
        "linger" => "--linger",
        "max_batches_in_flight" => "--batches-in-flight",
        "max_buffered_events" => "--buffer",
        "max_write_units_per_second" => "--write-units",
        "table" => "--table",
        "writer_id" => "--writer-id",
        _ => return error.to_string(),
    };
    format!("{option} is {}; it must {}", error.value, error.limit)
}
