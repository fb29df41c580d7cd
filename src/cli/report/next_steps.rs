//! The commands that store what a run did not store.

use std::path::{Path, PathBuf};

use crate::arguments::Mode;
use crate::arguments::{CommandLine, quoted};
use crate::collector::failure_log::FailureLog;
use crate::input::Source;

/// What a run did not store.
pub(super) struct NextSteps<'a> {
    pub(super) command_line: &'a CommandLine,
    pub(super) source: &'a Source,
    pub(super) mode: Mode,
    /// Whether the run stopped before the end of its input.
    pub(super) is_early: bool,
    /// The last line that was accepted or refused.
    pub(super) last_line: u64,
    /// The last line that was read.
    pub(super) last_read: u64,
    pub(super) failures: &'a FailureLog,
}

impl NextSteps<'_> {
    pub(super) fn messages(&self) -> Vec<String> {
        // Each command has a --failed file of its own, so that all of them can be run.
        let mut names = self.failures.path().map(next_names).into_iter().flatten();
        let read = self.lines_read();
        let put = self.put_kept_lines(&mut names).or_else(|| self.continue_input(&mut names));
        let resume = self.resume_failed_file(&mut names);
        [read, resume, put].into_iter().flatten().collect()
    }

    /// Says which lines were taken from an input that cannot be read again.
    fn lines_read(&self) -> Option<String> {
        if !self.is_early || self.source.is_repeatable() {
            return None;
        }
        let (source, last_read) = (self.source, self.last_read);
        if last_read <= self.last_line {
            return Some(format!(
                "{source} was read up to line {last_read}, and every line up to there was put"
            ));
        }
        let kept = match self.failures.path() {
            Some(file) => format!(": {} has them", file.display()),
            None => "; --failed FILE would have kept them".to_owned(),
        };
        let first = self.last_line + 1;
        Some(format!("lines {first} to {last_read} of {source} were read and not put{kept}"))
    }

    /// The command that puts the lines of the `--failed` file that were not put and have no
    /// key.
    fn put_kept_lines(&self, names: &mut impl Iterator<Item = PathBuf>) -> Option<String> {
        let file = self.failures.path()?;
        if self.mode.is_resume() || self.failures.not_put == 0 {
            return None;
        }
        let put = self.command_line.with_piped_input(&names.next()?);
        let file = quoted(&file.display().to_string());
        Some(format!(
            "to put the lines that were not put:\n  \
             jq -r 'select(.key == null) | .text // empty' {file} | {put}"
        ))
    }

    /// The command that puts the events in the `--failed` file again.
    fn resume_failed_file(&self, names: &mut impl Iterator<Item = PathBuf>) -> Option<String> {
        let has_events = self.failures.has_keys() && !self.failures.is_incomplete();
        let file = self.failures.path().filter(|_| has_events)?;
        let resume = self.command_line.resume(file, &names.next()?);
        Some(format!("to put the events of {} again:\n  {resume}", file.display()))
    }

    /// The command that puts the lines that are still in the input.
    fn continue_input(&self, names: &mut impl Iterator<Item = PathBuf>) -> Option<String> {
        if !self.is_early || !self.source.is_repeatable() {
            return None;
        }
        match (self.mode, self.failures.path()) {
            (Mode::Put { first_line, .. }, file) => {
                let file = match self.failures.total() {
                    0 => file.map(Path::to_owned),
                    _ => file.and_then(|_| names.next()),
                };
                let next_line = first_line.max(self.last_line + 1);
                let put = self.command_line.with_first_line(next_line, file.as_deref());
                Some(format!("to put the rest:\n  {put}"))
            }
            // The --failed file has the rest.
            (Mode::Resume { .. }, Some(_)) if !self.failures.is_incomplete() => None,
            (Mode::Resume { .. }, file) => {
                let file = file.and_then(|_| names.next());
                let resume = self.command_line.with_failed_file(file.as_deref());
                Some(format!("to continue (no event is stored twice):\n  {resume}"))
            }
        }
    }
}

/// Names of files that do not exist yet, for the next `--failed` files: `failed-2.ndjson` after
/// `failed.ndjson`, and so on.
fn next_names(path: &Path) -> impl Iterator<Item = PathBuf> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (stem, number) = stem
        .rsplit_once('-')
        .and_then(|(stem, number)| Some((stem.to_owned(), number.parse().ok()?)))
        .unwrap_or((stem, 1_u64));
    let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let dot = if extension.is_empty() { "" } else { "." };
    (number.saturating_add(1)..)
        .map(move |number| path.with_file_name(format!("{stem}-{number}{dot}{extension}")))
        .filter(|name| !name.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_name_is_of_a_file_that_does_not_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let next = |name| next_names(&path(name)).next().unwrap();
        assert_eq!(next("failed.ndjson"), path("failed-2.ndjson"));
        std::fs::write(path("failed-3.ndjson"), "").unwrap();
        let two: Vec<PathBuf> = next_names(&path("failed.ndjson")).take(2).collect();
        assert_eq!(two, [path("failed-2.ndjson"), path("failed-4.ndjson")]);
        assert_eq!(next("failed-7"), path("failed-8"));
    }
}
