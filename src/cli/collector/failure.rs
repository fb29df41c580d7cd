//! A line that was not stored, and its form in a `--failed` file.

use dynamodb_eventstore::{Certainty, WriteError};
use serde::Serialize;

use crate::input::{Line, MAX_LINE_BYTES};

/// One line that was not stored.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The number of the line in the input of `put`. `resume` keeps it.
    pub(crate) line: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The line has no event that can be put.
    Refused {
        /// `None` if no store has accepted the line.
        key: Option<String>,
        certainty: Certainty,
        reason: String,
        content: Content,
    },
    /// The event was put, and its write failed.
    WriteFailed(WriteError),
    /// The run ended before the line was put.
    NotPut { key: Option<String>, certainty: Certainty, content: Content },
}

/// The content of the line, in a form that JSON can hold.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    Text(String),
    /// The body of the event that the line describes.
    Body(String),
    /// The bytes of a line that is not UTF-8, two hexadecimal digits each.
    Hex(String),
    /// The length of a line that is too long to be kept.
    OmittedBytes(u64),
    /// A line of a `--failed` file that is written to the next one unchanged.
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

    /// The length of the content, to be kept instead of the content.
    fn omitted(&self) -> Self {
        Self::OmittedBytes(match self {
            Self::Text(text) | Self::Body(text) | Self::Unchanged(text) => text.len() as u64,
            Self::Hex(digits) => digits.len() as u64 / 2,
            Self::OmittedBytes(bytes) => *bytes,
        })
    }
}

impl Failure {
    /// A line that has no event that can be put. `key` is the key in the line, if it has one.
    pub(crate) fn refused(
        line: u64,
        key: Option<String>,
        certainty: Certainty,
        reason: String,
        content: Content,
    ) -> Self {
        Self { line, kind: Kind::Refused { key, certainty, reason, content } }
    }

    /// An event whose write failed.
    pub(crate) fn write_failed(line: u64, error: WriteError) -> Self {
        Self { line, kind: Kind::WriteFailed(error) }
    }

    /// A line that was not put before the run ended.
    pub(crate) fn not_put(
        line: u64,
        key: Option<String>,
        certainty: Certainty,
        content: Content,
    ) -> Self {
        Self { line, kind: Kind::NotPut { key, certainty, content } }
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Refused { .. })
    }

    pub(super) fn is_not_put(&self) -> bool {
        matches!(self.kind, Kind::NotPut { .. })
    }

    pub(crate) fn key(&self) -> Option<&str> {
        match &self.kind {
            Kind::Refused { key, .. } | Kind::NotPut { key, .. } => key.as_deref(),
            Kind::WriteFailed(error) => Some(error.key().as_str()),
        }
    }

    pub(crate) fn certainty(&self) -> Certainty {
        match &self.kind {
            Kind::Refused { certainty, .. } | Kind::NotPut { certainty, .. } => *certainty,
            Kind::WriteFailed(error) => error.certainty(),
        }
    }

    pub(crate) fn reason(&self) -> String {
        match &self.kind {
            Kind::Refused { reason, .. } => reason.clone(),
            Kind::WriteFailed(error) => error.to_string(),
            Kind::NotPut { .. } => "the run ended before it was put".to_owned(),
        }
    }

    /// The failure as a line of a `--failed` file.
    pub(crate) fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct UnsentLine<'a> {
            line: u64,
            key: Option<&'a str>,
            certainty: Certainty,
            reason: &'a str,
            #[serde(flatten)]
            content: &'a Content,
        }
        #[derive(Serialize)]
        struct FailedWrite<'a> {
            line: u64,
            #[serde(flatten)]
            error: &'a WriteError,
        }
        let json = match &self.kind {
            Kind::Refused { content: Content::Unchanged(line), .. }
            | Kind::NotPut { content: Content::Unchanged(line), .. } => return line.clone(),
            Kind::WriteFailed(error) => {
                serde_json::to_string(&FailedWrite { line: self.line, error })
            }
            Kind::Refused { content, .. } | Kind::NotPut { content, .. } => {
                let to_json = |content| {
                    serde_json::to_string(&UnsentLine {
                        line: self.line,
                        key: self.key(),
                        certainty: self.certainty(),
                        reason: &self.reason(),
                        content,
                    })
                };
                match to_json(content) {
                    // This line is longer than `resume` reads, and its content is too long for an
                    // event.
                    Ok(json) if json.len() > MAX_LINE_BYTES => to_json(&content.omitted()),
                    json => json,
                }
            }
        };
        // Strings and numbers can always be serialized.
        json.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_too_long_for_resume_is_omitted() {
        // One byte of a line is two digits.
        let line = Line { text: vec![0xff; 9_000_000], length: 9_000_000, ..Line::default() };
        let (certainty, content) = (Certainty::NotStored, Content::of(&line));
        let failure = Failure::refused(1, None, certainty, "not UTF-8".to_owned(), content);
        assert!(failure.to_json().ends_with(r#""omitted_bytes":9000000}"#));
    }

    #[test]
    fn failure_is_one_line_of_json() {
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
