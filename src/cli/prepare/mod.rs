//! `prepare`: writes events as files that DynamoDB imports from S3.

mod check;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dynamodb_eventstore::{Certainty, EventKey, EventKeyGenerator, WriterId};
use serde::Serialize;

use crate::collector::failure::{Content, Failure};
use crate::collector::failure_log::FailureLog;
use crate::input::{Line, LineReader, Source, open_in_thread};
use crate::item_files::{Manifest, ShardWriter, Totals};
use crate::output::json_lines::JsonLines;
use crate::output::{Output, count};
use crate::producer::refusal::{JqHint, event_of};
use crate::stop::StopReason;
use crate::stop::signals::Signals;

/// Bytes of one unit of --shard-size.
const MEBIBYTE: u64 = 1024 * 1024;

/// Write events as files that DynamoDB imports from S3, for a load of many events
///
/// Reads newline-delimited JSON as `put` does, with the same keys, and makes no calls. The directory
/// has gzip files of DynamoDB JSON in data/, for ImportTable (into a new table) and
/// StartBulkPutItems (into an existing one), and manifest.json, which is written last: without it
/// the directory is not complete. Upload data/ only, because an import takes every object below
/// its prefix as items.
///
/// A line that `put` would refuse is left out, and the exit code is 1. The first 10 are named;
/// --failed and --json have all.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Files of events, one JSON text per line; `-` or no FILE for standard input.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Directory to write to: a new or an empty one. It is readable by its user only.
    #[arg(long, short, value_name = "DIR", required_unless_present = "check")]
    output: Option<PathBuf>,

    /// Prepare nothing: read a directory that `prepare` has written, and check its files: their
    /// checksums, the number of events, the order of the keys, and that no key occurs twice. The
    /// exit code is 0 only if there is no defect.
    #[arg(long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["files", "output", "writer_id", "shard_size", "failed"])]
    check: Option<PathBuf>,

    /// Number in each key that keeps the keys of different writers apart, 0 to 99999 [default:
    /// random].
    #[arg(long, value_name = "N")]
    writer_id: Option<u32>,

    /// Size at which the next file begins, in MiB before compression, 1 to 4096. DynamoDB reads
    /// files in parallel, so several of them are loaded faster than one. It takes 50,000 of them at
    /// once: 12 TiB with the default.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=4096))]
    shard_size: u64,

    /// File for the lines that were refused, each as JSON with its number and reason. It must not
    /// exist yet, or must be empty.
    #[arg(long, value_name = "FILE")]
    failed: Option<PathBuf>,

    /// Print each refused line, or each defect, to standard output as a JSON object, and then the
    /// totals, under `summary`.
    #[arg(long)]
    json: bool,

    /// Print errors only.
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
}

/// The object that `--json` prints for a refused line.
#[derive(Serialize)]
struct RefusedLine<'a> {
    file: &'a str,
    line: u64,
    reason: &'a str,
}

/// The last object of `--json`.
#[derive(Serialize)]
struct SummaryObject {
    summary: Summary,
}

#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    totals: Totals,
    shards: u64,
    refused: u64,
    /// Whether there is a manifest, and no line was refused.
    is_complete: bool,
}

/// One run.
struct Prepare {
    keys: EventKeyGenerator,
    shards: ShardWriter,
    failures: FailureLog,
    hint: JqHint,
    json_lines: Option<JsonLines>,
    /// Whether a message names the file of its line.
    names_files: bool,
    /// The last line that was read.
    place: String,
    output: Output,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { files, output: directory, check, writer_id, shard_size, failed, json, quiet } =
        arguments;
    let output = Output::new(quiet);
    if let Some(directory) = check {
        return Ok(check::run(&directory, json, output).await?);
    }
    // clap has refused a command line without it.
    let directory = directory.ok_or("name a directory to write to: --output DIR")?;
    let mut sources: Vec<Source> = files.into_iter().map(|file| Source::new(Some(file))).collect();
    if sources.is_empty() {
        sources.push(Source::new(None));
    }
    let keys = key_generator(writer_id)?;
    let failures = FailureLog::create(failed.as_deref())?;
    let mut signals = Signals::listen()?;
    let mut prepare = Prepare {
        keys,
        shards: ShardWriter::create(&directory, shard_size * MEBIBYTE)?,
        failures,
        hint: JqHint::new(output.clone()),
        json_lines: json.then(JsonLines::default),
        names_files: sources.len() > 1,
        place: "before the first line".to_owned(),
        output,
    };
    let mut reason = StopReason::EndOfInput;
    for source in &sources {
        reason = prepare.read(source, &mut signals).await;
        if reason.is_early() {
            break;
        }
    }
    Ok(prepare.finish(&reason, &directory.display().to_string()))
}

fn key_generator(writer_id: Option<u32>) -> Result<EventKeyGenerator, String> {
    let Some(id) = writer_id else {
        return EventKeyGenerator::drawn().map_err(|error| error.to_string());
    };
    let id = WriterId::new(id)
        .ok_or_else(|| format!("--writer-id is {id}; it must be 0 to {}", WriterId::MAX))?;
    Ok(EventKeyGenerator::new(id))
}

impl Prepare {
    /// Writes the lines of one source, and returns why it stopped.
    async fn read(&mut self, source: &Source, signals: &mut Signals) -> StopReason {
        let input = tokio::select! {
            biased;
            signal = signals.next() => return StopReason::Signal(signal),
            input = open_in_thread(source) => input,
        };
        let lines = match input {
            Ok(input) => LineReader::start(input, 1).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        let mut lines = match lines {
            Ok(lines) => lines,
            Err(error) => return StopReason::StartError(error),
        };
        if source.is_terminal() {
            self.output.note("type one JSON text per line; Ctrl-D ends the input");
        }
        loop {
            let line = tokio::select! {
                biased;
                signal = signals.next() => return StopReason::Signal(signal),
                line = lines.next() => line,
            };
            match line {
                Some(Ok(line)) => {
                    self.place = format!("after line {} of {source}", line.number);
                    if let Err(error) = self.write(&line, source) {
                        return StopReason::FatalError(error);
                    }
                }
                Some(Err(error)) => return StopReason::ReadError(error.to_string()),
                None => return StopReason::EndOfInput,
            }
        }
    }

    /// Writes the event of a line, or records why it has none.
    fn write(&mut self, line: &Line, source: &Source) -> Result<(), String> {
        let key: EventKey = self.keys.next_key().ok_or("no key is left: the year 9999 is over")?;
        match event_of(line, key, &mut self.hint) {
            Ok(event) => self.shards.write(&event),
            Err(reason) => {
                self.refuse(line, source, reason);
                Ok(())
            }
        }
    }

    fn refuse(&mut self, line: &Line, source: &Source, reason: String) {
        if let Some(json_lines) = &mut self.json_lines {
            let file = source.to_string();
            json_lines.print(&RefusedLine { file: &file, line: line.number, reason: &reason });
        }
        let reason = if self.names_files { format!("{reason} (in {source})") } else { reason };
        let content = Content::of(line);
        let failure = Failure::refused(line.number, None, Certainty::NotStored, reason, content);
        if let Some(message) = self.failures.record(&failure) {
            self.output.error(message);
        }
    }

    /// Writes the manifest unless the run stopped early, prints the report, and returns the exit code.
    fn finish(mut self, reason: &StopReason, directory: &str) -> ExitCode {
        let manifest = if reason.is_early() { Ok(None) } else { self.shards.finish().map(Some) };
        let (manifest, write_error) = match manifest {
            Ok(manifest) => (manifest, None),
            Err(error) => (None, Some(error)),
        };
        let refused = self.failures.total();
        let is_complete = manifest.is_some() && refused == 0;
        let summary = Summary {
            totals: manifest.as_ref().map(|manifest| manifest.totals).unwrap_or_default(),
            shards: manifest.as_ref().map_or(0, |manifest| manifest.shards.len() as u64),
            refused,
            is_complete,
        };
        match (&mut self.json_lines, &manifest) {
            (Some(json_lines), _) => json_lines.print(&SummaryObject { summary }),
            (None, Some(manifest)) => self.output.result(describe(manifest, directory)),
            (None, None) => {}
        }
        if refused > 0 {
            let place = match self.failures.path() {
                Some(file) => format!("; see {}", file.display()),
                None => String::new(),
            };
            self.output.error(format_args!("NOT PREPARED: {}{place}", count(refused, "line")));
        }
        let print_error = self.json_lines.as_ref().and_then(JsonLines::error);
        let errors = [write_error, self.failures.finish().err(), print_error];
        let has_error = errors.iter().any(Option::is_some);
        for error in errors.into_iter().flatten() {
            self.output.error(format_args!("error: {error}"));
        }
        // Nothing waits for a table, so no deadline is named.
        if let Some(message) = reason.message(&self.place, Duration::ZERO) {
            self.output.error(message);
        }
        if manifest.is_none() {
            self.output.error(format_args!(
                "{directory} is not complete, and has no manifest: delete it, and prepare all lines again"
            ));
        }
        reason.exit_code(is_complete && !has_error)
    }
}

fn describe(manifest: &Manifest, directory: &str) -> String {
    let Totals { events, bytes, uncompressed_bytes, write_units, .. } = manifest.totals;
    format!(
        "prepared {}, {}, in {} in {directory}: {} ({} uncompressed)",
        count(events, "event"),
        count(write_units, "write unit"),
        count(manifest.shards.len() as u64, "file"),
        count(bytes, "byte"),
        count(uncompressed_bytes, "byte"),
    )
}
