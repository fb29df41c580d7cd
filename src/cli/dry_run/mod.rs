//! `put --dry-run`: reads the lines as `put` does, says what they would cost, and stores nothing.

mod totals;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use dynamodb_eventstore::EventKey;
use serde::Serialize;

use crate::collector::failure_log::MAX_PRINTED;
use crate::input::{Line, LineReader, Source, open_in_thread};
use crate::output::json_lines::JsonLines;
use crate::output::{Output, count};
use crate::producer::refusal::{JqHint, event_of};
use crate::stop::StopReason;
use crate::stop::signals::Signals;
use totals::{Summary, Totals};

/// A key of the length that every key of a store has.
const ANY_KEY: &str = "20130927T005240652508858176";

/// The object that `--json` prints for one line.
#[derive(Serialize)]
#[serde(untagged)]
enum LineObject<'a> {
    Accepted { line: u64, bytes: u64, write_units: u64 },
    Refused { line: u64, reason: &'a str },
}

/// The last object of `--json`.
#[derive(Serialize)]
struct SummaryObject {
    summary: Summary,
}

/// A `put` without a store.
struct DryRun {
    key: EventKey,
    totals: Totals,
    /// The last line that was checked.
    last_line: u64,
    hint: JqHint,
    /// Set with `--json`.
    json_lines: Option<JsonLines>,
    output: Output,
}

/// Checks the lines from `first_line` on. The exit code is the one that `put` would have if the table
/// took every event.
pub(crate) async fn run(
    source: &Source,
    first_line: u64,
    as_json: bool,
    output: Output,
) -> Result<ExitCode, Box<dyn Error>> {
    let mut signals = Signals::listen()?;
    let mut dry_run = DryRun::new(as_json, output)?;
    let input = tokio::select! {
        biased;
        signal = signals.next() => return Ok(dry_run.report(&StopReason::Signal(signal), source)),
        input = open_in_thread(source) => input?,
    };
    if source.is_terminal() {
        dry_run.output.note("type one JSON text per line; Ctrl-D ends the input");
    }
    let mut lines = LineReader::start(input, first_line)?;
    let reason = loop {
        tokio::select! {
            biased;
            signal = signals.next() => break StopReason::Signal(signal),
            line = lines.next() => match line {
                Some(Ok(line)) => dry_run.check(&line),
                Some(Err(error)) => break StopReason::ReadError(error.to_string()),
                None => break StopReason::EndOfInput,
            },
        }
    };
    Ok(dry_run.report(&reason, source))
}

impl DryRun {
    fn new(as_json: bool, output: Output) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            key: ANY_KEY.parse()?,
            totals: Totals::default(),
            last_line: 0,
            hint: JqHint::new(output.clone()),
            json_lines: as_json.then(JsonLines::default),
            output,
        })
    }

    fn check(&mut self, line: &Line) {
        self.last_line = line.number;
        match event_of(line, self.key, &mut self.hint) {
            Ok(event) => {
                self.totals.accept(&event);
                let (bytes, write_units) = (line.length, event.write_units());
                self.print(&LineObject::Accepted { line: line.number, bytes, write_units });
            }
            Err(reason) => {
                self.totals.refused += 1;
                self.print(&LineObject::Refused { line: line.number, reason: &reason });
                match self.totals.refused {
                    ..=MAX_PRINTED => {
                        self.output.error(format_args!("line {}: {reason}", line.number));
                    }
                    refused if refused == MAX_PRINTED + 1 => {
                        self.output.error("… and more: --json names all of them");
                    }
                    _ => {}
                }
            }
        }
    }

    fn print(&mut self, object: &impl Serialize) {
        if let Some(json_lines) = &mut self.json_lines {
            json_lines.print(object);
        }
    }

    /// Prints the report, and returns the exit code of the process.
    fn report(mut self, reason: &StopReason, source: &Source) -> ExitCode {
        let is_complete = self.totals.refused == 0;
        let summary = self.totals.summary(self.last_line, is_complete && !reason.is_early());
        if self.json_lines.is_some() {
            self.print(&SummaryObject { summary });
        } else {
            summary.lines().into_iter().for_each(|line| self.output.result(line));
        }
        if self.totals.refused > 0 {
            let lines = count(self.totals.refused, "line");
            self.output.error(format_args!("WOULD BE REFUSED: {lines}"));
        }
        let print_error = self.json_lines.as_ref().and_then(JsonLines::error);
        if let Some(error) = &print_error {
            self.output.error(format_args!("error: {error}"));
        }
        let place = match self.last_line {
            0 => format!("before the first line of {source}"),
            line => format!("after line {line} of {source}"),
        };
        // Nothing waits for a table, so no deadline is named.
        if let Some(message) = reason.message(&place, Duration::ZERO) {
            self.output.error(message);
        }
        reason.exit_code(is_complete && print_error.is_none())
    }
}
