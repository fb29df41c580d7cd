//! The error of a ticket: an accepted event was not acknowledged.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeStruct;

use super::{Attempt, BatchError, Certainty, FailureClass, WorkerLost};
use crate::event::Event;
use crate::event::key::EventKey;

/// Why the store stopped trying to write an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureReason {
    /// A retry would fail the same way as the last attempt.
    NotRetryable,
    /// The event's deadline passed, or would have passed before the next attempt.
    Deadline,
    /// The event had as many attempts as [`max_attempts`](crate::EventStoreBuilder::max_attempts) allows.
    Attempts,
    /// The deadline of [`close`](crate::EventStore::close) passed.
    CloseDeadline,
    /// Another item has the event's key, and the event got no new one: by setting
    /// ([`OnDuplicate::Fail`](crate::OnDuplicate::Fail)), as an earlier put may have stored it under another key, as
    /// the item could not be read, or as no key could be made or fits.
    DuplicateKey,
    /// The event waited on disk, and its record in the journal could not be read.
    Unreadable,
    /// The store's worker ended before the event was settled.
    WorkerLost(WorkerLost),
}

impl serde::Serialize for FailureReason {
    /// One word: `not_retryable`, `deadline`, `attempts`, `close_deadline`, `duplicate_key`, `unreadable` or
    /// `worker_lost`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::NotRetryable => "not_retryable",
            Self::Deadline => "deadline",
            Self::Attempts => "attempts",
            Self::CloseDeadline => "close_deadline",
            Self::DuplicateKey => "duplicate_key",
            Self::Unreadable => "unreadable",
            Self::WorkerLost(_) => "worker_lost",
        })
    }
}

/// What reading an event back has shown.
///
/// The store reads an event back before it fails it, if an attempt that was not acknowledged may have stored
/// it. An event that is found with its own body is [`Stored`](crate::Stored), not an error.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadBack {
    /// The event was not in the table. With the certainty [`NotStored`](Certainty::NotStored) that is final. With
    /// [`MaybeStored`](Certainty::MaybeStored) an attempt whose response was lost may still be applied.
    NotFound {
        /// Time from the acceptance of the event to the read.
        #[serde(rename = "after_seconds", serialize_with = "seconds")]
        after: Duration,
    },
    /// Another event is in the table under the same key: a second writer has the same
    /// [`WriterId`](crate::WriterId). With [`WriteMode::Put`](crate::WriteMode::Put) one of the two events has been
    /// overwritten, or will be.
    OtherBody {
        /// Time from the acceptance of the event to the read.
        #[serde(rename = "after_seconds", serialize_with = "seconds")]
        after: Duration,
    },
    /// The read failed. With the code `AccessDeniedException` the role lacks `dynamodb:BatchGetItem` on the
    /// table.
    Failed(#[serde(serialize_with = "shared")] Arc<BatchError>),
    /// No read was completed in time: by one attempt time-out after the event's deadline, or before `close`
    /// had to return.
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
                "it could not be read back, grant dynamodb:BatchGetItem to the role: {cause}"
            ),
            Self::Failed(cause) => write!(formatter, "it could not be read back: {cause}"),
            Self::NoTime => {
                formatter.write_str("there was no time to read it back before the deadline")
            }
        }
    }
}

/// An accepted event was not acknowledged. It is [`NotStored`](Certainty::NotStored) or
/// [`MaybeStored`](Certainty::MaybeStored).
///
/// To put the event again under the same key, so that it cannot be stored twice, pass
/// [`event`](Self::event) to [`put_event`](crate::EventStore::put_event). Any other put makes a *second*
/// event with a new key. The error is about this put only, not about other puts of the same key.
///
/// It serialises to one JSON object with the event's key and body, from which an [`Event`] can be
/// deserialised; see [`CloseReport::write_ndjson`](crate::CloseReport::write_ndjson).
#[derive(Debug, Clone)]
pub struct WriteError(Arc<Failure>);

/// The contents of a [`WriteError`], shared by the ticket and the close report.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) key: EventKey,
    pub(crate) event: Option<Event>,
    pub(crate) certainty: Certainty,
    pub(crate) attempts: u32,
    pub(crate) elapsed: Duration,
    pub(crate) reason: FailureReason,
    /// Shared by the up to 25 events of a failed call.
    pub(crate) last_cause: Option<Arc<BatchError>>,
    pub(crate) history: Vec<Attempt>,
    pub(crate) read_back: Option<ReadBack>,
    /// Whether the journal keeps the event.
    #[cfg(feature = "journal")]
    pub(crate) is_journalled: bool,
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        Self(Arc::new(failure))
    }
}

impl WriteError {
    /// The error of a ticket whose sender was dropped without an answer.
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
            #[cfg(feature = "journal")]
            is_journalled: false,
        })
    }

    /// Key of the event.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.0.key
    }

    /// The event, so that it can be stored elsewhere. `None` for an event that waited on disk and stays there (see
    /// `is_journalled`), and if the worker's memory was leaked instead of dropped, which no tokio runtime does.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        self.0.event.as_ref()
    }

    /// Whether the event may be in the table despite the error.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.0.certainty
    }

    /// Number of calls that carried the event; 0 if it was never sent.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Time from the acceptance of the event to its failure; zero if the worker was lost.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// Why the store stopped trying to write the event.
    #[must_use]
    pub fn reason(&self) -> FailureReason {
        self.0.reason
    }

    /// The last cause of the failure: usually how the last attempt failed. For an event that was never sent, it is why
    /// the event was not sent. `None` if there is no cause.
    #[must_use]
    pub fn last_cause(&self) -> Option<&BatchError> {
        self.0.last_cause.as_deref()
    }

    /// The attempts, oldest first: when each began, how long it took and how it failed. If there were more than 16
    /// attempts, only the first eight and the last eight are listed; [`attempts`](Self::attempts) counts all of them.
    #[must_use]
    pub fn history(&self) -> &[Attempt] {
        &self.0.history
    }

    /// What reading the event back has shown. `None` if no attempt may have stored the event, or if the worker was lost.
    /// If [`read_back`](crate::EventStoreBuilder::read_back) is switched off, only inserts whose keys were taken are read.
    #[must_use]
    pub fn read_back(&self) -> Option<&ReadBack> {
        self.0.read_back.as_ref()
    }

    /// Whether the journal keeps the event: it is put again later under the same key, by this store or by the next that
    /// opens the journal. It is on disk at the latest when [`close`](crate::EventStore::close) returns.
    ///
    /// `false` without a journal, for an event that the service calls invalid or whose key another item has, and for an
    /// event that could not be written to the journal. Invalid events and those whose keys are taken are in the file
    /// `failed.ndjson` in the journal's directory.
    #[cfg(feature = "journal")]
    #[must_use]
    pub fn is_journalled(&self) -> bool {
        self.0.is_journalled
    }
}

impl WriteError {
    /// What to do next, as the end of the message.
    fn next_step(&self) -> &'static str {
        #[cfg(feature = "journal")]
        if self.0.is_journalled {
            return "; the journal keeps it: it is put again later, by this store or by the next that opens the journal";
        }
        let is_of_another = matches!(self.0.read_back, Some(ReadBack::OtherBody { .. }));
        match (self.0.reason, self.0.certainty) {
            (FailureReason::DuplicateKey, Certainty::NotStored) => {
                return "; put its body as a new event, as the other one has its key";
            }
            (FailureReason::DuplicateKey, Certainty::MaybeStored) if is_of_another => {
                return "; an earlier put may have stored it under a new key: if it is not in the table, put its body \
                        as a new event";
            }
            (_, Certainty::NotStored) if is_of_another => {
                return "; put its body as a new event, as the other one has its key";
            }
            (_, Certainty::MaybeStored) if is_of_another => {
                return "; put its body as a new event, as putting it again would overwrite the other one";
            }
            _ => {}
        }
        let is_invalid =
            self.last_cause().is_some_and(|cause| cause.class() == FailureClass::Invalid);
        match self.0.reason {
            FailureReason::NotRetryable if is_invalid => {
                "; correct the event, and put it as a new one"
            }
            FailureReason::NotRetryable => "; remove the cause, then put it again with put_again()",
            _ => "; put it again with put_again(): under the same key it cannot be stored twice",
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { key, certainty, attempts, elapsed, reason, last_cause, read_back, .. } =
            &*self.0;
        let plural = if *attempts == 1 { "" } else { "s" };
        write!(formatter, "event {key} is {certainty} after {attempts} attempt{plural}")?;
        // The time is not known if the worker was lost.
        if !elapsed.is_zero() {
            write!(formatter, " in {elapsed:.1?}")?;
        }
        formatter.write_str(": ")?;
        match reason {
            FailureReason::NotRetryable => formatter.write_str("a retry would fail the same way"),
            FailureReason::Deadline => formatter.write_str("its deadline passed"),
            FailureReason::Attempts => formatter.write_str("it has no attempts left"),
            FailureReason::CloseDeadline => formatter.write_str("the deadline of close() passed"),
            FailureReason::DuplicateKey => formatter.write_str("another item has its key"),
            FailureReason::Unreadable => {
                formatter.write_str("its record in the journal cannot be read")
            }
            FailureReason::WorkerLost(lost) => lost.fmt(formatter),
        }?;
        if let Some(cause) = last_cause {
            write!(formatter, "; last cause: {cause}")?;
        }
        if let Some(read_back) = read_back {
            write!(formatter, "; {read_back}")?;
        }
        formatter.write_str(self.next_step())
    }
}

impl Error for WriteError {
    /// What the message does not show: the source of the [last cause](WriteError::last_cause).
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.last_cause()?.source()
    }
}

impl serde::Serialize for WriteError {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let failure = &*self.0;
        let mut fields = serializer.serialize_struct("WriteError", 10)?;
        fields.serialize_field("key", &failure.key)?;
        fields.serialize_field("certainty", &failure.certainty)?;
        fields.serialize_field("attempts", &failure.attempts)?;
        fields.serialize_field("elapsed_seconds", &failure.elapsed.as_secs_f64())?;
        fields.serialize_field("failure_reason", &failure.reason)?;
        fields.serialize_field("reason", &format_args!("{self}"))?;
        fields.serialize_field("last_cause", &self.last_cause())?;
        fields.serialize_field("history", &failure.history)?;
        fields.serialize_field("read_back", &failure.read_back)?;
        fields.serialize_field("body", &failure.event.as_ref().map(Event::body))?;
        fields.end()
    }
}
