//! Storing lines, whichever command they come from: from the input to the report.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dynamodb_eventstore::{EventStore, Stats};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use crate::closing::Closing;
use crate::collecting::Collection;
use crate::command_line::CommandLine;
use crate::ending::{End, took_none};
use crate::input::Source;
use crate::opening::{Files, start};
use crate::options::Options;
use crate::output::Output;
use crate::pipeline::Pipeline;
use crate::progress::{Progress, now};
use crate::reading::Reading;
use crate::report::Report;
use crate::resume_check::ResumeCheck;
use crate::signals::Signals;
use crate::stops::Stops;
use crate::target::Target;
use crate::watchdog::Watchdog;

/// What the lines are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lines {
    /// Events that get a key, from this line on.
    New { writer_id: Option<u32>, first_line: u64 },
    /// Events that were given up, and have their key.
    GivenUp { check: bool },
}

/// Stores the lines of `source`.
pub(crate) async fn run(
    source: Source,
    options: Options,
    lines: Lines,
    typed: &CommandLine,
    is_verbose: bool,
) -> Result<ExitCode, Box<dyn Error>> {
    // First of all: from here on no signal ends the process before the report.
    let mut signals = Signals::listen()?;
    let output = Output::new(options.quiet);
    let ended_at_once = |end: End| {
        if let Some(ended) = end.in_words("before the first line", options.deadline) {
            output.error(ended);
        }
        Ok(end.exit_code(false))
    };
    let files = tokio::select! {
        biased;
        signal = signals.next() => return ended_at_once(End::Signal(signal)),
        files = Files::open(&source, &options) => files?,
    };
    let started = tokio::select! {
        biased;
        signal = signals.next() => Err(End::Signal(signal)),
        started = Box::pin(start(&options, &lines, &output)) => {
            started.map_err(|error| End::NotStarted(super::with_causes(&*error)))
        }
    };
    let run = Run { source: &source, options: &options, lines, typed, output: &output };
    match started {
        Ok((target, store)) => run.store(files, target, store, signals, is_verbose).await,
        Err(end) if run.keeps_rest() => run.leave_all(files, end, &mut signals).await,
        // The input still has everything.
        Err(end) => ended_at_once(end),
    }
}

/// One run over one input.
struct Run<'a> {
    source: &'a Source,
    options: &'a Options,
    lines: Lines,
    typed: &'a CommandLine,
    output: &'a Output,
}

impl Run<'_> {
    async fn store(
        &self,
        files: Files,
        target: Target,
        store: EventStore,
        signals: Signals,
        is_verbose: bool,
    ) -> Result<ExitCode, Box<dyn Error>> {
        if self.source.is_terminal() {
            self.output.note("type one JSON text a line; Ctrl-D ends the input");
        }
        let position = Arc::new(AtomicU64::new(0));
        let progress =
            Progress::start(&store, files.length, &position, self.output, self.options, is_verbose);
        let output = progress.output();
        let Pipeline { mut reading, collector, refused } =
            Pipeline::begin(files, self.lines, self.options.json, position, &output)?;
        let mut check = self.check(&target);
        let watchdog = Watchdog::new(&store, self.options.patience());
        let mut stops = Stops { signals, watchdog, refused };

        let end = tokio::select! {
            biased;
            end = stops.next() => end,
            end = reading.put_all(&store, &mut check) => end,
        };
        // Whatever goes wrong from here on, the report comes first.
        let grace = self.options.grace;
        let (stops, shown) = (&mut stops, &output);
        let mut closing = Closing { store: &store, stops, output: shown, grace, until: None };
        closing.stop(&end);
        if end.is_early() && !self.source.is_repeatable() {
            if self.keeps_rest() {
                closing.leave_rest_of_pipe(&mut reading).await;
            } else if matches!(end, End::Signal(_)) {
                closing.put_what_was_read(&mut reading, &mut check).await;
            }
        }
        let ((closed, has_stalled), ()) =
            tokio::join!(closing.close(), self.leave_rest(&end, &mut reading));
        let elapsed = progress.finish();
        let mut errors = Vec::new();
        if has_stalled && !end.is_early() {
            errors.push(took_none(self.options.deadline));
        }
        errors.extend(closed.err().map(|error| error.to_string()));
        let stats = store.stats();
        drop(store);
        errors.extend(target.close().await.err().map(|error| error.to_string()));
        let stats = Some((stats, elapsed));
        self.report(end, reading, collector, stats, errors).await
    }

    /// Keeps all lines, as none can be put.
    async fn leave_all(
        &self,
        files: Files,
        end: End,
        signals: &mut Signals,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let position = Arc::new(AtomicU64::new(0));
        let Pipeline { mut reading, collector, .. } =
            Pipeline::begin(files, self.lines, self.options.json, position, self.output)?;
        if !self.source.is_repeatable() {
            // The writer of a pipe may never close it.
            tokio::select! {
                _signal = signals.next() => {}
                () = sleep_until(now() + self.options.grace) => {}
                () = reading.leave_rest() => {}
            }
        }
        self.leave_rest(&end, &mut reading).await;
        self.report(end, reading, collector, None, Vec::new()).await
    }

    fn check(&self, target: &Target) -> ResumeCheck {
        let reader = match self.lines {
            Lines::GivenUp { check: true } => Some(target.batch_writer()),
            Lines::GivenUp { check: false } | Lines::New { .. } => None,
        };
        ResumeCheck::new(reader, self.options.deadline, self.options.buffered_events())
    }

    /// Whether lines that are not put go into the `--failed` file to the end of the input: those of
    /// `resume`, whose input may be deleted once there is a new file. `put` goes on from a line of its
    /// own file.
    fn keeps_rest(&self) -> bool {
        matches!(self.lines, Lines::GivenUp { .. }) && self.options.failed.is_some()
    }

    /// Reports the lines that were not put, where nobody else has them.
    async fn leave_rest(&self, end: &End, reading: &mut Reading) {
        let is_repeatable = self.source.is_repeatable();
        if !end.is_early() || is_repeatable && !self.keeps_rest() {
            return;
        }
        if let Some(file) = self.options.failed.as_ref().filter(|_| self.keeps_rest()) {
            self.output.note(format_args!(
                "{} receives the lines of {} that were not put",
                file.display(),
                self.source.in_words(),
            ));
        }
        if !is_repeatable {
            reading.stop_reading();
        }
        reading.leave_rest().await;
    }

    async fn report(
        &self,
        end: End,
        reading: Reading,
        collector: JoinHandle<Collection>,
        stats: Option<(Stats, Duration)>,
        mut errors: Vec<String>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let (last_line, last_read) = (reading.feed().last_line(), reading.feed().last_read());
        if let Some(error) = reading.feed().read_error()
            && !matches!(end, End::ReadError(_))
        {
            let source = self.source.in_words();
            errors.push(format!("cannot read {source} beyond line {last_read}: {error}"));
        }
        // The collector ends when nothing more can come.
        drop(reading);
        let collection = collector.await?;
        let (stats, elapsed) =
            stats.map_or((None, Duration::ZERO), |(stats, elapsed)| (Some(stats), elapsed));
        let report = Report {
            typed: self.typed,
            source: self.source,
            lines: self.lines,
            deadline: self.options.deadline,
            end,
            last_line,
            last_read,
            collection,
            stats,
            elapsed,
            errors,
        };
        Ok(report.print(self.output))
    }
}
