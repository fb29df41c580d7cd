//! Lines that are new events.

use dynamodb_eventstore::{Certainty, EventStore, PutError};

use crate::collecting::Outcome;
use crate::ending::End;
use crate::failures::{Content, Failure};
use crate::feed::Feed;
use crate::input::Line;
use crate::output::{Output, count};

/// The lines of `put`, on their way into the store.
#[derive(Debug)]
pub(crate) struct NewLines {
    pub(crate) feed: Feed,
    /// The line that is being put.
    current: Option<Line>,
    has_hinted: bool,
    output: Output,
}

impl NewLines {
    pub(crate) fn new(feed: Feed, output: Output) -> Self {
        Self { feed, current: None, has_hinted: false, output }
    }

    /// Puts one line. Cancel safe: a line whose put is interrupted was not accepted, and is the
    /// next.
    pub(crate) async fn put_next(&mut self, store: &EventStore) -> Result<(), End> {
        let place = self.feed.place().await?;
        let line = match self.current.take() {
            Some(line) => line,
            None => self.feed.next().await?,
        };
        let line = self.current.insert(line);
        let result = match str::from_utf8(&line.text) {
            _ if !line.is_whole() => {
                let size = count(line.length, "byte");
                Err(format!("the line has {size}, far too many for an event"))
            }
            Err(error) => Err(format!("not UTF-8 (byte {} of the line)", error.valid_up_to() + 1)),
            Ok(text) => match store.put_json(text).await {
                Ok(ticket) => Ok(ticket),
                Err(PutError::NotJson(error)) => {
                    if let Some(filter) = filter_to_lines(text, &error)
                        && !self.has_hinted
                    {
                        self.has_hinted = true;
                        self.output.note(format_args!(
                            "hint: this looks like JSON over several lines, and each line is to be \
                             one event; make it so with  jq -c '{filter}'"
                        ));
                    }
                    Err(not_json(&error))
                }
                Err(error @ PutError::TooLarge(_)) => Err(error.to_string()),
                Err(error) => return Err(End::Refused(error.to_string())),
            },
        };
        let outcome = match result {
            Ok(ticket) => Outcome::Accepted { line: line.number, bytes: line.length, ticket },
            Err(reason) => {
                let (certainty, content) = (Certainty::NotStored, Content::of(line));
                let failure = Failure::refused(line.number, None, certainty, reason, content);
                Outcome::Failed(failure)
            }
        };
        self.feed.done_with(line);
        self.current = None;
        place.send(outcome);
        Ok(())
    }

    /// The next line as one that was not put. Cancel safe.
    pub(crate) async fn next_untried(&mut self) -> Result<Failure, End> {
        let line = match self.current.take() {
            Some(line) => line,
            None => self.feed.next().await?,
        };
        Ok(Failure::untried(line.number, None, Certainty::NotStored, Content::of(&line)))
    }
}

/// The filter with which `jq -c` writes one event a line, where a line is the beginning of a text
/// that goes on in the next.
fn filter_to_lines(line: &str, error: &serde_json::Error) -> Option<&'static str> {
    match line.trim() {
        // Printed by a program, not torn: nothing else is on the line.
        "{" => Some("."),
        line if line.starts_with('[') && error.is_eof() => Some(".[]"),
        _ => None,
    }
}

/// serde_json's words without its line number: it counts within the text, which is one line here.
fn not_json(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let (what, _place) = said.rsplit_once(" at line ").unwrap_or((&said, ""));
    format!("not JSON: {what} at column {}", error.column())
}
