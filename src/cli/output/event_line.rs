//! The lines of events that `export` and `tail` write.

use std::borrow::Cow;

use dynamodb_eventstore::{EventKey, StoredEvent};
use serde::Serialize;

use crate::time::format_time;

/// The form of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The body alone, as it is stored.
    Bodies,
    /// Key, time, and the body as a string.
    WithKeys,
}

#[derive(Serialize)]
struct Line<'a> {
    key: &'a EventKey,
    time: String,
    body: &'a str,
}

/// The line of an event, without a line break at its end, or the reason why the event has no line.
///
/// JSON may have line breaks between its tokens. Without them the body would not be the same, and with them it would take
/// several lines. A carriage return at its end would be read as part of the line break.
pub(crate) fn render(
    event: &StoredEvent,
    form: Form,
) -> serde_json::Result<Result<Cow<'_, str>, &'static str>> {
    match form {
        Form::Bodies if event.body.contains(['\n', '\r']) => {
            Ok(Err("its body has a line break, which a line cannot have (use --with-keys)"))
        }
        Form::Bodies => Ok(Ok(Cow::Borrowed(&event.body))),
        Form::WithKeys => {
            let (key, body) = (&event.key, event.body.as_str());
            let line = Line { key, time: format_time(&key.timestamp()), body };
            Ok(Ok(Cow::Owned(serde_json::to_string(&line)?)))
        }
    }
}
