//! Why `put` refuses a line.

use dynamodb_eventstore::{Event, EventKey};
use serde::de::IgnoredAny;

use crate::input::Line;
use crate::output::{Output, count};

/// The text of the line, or why it is none.
pub(crate) fn text_of(line: &Line) -> Result<&str, String> {
    if !line.is_whole() {
        let size = count(line.length, "byte");
        return Err(format!("the line has {size}, far too many for an event"));
    }
    str::from_utf8(&line.text)
        .map_err(|error| format!("not UTF-8 (byte {} of the line)", error.valid_up_to() + 1))
}

/// The event that `put` would make of the line, or why it would refuse the line. The checks have the
/// order of those of `put_json`.
pub(crate) fn event_of(line: &Line, key: EventKey, hint: &mut JqHint) -> Result<Event, String> {
    let text = text_of(line)?;
    let event = Event::new(key, text).map_err(|error| error.to_string())?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(event),
        Err(error) => Err(hint.not_json(text, &error)),
    }
}

/// The hint to convert JSON that is spread over several lines. It is printed once.
#[derive(Debug)]
pub(crate) struct JqHint {
    is_printed: bool,
    output: Output,
}

impl JqHint {
    pub(crate) fn new(output: Output) -> Self {
        Self { is_printed: false, output }
    }

    /// Why the text is not JSON, after the hint where it helps.
    pub(crate) fn not_json(&mut self, text: &str, error: &serde_json::Error) -> String {
        if let Some(filter) = jq_filter(text, error)
            && !self.is_printed
        {
            self.is_printed = true;
            self.output.note(format_args!(
                "hint: this looks like JSON spread over several lines, but each line must be one \
                 event; convert it with  jq -c '{filter}'"
            ));
        }
        // serde_json's line number counts within the text, which is one line here.
        let message = error.to_string();
        let (problem, _place) = message.rsplit_once(" at line ").unwrap_or((&message, ""));
        format!("not JSON: {problem} at column {}", error.column())
    }
}

/// The filter with which `jq -c` prints one event per line, if the line is the beginning of a JSON
/// text that continues on the next line.
fn jq_filter(line: &str, error: &serde_json::Error) -> Option<&'static str> {
    match line.trim() {
        // Nothing else is on the line: a program has printed it so, and it is not truncated.
        "{" => Some("."),
        line if line.starts_with('[') && error.is_eof() => Some(".[]"),
        _ => None,
    }
}
