//! What to do after a run that has not stored everything.

use std::path::{Path, PathBuf};

use crate::command_line::{CommandLine, next_names, quoted};
use crate::failures::FailureLog;
use crate::input::Source;
use crate::storing::Lines;

/// What there is left of a run that has ended.
pub(crate) struct NextSteps<'a> {
    pub(crate) typed: &'a CommandLine,
    pub(crate) source: &'a Source,
    pub(crate) lines: Lines,
    /// Whether it ended before its input.
    pub(crate) is_early: bool,
    /// The last line that was accepted or refused.
    pub(crate) last_line: u64,
    /// The last line that was read.
    pub(crate) last_read: u64,
    pub(crate) failures: &'a FailureLog,
}

impl NextSteps<'_> {
    pub(crate) fn in_words(&self) -> Vec<String> {
        // Each command has a file of its own, so that all of them can be run.
        let mut names = self.failures.path().map(next_names).into_iter().flatten();
        let read = self.what_was_read();
        let put = self.put_kept(&mut names).or_else(|| self.put_rest(&mut names));
        let resume = self.resume(&mut names);
        [read, resume, put].into_iter().flatten().collect()
    }

    /// How much is gone of an input that cannot be read again.
    fn what_was_read(&self) -> Option<String> {
        if !self.is_early || self.source.is_repeatable() {
            return None;
        }
        let (source, last_read) = (self.source.in_words(), self.last_read);
        if last_read <= self.last_line {
            return Some(format!(
                "{source} was read up to line {last_read}, and every line up to there was put"
            ));
        }
        let kept = match self.failures.path() {
            Some(file) => format!(": {} has them", file.display()),
            None => "; with --failed FILE they would have been kept".to_owned(),
        };
        let first = self.last_line + 1;
        Some(format!("lines {first} to {last_read} of {source} were read and not put{kept}"))
    }

    /// The lines in the `--failed` file that have no key yet, as they were not put.
    fn put_kept(&self, names: &mut impl Iterator<Item = PathBuf>) -> Option<String> {
        let file = self.failures.path()?;
        if matches!(self.lines, Lines::GivenUp { .. }) || self.failures.untried == 0 {
            return None;
        }
        let put = self.typed.reading_a_pipe(&names.next()?);
        let file = quoted(&file.display().to_string());
        Some(format!(
            "to put the lines that were not put:\n  \
             jq -r 'select(.key == null) | .text // empty' {file} | {put}"
        ))
    }

    /// The events in the `--failed` file.
    fn resume(&self, names: &mut impl Iterator<Item = PathBuf>) -> Option<String> {
        let is_worth_it = self.failures.has_keys() && !self.failures.is_broken();
        let file = self.failures.path().filter(|_| is_worth_it)?;
        let resume = self.typed.resume(file, &names.next()?);
        Some(format!("to put the events of {} again:\n  {resume}", file.display()))
    }

    /// The lines that nobody has come to, which are still in the input.
    fn put_rest(&self, names: &mut impl Iterator<Item = PathBuf>) -> Option<String> {
        if !self.is_early || !self.source.is_repeatable() {
            return None;
        }
        match (self.lines, self.failures.path()) {
            (Lines::New { first_line, .. }, file) => {
                let file = match self.failures.total() {
                    0 => file.map(Path::to_owned),
                    _ => file.and_then(|_| names.next()),
                };
                let next_line = first_line.max(self.last_line + 1);
                let put = self.typed.going_on(next_line, file.as_deref());
                Some(format!("to put the rest:\n  {put}"))
            }
            // The next file has them.
            (Lines::GivenUp { .. }, Some(_)) if !self.failures.is_broken() => None,
            (Lines::GivenUp { .. }, file) => {
                let resume = self.typed.again(file.and_then(|_| names.next()).as_deref());
                Some(format!("to go on, which stores nothing twice:\n  {resume}"))
            }
        }
    }
}
