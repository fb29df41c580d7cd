//! Lines of events that were given up.

use std::collections::VecDeque;

use dynamodb_eventstore::{EventStore, MAX_BATCH_EVENTS};

use crate::collecting::Outcome;
use crate::ending::End;
use crate::failures::Failure;
use crate::feed::Feed;
use crate::given_up::{Record, Step};
use crate::resume_check::ResumeCheck;

/// Lines read together hold no more than this, and one more line.
const MOST_BYTES_AT_A_TIME: usize = 4 * 1024 * 1024;

/// The lines of `resume`, on their way into the store.
#[derive(Debug)]
pub(crate) struct GivenUpLines {
    pub(crate) feed: Feed,
    /// As many as one read takes.
    steps: VecDeque<Step>,
    /// Whether the keys of the steps have been read.
    is_checked: bool,
}

impl GivenUpLines {
    pub(crate) fn new(feed: Feed) -> Self {
        Self { feed, steps: VecDeque::new(), is_checked: false }
    }

    /// Puts as many lines as one read takes. Cancel safe: what was not put is the next.
    pub(crate) async fn put_some(
        &mut self,
        store: &EventStore,
        check: &mut ResumeCheck,
    ) -> Result<(), End> {
        if !self.is_checked {
            self.take_some().await?;
            check.decide(self.steps.make_contiguous()).await.map_err(End::Refused)?;
            self.is_checked = true;
        }
        while !self.steps.is_empty() {
            let place = self.feed.place().await?;
            let ticket = match self.steps.front() {
                Some(Step::Put(record, event)) => {
                    let put = store.put_again(event.clone(), record.certainty).await;
                    Some(put.map_err(|error| End::Refused(error.to_string()))?)
                }
                _ => None,
            };
            let Some(step) = self.steps.pop_front() else { break };
            let (record, result) = step.into_parts();
            self.feed.done_with(&record.line);
            let line = record.number;
            place.send(match (ticket, result) {
                (Some(ticket), _) => Outcome::Accepted { line, bytes: record.body_bytes, ticket },
                (None, Err(failure)) => Outcome::Failed(failure),
                (None, Ok(key)) => Outcome::AlreadyThere { line, key },
            });
        }
        self.is_checked = false;
        Ok(())
    }

    /// Adds lines to the steps: the first is waited for; whatever else is here goes with it.
    async fn take_some(&mut self) -> Result<(), End> {
        if self.steps.is_empty() {
            let first = self.feed.next().await?;
            self.steps.push_back(Step::of(Record::of(first)));
        }
        let mut bytes: usize = self.steps.iter().map(|step| step.record().line.text.len()).sum();
        while self.steps.len() < MAX_BATCH_EVENTS && bytes < MOST_BYTES_AT_A_TIME {
            let Some(line) = self.feed.next_here() else { break };
            bytes += line.text.len();
            self.steps.push_back(Step::of(Record::of(line)));
        }
        Ok(())
    }

    /// The next line as one that was not put. Cancel safe.
    pub(crate) async fn next_untried(&mut self) -> Result<Failure, End> {
        let record = match self.steps.pop_front() {
            Some(step) => step.into_parts().0,
            None => Record::of(self.feed.next().await?),
        };
        Ok(record.untried())
    }
}
