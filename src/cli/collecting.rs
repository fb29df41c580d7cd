//! What becomes of the lines: their tickets' answers, told and kept.

use dynamodb_eventstore::{EventKey, FailureClass, FailureReason, PutTicket, Stored, WriteError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::failures::{Failure, FailureLog};
use crate::json_lines::JsonLines;
use crate::output::Output;

/// What became of one line.
#[derive(Debug)]
pub(crate) enum Outcome {
    Accepted {
        line: u64,
        bytes: u64,
        ticket: PutTicket,
    },
    /// The event is in the table, and was not put.
    AlreadyThere {
        line: u64,
        key: EventKey,
    },
    Failed(Failure),
}

/// What became of all lines.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) failures: FailureLog,
    pub(crate) stored: u64,
    pub(crate) stored_bytes: u64,
    /// Lines whose event was in the table before it was put.
    pub(crate) already_there: u64,
    /// Where each line is reported as JSON.
    pub(crate) json_lines: Option<JsonLines>,
    output: Output,
}

/// What `--json` says of one line.
#[derive(Serialize)]
struct Settled<'a> {
    line: u64,
    key: Option<&'a str>,
    certainty: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Collection {
    pub(crate) fn new(failures: FailureLog, as_json: bool, output: Output) -> Self {
        let json_lines = as_json.then(JsonLines::default);
        Self { failures, stored: 0, stored_bytes: 0, already_there: 0, json_lines, output }
    }

    /// Awaits every ticket and records every line that was not stored. `refused` is told when every
    /// later event would fail.
    pub(crate) async fn collect(
        mut self,
        mut outcomes: mpsc::Receiver<Outcome>,
        refused: watch::Sender<Option<String>>,
    ) -> Self {
        let mut tickets = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !tickets.is_empty() {
            tokio::select! {
                Some((line, bytes, answer)) = tickets.next() => {
                    if let Err(error) = &answer
                        && is_final_for_all(error)
                    {
                        refused.send_replace(error.last_cause().map(ToString::to_string));
                    }
                    self.answered(line, bytes, answer);
                }
                outcome = outcomes.recv(), if is_open => match outcome {
                    Some(Outcome::Accepted { line, bytes, ticket }) => {
                        tracing::debug!(line, key = %ticket.key(), "accepted");
                        tickets.push(async move { (line, bytes, ticket.await) });
                    }
                    Some(Outcome::AlreadyThere { line, key }) => {
                        self.already_there += 1;
                        tracing::debug!(line, %key, "stored already");
                        self.say_stored(line, &key);
                    }
                    Some(Outcome::Failed(failure)) => self.failed(&failure),
                    None => is_open = false,
                },
            }
        }
        self
    }

    fn answered(&mut self, line: u64, bytes: u64, answer: Result<Stored, WriteError>) {
        match answer {
            Ok(stored) => {
                self.stored += 1;
                self.stored_bytes += bytes;
                self.say_stored(line, &stored.key);
            }
            Err(error) => self.failed(&Failure::given_up(line, error)),
        }
    }

    fn say_stored(&mut self, line: u64, key: &EventKey) {
        if let Some(json_lines) = &mut self.json_lines {
            let key = Some(key.as_str());
            json_lines.print(&Settled { line, key, certainty: "stored", reason: None });
        }
    }

    fn failed(&mut self, failure: &Failure) {
        // The file before everything else: whoever reads standard output may be slow, or gone.
        let shown = self.failures.record(failure);
        if let Some(json_lines) = &mut self.json_lines {
            json_lines.print(&Settled {
                line: failure.line,
                key: failure.key(),
                certainty: &failure.certainty().to_string(),
                reason: Some(failure.reason()),
            });
        }
        if let Some(shown) = shown {
            self.output.error(shown);
        }
    }
}

/// Whether the events to come would fail the same way.
fn is_final_for_all(error: &WriteError) -> bool {
    error.reason() == FailureReason::NotRetryable
        && error.last_cause().is_some_and(|cause| {
            matches!(cause.class(), FailureClass::Fatal | FailureClass::Refused)
        })
}
