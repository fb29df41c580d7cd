//! The way of the lines from the input into the store.

use dynamodb_eventstore::{Certainty, EventStore, PutError, PutTicket};
use indicatif::HumanCount;
use tokio::sync::{mpsc, watch};

use crate::failures::{Content, Failure};
use crate::input::Line;
use crate::progress::Progress;
use crate::signals::{Signal, Signals};

/// Why no more lines are put.
pub(crate) enum End {
    AllRead,
    Signal(Signal),
    ReadError(String),
    /// The service refuses in a way that no later event would escape.
    Hopeless(String),
}

/// What became of one line when it was put.
pub(crate) enum Outcome {
    Accepted { line: u64, bytes: u64, ticket: PutTicket },
    Refused(Failure),
}

/// Puts lines, one after the other.
pub(crate) struct Reading<'a> {
    pub(crate) store: &'a EventStore,
    pub(crate) lines: mpsc::Receiver<std::io::Result<Line>>,
    pub(crate) outcomes: mpsc::Sender<Outcome>,
    pub(crate) progress: &'a Progress,
    /// Number of the last line that was accepted or refused.
    pub(crate) last_line: u64,
}

impl Reading<'_> {
    /// Puts lines until there are no more, or until something says stop. A line whose put is
    /// interrupted was not accepted, and does not count as put.
    pub(crate) async fn run(
        &mut self,
        signals: &mut Signals,
        mut stop: watch::Receiver<Option<String>>,
    ) -> End {
        loop {
            let step = async {
                match self.lines.recv().await {
                    Some(Ok(line)) => self.put(line).await,
                    Some(Err(error)) => Some(End::ReadError(error.to_string())),
                    None => Some(End::AllRead),
                }
            };
            // A put is cancel safe: dropped here, it leaves nothing behind.
            tokio::select! {
                biased;
                signal = signals.next() => return End::Signal(signal),
                Ok(cause) = stop.wait_for(Option::is_some) => {
                    return End::Hopeless(cause.clone().unwrap_or_default());
                }
                end = step => if let Some(end) = end { return end },
            }
        }
    }

    async fn put(&mut self, line: Line) -> Option<End> {
        // First the place for the outcome: behind an accepted put nothing is to wait, or it could be
        // dropped there.
        let Ok(place) = self.outcomes.reserve().await else {
            return Some(End::Hopeless("nobody records what becomes of the lines".to_owned()));
        };
        let (number, bytes) = (line.number, line.length);
        let refused = |reason: String, content| {
            let (line, key, certainty) = (number, None, Certainty::NotStored);
            Outcome::Refused(Failure { line, key, certainty, reason, content })
        };
        let is_whole = line.is_whole();
        let outcome = match String::from_utf8(line.text) {
            _ if !is_whole => refused(
                format!("the line has {} bytes, far too many for an event", HumanCount(bytes)),
                Content::OmittedBytes(bytes),
            ),
            Err(error) => {
                let place = error.utf8_error().valid_up_to() + 1;
                let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                refused(format!("not UTF-8 (byte {place} of the line)"), Content::Hex(hex))
            }
            Ok(text) => match self.store.put_json(&text).await {
                Ok(ticket) => Outcome::Accepted { line: number, bytes, ticket },
                Err(PutError::NotJson(error)) => refused(not_json(&error), Content::Text(text)),
                Err(error @ PutError::TooLarge(_)) => {
                    refused(error.to_string(), Content::Text(text))
                }
                Err(error) => return Some(End::Hopeless(error.to_string())),
            },
        };
        self.last_line = number;
        self.progress.advance(line.end);
        place.send(outcome);
        None
    }
}

/// serde_json's words without its line number: it counts within the text, which is one line here.
fn not_json(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let (what, _place) = said.rsplit_once(" at line ").unwrap_or((&said, ""));
    format!("not JSON: {what} at column {}", error.column())
}
