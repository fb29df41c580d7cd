//! The lines of `put`: new events.

use dynamodb_eventstore::{Certainty, EventStore, PutError, PutTicket};

use super::refusal::{JqHint, text_of};
use super::tracked_input::TrackedInput;
use crate::collector::Outcome;
use crate::collector::failure::{Content, Failure};
use crate::input::Line;
use crate::output::Output;
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
        Self { input, current: None, hint: JqHint::new(output) }
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
    let text = match text_of(line) {
        Ok(text) => text,
        Err(reason) => return Ok(Err(reason)),
    };
    match store.put_json(text).await {
        Ok(ticket) => Ok(Ok(ticket)),
        Err(PutError::NotJson(error)) => Ok(Err(hint.not_json(text, &error))),
        Err(error @ PutError::TooLarge(_)) => Ok(Err(error.to_string())),
        Err(error) => Err(StopReason::FatalError(error.to_string())),
    }
}
