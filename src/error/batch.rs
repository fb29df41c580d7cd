//! How one attempt to write a batch failed.

use std::error::Error;
use std::fmt;

use serde::ser::SerializeStruct;

use super::throttling::ThrottlingReason;

/// Whether an event that was not acknowledged may be in the table all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// No attempt was applied, and none can be any more: the event is not in the table.
    NotStored,
    /// An attempt may have been applied, or may yet be: its answer was lost, late or unreadable.
    MaybeStored,
}

impl fmt::Display for Certainty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::NotStored => "not stored",
            Self::MaybeStored => "maybe stored",
        })
    }
}

impl serde::Serialize for Certainty {
    /// In the words of its `Display`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What kind of failure it was, which decides what happens next.
///
/// Every error of DynamoDB's service model is named here, and those of
/// [AWS's common errors](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html) that such a
/// call can meet.
///
/// | class | of an answer of the service | may be stored |
/// |---|---|---|
/// | `Throttled` | `ProvisionedThroughputExceededException`, `ThrottlingException`, `RequestLimitExceeded`, `LimitExceededException`; what the SDK takes for throttling as well: `Throttling`, `ThrottledException`, `RequestThrottled`, `RequestThrottledException`, `TooManyRequestsException`, `BandwidthLimitExceeded`, `PriorRequestNotComplete`, `EC2ThrottledException`, `SlowDown`; 429 without a code | no |
/// | `Transient` | `InternalServerError`, `InternalFailure`, `ServiceUnavailable`, `ReplicatedWriteConflictException`, `TransactionInProgressException`, `RequestTimeoutException`, `RequestAbortedException`, any 5xx; an answer that cannot be read; 408 without a code | maybe |
/// | `Transient` | `TransactionConflictException`, `InvalidEndpointException`, 421, any other 4xx without a code | no |
/// | `ExpiredCredentials` | `ExpiredTokenException`; credentials that are not there, or not yet | no |
/// | `ClockSkew` | `RequestTimeTooSkewed`, `RequestExpired`; a refused signature where the clocks are far apart | no |
/// | `Poison` | `ValidationException`, `ValidationError`, `SerializationException`, `ItemCollectionSizeLimitExceededException`, `RequestEntityTooLargeException`, 413 | no |
/// | `Refused` | `AccessDeniedException`, `UnrecognizedClientException`, `InvalidClientTokenId`, `InvalidSignatureException`, `IncompleteSignature`, `MissingAuthenticationTokenException`, `NotAuthorized`, `OptInRequired`, `MalformedHttpRequestException`, `UnknownOperationException`, `ResourceNotFoundException`, `ResourceInUseException`, `TableInUseException`, `TableNotFoundException`, and every 4xx with a code that is not named here | no |
/// | `Refused` | what only other operations are told: `BackupInUseException`, `BackupNotFoundException`, `ConditionalCheckFailedException`, `ContinuousBackupsUnavailableException`, `DuplicateItemException`, `ExportConflictException`, `ExportNotFoundException`, `GlobalTableAlreadyExistsException`, `GlobalTableNotFoundException`, `IdempotentParameterMismatchException`, `ImportConflictException`, `ImportNotFoundException`, `IndexNotFoundException`, `InvalidExportTimeException`, `InvalidRestoreTimeException`, `PointInTimeRecoveryUnavailableException`, `PolicyNotFoundException`, `ReplicaAlreadyExistsException`, `ReplicaNotFoundException`, `TableAlreadyExistsException`, `TransactionCanceledException` | no |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The service took the call and handed the item back. Retried.
    Unprocessed,
    /// The service refused the call for its rate. Retried.
    Throttled,
    /// Connection, time-out, 5xx or an unreadable answer. Retried.
    Transient,
    /// The credentials have expired, or could not be fetched just now. Retried.
    ExpiredCredentials,
    /// The signature was refused because this machine's clock is off. Retried: the SDK corrects
    /// its clock by what the service answers.
    ClockSkew,
    /// The service calls the request invalid, which one event of the batch can be at fault for. The
    /// batch is sent again in halves until the guilty event is alone; that one is not retried.
    Poison,
    /// The service refuses every event: access denied, unknown credentials, no such table. Fresh roles, keys and
    /// permissions do so for seconds. Retried, beyond [`max_attempts`](crate::EventStoreBuilder::max_attempts) as well,
    /// until it has stood for [`refusal_timeout`](crate::EventStoreBuilder::refusal_timeout) without a call that the
    /// service let in; then it is final for every event that waits. A table that is not there is final at once, unless
    /// it was there before.
    Refused,
    /// Nothing that time mends, for any event: a request that cannot be built, credentials that are set up wrong.
    /// Not retried, and the events that wait are given up with it.
    Fatal,
    /// The [`BatchWriter`](crate::BatchWriter) panicked. Not retried.
    Panicked,
}

impl FailureClass {
    /// Whether the same event may be sent again after a failure of this class.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Unprocessed
            | Self::Throttled
            | Self::Transient
            | Self::ExpiredCredentials
            | Self::ClockSkew
            | Self::Refused => true,
            Self::Poison | Self::Fatal | Self::Panicked => false,
        }
    }
}

/// One attempt to write one batch failed, or handed an event back.
///
/// The message never holds an event's body or a credential. Whoever implements
/// [`BatchWriter`](crate::BatchWriter) keeps it so.
#[derive(thiserror::Error)]
pub struct BatchError {
    class: FailureClass,
    certainty: Certainty,
    message: String,
    code: Option<String>,
    request_id: Option<String>,
    throttling_reasons: Vec<ThrottlingReason>,
    is_call_over: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BatchError {
    /// A failure of this class, with what is known of the batch's fate.
    pub fn new(class: FailureClass, certainty: Certainty, message: impl Into<String>) -> Self {
        Self {
            class,
            certainty,
            message: message.into(),
            code: None,
            request_id: None,
            throttling_reasons: Vec::new(),
            is_call_over: false,
            source: None,
        }
    }

    /// Adds the service's error code, for example `ThrottlingException`.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Adds the service's request id.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// Adds the limits that the service throttled the call for.
    #[must_use]
    pub fn with_throttling_reasons(
        mut self,
        reasons: impl IntoIterator<Item = ThrottlingReason>,
    ) -> Self {
        self.throttling_reasons.extend(reasons);
        self
    }

    pub(crate) fn with_certainty(mut self, certainty: Certainty) -> Self {
        self.certainty = certainty;
        self
    }

    pub(crate) fn with_call_under_way(mut self) -> Self {
        self.is_call_over = false;
        self
    }

    /// Says that the service is done with the call: what it has not applied by now it never will.
    ///
    /// It matters for a call that may have been applied. Where an event of it is not in the table when
    /// it is read back, the event is then [`NotStored`](Certainty::NotStored); after a call that may
    /// still be under way somewhere it stays [`MaybeStored`](Certainty::MaybeStored).
    #[must_use]
    pub fn with_call_over(mut self) -> Self {
        self.is_call_over = true;
        self
    }

    /// Adds the error underneath. It must not hold a request or a response: both hold bodies.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The event was listed in a call's `UnprocessedItems`.
    pub(crate) fn unprocessed(request_id: Option<&str>) -> Self {
        let error = Self::new(
            FailureClass::Unprocessed,
            Certainty::NotStored,
            "the service handed the item back in UnprocessedItems: the table is short of write \
             capacity",
        );
        match request_id {
            Some(request_id) => error.with_request_id(request_id),
            None => error,
        }
    }

    /// The attempt was dropped when its time was up.
    pub(crate) fn timed_out(limit: std::time::Duration) -> Self {
        Self::new(
            FailureClass::Transient,
            Certainty::MaybeStored,
            format!("no answer within {limit:?}"),
        )
    }

    /// The attempt was answered, but not with an answer to it.
    pub(crate) fn unreadable(what: &str) -> Self {
        Self::new(
            FailureClass::Transient,
            Certainty::MaybeStored,
            format!("the answer makes no sense: {what}"),
        )
    }

    /// The failure's class.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        self.class
    }

    /// Whether the batch may have been applied in spite of the failure.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.certainty
    }

    /// Whether the service is known to be done with the call.
    #[must_use]
    pub fn is_call_over(&self) -> bool {
        self.is_call_over
    }

    /// The service's error code, where the service answered with one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The service's id of the failed request, where it gave one. AWS support asks for it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The limits that the service throttled the call for, where it named any.
    #[must_use]
    pub fn throttling_reasons(&self) -> &[ThrottlingReason] {
        &self.throttling_reasons
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = &self.code {
            write!(formatter, "{code}: ")?;
        }
        formatter.write_str(&self.message)?;
        for (number, reason) in self.throttling_reasons.iter().enumerate() {
            write!(formatter, "{}{reason}", if number == 0 { " Reason: " } else { ", " })?;
        }
        if let Some(request_id) = &self.request_id {
            write!(formatter, " (request id {request_id})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BatchError {
    /// Leaves the source out: the `Debug` of other crates' errors may print whole requests.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BatchError")
            .field("class", &self.class)
            .field("certainty", &self.certainty)
            .field("code", &self.code)
            .field("message", &self.message)
            .field("request_id", &self.request_id)
            .field("throttling_reasons", &self.throttling_reasons)
            .finish_non_exhaustive()
    }
}

impl serde::Serialize for BatchError {
    /// Class, code, message, request id and, where there are any, throttling reasons. The source is left
    /// out, as in `Debug`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_throttled = !self.throttling_reasons.is_empty();
        let mut fields =
            serializer.serialize_struct("BatchError", 4 + usize::from(is_throttled))?;
        fields.serialize_field("class", &self.class)?;
        fields.serialize_field("code", &self.code)?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("request_id", &self.request_id)?;
        if is_throttled {
            fields.serialize_field("throttling_reasons", &self.throttling_reasons)?;
        }
        fields.end()
    }
}
