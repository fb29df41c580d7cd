//! The lines of `put`: new events.

use dynamodb_eventstore::{Certainty, EventStore, PutError, PutTicket};

use super::tracked_input::TrackedInput;
use crate::collector::Outcome;
use crate::collector::failure::{Content, Failure};
use crate::input::Line;
use crate::output::{Output, count};
use crate::stop::StopReason;

/// Puts each line as a new event.
#[derive(Debug)]
pub(crate) struct NewEvents {
    pub(super) input: TrackedInput,
    /// The line that is being put.
    current: Option<Line>,
    hint: JqHint,
}

impl NewEvents {
    pub(crate) fn new(input: TrackedInput, output: Output) -> Self {
        Self { input, current: None, hint: JqHint { is_printed: false, output } }
    }

    /// Puts one line. Cancel safe: if a put is cancelled, its line was not accepted, and is put
    /// next.
    pub(super) async fn put_next(&mut self, store: &EventStore) -> Result<(), StopReason> {
        let permit = self.input.reserve_outcome().await?;
        let line = match self.current.take() {
            Some(line) => line,
            None => self.input.next().await?,
        };
        let line = self.current.insert(line);
        let outcome = match put(line, store, &mut self.hint).await? {
            Ok(ticket) => Outcome::Accepted { line: line.number, bytes: line.length, ticket },
            Err(reason) => {
                let (certainty, content) = (Certainty::NotStored, Content::of(line));
                let failure = Failure::refused(line.number, None, certainty, reason, content);
                Outcome::Failed(failure)
            }
        };
        self.input.mark_done(line);
        self.current = None;
        permit.send(outcome);
        Ok(())
    }

    /// Takes the next line as one that was not put. Cancel safe.
    pub(super) async fn next_not_put(&mut self) -> Result<Failure, StopReason> {
        let line = match self.current.take() {
            Some(line) => line,
            None => self.input.next().await?,
        };
        Ok(Failure::not_put(line.number, None, Certainty::NotStored, Content::of(&line)))
    }
}

/// Puts the line, or returns why it is refused.
async fn put(
    line: &Line,
    store: &EventStore,
    hint: &mut JqHint,
) -> Result<Result<PutTicket, String>, StopReason> {
    if !line.is_whole() {
        let size = count(line.length, "byte");
        return Ok(Err(format!("the line has {size}, far too many for an event")));
    }
    let text = match str::from_utf8(&line.text) {
        Ok(text) => text,
        Err(error) => {
            return Ok(Err(format!("not UTF-8 (byte {} of the line)", error.valid_up_to() + 1)));
        }
    };
    match store.put_json(text).await {
        Ok(ticket) => Ok(Ok(ticket)),
        Err(PutError::NotJson(error)) => {
            hint.print_for(text, &error);
            Ok(Err(not_json(&error)))
        }
        Err(error @ PutError::TooLarge(_)) => Ok(Err(error.to_string())),
        Err(error) => Err(StopReason::FatalError(error.to_string())),
    }
}

/// The hint that JSON over several lines must be converted. It is printed once.
#[derive(Debug)]
struct JqHint {
    is_printed: bool,
    output: Output,
}

impl JqHint {
    fn print_for(&mut self, line: &str, error: &serde_json::Error) {
        if let Some(filter) = jq_filter(line, error)
            && !self.is_printed
        {
            self.is_printed = true;
            self.output.note(format_args!(
                "hint: this looks like JSON spread over several lines, but each line must be one \
                 event; convert it with  jq -c '{filter}'"
            ));
        }
    }
}

/// The filter with which `jq -c` prints one event per line, if the line is the beginning of a JSON
/// text that continues on the next line.
fn jq_filter(line: &str, error: &serde_json::Error) -> Option<&'static str> {
    match line.trim() {
        // Nothing else is on the line, so it is the beginning of pretty-printed JSON, and not a
        // truncated event.
        "{" => Some("."),
        line if line.starts_with('[') && error.is_eof() => Some(".[]"),
        _ => None,
    }
}

/// serde_json's message without its line number, which is always 1 here.
fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let (problem, _place) = message.rsplit_once(" at line ").unwrap_or((&message, ""));
    format!("not JSON: {problem} at column {}", error.column())
}
