//! Lines of a `--failed` file, and what is to become of them.

use dynamodb_eventstore::{Certainty, Event, EventKey, ParseKeyError};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::failures::{Content, Failure};
use crate::input::Line;

/// What a line says of its event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    line: Option<u64>,
    key: Option<String>,
    certainty: Option<String>,
    body: Option<String>,
}

/// One line, and what it says of its event.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) line: Line,
    /// The number of the event's line in the first input.
    pub(crate) number: u64,
    /// What is known of it. A line that does not say it may have been stored.
    pub(crate) certainty: Certainty,
    pub(crate) body_bytes: u64,
    /// Or the column of the line where it stops being a line of this kind.
    fields: Result<Fields, usize>,
}

/// Why a line is not put.
struct Refusal {
    key: Option<String>,
    reason: String,
    content: Content,
}

impl Record {
    pub(crate) fn of(line: Line) -> Self {
        // Without serde's own words, which repeat what they found.
        let fields: Result<Fields, usize> =
            serde_json::from_slice(&line.text).map_err(|error| error.column());
        let said = fields.as_ref().ok();
        let certainty = match said {
            // It was never accepted.
            Some(Fields { key: None, .. }) => Certainty::NotStored,
            Some(Fields { certainty: Some(certainty), .. }) if certainty == "not stored" => {
                Certainty::NotStored
            }
            _ => Certainty::MaybeStored,
        };
        let number = said.and_then(|fields| fields.line).unwrap_or(line.number);
        Self { line, number, certainty, body_bytes: 0, fields }
    }

    /// The line as one that was not put, because its turn did not come.
    pub(crate) fn untried(self) -> Failure {
        let content = self.unchanged();
        let key = self.fields.ok().and_then(|fields| fields.key);
        Failure::untried(self.number, key, self.certainty, content)
    }

    /// The event, which is taken out.
    fn take_event(&mut self) -> Result<Event, Refusal> {
        let whole_line = Content::of;
        if !self.line.is_whole() {
            let reason = "the line is far too long for an event".to_owned();
            return Err(Refusal { key: None, reason, content: whole_line(&self.line) });
        }
        let fields = match &mut self.fields {
            Ok(fields) => fields,
            Err(column) => {
                let reason = format!("not a line of an event that was given up (column {column})");
                return Err(Refusal { key: None, reason, content: whole_line(&self.line) });
            }
        };
        let (key, body) = (fields.key.clone(), fields.body.take());
        let Some(key) = key else {
            let reason =
                "it has no key, as it was never accepted: mend it, and `put` it".to_owned();
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

/// What is to become of one line.
#[derive(Debug)]
pub(crate) enum Step {
    Put(Record, Event),
    AlreadyThere(Record, EventKey),
    Refuse(Record, Failure),
}

impl Step {
    /// Puts what is an event.
    pub(crate) fn of(mut record: Record) -> Self {
        match record.take_event() {
            Ok(event) => {
                record.body_bytes = event.body_bytes() as u64;
                Self::Put(record, event)
            }
            Err(refusal) => {
                let failure = record.refused(refusal);
                Self::Refuse(record, failure)
            }
        }
    }

    pub(crate) fn record(&self) -> &Record {
        let (Self::Put(record, _) | Self::AlreadyThere(record, _) | Self::Refuse(record, _)) = self;
        record
    }

    /// The line, and what becomes of it if it is not put: the key under which its event is, or why
    /// it is not.
    pub(crate) fn into_parts(self) -> (Record, Result<EventKey, Failure>) {
        match self {
            Self::Put(record, event) => (record, Ok(*event.key())),
            Self::AlreadyThere(record, key) => (record, Ok(key)),
            Self::Refuse(record, failure) => (record, Err(failure)),
        }
    }

    /// The event is in the table.
    pub(crate) fn leave(&mut self) {
        self.change(|record, event| Self::AlreadyThere(record, *event.key()));
    }

    /// An earlier line has the same event, and what becomes of that is not known yet.
    pub(crate) fn doubt(&mut self) {
        if let Self::Put(record, _) = self {
            record.certainty = Certainty::MaybeStored;
        }
    }

    /// There is another event under the key.
    pub(crate) fn refuse_other(&mut self) {
        self.change(|record, event| {
            let key = event.key().to_string();
            let reason = format!(
                "another event is stored under the key {key}, or on its way there; to store this one \
                 as well, give it a new key: put its body"
            );
            let content = Content::Body(event.body().into_owned());
            let failure = record.refused(Refusal { key: Some(key), reason, content });
            Self::Refuse(record, failure)
        });
    }

    fn change(&mut self, into: impl FnOnce(Record, &Event) -> Self) {
        if let Self::Put(record, event) = self {
            let record = std::mem::replace(record, Record::of(Line::default()));
            *self = into(record, &event.clone());
        }
    }
}

fn event(key: &str, body: String) -> Result<Event, String> {
    let key: EventKey = key.parse().map_err(|error: ParseKeyError| error.to_string())?;
    serde_json::from_str::<IgnoredAny>(&body).map_err(|_| "its body is not JSON".to_owned())?;
    Event::new(key, body).map_err(|error| error.to_string())
}
