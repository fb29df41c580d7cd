//! `put`: stores each line of a file or of standard input.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dynamodb_eventstore::{
    Certainty, EventStore, FailureClass, GiveUp, PutError, PutTicket, WriteError,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::HumanCount;
use tokio::sync::{mpsc, watch};

use crate::failures::{Content, Failure, FailureLog};
use crate::input::{self, Line, Source};
use crate::progress::{Progress, Voice, rate};
use crate::say;
use crate::signals::{Signal, Signals};
use crate::target::{Aws, DEFAULT_FILE, Target};

/// Store each line of newline-delimited JSON as an event
///
/// Without --table it stores in a local table, a file in the current directory. The exit code is 0
/// only if every line was stored. SIGINT (Ctrl-C) or SIGTERM stops the reading and waits for what
/// was accepted; a second one does not wait.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File of events, one JSON text a line; `-` or nothing for standard input.
    file: Option<PathBuf>,

    /// DynamoDB table to store in: its name or its ARN.
    #[arg(long, conflicts_with = "local")]
    table: Option<String>,

    /// Local table to store in: an SQLite file, made if it is not there
    /// [default without --table: events.sqlite].
    #[arg(long, value_name = "PATH")]
    local: Option<PathBuf>,

    /// File that receives each line that was not stored, with its number, its key and the reason,
    /// as JSON. It must not exist, or be empty.
    #[arg(long, value_name = "FILE")]
    failed: Option<PathBuf>,

    /// How long to wait for accepted events after SIGINT or SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    grace: u64,

    /// Most BatchWriteItem calls at the same time [default: 8].
    #[arg(long, value_name = "N")]
    batches_in_flight: Option<usize>,

    /// Five digits of each key that keep writers to one table apart, 0 to 99999
    /// [default: drawn at random].
    #[arg(long, value_name = "N")]
    writer_id: Option<u32>,

    #[command(flatten)]
    aws: Aws,
}

pub(crate) async fn run(arguments: Arguments, verbose: bool) -> Result<ExitCode, Box<dyn Error>> {
    // First of all: from here on no signal ends the process before the report.
    let mut signals = Signals::listen()?;
    let source = Source::new(arguments.file.clone());
    let (input, length) =
        source.open().map_err(|error| format!("cannot read {}: {error}", source.in_words()))?;
    let failures = FailureLog::create(arguments.failed.as_deref())?;
    let target = open_target(&arguments).await?;
    let store = start(&arguments, &target).await?;
    if source.is_terminal() {
        say::note("type one JSON text a line; Ctrl-D ends the input");
    }

    let progress = Progress::start(&store, length, verbose);
    let (outcomes, collected) = mpsc::unbounded_channel();
    let (hopeless, stop) = watch::channel(None);
    let collector = tokio::spawn(collect(collected, failures, progress.voice(), hopeless));
    let mut reading = Reading {
        store: &store,
        lines: input::lines(input)?,
        outcomes,
        progress: &progress,
        last_line: 0,
    };
    let end = reading.run(&mut signals, stop).await;
    let last_line = reading.last_line;
    drop(reading);

    let grace = Duration::from_secs(arguments.grace);
    let report = close(&store, &mut signals, &end, grace, &progress.voice()).await?;
    let mut collection = collector.await?;
    let elapsed = progress.finish();
    target.close().await?;

    let stats = store.stats();
    say::result(format_args!(
        "stored {} events, {} bytes, in {:.2} s ({}), {} retries",
        HumanCount(report.stored),
        HumanCount(collection.stored_bytes),
        elapsed.as_secs_f64(),
        rate(report.stored, elapsed),
        HumanCount(stats.retried),
    ));
    let failures = &mut collection.failures;
    if failures.total() > 0 {
        say::note(format_args!(
            "NOT STORED: {} lines ({} refused, {} not stored, {} maybe stored){}",
            HumanCount(failures.total()),
            HumanCount(failures.refused),
            HumanCount(failures.not_stored),
            HumanCount(failures.maybe_stored),
            arguments.failed.map(|file| format!("; see {}", file.display())).unwrap_or_default(),
        ));
    }
    let kept = failures.finish();
    if let Err(error) = &kept {
        say::note(format_args!("error: {error}"));
    }
    Ok(match end {
        End::Signal(signal) => {
            say::note(format_args!(
                "stopped by {} after line {last_line} of {}: later lines were not put",
                signal.name,
                source.in_words()
            ));
            ExitCode::from(signal.exit_code())
        }
        End::ReadError(error) => {
            say::note(format_args!(
                "error: cannot read {} beyond line {last_line}: {error}",
                source.in_words()
            ));
            ExitCode::FAILURE
        }
        End::Hopeless(cause) => {
            say::note(format_args!(
                "error: stopped after line {last_line}, as every event would fail: {cause}"
            ));
            ExitCode::FAILURE
        }
        End::AllRead if failures.total() == 0 && kept.is_ok() => ExitCode::SUCCESS,
        End::AllRead => ExitCode::FAILURE,
    })
}

async fn open_target(arguments: &Arguments) -> Result<Target, Box<dyn Error>> {
    if let Some(table) = &arguments.table {
        let client = arguments.aws.client().await?;
        return Ok(Target::Aws { client, table: table.clone() });
    }
    if arguments.aws.is_given() {
        return Err("--region, --profile and --endpoint-url go with --table: name the table".into());
    }
    match &arguments.local {
        Some(file) => Target::open_local(file).await,
        None => {
            say::note(format_args!(
                "no --table is given: storing in the local table in {DEFAULT_FILE}, in the current \
                 directory"
            ));
            Target::open_local(DEFAULT_FILE.as_ref()).await
        }
    }
}

async fn start(arguments: &Arguments, target: &Target) -> Result<EventStore, Box<dyn Error>> {
    let mut builder = target.store_builder();
    if let Some(batches_in_flight) = arguments.batches_in_flight {
        builder = builder.max_batches_in_flight(batches_in_flight);
    }
    if let Some(writer_id) = arguments.writer_id {
        builder = builder.writer_id(writer_id);
    }
    Ok(builder
        .start()
        .await
        .map_err(|error| format!("cannot store in {}: {error}", target.in_words()))?)
}

/// Why no more lines are put.
enum End {
    AllRead,
    Signal(Signal),
    ReadError(String),
    /// The service refuses in a way that no later event would escape.
    Hopeless(String),
}

/// What became of one line when it was put.
enum Outcome {
    Accepted { line: u64, bytes: u64, ticket: PutTicket },
    Refused(Failure),
}

/// The way of the lines from the input into the store.
struct Reading<'a> {
    store: &'a EventStore,
    lines: mpsc::Receiver<std::io::Result<Line>>,
    outcomes: mpsc::UnboundedSender<Outcome>,
    progress: &'a Progress,
    /// Number of the last line that was accepted or refused.
    last_line: u64,
}

impl Reading<'_> {
    /// Puts lines until there are no more, or until something says stop. A line whose put is
    /// interrupted was not accepted, and does not count as put.
    async fn run(
        &mut self,
        signals: &mut Signals,
        mut stop: watch::Receiver<Option<String>>,
    ) -> End {
        loop {
            let step = async {
                match self.lines.recv().await {
                    Some(Ok(line)) => self.put(line).await,
                    Some(Err(error)) => Some(End::ReadError(error.to_string())),
                    None => Some(End::AllRead),
                }
            };
            // A put is cancel safe: dropped here, it leaves nothing behind.
            tokio::select! {
                biased;
                signal = signals.next() => return End::Signal(signal),
                Ok(cause) = stop.wait_for(Option::is_some) => {
                    return End::Hopeless(cause.clone().unwrap_or_default());
                }
                end = step => if let Some(end) = end { return end },
            }
        }
    }

    async fn put(&mut self, line: Line) -> Option<End> {
        let (number, bytes) = (line.number, line.length);
        let refused = |reason: String, content| {
            let (line, key, certainty) = (number, None, Certainty::NotStored);
            Outcome::Refused(Failure { line, key, certainty, reason, content })
        };
        let is_whole = line.is_whole();
        let outcome = match String::from_utf8(line.text) {
            _ if !is_whole => refused(
                format!("the line has {} bytes, far too many for an event", HumanCount(bytes)),
                Content::OmittedBytes(bytes),
            ),
            Err(error) => {
                let place = error.utf8_error().valid_up_to() + 1;
                let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                refused(format!("not UTF-8 (byte {place} of the line)"), Content::Hex(hex))
            }
            Ok(text) => match self.store.put_json(&text).await {
                Ok(ticket) => Outcome::Accepted { line: number, bytes, ticket },
                Err(PutError::NotJson(error)) => refused(not_json(&error), Content::Text(text)),
                Err(error @ PutError::TooLarge(_)) => {
                    refused(error.to_string(), Content::Text(text))
                }
                Err(error) => return Some(End::Hopeless(error.to_string())),
            },
        };
        self.last_line = number;
        self.progress.advance(line.end);
        // The collector lives as long as this sender does.
        let _ = self.outcomes.send(outcome);
        None
    }
}

/// serde_json's words without its line number: it counts within the text, which is one line here.
fn not_json(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let (what, _place) = said.rsplit_once(" at line ").unwrap_or((&said, ""));
    format!("not JSON: {what} at column {}", error.column())
}

/// What the tickets said.
struct Collection {
    failures: FailureLog,
    stored_bytes: u64,
}

/// Awaits every ticket and records every line that was not stored.
async fn collect(
    mut outcomes: mpsc::UnboundedReceiver<Outcome>,
    mut failures: FailureLog,
    voice: Voice,
    hopeless: watch::Sender<Option<String>>,
) -> Collection {
    let mut stored_bytes = 0;
    let mut tickets = FuturesUnordered::new();
    let mut open = true;
    while open || !tickets.is_empty() {
        let failure = tokio::select! {
            Some((line, bytes, answer)) = tickets.next() => match answer {
                Ok(_stored) => {
                    stored_bytes += bytes;
                    continue;
                }
                Err(error) => {
                    if is_hopeless(&error) {
                        hopeless.send_replace(error.last_cause().map(ToString::to_string));
                    }
                    not_stored(line, &error)
                }
            },
            outcome = outcomes.recv(), if open => match outcome {
                Some(Outcome::Accepted { line, bytes, ticket }) => {
                    tickets.push(async move { (line, bytes, ticket.await) });
                    continue;
                }
                Some(Outcome::Refused(failure)) => failure,
                None => {
                    open = false;
                    continue;
                }
            },
        };
        if let Some(said) = failures.record(&failure) {
            voice.say(&said);
        }
    }
    Collection { failures, stored_bytes }
}

/// Whether the events to come would fail the same way.
fn is_hopeless(error: &WriteError) -> bool {
    error.reason() == GiveUp::NotRetryable
        && error.last_cause().is_some_and(|cause| cause.class() == FailureClass::Fatal)
}

fn not_stored(line: u64, error: &WriteError) -> Failure {
    let body = error.event().map(|event| event.body().to_owned());
    Failure {
        line,
        key: Some(error.key().to_string()),
        certainty: error.certainty(),
        reason: error.to_string(),
        content: body.map_or(Content::OmittedBytes(0), Content::Text),
    }
}

/// Closes the store. After the end of the input each event has its whole deadline; after a signal
/// there is the grace period, and after one more there is no time left.
async fn close(
    store: &EventStore,
    signals: &mut Signals,
    end: &End,
    grace: Duration,
    voice: &Voice,
) -> Result<dynamodb_eventstore::CloseReport, Box<dyn Error>> {
    let mut signalled = None;
    if let End::Signal(signal) = end {
        wait_within(*signal, store, grace, voice);
        signalled = Some(*signal);
    }
    let closing = store.close(if signalled.is_some() { grace } else { Duration::MAX });
    tokio::pin!(closing);
    loop {
        tokio::select! {
            report = &mut closing => return Ok(report?),
            signal = signals.next() => {
                let sooner = if signalled.replace(signal).is_some() {
                    voice.say(&format!("{} again: not waiting any longer", signal.name));
                    Duration::ZERO
                } else {
                    wait_within(signal, store, grace, voice);
                    grace
                };
                let store = store.clone();
                // The earliest deadline counts; the report comes to `closing`.
                tokio::spawn(async move { store.close(sooner).await });
            }
        }
    }
}

fn wait_within(signal: Signal, store: &EventStore, grace: Duration, voice: &Voice) {
    let pending = store.stats().pending;
    if pending > 0 {
        voice.say(&format!(
            "{}: waiting up to {} s for {} accepted events; a second signal ends the wait",
            signal.name,
            grace.as_secs(),
            HumanCount(pending),
        ));
    }
}
