//! What the tickets say, and where the lines go that were not stored.

use dynamodb_eventstore::{FailureClass, GiveUp, WriteError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use crate::failures::{Failure, FailureLog};
use crate::progress::Voice;
use crate::reading::Outcome;

/// What the tickets said.
pub(crate) struct Collection {
    pub(crate) failures: FailureLog,
    pub(crate) stored_bytes: u64,
    /// Lines whose event was in the table before it was put.
    pub(crate) already_there: u64,
}

/// Awaits every ticket and records every line that was not stored.
pub(crate) async fn collect(
    mut outcomes: mpsc::Receiver<Outcome>,
    mut failures: FailureLog,
    voice: Voice,
    hopeless: watch::Sender<Option<String>>,
) -> Collection {
    let (mut stored_bytes, mut already_there) = (0, 0);
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
                    Failure::given_up(line, error)
                }
            },
            outcome = outcomes.recv(), if open => match outcome {
                Some(Outcome::Accepted { line, bytes, ticket }) => {
                    tickets.push(async move { (line, bytes, ticket.await) });
                    continue;
                }
                Some(Outcome::AlreadyThere) => {
                    already_there += 1;
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
    Collection { failures, stored_bytes, already_there }
}

/// Whether the events to come would fail the same way.
fn is_hopeless(error: &WriteError) -> bool {
    error.reason() == GiveUp::NotRetryable
        && error.last_cause().is_some_and(|cause| {
            matches!(cause.class(), FailureClass::Fatal | FailureClass::Refused)
        })
}
