//! A line of a `--failed` file, and the decision whether it is put again.

use dynamodb_eventstore::{Certainty, Event, EventKey, ParseKeyError};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::collector::failure::{Content, Failure};
use crate::input::Line;

/// The fields of a line that `resume` reads.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    line: Option<u64>,
    key: Option<String>,
    certainty: Option<String>,
    body: Option<String>,
}

/// One line, with what it says about its event.
#[derive(Debug)]
pub(super) struct FailedLine {
    pub(super) line: Line,
    /// The number of the event's line in the input of `put`.
    pub(super) number: u64,
    /// Maybe stored, if the line does not say otherwise.
    pub(super) certainty: Certainty,
    pub(super) body_bytes: u64,
    /// The fields, or the column at which the line is not valid.
    fields: Result<Fields, usize>,
}

/// Why a line is refused.
struct Refusal {
    key: Option<String>,
    reason: String,
    content: Content,
}

impl FailedLine {
    pub(super) fn parse(line: Line) -> Self {
        // Only the column of the error is kept, because serde's message may repeat the body of
        // an event.
        let fields: Result<Fields, usize> =
            serde_json::from_slice(&line.text).map_err(|error| error.column());
        let valid = fields.as_ref().ok();
        let certainty = match valid {
            // An event without a key was never accepted.
            Some(Fields { key: None, .. }) => Certainty::NotStored,
            Some(Fields { certainty: Some(certainty), .. }) if certainty == "not stored" => {
                Certainty::NotStored
            }
            _ => Certainty::MaybeStored,
        };
        let number = valid.and_then(|fields| fields.line).unwrap_or(line.number);
        Self { line, number, certainty, body_bytes: 0, fields }
    }

    /// The failure of a line that was not put before the run ended.
    pub(super) fn not_put(self) -> Failure {
        let content = self.unchanged();
        let key = self.fields.ok().and_then(|fields| fields.key);
        Failure::not_put(self.number, key, self.certainty, content)
    }

    /// Takes the event out of the line.
    fn take_event(&mut self) -> Result<Event, Refusal> {
        let whole_line = Content::of;
        if !self.line.is_whole() {
            let reason = "the line is far too long for an event".to_owned();
            return Err(Refusal { key: None, reason, content: whole_line(&self.line) });
        }
        let fields = match &mut self.fields {
            Ok(fields) => fields,
            Err(column) => {
                let reason = format!("not a line of a --failed file (column {column})");
                return Err(Refusal { key: None, reason, content: whole_line(&self.line) });
            }
        };
        let (key, body) = (fields.key.clone(), fields.body.take());
        let Some(key) = key else {
            let reason = "it has no key, because it was never accepted: correct it, then `put` it"
                .to_owned();
            return Err(Refusal { key: None, reason, content: self.unchanged() });
        };
        let event = match body {
            Some(body) => event(&key, body),
            None => Err("it has no body".to_owned()),
        };
        event.map_err(|reason| Refusal { key: Some(key), reason, content: whole_line(&self.line) })
    }

    fn unchanged(&self) -> Content {
        match str::from_utf8(&self.line.text) {
            Ok(text) if self.line.is_whole() => Content::Unchanged(text.to_owned()),
            _ => Content::of(&self.line),
        }
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        let Refusal { key, reason, content } = refusal;
        Failure::refused(self.number, key, self.certainty, reason, content)
    }
}

fn event(key: &str, body: String) -> Result<Event, String> {
    let key: EventKey = key.parse().map_err(|error: ParseKeyError| error.to_string())?;
    serde_json::from_str::<IgnoredAny>(&body).map_err(|_| "its body is not JSON".to_owned())?;
    Event::new(key, body).map_err(|error| error.to_string())
}

/// What to do with one line.
#[derive(Debug)]
pub(super) enum Decision {
    Put(FailedLine, Event),
    /// Skip the line: the table has the event under this key.
    Skip(FailedLine, EventKey),
    Refuse(FailedLine, Failure),
}

impl Decision {
    /// Puts the event of the line, and refuses a line that has none.
    pub(super) fn new(mut line: FailedLine) -> Self {
        match line.take_event() {
            Ok(event) => {
                line.body_bytes = event.body_bytes() as u64;
                Self::Put(line, event)
            }
            Err(refusal) => {
                let failure = line.refused(refusal);
                Self::Refuse(line, failure)
            }
        }
    }

    pub(super) fn line(&self) -> &FailedLine {
        let (Self::Put(line, _) | Self::Skip(line, _) | Self::Refuse(line, _)) = self;
        line
    }

    /// The line, and its outcome if it is not put: the key of the stored event, or the failure.
    pub(super) fn into_parts(self) -> (FailedLine, Result<EventKey, Failure>) {
        match self {
            Self::Put(line, event) => (line, Ok(*event.key())),
            Self::Skip(line, key) => (line, Ok(key)),
            Self::Refuse(line, failure) => (line, Err(failure)),
        }
    }

    /// Skips the line, because the table has its event.
    pub(super) fn skip(&mut self) {
        self.replace(|line, event| Self::Skip(line, *event.key()));
    }

    /// Marks the event as maybe stored, because an earlier line with it is still in flight.
    pub(super) fn mark_maybe_stored(&mut self) {
        if let Self::Put(line, _) = self {
            line.certainty = Certainty::MaybeStored;
        }
    }

    /// Refuses the line, because its key belongs to another event.
    pub(super) fn refuse_taken_key(&mut self) {
        self.replace(|line, event| {
            let key = event.key().to_string();
            let reason = format!(
                "another event is stored under the key {key}, or is being stored; to store this one as \
                 well, `put` its body, which gives it a new key"
            );
            let content = Content::Body(event.body().into_owned());
            let failure = line.refused(Refusal { key: Some(key), reason, content });
            Self::Refuse(line, failure)
        });
    }

    fn replace(&mut self, decide: impl FnOnce(FailedLine, &Event) -> Self) {
        if let Self::Put(line, event) = self {
            let line = std::mem::replace(line, FailedLine::parse(Line::default()));
            *self = decide(line, &event.clone());
        }
    }
}
