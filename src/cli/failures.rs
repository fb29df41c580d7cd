//! The lines that were not stored: told to whoever watches, and kept in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use dynamodb_eventstore::{Certainty, WriteError};
use serde::Serialize;

use crate::input::Line;

/// Failures that are shown on standard error. The file has them all.
const SHOWN: u64 = 10;

/// One line that was not stored.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    line: u64,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum What {
    Refused {
        /// `None` where the line was never accepted.
        key: Option<String>,
        certainty: Certainty,
        reason: String,
        #[serde(flatten)]
        content: Content,
    },
    GivenUp(WriteError),
}

/// The line itself, in a form that JSON can hold.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    Text(String),
    /// What the line says is the body of an event.
    Body(String),
    /// The bytes of a line that is not UTF-8, two digits each.
    Hex(String),
    /// The line was too long to be kept.
    OmittedBytes(u64),
}

impl Content {
    pub(crate) fn of(line: &Line) -> Self {
        if !line.is_whole() {
            return Self::OmittedBytes(line.length);
        }
        match str::from_utf8(&line.text) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(line.text.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }
}

impl Failure {
    /// A line that was not put. `key` is that which the line itself names.
    pub(crate) fn refused(
        line: u64,
        key: Option<String>,
        certainty: Certainty,
        reason: String,
        content: Content,
    ) -> Self {
        Self { line, what: What::Refused { key, certainty, reason, content } }
    }

    /// An event that was put, and not acknowledged.
    pub(crate) fn given_up(line: u64, error: WriteError) -> Self {
        Self { line, what: What::GivenUp(error) }
    }

    fn reason(&self) -> String {
        match &self.what {
            What::Refused { reason, .. } => reason.clone(),
            What::GivenUp(error) => error.to_string(),
        }
    }
}

/// Counts failures, shows the first few, and writes all of them to the `--failed` file.
#[derive(Debug)]
pub(crate) struct FailureLog {
    file: Option<(PathBuf, BufWriter<File>)>,
    /// Set when the file could not be written. It is not tried again.
    broken: Option<io::Error>,
    pub(crate) refused: u64,
    pub(crate) not_stored: u64,
    pub(crate) maybe_stored: u64,
}

impl FailureLog {
    /// Makes the file at once: a path that cannot be written is to be known before the first event
    /// is sent. A file that holds something is left alone, for it may be all that is left of an
    /// earlier run's events.
    pub(crate) fn create(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(open_empty).transpose()?;
        Ok(Self { file, broken: None, refused: 0, not_stored: 0, maybe_stored: 0 })
    }

    /// Records a failure, and returns what to show of it: of the first few their reason, then
    /// nothing.
    pub(crate) fn record(&mut self, failure: &Failure) -> Option<String> {
        match &failure.what {
            What::Refused { .. } => self.refused += 1,
            What::GivenUp(error) => match error.certainty() {
                Certainty::NotStored => self.not_stored += 1,
                Certainty::MaybeStored => self.maybe_stored += 1,
            },
        }
        if self.broken.is_none()
            && let Some((_, file)) = &mut self.file
            && let Err(error) = write_line(file, failure)
        {
            self.broken = Some(error);
        }
        match self.total() {
            // With a file that cannot be written, this is where the line is kept.
            _ if self.broken.is_some() => serde_json::to_string(failure).ok(),
            ..=SHOWN => Some(format!("line {}: {}", failure.line, failure.reason())),
            total if total == SHOWN + 1 => {
                Some("… and more; --failed FILE keeps every line that was not stored".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.refused + self.not_stored + self.maybe_stored
    }

    /// Writes out what is buffered; an error means that the file does not hold every failure.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let Some((path, file)) = &mut self.file else {
            return Ok(());
        };
        let finished = match self.broken.take() {
            Some(error) => Err(error),
            None => file.flush().and_then(|()| sync(file.get_ref())),
        };
        finished.map_err(|error| {
            format!("{} does not hold all lines that were not stored: {error}", path.display())
        })
    }
}

fn open_empty(path: &Path) -> io::Result<(PathBuf, BufWriter<File>)> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    };
    let file = OpenOptions::new().append(true).create(true).open(path).map_err(named)?;
    if file.metadata().map_err(named)?.len() > 0 {
        return Err(io::Error::other(format!(
            "{} exists and is not empty; it may hold lines of an earlier run: move it away or name \
             another file",
            path.display()
        )));
    }
    Ok((path.to_owned(), BufWriter::new(file)))
}

/// Waits until a file is on disk. Pipes and devices have no such thing, and say that it is an error.
fn sync(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) }
}

fn write_line(file: &mut impl Write, failure: &Failure) -> io::Result<()> {
    serde_json::to_writer(&mut *file, failure)?;
    file.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_of_json() {
        let mut written = Vec::new();
        let content = Content::Text("a \"b\"\u{1}".to_owned());
        let failure =
            Failure::refused(7, None, Certainty::NotStored, "not JSON".to_owned(), content);
        write_line(&mut written, &failure).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "{\"line\":7,\"key\":null,\"certainty\":\"not stored\",\"reason\":\"not JSON\",\
             \"text\":\"a \\\"b\\\"\\u0001\"}\n"
        );
    }

    #[test]
    fn a_file_that_holds_something_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failed.ndjson");
        drop(FailureLog::create(Some(&path)).unwrap());
        drop(FailureLog::create(Some(&path)).unwrap());
        std::fs::write(&path, "precious").unwrap();
        let refused = FailureLog::create(Some(&path)).unwrap_err();
        assert!(refused.to_string().contains("exists and is not empty"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
