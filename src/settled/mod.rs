//! What an event is settled as, and the hook that learns of each.

pub(crate) mod hook;

use crate::error::{Attempt, WriteError};
use crate::event::key::EventKey;

/// The answer for an event that is stored.
///
/// Either the service acknowledged a call that carried the event and did not list its key as unprocessed, or a
/// consistent read found the event although no acknowledgement arrived. An eventually consistent read may find it a
/// moment later.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Key of the event in the table.
    pub key: EventKey,
    /// How many calls carried the event, the acknowledged one included.
    pub attempts: u32,
    /// How the store knows that the event is stored.
    pub proof: Proof,
    pub(crate) history: Vec<Attempt>,
}

impl Stored {
    /// The attempts, oldest first: when each began, how long it took, and how it failed unless it was acknowledged. Of
    /// more than 16 attempts, the first eight and the last eight.
    ///
    /// Empty for an event that was stored at the first attempt.
    #[must_use]
    pub fn history(&self) -> &[Attempt] {
        &self.history
    }
}

/// How the store knows that an event is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proof {
    /// The service acknowledged a call that carried the event.
    Acknowledged,
    /// A consistent read found the event, with its body.
    ReadBack,
}

/// What became of an event, as the hook of [`on_settled`](crate::EventStoreBuilder::on_settled) learns it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Settled {
    /// An event is stored. Its ticket has the same answer.
    Stored(Stored),
    /// An event failed. Its ticket has the same answer.
    Failed(WriteError),
    /// More events were settled than the hook could take in time. Their tickets, the counters and the close report have
    /// them; the hook does not learn their keys.
    #[non_exhaustive]
    Missed {
        /// How many.
        events: u64,
    },
}
