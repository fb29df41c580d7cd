//! The lines of `resume`: failed events.

use std::collections::VecDeque;

use dynamodb_eventstore::{EventStore, MAX_BATCH_EVENTS};

use super::failed_line::{Decision, FailedLine};
use super::resume_check::ResumeCheck;
use super::tracked_input::TrackedInput;
use crate::collector::Outcome;
use crate::collector::failure::Failure;
use crate::stop::StopReason;

/// Maximum bytes of the lines whose keys one read covers, without the last line.
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

/// Puts each line as an event that already has its key.
#[derive(Debug)]
pub(crate) struct FailedEvents {
    pub(super) input: TrackedInput,
    /// The lines whose keys one read covers.
    decisions: VecDeque<Decision>,
    /// Whether those keys have been read.
    is_checked: bool,
}

impl FailedEvents {
    pub(crate) fn new(input: TrackedInput) -> Self {
        Self { input, decisions: VecDeque::new(), is_checked: false }
    }

    /// Puts the lines of one read. Cancel safe: the first line that was not put is the next line.
    pub(super) async fn put_batch(
        &mut self,
        store: &EventStore,
        check: &mut ResumeCheck,
    ) -> Result<(), StopReason> {
        if !self.is_checked {
            self.fill_batch().await?;
            let decisions = self.decisions.make_contiguous();
            check.decide(decisions).await.map_err(StopReason::FatalError)?;
            self.is_checked = true;
        }
        while !self.decisions.is_empty() {
            let permit = self.input.reserve_outcome().await?;
            let ticket = match self.decisions.front() {
                Some(Decision::Put(line, event)) => {
                    let put = store.put_again(event.clone(), line.certainty).await;
                    Some(put.map_err(|error| StopReason::FatalError(error.to_string()))?)
                }
                _ => None,
            };
            let Some(decision) = self.decisions.pop_front() else { break };
            let (failed_line, result) = decision.into_parts();
            self.input.mark_done(&failed_line.line);
            let line = failed_line.number;
            permit.send(match (ticket, result) {
                (Some(ticket), _) => {
                    Outcome::Accepted { line, bytes: failed_line.body_bytes, ticket }
                }
                (None, Err(failure)) => Outcome::Failed(failure),
                (None, Ok(key)) => Outcome::AlreadyStored { line, key },
            });
        }
        self.is_checked = false;
        Ok(())
    }

    /// Waits for a first line, and adds the lines that have already been read.
    async fn fill_batch(&mut self) -> Result<(), StopReason> {
        if self.decisions.is_empty() {
            let first = self.input.next().await?;
            self.decisions.push_back(Decision::new(FailedLine::parse(first)));
        }
        let lengths = self.decisions.iter().map(|decision| decision.line().line.text.len());
        let mut bytes: usize = lengths.sum();
        while self.decisions.len() < MAX_BATCH_EVENTS && bytes < MAX_READ_BYTES {
            let Some(line) = self.input.try_next() else { break };
            bytes += line.text.len();
            self.decisions.push_back(Decision::new(FailedLine::parse(line)));
        }
        Ok(())
    }

    /// The next line as one that was not put. Cancel safe.
    pub(super) async fn next_not_put(&mut self) -> Result<Failure, StopReason> {
        let line = match self.decisions.pop_front() {
            Some(decision) => decision.into_parts().0,
            None => FailedLine::parse(self.input.next().await?),
        };
        Ok(line.not_put())
    }
}
