//! Collects the outcome of every line: counts it, prints it, and keeps the lines that failed.

mod failed_file;
pub(crate) mod failure;
pub(crate) mod failure_log;

use dynamodb_eventstore::{EventKey, FailureClass, FailureReason, PutTicket, Stored, WriteError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::output::Output;
use crate::output::json_lines::JsonLines;
use failure::Failure;
use failure_log::FailureLog;

/// Lines that may wait for their answers. With a journal the store accepts more events than memory holds, and each ticket
/// takes some hundred bytes.
const MAX_TICKETS: usize = 500_000;

/// What the producer knows about the outcome of one line.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The store has accepted the event. Its ticket returns the rest.
    Accepted {
        line: u64,
        bytes: u64,
        ticket: PutTicket,
    },
    /// The table has the event already. It was not put.
    AlreadyStored {
        line: u64,
        key: EventKey,
    },
    Failed(Failure),
}

/// The outcome of all lines.
#[derive(Debug)]
pub(crate) struct Outcomes {
    pub(crate) failures: FailureLog,
    pub(crate) stored: u64,
    pub(crate) stored_bytes: u64,
    /// Events that the table had before they were put.
    pub(crate) already_stored: u64,
    /// Set with `--json`.
    pub(crate) json_lines: Option<JsonLines>,
    output: Output,
}

/// The object that `--json` prints for one line.
#[derive(Serialize)]
struct LineObject<'a> {
    line: u64,
    key: Option<&'a str>,
    certainty: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Outcomes {
    pub(crate) fn new(failures: FailureLog, as_json: bool, output: Output) -> Self {
        let json_lines = as_json.then(JsonLines::default);
        Self { failures, stored: 0, stored_bytes: 0, already_stored: 0, json_lines, output }
    }

    /// Awaits every ticket, until `outcomes` is closed. `fatal_error` receives the cause of an error
    /// with which every later event would fail.
    pub(crate) async fn collect(
        mut self,
        mut outcomes: mpsc::Receiver<Outcome>,
        fatal_error: watch::Sender<Option<String>>,
    ) -> Self {
        let mut tickets = FuturesUnordered::new();
        let mut is_open = true;
        while is_open || !tickets.is_empty() {
            tokio::select! {
                Some((line, bytes, answer)) = tickets.next() => {
                    if let Err(error) = &answer
                        && is_fatal(error)
                    {
                        fatal_error.send_replace(error.last_cause().map(ToString::to_string));
                    }
                    self.record_answer(line, bytes, answer);
                }
                outcome = outcomes.recv(), if is_open && tickets.len() < MAX_TICKETS => match outcome {
                    Some(Outcome::Accepted { line, bytes, ticket }) => {
                        tracing::debug!(line, key = %ticket.key(), "accepted");
                        tickets.push(async move { (line, bytes, ticket.await) });
                    }
                    Some(Outcome::AlreadyStored { line, key }) => {
                        self.already_stored += 1;
                        tracing::debug!(line, %key, "stored already");
                        self.print_stored(line, &key);
                    }
                    Some(Outcome::Failed(failure)) => self.record_failure(&failure),
                    None => is_open = false,
                },
            }
        }
        self
    }

    fn record_answer(&mut self, line: u64, bytes: u64, answer: Result<Stored, WriteError>) {
        match answer {
            Ok(stored) => {
                self.stored += 1;
                self.stored_bytes += bytes;
                self.print_stored(line, &stored.key);
            }
            Err(error) => self.record_failure(&Failure::write_failed(line, error)),
        }
    }

    fn print_stored(&mut self, line: u64, key: &EventKey) {
        if let Some(json_lines) = &mut self.json_lines {
            let key = Some(key.as_str());
            json_lines.print(&LineObject { line, key, certainty: "stored", reason: None });
        }
    }

    fn record_failure(&mut self, failure: &Failure) {
        // The file is written first, because the reader of standard output may be slow or gone.
        let message = self.failures.record(failure);
        if let Some(json_lines) = &mut self.json_lines {
            json_lines.print(&LineObject {
                line: failure.line,
                key: failure.key(),
                certainty: &failure.certainty().to_string(),
                reason: Some(failure.reason()),
            });
        }
        if let Some(message) = message {
            self.output.error(message);
        }
    }
}

/// Whether every later event would fail with this error.
fn is_fatal(error: &WriteError) -> bool {
    error.reason() == FailureReason::NotRetryable
        && error.last_cause().is_some_and(|cause| {
            matches!(cause.class(), FailureClass::Fatal | FailureClass::Refused)
        })
}
