//! What the tool prints, to whoever still reads it.
//!
//! `println!` and `eprintln!` panic when the other end of a pipe is gone. A report that nobody
//! reads must not end a put, so these do not.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

use indicatif::{HumanCount, ProgressBar};

/// Prints without tearing the bar that may be drawn on the terminal. A clone prints around the same
/// bar.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    bar: Option<ProgressBar>,
    is_quiet: bool,
}

impl Output {
    /// `is_quiet` leaves out everything but errors.
    pub(crate) fn new(is_quiet: bool) -> Self {
        Self { bar: None, is_quiet }
    }

    pub(crate) fn with_bar(self, bar: Option<ProgressBar>) -> Self {
        Self { bar, ..self }
    }

    /// A line on standard output: the result.
    pub(crate) fn result(&self, line: impl Display) {
        if !self.is_quiet {
            print(line);
        }
    }

    /// A line on standard error: how it goes.
    pub(crate) fn note(&self, line: impl Display) {
        if !self.is_quiet {
            self.error(line);
        }
    }

    /// A line on standard error: what went wrong.
    pub(crate) fn error(&self, line: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print_error(line)),
            None => print_error(line),
        }
    }
}

/// A line on standard output.
pub(crate) fn print(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// A line on standard error.
pub(crate) fn print_error(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// A number of things, in words: "1 event", "2,000 events".
pub(crate) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", HumanCount(number))
}
