//! What the tool prints.
//!
//! `println!` and `eprintln!` panic if the other end of a pipe is closed. A closed pipe must not end
//! a put, so the functions here ignore it.

pub(crate) mod checkpoint;
pub(crate) mod event_line;
pub(crate) mod json_lines;
pub(crate) mod new_file;
pub(crate) mod progress;
pub(crate) mod read_progress;

use std::error::Error;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdin, stdout};

use indicatif::{HumanCount, ProgressBar};

/// Prints lines without breaking the progress bar on the terminal. All clones share the bar.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    bar: Option<ProgressBar>,
    is_quiet: bool,
}

impl Output {
    /// `is_quiet` suppresses everything but errors.
    pub(crate) fn new(is_quiet: bool) -> Self {
        Self { bar: None, is_quiet }
    }

    fn with_bar(self, bar: Option<ProgressBar>) -> Self {
        Self { bar, ..self }
    }

    /// Prints a line of the result to standard output.
    pub(crate) fn result(&self, line: impl Display) {
        if !self.is_quiet {
            print(line);
        }
    }

    /// Prints a line about the progress to standard error.
    pub(crate) fn note(&self, line: impl Display) {
        if !self.is_quiet {
            self.error(line);
        }
    }

    /// Prints an error to standard error.
    pub(crate) fn error(&self, line: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print_error(line)),
            None => print_error(line),
        }
    }
}

/// Prints a line to standard output.
pub(crate) fn print(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// Prints a whole file to standard output. A closed pipe is no error: its reader wants no more.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), String> {
    let mut stdout = stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("standard output does not hold everything: {error}"))
        }
        _ => Ok(()),
    }
}

/// Whether to print colours: only on a terminal, and not where the user has set `NO_COLOR`
/// (<https://no-color.org>).
pub(crate) fn has_colours(stream: &impl IsTerminal) -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !no_colour
}

/// Prints a line to standard error.
pub(crate) fn print_error(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Asks a question on the terminal. Only `y` and `yes` are a yes.
pub(crate) fn ask(question: &str) -> bool {
    let _ = write!(stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let is_read = stdin().read_line(&mut answer).is_ok();
    is_read && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// The error and its causes. A cause that the text before it already contains is omitted.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// A number with its noun: "1 event", "2,000 events".
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(number))
}

/// "1 retry", "2 retries".
pub(crate) fn count_retries(number: u64) -> String {
    let ending = if number == 1 { "y" } else { "ies" };
    format!("{} retr{ending}", HumanCount(number))
}

/// Events per second: "2,000 events/s".
pub(crate) fn rate(events: u64, seconds: f64) -> String {
    let per_second = events as f64 / seconds.max(0.001);
    format!("{} events/s", HumanCount(per_second.round() as u64))
}
