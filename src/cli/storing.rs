//! Storing lines, whichever command they come from: from the input to the report.

use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use dynamodb_eventstore::{CloseError, CloseReport, EventStore};
use indicatif::HumanCount;
use tokio::sync::{mpsc, watch};

use crate::collecting::{Collection, collect};
use crate::failures::FailureLog;
use crate::input::{self, Source, in_a_thread};
use crate::progress::{Progress, Voice, rate};
use crate::reading::{End, Reading};
use crate::resume::Again;
use crate::say;
use crate::signals::{Signal, Signals};
use crate::target::{Aws, DEFAULT_FILE, Target};

/// Lines whose outcome waits to be recorded. A refused line is kept with its text, so they are few.
const OUTCOMES: usize = 16;

/// Where the events go, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// DynamoDB table to store in: its name or its ARN.
    #[arg(long, conflicts_with = "local")]
    table: Option<String>,

    /// Local table to store in: an SQLite file, made if it is not there. `put` takes events.sqlite
    /// where neither this nor --table is given.
    #[arg(long, value_name = "PATH")]
    local: Option<PathBuf>,

    /// File that receives each line that was not stored, with its number, its key and the reason,
    /// as JSON, for `resume` to take up again. It must not exist, or be empty.
    #[arg(long, value_name = "FILE")]
    failed: Option<PathBuf>,

    /// How long to wait for accepted events after SIGINT or SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    grace: u64,

    /// Most BatchWriteItem calls at the same time [default: 8].
    #[arg(long, value_name = "N")]
    batches_in_flight: Option<usize>,

    /// Do not read events back that may be stored without an acknowledgement; for roles without
    /// dynamodb:BatchGetItem.
    #[arg(long)]
    no_read_back: bool,

    #[command(flatten)]
    aws: Aws,
}

impl Options {
    /// Whether it is said where to store.
    pub(crate) fn has_target(&self) -> bool {
        self.table.is_some() || self.local.is_some()
    }
}

/// Stores the lines of `source`.
pub(crate) async fn run(
    source: Source,
    options: Options,
    way: Way,
    verbose: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    // First of all: from here on no signal ends the process before the report.
    let mut signals = Signals::listen()?;
    let ready = tokio::select! {
        biased;
        signal = signals.next() => {
            say::note(format_args!("stopped by {} before the first line", signal.name));
            return Ok(ExitCode::from(signal.exit_code()));
        }
        ready = Box::pin(Ready::prepare(&source, &options, &way)) => ready?,
    };
    let Ready { input, length, failures, target, store } = ready;
    if source.is_terminal() {
        say::note("type one JSON text a line; Ctrl-D ends the input");
    }

    let progress = Progress::start(&store, length, verbose);
    let (outcomes, collected) = mpsc::channel(OUTCOMES);
    let (hopeless, stop) = watch::channel(None);
    let collector = tokio::spawn(collect(collected, failures, progress.voice(), hopeless));
    let lines = input::lines(input)?;
    let again = way.again(&target);
    let mut reading = Reading {
        store: &store,
        again: again.as_ref(),
        lines,
        outcomes,
        progress: &progress,
        last_line: 0,
    };
    let end = reading.run(&mut signals, stop).await;
    let last_line = reading.last_line;
    drop(reading);

    // Whatever goes wrong from here on, the report comes first.
    let grace = Duration::from_secs(options.grace);
    let closed = close(&store, &mut signals, &end, grace, &progress.voice()).await;
    let collection = collector.await;
    let elapsed = progress.finish();
    let target_closed = target.close().await;

    let stats = store.stats();
    let (stored_bytes, already_there) = collection
        .as_ref()
        .map_or((0, 0), |collection| (collection.stored_bytes, collection.already_there));
    say::result(format_args!(
        "stored {} events, {} bytes, in {:.2} s ({}), {} retries",
        HumanCount(stats.stored),
        HumanCount(stored_bytes),
        elapsed.as_secs_f64(),
        rate(stats.stored, elapsed),
        HumanCount(stats.retried),
    ));
    if already_there > 0 {
        say::result(format_args!("{} events were stored already", HumanCount(already_there)));
    }
    let mut errors: Vec<String> = Vec::new();
    let mut failed = 0;
    match collection {
        Ok(Collection { failures, .. }) => {
            failed = failures.total();
            errors.extend(report_failures(failures, options.failed.as_deref()).err());
        }
        Err(error) => errors.push(error.to_string()),
    }
    errors.extend(closed.err().map(|error| error.to_string()));
    errors.extend(target_closed.err().map(|error| error.to_string()));
    for error in &errors {
        say::note(format_args!("error: {error}"));
    }
    let all_stored = failed == 0 && errors.is_empty();
    let source = source.in_words();
    Ok(match end {
        End::AllRead if all_stored => ExitCode::SUCCESS,
        End::AllRead => ExitCode::FAILURE,
        End::Signal(signal) => {
            say::note(format_args!(
                "stopped by {} after line {last_line} of {source}: later lines were not put",
                signal.name,
            ));
            ExitCode::from(signal.exit_code())
        }
        End::ReadError(error) => {
            say::note(format_args!("error: cannot read {source} beyond line {last_line}: {error}"));
            ExitCode::FAILURE
        }
        End::Hopeless(cause) => {
            say::note(format_args!(
                "error: stopped after line {last_line}, as every event would fail: {cause}"
            ));
            ExitCode::FAILURE
        }
    })
}

/// What the lines are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Events that get a key.
    New { writer_id: Option<u32> },
    /// Events that were given up, and have their key.
    Again { check: bool },
}

impl Way {
    fn again(self, target: &Target) -> Option<Again> {
        match self {
            Self::New { .. } => None,
            Self::Again { check } => Some(Again::new(check.then(|| target.batch_writer()))),
        }
    }
}

/// Counts the lines that were not stored, and says where they are.
fn report_failures(mut failures: FailureLog, file: Option<&Path>) -> Result<(), String> {
    if failures.total() > 0 {
        say::note(format_args!(
            "NOT STORED: {} lines ({} refused, {} not stored, {} maybe stored){}",
            HumanCount(failures.total()),
            HumanCount(failures.refused),
            HumanCount(failures.not_stored),
            HumanCount(failures.maybe_stored),
            file.map(|file| format!("; see {}", file.display())).unwrap_or_default(),
        ));
    }
    failures.finish()
}

/// What there has to be before the first line is put.
struct Ready {
    input: Box<dyn Read + Send>,
    length: Option<u64>,
    failures: FailureLog,
    target: Target,
    store: EventStore,
}

impl Ready {
    async fn prepare(
        source: &Source,
        options: &Options,
        way: &Way,
    ) -> Result<Self, Box<dyn Error>> {
        let (opened, failed) = (source.clone(), options.failed.clone());
        // In a thread, as to open a pipe can take until somebody opens its other end.
        let files = in_a_thread(move || {
            let (input, length) = opened
                .open()
                .map_err(|error| format!("cannot read {}: {error}", opened.in_words()))?;
            let failures =
                FailureLog::create(failed.as_deref()).map_err(|error| error.to_string())?;
            Ok::<_, String>((input, length, failures))
        });
        let (input, length, failures) = files.await??;
        let target = open_target(options).await?;
        let store = start(options, way, &target).await?;
        Ok(Self { input, length, failures, target, store })
    }
}

async fn open_target(options: &Options) -> Result<Target, Box<dyn Error>> {
    if let Some(table) = &options.table {
        let sdk_config = Box::new(options.aws.sdk_config().await?);
        return Ok(Target::Aws { sdk_config, table: table.clone() });
    }
    if options.aws.is_given() {
        return Err("--region, --profile and --endpoint-url go with --table: name the table".into());
    }
    match &options.local {
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

async fn start(
    options: &Options,
    way: &Way,
    target: &Target,
) -> Result<EventStore, Box<dyn Error>> {
    let mut builder = target.store_builder().read_back(!options.no_read_back);
    if let Some(batches_in_flight) = options.batches_in_flight {
        builder = builder.max_batches_in_flight(batches_in_flight);
    }
    if let Way::New { writer_id: Some(writer_id) } = *way {
        builder = builder.writer_id(writer_id);
    }
    Ok(builder
        .start()
        .await
        .map_err(|error| format!("cannot store in {}: {error}", target.in_words()))?)
}

/// Closes the store. After the end of the input each event has its whole deadline; after a signal
/// there is the grace period, and after one more there is no time left.
async fn close(
    store: &EventStore,
    signals: &mut Signals,
    end: &End,
    grace: Duration,
    voice: &Voice,
) -> Result<CloseReport, CloseError> {
    let mut signalled = None;
    if let End::Signal(signal) = end {
        wait_within(*signal, store, grace, voice);
        signalled = Some(*signal);
    }
    let closing =
        store.close(if signalled.is_some() { until_given_up(grace) } else { Duration::MAX });
    tokio::pin!(closing);
    loop {
        tokio::select! {
            report = &mut closing => return report,
            signal = signals.next() => {
                let sooner = if signalled.replace(signal).is_some() {
                    voice.say(&format!("{} again: not waiting any longer", signal.name));
                    Duration::ZERO
                } else {
                    wait_within(signal, store, grace, voice);
                    until_given_up(grace)
                };
                let store = store.clone();
                // The earliest deadline counts; the report comes to `closing`.
                tokio::spawn(async move { store.close(sooner).await });
            }
        }
    }
}

/// How much of the grace period there is before what is left is given up. To read it back, close may take
/// a quarter of that more.
fn until_given_up(grace: Duration) -> Duration {
    grace - grace / 5
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
