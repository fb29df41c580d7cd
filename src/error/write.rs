//! What a ticket says when its event was not acknowledged.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct;

use super::{Attempt, BatchError, Certainty, WorkerLost};
use crate::event::Event;
use crate::event::key::EventKey;

/// Why the store gave an event up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureReason {
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

impl serde::Serialize for FailureReason {
    /// One word: `not_retryable`, `deadline`, `attempts`, `close_deadline` or `worker_lost`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::NotRetryable => "not_retryable",
            Self::Deadline => "deadline",
            Self::Attempts => "attempts",
            Self::CloseDeadline => "close_deadline",
            Self::WorkerLost(_) => "worker_lost",
        })
    }
}

/// What reading an event back told, before the store gave it up: it might have been stored by an
/// attempt that was not acknowledged.
///
/// An event that is found with its own body is [`Stored`](crate::Stored), and no error.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadBack {
    /// It was not in the table. With [`NotStored`](Certainty::NotStored) that is the last word; with
    /// [`MaybeStored`](Certainty::MaybeStored) an attempt whose answer was lost may still be applied.
    NotFound {
        /// When it was read, counted from the moment at which the store accepted the event.
        #[serde(rename = "after_seconds", serialize_with = "seconds")]
        after: Duration,
    },
    /// Another event is in the table under its key: a second writer has the same
    /// [`WriterId`](crate::WriterId), and one of the two events is lost or may yet be.
    OtherBody {
        /// When it was read, counted from the moment at which the store accepted the event.
        #[serde(rename = "after_seconds", serialize_with = "seconds")]
        after: Duration,
    },
    /// It could not be read. With the code `AccessDeniedException` the role lacks
    /// `dynamodb:BatchGetItem` on the table.
    Failed(#[serde(serialize_with = "shared")] Arc<BatchError>),
    /// No read has told anything in the time there was: until one attempt time-out after the event's
    /// deadline, or until close had to come back.
    NoTime,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn shared<S: serde::Serializer>(cause: &Arc<BatchError>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&**cause, serializer)
}

impl fmt::Display for ReadBack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { after } => {
                write!(formatter, "read back {after:.1?} after the put, it was not in the table")
            }
            Self::OtherBody { after } => write!(
                formatter,
                "read back {after:.1?} after the put, another event was under its key: give each \
                 writer an id of its own"
            ),
            Self::Failed(cause) if cause.code() == Some("AccessDeniedException") => write!(
                formatter,
                "it could not be read back, grant dynamodb:BatchGetItem to know more: {cause}"
            ),
            Self::Failed(cause) => write!(formatter, "it could not be read back: {cause}"),
            Self::NoTime => formatter.write_str("there was no time to read it back"),
        }
    }
}

/// An accepted event was not acknowledged: it is [`NotStored`](Certainty::NotStored) or
/// [`MaybeStored`](Certainty::MaybeStored).
///
/// To put it again under the same key, so that it cannot be stored twice, hand
/// [`event`](Self::event) to [`put_event`](crate::EventStore::put_event). Any other put makes a
/// *second* event with a key of its own. The answer is one to this put alone, and says nothing of another
/// under the same key.
///
/// It serialises to one JSON object with the event's key and body, from which an
/// [`Event`] can be read again; see [`CloseReport::write_ndjson`](crate::CloseReport::write_ndjson).
#[derive(Debug, Clone)]
pub struct WriteError(Arc<Failure>);

/// All that is known of an event that was given up. Shared by its ticket and the close report.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) key: EventKey,
    pub(crate) event: Option<Event>,
    pub(crate) certainty: Certainty,
    pub(crate) attempts: u32,
    pub(crate) elapsed: Duration,
    pub(crate) reason: FailureReason,
    /// Shared: one failed call fails up to 25 events.
    pub(crate) last_cause: Option<Arc<BatchError>>,
    pub(crate) history: Vec<Attempt>,
    pub(crate) read_back: Option<ReadBack>,
}

impl From<Failure> for WriteError {
    fn from(given_up: Failure) -> Self {
        Self(Arc::new(given_up))
    }
}

impl WriteError {
    /// The answer of a ticket whose other half vanished without a word.
    pub(crate) fn unanswered(key: EventKey) -> Self {
        Self::from(Failure {
            key,
            event: None,
            certainty: Certainty::MaybeStored,
            attempts: 0,
            elapsed: Duration::ZERO,
            reason: FailureReason::WorkerLost(WorkerLost::Stopped),
            last_cause: None,
            history: Vec::new(),
            read_back: None,
        })
    }

    /// Key of the event.
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
    pub fn reason(&self) -> FailureReason {
        self.0.reason
    }

    /// How the last attempt failed; `None` when there was none.
    #[must_use]
    pub fn last_cause(&self) -> Option<&BatchError> {
        self.0.last_cause.as_deref()
    }

    /// The attempts, oldest first: when, how long, and how each failed. Of more than 16 the first
    /// and the last eight; [`attempts`](Self::attempts) counts all.
    #[must_use]
    pub fn history(&self) -> &[Attempt] {
        &self.0.history
    }

    /// What reading the event back told. `None` where nothing was in doubt, where
    /// [`read_back`](crate::EventStoreBuilder::read_back) is switched off, and where the worker was
    /// lost.
    #[must_use]
    pub fn read_back(&self) -> Option<&ReadBack> {
        self.0.read_back.as_ref()
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { key, certainty, attempts, elapsed, reason, last_cause, read_back, .. } =
            &*self.0;
        let plural = if *attempts == 1 { "" } else { "s" };
        write!(formatter, "event {key} is {certainty} after {attempts} attempt{plural}")?;
        // A lost worker does not come to look at the clock.
        if !elapsed.is_zero() {
            write!(formatter, " in {elapsed:.1?}")?;
        }
        formatter.write_str(": ")?;
        match reason {
            FailureReason::NotRetryable => formatter.write_str("a retry would fail the same way"),
            FailureReason::Deadline => formatter.write_str("its deadline passed"),
            FailureReason::Attempts => formatter.write_str("no attempt is left"),
            FailureReason::CloseDeadline => {
                formatter.write_str("the store was closed before its turn")
            }
            FailureReason::WorkerLost(lost) => lost.fmt(formatter),
        }?;
        if let Some(cause) = last_cause {
            write!(formatter, "; last cause: {cause}")?;
        }
        match read_back {
            Some(read_back) => write!(formatter, "; {read_back}"),
            None => Ok(()),
        }
    }
}

impl Error for WriteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.last_cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl serde::Serialize for WriteError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let given_up = &*self.0;
        let mut fields = serializer.serialize_struct("WriteError", 10)?;
        fields.serialize_field("key", &given_up.key)?;
        fields.serialize_field("certainty", &given_up.certainty)?;
        fields.serialize_field("attempts", &given_up.attempts)?;
        fields.serialize_field("elapsed_seconds", &given_up.elapsed.as_secs_f64())?;
        fields.serialize_field("given_up", &given_up.reason)?;
        fields.serialize_field("reason", &format_args!("{self}"))?;
        fields.serialize_field("last_cause", &self.last_cause())?;
        fields.serialize_field("history", &given_up.history)?;
        fields.serialize_field("read_back", &given_up.read_back)?;
        fields.serialize_field("body", &given_up.event.as_ref().map(Event::body))?;
        fields.end()
    }
}
