//! What a ticket says when its event was not acknowledged.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{BatchError, Certainty, WorkerLost};
use crate::event::Event;
use crate::key::EventKey;

/// Why the store gave an event up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUp {
    /// The last failure is one that a retry would only repeat.
    NotRetryable,
    /// The event's deadline passed, or would have before the next attempt.
    Deadline,
    /// As many attempts were made as the store allows for one event.
    Attempts,
    /// The deadline of [`close`](crate::EventStore::close) passed.
    CloseDeadline,
    /// The store's worker ended before the event was settled.
    WorkerLost(WorkerLost),
}

/// An accepted event was not acknowledged: it is [`NotStored`](Certainty::NotStored) or
/// [`MaybeStored`](Certainty::MaybeStored).
///
/// Putting it again makes a *second* event, with a key of its own. For a `MaybeStored` event that
/// can mean it is in the table twice; read [`key`](Self::key) back to know.
#[derive(Debug, Clone)]
pub struct WriteError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    key: EventKey,
    event: Option<Event>,
    certainty: Certainty,
    attempts: u32,
    elapsed: Duration,
    reason: GiveUp,
    /// Shared: one failed call fails up to 25 events.
    last_cause: Option<Arc<BatchError>>,
}

impl WriteError {
    pub(crate) fn new(
        event: Event,
        certainty: Certainty,
        attempts: u32,
        elapsed: Duration,
        reason: GiveUp,
        last_cause: Option<Arc<BatchError>>,
    ) -> Self {
        Self(Box::new(Inner {
            key: *event.key(),
            event: Some(event),
            certainty,
            attempts,
            elapsed,
            reason,
            last_cause,
        }))
    }

    /// The answer of a ticket whose other half vanished without a word.
    pub(crate) fn unanswered(key: EventKey) -> Self {
        Self(Box::new(Inner {
            key,
            event: None,
            certainty: Certainty::MaybeStored,
            attempts: 0,
            elapsed: Duration::ZERO,
            reason: GiveUp::WorkerLost(WorkerLost::Stopped),
            last_cause: None,
        }))
    }

    /// Key of the event. It was never used for another.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.0.key
    }

    /// The event, to be kept elsewhere. `None` only where the worker's memory vanished with it,
    /// which no known way of ending a runtime does.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        self.0.event.as_ref()
    }

    /// Whether the event may be in the table all the same.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.0.certainty
    }

    /// How many calls carried the event; 0 when it was never sent.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Time from acceptance to giving up; zero where the worker was lost.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// Why the store gave the event up.
    #[must_use]
    pub fn reason(&self) -> GiveUp {
        self.0.reason
    }

    /// How the last attempt failed; `None` when there was none.
    #[must_use]
    pub fn last_cause(&self) -> Option<&BatchError> {
        self.0.last_cause.as_deref()
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { key, certainty, attempts, elapsed, reason, last_cause, .. } = &*self.0;
        let plural = if *attempts == 1 { "" } else { "s" };
        write!(formatter, "event {key} is {certainty} after {attempts} attempt{plural}")?;
        // A lost worker does not come to look at the clock.
        if !elapsed.is_zero() {
            write!(formatter, " in {elapsed:.1?}")?;
        }
        formatter.write_str(": ")?;
        match reason {
            GiveUp::NotRetryable => formatter.write_str("a retry would fail the same way"),
            GiveUp::Deadline => formatter.write_str("its deadline passed"),
            GiveUp::Attempts => formatter.write_str("no attempt is left"),
            GiveUp::CloseDeadline => formatter.write_str("the store was closed before its turn"),
            GiveUp::WorkerLost(lost) => lost.fmt(formatter),
        }?;
        match last_cause {
            Some(cause) => write!(formatter, "; last cause: {cause}"),
            None => Ok(()),
        }
    }
}

impl Error for WriteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.last_cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}
