//! The lines that were not stored: told to whoever watches, and kept in a file.

use std::path::Path;

use dynamodb_eventstore::{Certainty, WriteError};
use indicatif::HumanCount;
use serde::Serialize;

use crate::failed_file::FailedFile;
use crate::input::{LONGEST_KEPT, Line};
use crate::output::count;

/// Failures that are shown on standard error. The file has them all.
const SHOWN: u64 = 10;

/// One line that was not stored.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its number in the first input, which every run repeats.
    pub(crate) line: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// It was not put.
    Refused {
        /// `None` where the line was never accepted.
        key: Option<String>,
        certainty: Certainty,
        reason: String,
        content: Content,
    },
    /// It was put, and not acknowledged.
    GivenUp(WriteError),
    /// The run ended before its turn came.
    Untried { key: Option<String>, certainty: Certainty, content: Content },
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
    /// The line is one of a `--failed` file, and goes into the next one as it is.
    #[serde(skip)]
    Unchanged(String),
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

    /// The same without the line.
    fn omitted(&self) -> Self {
        Self::OmittedBytes(match self {
            Self::Text(text) | Self::Body(text) | Self::Unchanged(text) => text.len() as u64,
            Self::Hex(digits) => digits.len() as u64 / 2,
            Self::OmittedBytes(bytes) => *bytes,
        })
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

    /// A line whose turn did not come.
    pub(crate) fn untried(
        line: u64,
        key: Option<String>,
        certainty: Certainty,
        content: Content,
    ) -> Self {
        Self { line, what: What::Untried { key, certainty, content } }
    }

    pub(crate) fn key(&self) -> Option<&str> {
        match &self.what {
            What::Refused { key, .. } | What::Untried { key, .. } => key.as_deref(),
            What::GivenUp(error) => Some(error.key().as_str()),
        }
    }

    pub(crate) fn certainty(&self) -> Certainty {
        match &self.what {
            What::Refused { certainty, .. } | What::Untried { certainty, .. } => *certainty,
            What::GivenUp(error) => error.certainty(),
        }
    }

    pub(crate) fn reason(&self) -> String {
        match &self.what {
            What::Refused { reason, .. } => reason.clone(),
            What::GivenUp(error) => error.to_string(),
            What::Untried { .. } => "the run ended before it was put".to_owned(),
        }
    }

    /// The line of JSON that a `--failed` file has of it.
    pub(crate) fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct NotPut<'a> {
            line: u64,
            key: Option<&'a str>,
            certainty: Certainty,
            reason: &'a str,
            #[serde(flatten)]
            content: &'a Content,
        }
        #[derive(Serialize)]
        struct Put<'a> {
            line: u64,
            #[serde(flatten)]
            error: &'a WriteError,
        }
        let json = match &self.what {
            What::Refused { content: Content::Unchanged(line), .. }
            | What::Untried { content: Content::Unchanged(line), .. } => return line.clone(),
            What::GivenUp(error) => serde_json::to_string(&Put { line: self.line, error }),
            What::Refused { content, .. } | What::Untried { content, .. } => {
                let not_put = |content| {
                    serde_json::to_string(&NotPut {
                        line: self.line,
                        key: self.key(),
                        certainty: self.certainty(),
                        reason: &self.reason(),
                        content,
                    })
                };
                match not_put(content) {
                    // What is written here must be read back whole. It is far too long for an
                    // event.
                    Ok(json) if json.len() > LONGEST_KEPT => not_put(&content.omitted()),
                    json => json,
                }
            }
        };
        // Of strings and numbers alone, which can always be written.
        json.unwrap_or_default()
    }
}

/// Counts failures, shows the first few, and writes all of them to the `--failed` file.
#[derive(Debug)]
pub(crate) struct FailureLog {
    file: Option<FailedFile>,
    shown: u64,
    /// Failures of events that have a key.
    keys: u64,
    pub(crate) refused: u64,
    pub(crate) not_stored: u64,
    pub(crate) maybe_stored: u64,
    pub(crate) untried: u64,
}

impl FailureLog {
    /// Makes the file at once: a path that cannot be written is to be known before the first event
    /// is sent.
    pub(crate) fn create(path: Option<&Path>) -> Result<Self, String> {
        let file = path.map(FailedFile::create).transpose()?;
        Ok(Self { file, shown: 0, keys: 0, refused: 0, not_stored: 0, maybe_stored: 0, untried: 0 })
    }

    /// Records a failure, and returns what to show of it: of the first few their reason, then
    /// nothing.
    pub(crate) fn record(&mut self, failure: &Failure) -> Option<String> {
        let is_untried = matches!(failure.what, What::Untried { .. });
        *match (&failure.what, failure.certainty()) {
            (What::Untried { .. }, _) => &mut self.untried,
            (_, Certainty::MaybeStored) => &mut self.maybe_stored,
            (What::Refused { .. }, Certainty::NotStored) => &mut self.refused,
            (What::GivenUp(_), Certainty::NotStored) => &mut self.not_stored,
        } += 1;
        self.keys += u64::from(failure.key().is_some());
        let file = self.file.as_mut();
        let is_kept = file.is_none_or(|file| file.write(&failure.to_json()));
        if is_untried {
            return None;
        }
        // With a file that cannot be written, standard error is where the line is kept.
        if !is_kept {
            return Some(failure.to_json());
        }
        self.shown += 1;
        match self.shown {
            ..=SHOWN => Some(format!("line {}: {}", failure.line, failure.reason())),
            shown if shown == SHOWN + 1 => Some(match &self.file {
                Some(file) => format!("… and more, all of which {} has", file.path().display()),
                None => "… and more; --failed FILE keeps every line that is not stored".to_owned(),
            }),
            _ => None,
        }
    }

    /// Whether the file lacks lines that it should have.
    pub(crate) fn is_broken(&self) -> bool {
        self.file.as_ref().is_some_and(FailedFile::is_broken)
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(FailedFile::path)
    }

    /// Whether there are lines that `resume` can put.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys > 0
    }

    pub(crate) fn total(&self) -> u64 {
        self.refused + self.not_stored + self.maybe_stored + self.untried
    }

    /// How many lines were not stored and where they are; nothing where there are none.
    pub(crate) fn in_words(&self) -> Option<String> {
        let untried = match self.untried {
            0 => String::new(),
            untried => format!(", {} not put", HumanCount(untried)),
        };
        let place = match &self.file {
            Some(file) => format!("; see {}", file.path().display()),
            None => String::new(),
        };
        (self.total() > 0).then(|| {
            format!(
                "NOT STORED: {} ({} refused, {} not stored, {} maybe stored{untried}){place}",
                count(self.total(), "line"),
                HumanCount(self.refused),
                HumanCount(self.not_stored),
                HumanCount(self.maybe_stored),
            )
        })
    }

    /// Waits until the file is on disk; an error means that it does not hold every failure.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        self.file.as_mut().map_or(Ok(()), FailedFile::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_could_not_be_read_back_whole_is_left_out() {
        // One byte of a line is two digits.
        let line = Line { text: vec![0xff; 9_000_000], length: 9_000_000, ..Line::default() };
        let (certainty, content) = (Certainty::NotStored, Content::of(&line));
        let failure = Failure::refused(1, None, certainty, "not UTF-8".to_owned(), content);
        assert!(failure.to_json().ends_with(r#""omitted_bytes":9000000}"#));
    }

    #[test]
    fn a_failure_is_one_line_of_json() {
        let content = Content::Text("a \"b\"\u{1}".to_owned());
        let failure =
            Failure::refused(7, None, Certainty::NotStored, "not JSON".to_owned(), content);
        assert_eq!(
            failure.to_json(),
            "{\"line\":7,\"key\":null,\"certainty\":\"not stored\",\"reason\":\"not JSON\",\
             \"text\":\"a \\\"b\\\"\\u0001\"}"
        );
    }
}
