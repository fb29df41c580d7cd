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
    /// Write units, or NaN where they are not known. An `Option` of them would make every ticket's channel larger.
    pub(crate) write_units: f64,
    /// Not a `Vec`, for the same reason.
    pub(crate) history: Box<[Attempt]>,
}

/// Every ticket's channel has room for one.
const _: () = assert!(size_of::<Stored>() <= 64);

impl Stored {
    /// Write units that the service has charged for the event: its share of those that the acknowledged call consumed.
    ///
    /// The service reports one number for a call. It is divided in proportion to
    /// [`Event::write_units`](crate::Event::write_units) among the events that the call has written, and those whose
    /// keys it found taken, which are charged as well. Where each costs what follows from its size, the share is exactly
    /// that. An index, a replica or a larger item under the same key makes a call cost more. Then the share is an
    /// estimate for the event, and the sum over the call is still right.
    ///
    /// `None` without [`return_consumed_capacity`](crate::EventStoreBuilder::return_consumed_capacity), and for an event
    /// that was [read back](Proof::ReadBack), because the answer of its call was lost. Earlier attempts that the service
    /// has charged are not included.
    #[must_use]
    pub fn write_units(&self) -> Option<f64> {
        (!self.write_units.is_nan()).then_some(self.write_units)
    }

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
