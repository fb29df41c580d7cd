//! What a run came to.

use std::process::ExitCode;
use std::time::Duration;

use dynamodb_eventstore::Stats;
use indicatif::HumanCount;
use serde::Serialize;

use crate::collecting::Collection;
use crate::command_line::CommandLine;
use crate::ending::End;
use crate::input::Source;
use crate::json_lines::JsonLines;
use crate::next_steps::NextSteps;
use crate::output::{Output, count};
use crate::progress::rate;
use crate::storing::Lines;

/// Everything that there is to say at the end.
pub(crate) struct Report<'a> {
    pub(crate) typed: &'a CommandLine,
    pub(crate) source: &'a Source,
    pub(crate) lines: Lines,
    pub(crate) deadline: Duration,
    pub(crate) end: End,
    /// The last line that was accepted or refused.
    pub(crate) last_line: u64,
    /// The last line that was read.
    pub(crate) last_read: u64,
    pub(crate) collection: Collection,
    /// `None` where no store was started.
    pub(crate) stats: Option<Stats>,
    pub(crate) elapsed: Duration,
    /// What went wrong beside the events.
    pub(crate) errors: Vec<String>,
}

/// The last object of `--json`.
#[derive(Serialize)]
struct Summary {
    stored: u64,
    /// Events that were in the table before.
    stored_already: u64,
    refused: u64,
    not_stored: u64,
    maybe_stored: u64,
    /// Lines that the run did not come to, as far as it has read them.
    not_put: u64,
    stored_bytes: u64,
    retries: u64,
    seconds: f64,
    /// The last line that was accepted or refused.
    last_line: u64,
    is_complete: bool,
}

#[derive(Serialize)]
struct LastObject {
    summary: Summary,
}

impl Report<'_> {
    /// Says everything, and how the process is to end.
    pub(crate) fn print(mut self, output: &Output) -> ExitCode {
        self.errors.extend(self.collection.failures.finish().err());
        let is_complete = self.collection.failures.total() == 0 && self.errors.is_empty();
        match &self.collection.json_lines {
            Some(_) => self.print_summary(is_complete && !self.end.is_early()),
            None => self.print_result(output),
        }
        let json_error = self.collection.json_lines.as_ref().and_then(JsonLines::error);
        self.errors.extend(json_error);
        output_all(output, self.collection.failures.in_words());
        output_all(output, self.errors.iter().map(|error| format!("error: {error}")));
        output_all(output, self.ending());
        output_all(output, self.next_steps());
        self.end.exit_code(is_complete && self.errors.is_empty())
    }

    fn print_summary(&mut self, is_complete: bool) {
        let Collection { failures, stored, stored_bytes, already_there, json_lines, .. } =
            &mut self.collection;
        let summary = Summary {
            stored: *stored,
            stored_already: *already_there,
            refused: failures.refused,
            not_stored: failures.not_stored,
            maybe_stored: failures.maybe_stored,
            not_put: failures.untried,
            stored_bytes: *stored_bytes,
            retries: self.stats.as_ref().map_or(0, |stats| stats.retried),
            seconds: self.elapsed.as_secs_f64(),
            last_line: self.last_line,
            is_complete,
        };
        if let Some(json_lines) = json_lines {
            json_lines.print(&LastObject { summary });
        }
    }

    fn print_result(&self, output: &Output) {
        let Collection { stored, stored_bytes, already_there, .. } = self.collection;
        let Some(stats) = &self.stats else { return };
        output.result(format_args!(
            "stored {}, {}, in {:.2} s ({}), {}",
            count(stored, "event"),
            count(stored_bytes, "byte"),
            self.elapsed.as_secs_f64(),
            rate(stored, self.elapsed),
            retries(stats.retried),
        ));
        if already_there > 0 {
            let were = if already_there == 1 { "was" } else { "were" };
            output.result(format_args!("{} {were} stored already", count(already_there, "event")));
        }
    }

    /// Why it ended where it did; nothing where that was the end of the input.
    fn ending(&self) -> Option<String> {
        let source = self.source.in_words();
        let place = match self.last_line {
            0 => format!("before the first line of {source}"),
            line => format!("after line {line} of {source}"),
        };
        self.end.in_words(&place, self.deadline)
    }

    fn next_steps(&self) -> Vec<String> {
        let steps = NextSteps {
            typed: self.typed,
            source: self.source,
            lines: self.lines,
            is_early: self.end.is_early(),
            last_line: self.last_line,
            last_read: self.last_read,
            failures: &self.collection.failures,
        };
        steps.in_words()
    }
}

fn output_all(output: &Output, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        output.error(line);
    }
}

fn retries(number: u64) -> String {
    let plural = if number == 1 { "y" } else { "ies" };
    format!("{} retr{plural}", HumanCount(number))
}
