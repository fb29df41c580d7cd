//! The way of the lines from the input into the store.

use dynamodb_eventstore::{Certainty, EventStore, MAX_BATCH_EVENTS, PutError, PutTicket};
use indicatif::HumanCount;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use crate::failures::{Content, Failure};
use crate::input::Line;
use crate::progress::Progress;
use crate::resume::{Again, Step, step_of};
use crate::signals::{Signal, Signals};

/// Lines read together hold no more than this, and one more line.
const MOST_BYTES_AT_A_TIME: usize = 4 * 1024 * 1024;

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
    Accepted {
        line: u64,
        bytes: u64,
        ticket: PutTicket,
    },
    /// The event is in the table, and was not put.
    AlreadyThere,
    Refused(Failure),
}

/// Puts lines, one after the other.
pub(crate) struct Reading<'a> {
    pub(crate) store: &'a EventStore,
    /// Where the lines are events to be put again; `None` where they are new.
    pub(crate) again: Option<&'a Again>,
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
                match self.again {
                    Some(again) => self.put_some_again(again).await,
                    None => self.put_next().await,
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

    async fn put_next(&mut self) -> Option<End> {
        // First the place for the outcome: behind an accepted put nothing is to wait, or it could be
        // dropped there.
        let Ok(place) = self.outcomes.clone().reserve_owned().await else {
            return Some(nobody_records());
        };
        let line = match self.lines.recv().await {
            Some(Ok(line)) => line,
            Some(Err(error)) => return Some(End::ReadError(error.to_string())),
            None => return Some(End::AllRead),
        };
        let refused = |reason| {
            let content = Content::of(&line);
            Outcome::Refused(Failure::refused(
                line.number,
                None,
                Certainty::NotStored,
                reason,
                content,
            ))
        };
        let outcome = match str::from_utf8(&line.text) {
            _ if !line.is_whole() => refused(format!(
                "the line has {} bytes, far too many for an event",
                HumanCount(line.length)
            )),
            Err(error) => {
                refused(format!("not UTF-8 (byte {} of the line)", error.valid_up_to() + 1))
            }
            Ok(text) => match self.store.put_json(text).await {
                Ok(ticket) => Outcome::Accepted { line: line.number, bytes: line.length, ticket },
                Err(PutError::NotJson(error)) => refused(not_json(&error)),
                Err(error @ PutError::TooLarge(_)) => refused(error.to_string()),
                Err(error) => return Some(End::Hopeless(error.to_string())),
            },
        };
        self.done_with(&line);
        place.send(outcome);
        None
    }

    /// Puts as many lines again as one read takes.
    async fn put_some_again(&mut self, again: &Again) -> Option<End> {
        let (mut steps, mut bytes, mut end) = (Vec::new(), 0, None);
        while steps.len() < MAX_BATCH_EVENTS && bytes < MOST_BYTES_AT_A_TIME && end.is_none() {
            // The first is waited for; whatever else is here goes with it.
            let line = match self.lines.try_recv() {
                Ok(line) => Some(line),
                Err(TryRecvError::Empty) if !steps.is_empty() => break,
                Err(_) => self.lines.recv().await,
            };
            match line {
                Some(Ok(line)) => {
                    bytes += line.text.len();
                    steps.push(step_of(line));
                }
                Some(Err(error)) => end = Some(End::ReadError(error.to_string())),
                None => end = Some(End::AllRead),
            }
        }
        let steps = match again.check(steps).await {
            Ok(steps) => steps,
            Err(error) => return Some(End::Hopeless(error)),
        };
        for step in steps {
            let Ok(place) = self.outcomes.clone().reserve_owned().await else {
                return Some(nobody_records());
            };
            let (line, outcome) = match step {
                Step::Put(line, event) => {
                    let bytes = event.body_bytes() as u64;
                    match self.store.put_event(event).await {
                        Ok(ticket) => {
                            let number = line.number;
                            (line, Outcome::Accepted { line: number, bytes, ticket })
                        }
                        Err(error) => return Some(End::Hopeless(error.to_string())),
                    }
                }
                Step::AlreadyThere(line) => (line, Outcome::AlreadyThere),
                Step::Refuse(line, failure) => (line, Outcome::Refused(failure)),
            };
            self.done_with(&line);
            place.send(outcome);
        }
        end
    }

    fn done_with(&mut self, line: &Line) {
        self.last_line = line.number;
        self.progress.advance(line.end);
    }
}

fn nobody_records() -> End {
    End::Hopeless("nobody records what becomes of the lines".to_owned())
}

/// serde_json's words without its line number: it counts within the text, which is one line here.
fn not_json(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let (what, _place) = said.rsplit_once(" at line ").unwrap_or((&said, ""));
    format!("not JSON: {what} at column {}", error.column())
}
