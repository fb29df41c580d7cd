//! What the tickets say, and where the lines go that were not stored.

use dynamodb_eventstore::{FailureClass, GiveUp, WriteError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use crate::failures::{Content, Failure, FailureLog};
use crate::progress::Voice;
use crate::reading::Outcome;

/// What the tickets said.
pub(crate) struct Collection {
    pub(crate) failures: FailureLog,
    pub(crate) stored_bytes: u64,
}

/// Awaits every ticket and records every line that was not stored.
pub(crate) async fn collect(
    mut outcomes: mpsc::Receiver<Outcome>,
    mut failures: FailureLog,
    voice: Voice,
    hopeless: watch::Sender<Option<String>>,
) -> Collection {
    let mut stored_bytes = 0;
    let mut tickets = FuturesUnordered::new();
    let mut open = true;
    while open || !tickets.is_empty() {
        let failure = tokio::select! {
            Some((line, bytes, answer)) = tickets.next() => match answer {
                Ok(_stored) => {
                    stored_bytes += bytes;
                    continue;
                }
                Err(error) => {
                    if is_hopeless(&error) {
                        hopeless.send_replace(error.last_cause().map(ToString::to_string));
                    }
                    not_stored(line, &error)
                }
            },
            outcome = outcomes.recv(), if open => match outcome {
                Some(Outcome::Accepted { line, bytes, ticket }) => {
                    tickets.push(async move { (line, bytes, ticket.await) });
                    continue;
                }
                Some(Outcome::Refused(failure)) => failure,
                None => {
                    open = false;
                    continue;
                }
            },
        };
        if let Some(said) = failures.record(&failure) {
            voice.say(&said);
        }
    }
    Collection { failures, stored_bytes }
}

/// Whether the events to come would fail the same way.
fn is_hopeless(error: &WriteError) -> bool {
    error.reason() == GiveUp::NotRetryable
        && error.last_cause().is_some_and(|cause| cause.class() == FailureClass::Fatal)
}

fn not_stored(line: u64, error: &WriteError) -> Failure {
    let body = error.event().map(|event| event.body().to_owned());
    Failure {
        line,
        key: Some(error.key().to_string()),
        certainty: error.certainty(),
        reason: error.to_string(),
        content: body.map_or(Content::OmittedBytes(0), Content::Text),
    }
}
