//! One run of `put` or `resume` over one input: opens the files and the table, puts the lines,
//! closes the store, reports.

mod closing;
mod pipeline;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dynamodb_eventstore::{EventStore, ReplayReport, Stats, WriterIds};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

use crate::arguments::CommandLine;
use crate::arguments::Mode;
use crate::arguments::StoreOptions;
use crate::collector::Outcomes;
use crate::input::Source;
use crate::output::progress::{Measure, Progress};
use crate::output::{Output, count, with_causes};
use crate::producer::{Producer, ResumeCheck};
use crate::report::Report;
use crate::stop::signals::Signals;
use crate::stop::{StopConditions, StopReason, Watchdog, stall_message};
use crate::target::Target;
use crate::time::now;
use closing::Closing;
use pipeline::{Files, Pipeline};

/// One run.
pub(crate) struct Run<'a> {
    source: &'a Source,
    options: &'a StoreOptions,
    mode: Mode,
    command_line: &'a CommandLine,
    output: Output,
    writer_ids: WriterIds,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        source: &'a Source,
        options: &'a StoreOptions,
        mode: Mode,
        command_line: &'a CommandLine,
    ) -> Self {
        let (output, writer_ids) = (Output::new(options.quiet), WriterIds::drawn());
        Self { source, options, mode, command_line, output, writer_ids }
    }

    /// Where the writer id of new keys comes from. Default: drawn.
    pub(crate) fn with_writer_ids(mut self, writer_ids: WriterIds) -> Self {
        self.writer_ids = writer_ids;
        self
    }

    pub(crate) async fn execute(&self, is_verbose: bool) -> Result<ExitCode, Box<dyn Error>> {
        // Listen first: from here on no signal ends the process before the report.
        let mut signals = Signals::listen()?;
        let files = tokio::select! {
            biased;
            signal = signals.next() => {
                return Ok(self.stop_before_input(&StopReason::Signal(signal)));
            }
            files = Files::open(self.source, self.options) => files?,
        };
        let writer_ids = self.writer_ids.clone();
        let started = tokio::select! {
            biased;
            signal = signals.next() => Err(StopReason::Signal(signal)),
            started = Box::pin(self.options.start(writer_ids, &self.output)) => {
                started.map_err(|error| StopReason::StartError(with_causes(&*error)))
            }
        };
        match started {
            Ok((target, store)) => self.put_lines(files, target, store, signals, is_verbose).await,
            Err(reason) if self.keeps_rest() => self.keep_lines(files, reason, &mut signals).await,
            // The input still has every line.
            Err(reason) => Ok(self.stop_before_input(&reason)),
        }
    }

    fn stop_before_input(&self, reason: &StopReason) -> ExitCode {
        let message = reason.message("before the first line", self.options.deadline);
        if let Some(message) = message {
            self.output.error(message);
        }
        reason.exit_code(false)
    }

    /// Puts the lines, closes the store, and reports.
    async fn put_lines(
        &self,
        files: Files,
        target: Target,
        store: EventStore,
        signals: Signals,
        is_verbose: bool,
    ) -> Result<ExitCode, Box<dyn Error>> {
        if self.source.is_terminal() {
            self.output.note("type one JSON text per line; Ctrl-D ends the input");
        }
        let position = Arc::new(AtomicU64::new(0));
        let progress = self.start_progress(&store, files.input_bytes, &position, is_verbose);
        let output = progress.output();
        let Pipeline { mut producer, collector, fatal_error } =
            Pipeline::start(files, self.mode, self.options.json, position, &output)?;
        let mut check = self.resume_check(&target);
        let watchdog = Watchdog::new(&store, self.options.stall_timeout());
        let mut stop_conditions = StopConditions { signals, watchdog, fatal_error };

        let reason = tokio::select! {
            biased;
            reason = stop_conditions.next() => reason,
            reason = producer.put_all(&store, &mut check) => reason,
        };
        let reason = match reason {
            reason if reason.is_early() => reason,
            reason => tokio::select! {
                biased;
                early = stop_conditions.next() => early,
                replayed = store.replayed() => {
                    if let Some(replayed) = replayed {
                        note_replay(&output, replayed);
                    }
                    reason
                }
            },
        };
        // From here on the run ends with its report, even if something fails.
        let mut closing = Closing {
            store: &store,
            stop_conditions: &mut stop_conditions,
            output: &output,
            grace: self.options.grace,
            deadline: None,
        };
        closing.shorten(&reason);
        if reason.is_early() && !self.source.is_repeatable() {
            if self.keeps_rest() {
                closing.record_rest_of_pipe(&mut producer).await;
            } else if matches!(reason, StopReason::Signal(_)) {
                closing.put_lines_already_read(&mut producer, &mut check).await;
            }
        }
        let ((closed, has_stalled), ()) =
            tokio::join!(closing.close(), self.record_rest(&reason, &mut producer));
        let elapsed = progress.finish();
        let mut errors = Vec::new();
        if has_stalled && !reason.is_early() {
            errors.push(stall_message(self.options.deadline));
        }
        errors.extend(closed.err().map(|error| error.to_string()));
        let stats = store.stats();
        drop(store);
        errors.extend(target.close().await.err().map(|error| error.to_string()));
        self.report(reason, producer, collector, Some((stats, elapsed)), errors).await
    }

    /// Keeps all lines in the `--failed` file, because none can be put, and reports.
    async fn keep_lines(
        &self,
        files: Files,
        reason: StopReason,
        signals: &mut Signals,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let position = Arc::new(AtomicU64::new(0));
        let Pipeline { mut producer, collector, .. } =
            Pipeline::start(files, self.mode, self.options.json, position, &self.output)?;
        if !self.source.is_repeatable() {
            // The writer of a pipe may never close it.
            tokio::select! {
                _signal = signals.next() => {}
                () = sleep_until(now() + self.options.grace) => {}
                () = producer.record_rest() => {}
            }
        }
        self.record_rest(&reason, &mut producer).await;
        self.report(reason, producer, collector, None, Vec::new()).await
    }

    /// Shows progress, unless the log or the outcome of each line is shown.
    fn start_progress(
        &self,
        store: &EventStore,
        input_bytes: Option<u64>,
        position: &Arc<AtomicU64>,
        is_verbose: bool,
    ) -> Progress {
        if is_verbose || self.options.json || self.options.quiet {
            return Progress::hidden(&self.output);
        }
        let (position, max_write_units) = (Arc::clone(position), self.options.write_units);
        let measure = Measure { input_bytes, position, max_write_units };
        Progress::shown(store, measure, &self.output)
    }

    fn resume_check(&self, target: &Target) -> ResumeCheck {
        let reader = match self.mode {
            Mode::Resume { reads_keys: true } => Some(target.batch_writer()),
            Mode::Resume { reads_keys: false } | Mode::Put { .. } => None,
        };
        let inserts = self.options.inserts();
        ResumeCheck::new(reader, inserts, self.options.deadline, self.options.max_buffered_events())
    }

    /// Whether the `--failed` file receives every line that is not put. For `resume` it does,
    /// because the user may delete the input once there is a new file. `put` can continue from a
    /// line of its input.
    fn keeps_rest(&self) -> bool {
        self.mode.is_resume() && self.options.failed.is_some()
    }

    /// Records the lines that were not put, unless the input still has them.
    async fn record_rest(&self, reason: &StopReason, producer: &mut Producer) {
        let is_repeatable = self.source.is_repeatable();
        if !reason.is_early() || is_repeatable && !self.keeps_rest() {
            return;
        }
        if let Some(file) = self.options.failed.as_ref().filter(|_| self.keeps_rest()) {
            self.output.note(format_args!(
                "{} receives the lines of {} that were not put",
                file.display(),
                self.source,
            ));
        }
        if !is_repeatable {
            producer.stop_reading();
        }
        producer.record_rest().await;
    }

    async fn report(
        &self,
        reason: StopReason,
        producer: Producer,
        collector: JoinHandle<Outcomes>,
        stats: Option<(Stats, Duration)>,
        mut errors: Vec<String>,
    ) -> Result<ExitCode, Box<dyn Error>> {
        let (last_line, last_read) = (producer.input().last_line(), producer.input().last_read());
        if let Some(error) = producer.input().read_error()
            && !matches!(reason, StopReason::ReadError(_))
        {
            errors.push(format!("cannot read {} beyond line {last_read}: {error}", self.source));
        }
        // The collector ends when the producer is gone.
        drop(producer);
        let outcomes = collector.await?;
        let (stats, elapsed) =
            stats.map_or((None, Duration::ZERO), |(stats, elapsed)| (Some(stats), elapsed));
        let report = Report {
            command_line: self.command_line,
            source: self.source,
            mode: self.mode,
            deadline: self.options.deadline,
            stop_reason: reason,
            last_line,
            last_read,
            outcomes,
            stats,
            elapsed,
            errors,
        };
        Ok(report.print(&self.output))
    }
}

/// Prints what happened to the events of an earlier run.
fn note_replay(output: &Output, replayed: ReplayReport) {
    let ReplayReport { found, stored, failed, left, .. } = replayed;
    if found + stored + failed + left > 0 {
        output.note(format_args!(
            "of an earlier run, {} stored now, {found} were already in the table, {failed} failed for good, {left} are \
             left in the journal",
            count(stored, "event"),
        ));
    }
}
