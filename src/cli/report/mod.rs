//! The report at the end of a run.

mod next_steps;
mod summary;

use std::process::ExitCode;
use std::time::Duration;

use dynamodb_eventstore::Stats;

use crate::arguments::CommandLine;
use crate::arguments::Mode;
use crate::collector::Outcomes;
use crate::input::Source;
use crate::output::Output;
use crate::output::json_lines::JsonLines;
use crate::stop::StopReason;
use next_steps::NextSteps;
use summary::Summary;

/// What the report is about.
pub(crate) struct Report<'a> {
    pub(crate) command_line: &'a CommandLine,
    pub(crate) source: &'a Source,
    pub(crate) mode: Mode,
    pub(crate) deadline: Duration,
    pub(crate) stop_reason: StopReason,
    /// The last line that was accepted or refused.
    pub(crate) last_line: u64,
    /// The last line that was read.
    pub(crate) last_read: u64,
    pub(crate) outcomes: Outcomes,
    /// `None` if no store was started.
    pub(crate) stats: Option<Stats>,
    pub(crate) elapsed: Duration,
    /// Errors that are not about a single event.
    pub(crate) errors: Vec<String>,
}

impl Report<'_> {
    /// Prints the report, and returns the exit code of the process.
    pub(crate) fn print(mut self, output: &Output) -> ExitCode {
        self.errors.extend(self.outcomes.failures.finish().err());
        let is_complete = self.outcomes.failures.total() == 0 && self.errors.is_empty();
        self.print_summary(is_complete && !self.stop_reason.is_early(), output);
        self.errors.extend(self.outcomes.json_lines.as_ref().and_then(JsonLines::error));
        print_all(output, self.outcomes.failures.summary());
        print_all(output, self.errors.iter().map(|error| format!("error: {error}")));
        print_all(output, self.stop_message());
        print_all(output, self.next_steps());
        self.stop_reason.exit_code(is_complete && self.errors.is_empty())
    }

    fn print_summary(&mut self, is_complete: bool, output: &Output) {
        let stats = self.stats.as_ref();
        let summary =
            Summary::new(&self.outcomes, stats, self.elapsed, self.last_line, is_complete);
        match &mut self.outcomes.json_lines {
            Some(json_lines) => json_lines.print(&summary.to_object()),
            None if self.stats.is_none() => {}
            None => summary.lines().into_iter().for_each(|line| output.result(line)),
        }
    }

    /// Why the run stopped early, and where; `None` at the end of the input.
    fn stop_message(&self) -> Option<String> {
        let source = self.source;
        let place = match self.last_line {
            0 => format!("before the first line of {source}"),
            line => format!("after line {line} of {source}"),
        };
        self.stop_reason.message(&place, self.deadline)
    }

    fn next_steps(&self) -> Vec<String> {
        let steps = NextSteps {
            command_line: self.command_line,
            source: self.source,
            mode: self.mode,
            is_early: self.stop_reason.is_early(),
            last_line: self.last_line,
            last_read: self.last_read,
            failures: &self.outcomes.failures,
        };
        steps.messages()
    }
}

fn print_all(output: &Output, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        output.error(line);
    }
}
