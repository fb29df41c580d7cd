//! The failures of a run: counted, printed, and written to the `--failed` file.

use std::path::Path;

use dynamodb_eventstore::Certainty;
use indicatif::HumanCount;

use super::failed_file::FailedFile;
use super::failure::Failure;
use crate::output::count;

/// Number of failures that are printed to standard error. The file has all of them.
pub(crate) const MAX_PRINTED: u64 = 10;

/// Counts failures, and writes all of them to the `--failed` file.
#[derive(Debug)]
pub(crate) struct FailureLog {
    file: Option<FailedFile>,
    printed: u64,
    /// Failures of events that have a key.
    with_key: u64,
    pub(crate) refused: u64,
    pub(crate) not_stored: u64,
    pub(crate) maybe_stored: u64,
    pub(crate) not_put: u64,
}

impl FailureLog {
    /// Creates the file at once, so that a path that cannot be written fails before the first event
    /// is sent.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, String> {
        let file = path.map(FailedFile::create).transpose()?;
        Ok(Self {
            file,
            printed: 0,
            with_key: 0,
            refused: 0,
            not_stored: 0,
            maybe_stored: 0,
            not_put: 0,
        })
    }

    /// Records a failure, and returns the message to print: the reasons of the first few.
    pub(crate) fn record(&mut self, failure: &Failure) -> Option<String> {
        *match failure.certainty() {
            _ if failure.is_not_put() => &mut self.not_put,
            Certainty::MaybeStored => &mut self.maybe_stored,
            Certainty::NotStored if failure.is_refused() => &mut self.refused,
            Certainty::NotStored => &mut self.not_stored,
        } += 1;
        self.with_key += u64::from(failure.key().is_some());
        let file = self.file.as_mut();
        let is_kept = file.is_none_or(|file| file.write(&failure.to_json()));
        if failure.is_not_put() {
            return None;
        }
        // If the file cannot be written, standard error keeps the line.
        if !is_kept {
            return Some(failure.to_json());
        }
        self.printed += 1;
        match self.printed {
            ..=MAX_PRINTED => Some(format!("line {}: {}", failure.line, failure.reason())),
            printed if printed == MAX_PRINTED + 1 => Some(match &self.file {
                Some(file) => format!("… and more: {} has all of them", file.path().display()),
                None => "… and more: --failed FILE keeps every line that is not stored".to_owned(),
            }),
            _ => None,
        }
    }

    /// Whether the file lacks lines that it should have.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.file.as_ref().is_some_and(FailedFile::is_incomplete)
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(FailedFile::path)
    }

    /// Whether there are events that `resume` can put.
    pub(crate) fn has_keys(&self) -> bool {
        self.with_key > 0
    }

    pub(crate) fn total(&self) -> u64 {
        self.refused + self.not_stored + self.maybe_stored + self.not_put
    }

    /// The line with the number of failures; `None` if there are none.
    pub(crate) fn summary(&self) -> Option<String> {
        let not_put = match self.not_put {
            0 => String::new(),
            not_put => format!(", {} not put", HumanCount(not_put)),
        };
        let place = match &self.file {
            Some(file) => format!("; see {}", file.path().display()),
            None => String::new(),
        };
        (self.total() > 0).then(|| {
            format!(
                "NOT STORED: {} ({} refused, {} not stored, {} maybe stored{not_put}){place}",
                count(self.total(), "line"),
                HumanCount(self.refused),
                HumanCount(self.not_stored),
                HumanCount(self.maybe_stored),
            )
        })
    }

    /// Waits until the file is on disk. An error means that it does not hold every failure.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        self.file.as_mut().map_or(Ok(()), FailedFile::finish)
    }
}
