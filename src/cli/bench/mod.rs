//! `bench`: puts events at a steady rate, or as fast as the table takes them, and shows what became of them.
//!
//! `load` puts the events, `recorder` receives the answers, `summary` and `page` show the result, `clean_up` deletes the
//! events.

mod chart;
mod clean_up;
mod load;
mod page;
mod recorder;
mod result;
mod summary;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use dynamodb_eventstore::{EventStore, MAX_BODY_BYTES, StartError};
use tokio::sync::mpsc;

use crate::arguments::{AwsOptions, describe};
use crate::output::{Output, count, with_causes};
use crate::stop::signals::Signals;
use crate::target::Target;
use crate::time;
use load::{Load, MIN_BODY_BYTES};
use recorder::Recorder;
use result::BenchResult;

/// Time for the accepted events once no more are put.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(70);

/// Put events at a steady rate, and show latency, throughput and throttling
///
/// The events have bodies of --size bytes and go to --table, to --local or to a table in memory.
/// With --rate the latency of an event counts from the moment at which it should have been put, so
/// a pause of the table shows in every event that it delays. Without --rate events are put as fast
/// as they are taken, and the latency counts from the put.
///
/// The events stay in the table unless --delete is given. Writing to a table costs money.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// DynamoDB table to write to, by name or ARN.
    #[arg(long, conflicts_with = "local", value_parser = NonEmptyStringValueParser::new())]
    table: Option<String>,

    /// Local table to write to: an SQLite file, created if it does not exist.
    #[arg(long, value_name = "PATH")]
    local: Option<PathBuf>,

    /// Events to put per second [default: as many as the table takes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Bytes of each body.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(MIN_BODY_BYTES as i64..=MAX_BODY_BYTES as i64))]
    size: u32,

    /// How long to put events. A TIME is 500ms, 20s, 2m; a bare number is seconds.
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = time::parse)]
    duration: Duration,

    /// File for a report with charts, an HTML page. It is replaced if it exists.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Delete the events afterwards, one DeleteItem call each. Deleting costs as much as writing.
    #[arg(long)]
    delete: bool,

    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,

    /// Maximum number of events in memory [default: 10000].
    #[arg(long, value_name = "EVENTS", help_heading = "Limits")]
    buffer: Option<usize>,

    /// Maximum number of BatchWriteItem calls in flight [default: 64; starts at 8].
    #[arg(long, value_name = "N", help_heading = "Limits")]
    batches_in_flight: Option<usize>,

    /// Time for one BatchWriteItem call [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Limits")]
    attempt_timeout: Option<Duration>,

    /// Time that an event waits for others to share its call [default: 5ms].
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Limits")]
    linger: Option<Duration>,

    #[command(flatten)]
    aws: AwsOptions,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let mut signals = Signals::listen()?;
    let report_file = arguments.report.as_deref().map(page::create).transpose()?;
    let target = arguments.open_target().await?;
    let store = match arguments.start(&target).await {
        Ok(store) => store,
        Err(cause) => return Err(format!("cannot write to {target}: {cause}").into()),
    };
    let output = Output::new(false);
    let load =
        Load { rate: arguments.rate, body_bytes: arguments.size, duration: arguments.duration };
    output.note(format_args!("{load}, into {target}"));

    let (tickets, receiver) = mpsc::unbounded_channel();
    let recorder = Recorder::new(&store, &load, arguments.delete, &output);
    let recorder = tokio::spawn(recorder.record(receiver));
    let ended_early = tokio::select! {
        biased;
        signal = signals.next() => Some(format!("ended by {}", signal.name)),
        put = load.run(&store, &tickets) => put.err().map(|error| with_causes(&error)),
    };
    drop(tickets);
    let closed = tokio::select! {
        biased;
        signal = signals.next() => Err(format!("{} came before every answer", signal.name)),
        closed = store.close(DRAIN_TIMEOUT) => closed.map_err(|error| error.to_string()),
    };
    // The store settles every event before it ends, and a dropped store ends without a deadline.
    if closed.is_err() {
        drop(store.close(Duration::ZERO).await);
    }
    let stats = store.stats();
    drop(store);
    let recording = recorder.await?;
    let result = BenchResult::new(&load, target.to_string(), &recording, &stats, ended_early);
    if let (Some(file), Some(path)) = (report_file, &arguments.report) {
        page::write(file, &result, &recording)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    summary::print(&result, arguments.json)?;
    if let Some(path) = arguments.report.as_ref().filter(|_| !arguments.json) {
        output.result(format_args!("report:     {}", path.display()));
    }
    let is_clean = match (result.stored + result.maybe_stored, arguments.delete) {
        (0, _) => true,
        // The table ends with the process.
        (_, false) if arguments.table.is_none() && arguments.local.is_none() => true,
        (left, false) => {
            output.note(format_args!(
                "left:       {} in {target}; --delete removes them at the end",
                count(left, "event")
            ));
            true
        }
        (_, true) => clean_up::delete(&target, recording.keys, &mut signals, &output).await,
    };
    if let Err(error) = &closed {
        output.error(error);
    }
    target.close().await?;
    let is_success = closed.is_ok() && result.ended_early.is_none() && result.failed() == 0;
    Ok(if is_success && is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    async fn open_target(&self) -> Result<Target, Box<dyn Error>> {
        if let Some(table) = &self.table {
            let sdk_config = Box::new(self.aws.sdk_config().await?);
            return Ok(Target::Aws { sdk_config, table: table.clone() });
        }
        if self.aws.is_any_set() {
            return Err(
                "--region, --profile and --endpoint-url need --table: name the table".into()
            );
        }
        match &self.local {
            Some(file) => Target::open_local(file).await,
            None => Target::open_in_memory().await,
        }
    }

    async fn start(&self, target: &Target) -> Result<EventStore, String> {
        let mut builder = target.store_builder();
        if let Some(events) = self.buffer {
            builder = builder.max_buffered_events(events);
        }
        if let Some(batches_in_flight) = self.batches_in_flight {
            builder = builder.max_batches_in_flight(batches_in_flight);
        }
        if let Some(attempt_timeout) = self.attempt_timeout {
            builder = builder.attempt_timeout(attempt_timeout);
        }
        if let Some(linger) = self.linger {
            builder = builder.linger(linger);
        }
        match builder.start().await {
            Ok(store) => Ok(store),
            Err(StartError::Config(error)) => Err(describe(&error)),
            Err(error) => {
                let missing = match target {
                    Target::Aws { sdk_config, .. } => {
                        self.aws.missing_credentials(sdk_config).await
                    }
                    Target::Local { .. } => None,
                };
                Err(missing.unwrap_or_else(|| with_causes(&error)))
            }
        }
    }
}
