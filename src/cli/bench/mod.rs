//! `bench`: puts events at a steady rate, or as fast as the table accepts them, and shows the results.
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

use dynamodb_eventstore::MAX_BODY_BYTES;
use tokio::sync::mpsc;

use crate::arguments::{InsertOptions, LimitOptions, TableOptions};
use crate::output::{Output, count, with_causes};
use crate::stop::signals::Signals;
use crate::target::Target;
use crate::time;
use load::{Load, MIN_BODY_BYTES};
use recorder::Recorder;
use result::BenchResult;

/// How long to wait for the accepted events after the last put.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(70);

/// Put events at a steady rate, and show latency, throughput and throttling
///
/// The events have bodies of --size bytes and go to --table, to --local or to a table in memory.
/// With --rate the latency of an event counts from the moment at which it should have been put, so
/// a pause of the table adds to the latency of every event that it delays. Without --rate events
/// are put as fast as the store accepts them, and the latency counts from the put.
///
/// The events stay in the table unless --delete is given. Writing to a table costs money.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    table: TableOptions,

    /// Events to put per second [default: as many as the table accepts].
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

    #[command(flatten)]
    insert: InsertOptions,

    #[command(flatten)]
    limits: LimitOptions,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let mut signals = Signals::listen()?;
    let report_file = arguments.report.as_deref().map(page::create).transpose()?;
    let named = arguments.table.open().await?;
    let target = match named {
        Some(target) => target,
        None => Target::open_in_memory().await?,
    };
    let store = arguments.insert.apply(arguments.limits.apply(target.store_builder()));
    let store = arguments.table.start(store, &target).await?;
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
    // The store settles every event before it ends. If it is dropped, it ends without a deadline.
    if closed.is_err() {
        drop(store.close(Duration::ZERO).await);
    }
    let stats = store.stats();
    drop(store);
    let recording = recorder.await?;
    let result = BenchResult::new(&load, target.to_string(), &recording, &stats, ended_early);
    summary::print(&result, arguments.json)?;
    let mut is_reported = true;
    if let (Some(file), Some(path)) = (report_file, &arguments.report) {
        match page::write(file, &result, &recording) {
            Ok(()) if arguments.json => {}
            Ok(()) => output.result(format_args!("report:     {}", path.display())),
            Err(error) => {
                is_reported = false;
                output
                    .error(format_args!("cannot write the report to {}: {error}", path.display()));
            }
        }
    }
    let is_clean = match (result.stored + result.maybe_stored, arguments.delete) {
        (0, _) => true,
        // The table ends with the process.
        (_, false) if !arguments.table.is_named() => true,
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
    Ok(if is_success && is_clean && is_reported { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
