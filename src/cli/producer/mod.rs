//! Reads the lines of the input, and puts them into the store.

mod failed_events;
mod failed_line;
mod new_events;
pub(crate) mod refusal;
mod resume_check;
mod tracked_input;

use dynamodb_eventstore::EventStore;

use crate::collector::Outcome;
use crate::stop::StopReason;
pub(crate) use failed_events::FailedEvents;
pub(crate) use new_events::NewEvents;
pub(crate) use resume_check::ResumeCheck;
pub(crate) use tracked_input::TrackedInput;

/// The producer of one run, by its mode.
#[derive(Debug)]
pub(crate) enum Producer {
    Put(NewEvents),
    Resume(FailedEvents),
}

impl Producer {
    /// Puts lines until there are no more. Cancel safe: if a put is cancelled, its line was not
    /// accepted, and is put next.
    pub(crate) async fn put_all(
        &mut self,
        store: &EventStore,
        check: &mut ResumeCheck,
    ) -> StopReason {
        loop {
            let result = match self {
                Self::Put(events) => events.put_next(store).await,
                Self::Resume(events) => events.put_batch(store, check).await,
            };
            if let Err(reason) = result {
                return reason;
            }
        }
    }

    /// Records every remaining line as not put. Cancel safe.
    pub(crate) async fn record_rest(&mut self) {
        while let Ok(permit) = self.input().reserve_outcome().await {
            let failure = match self {
                Self::Put(events) => events.next_not_put().await,
                Self::Resume(events) => events.next_not_put().await,
            };
            let Ok(failure) = failure else { return };
            permit.send(Outcome::Failed(failure));
        }
    }

    /// Reads nothing more from the source: only the lines already read are left.
    pub(crate) fn stop_reading(&mut self) {
        match self {
            Self::Put(events) => events.input.stop_reading(),
            Self::Resume(events) => events.input.stop_reading(),
        }
    }

    pub(crate) fn input(&self) -> &TrackedInput {
        match self {
            Self::Put(events) => &events.input,
            Self::Resume(events) => &events.input,
        }
    }
}
