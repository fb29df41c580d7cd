//! How one attempt to write a batch failed: its class, its certainty, and the service's code and message.
//!
//! Every [`BatchWriter`](crate::BatchWriter) reports failures in this form. The retry policy decides by
//! the class, and tickets show the error as their last cause.

use std::error::Error;
use std::fmt;

use serde::ser::SerializeStruct;

use super::throttling::ThrottlingReason;

/// Whether an event that was not acknowledged may be in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// The event is not in the table: no attempt was applied, and none can still be applied.
    NotStored,
    /// An attempt may have been applied, or may be applied later: its response was lost, late or
    /// unreadable.
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
    /// As the text of its `Display`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The kind of a failure, which decides whether the store retries.
///
/// The table has every error code of DynamoDB's service model, and those of
/// [AWS's common errors](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/CommonErrors.html) that a
/// `BatchWriteItem` call can get.
///
/// | class | error code or HTTP status of the response | may be stored |
/// |---|---|---|
/// | `Throttled` | `ProvisionedThroughputExceededException`, `ThrottlingException`, `RequestLimitExceeded`, `LimitExceededException`; other codes that the SDK treats as throttling: `Throttling`, `ThrottledException`, `RequestThrottled`, `RequestThrottledException`, `TooManyRequestsException`, `BandwidthLimitExceeded`, `PriorRequestNotComplete`, `EC2ThrottledException`, `SlowDown`; 429 without a code of this table | no |
/// | `Transient` | `InternalServerError`, `InternalServerErrorException`, `InternalFailure`, `ServiceUnavailable`, `ServiceUnavailableException`, `ReplicatedWriteConflictException`, `TransactionInProgressException`, `RequestTimeout`, `RequestTimeoutException`, `RequestAbortedException`, any other 5xx; a response that cannot be read; 408 without a code of this table | maybe |
/// | `Transient` | `TransactionConflictException`, `InvalidEndpointException`, 421, any other 4xx without a code | no |
/// | `ExpiredCredentials` | `ExpiredToken`, `ExpiredTokenException`; no credentials could be loaded yet | no |
/// | `ClockSkew` | `RequestTimeTooSkewed`, `RequestExpired`; `InvalidSignatureException`, `SignatureDoesNotMatch`, `AuthFailure` and `AccessDeniedException` if the signature's time is more than 4 minutes off the service's | no |
/// | `Invalid` | `ValidationException`, `ValidationError`, `SerializationException`, `ItemCollectionSizeLimitExceededException`, `RequestEntityTooLarge`, `RequestEntityTooLargeException`, 413 | no |
/// | `Refused` | `AccessDeniedException`, `UnrecognizedClientException`, `InvalidClientTokenId`, `InvalidSignatureException`, `IncompleteSignature`, `MissingAuthenticationTokenException`, `NotAuthorized`, `OptInRequired`, `MalformedHttpRequestException`, `UnknownOperationException`, `ResourceNotFoundException`, `ResourceInUseException`, `TableInUseException`, `TableNotFoundException`, and every other 4xx with a code that is not in this table | no |
/// | `Duplicate` | `DuplicateItem` and `ConditionalCheckFailed` of one statement | no |
/// | `Refused` | codes that only other operations return: `BackupInUseException`, `BackupNotFoundException`, `ConditionalCheckFailedException`, `ContinuousBackupsUnavailableException`, `DuplicateItemException`, `ExportConflictException`, `ExportNotFoundException`, `GlobalTableAlreadyExistsException`, `GlobalTableNotFoundException`, `IdempotentParameterMismatchException`, `ImportConflictException`, `ImportNotFoundException`, `IndexNotFoundException`, `InvalidExportTimeException`, `InvalidRestoreTimeException`, `PointInTimeRecoveryUnavailableException`, `PolicyNotFoundException`, `ReplicaAlreadyExistsException`, `ReplicaNotFoundException`, `TableAlreadyExistsException`, `TransactionCanceledException` | no |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The service accepted the call and returned the item in `UnprocessedItems`. The event is retried.
    Unprocessed,
    /// The service refused the call because its rate is too high. The call is retried.
    Throttled,
    /// A broken connection, a time-out, a 5xx, or a response that cannot be read. The call is retried.
    Transient,
    /// The credentials have expired, or could not be loaded. The call is retried.
    ExpiredCredentials,
    /// The service refused the signature because this machine's clock is wrong. The call is retried. Later signatures
    /// use the time in the service's response.
    ClockSkew,
    /// The service rejected the request as invalid; one event of the batch may be the cause. The batch is
    /// sent again in halves. An event that was alone in its call is not retried.
    Invalid,
    /// Another item has the event's key; only with [`WriteMode::Insert`](crate::WriteMode::Insert). It may be the event
    /// itself, stored by an earlier attempt. If it is another one, [`OnDuplicate`](crate::OnDuplicate) decides.
    Duplicate,
    /// The service refuses every call: access denied, unknown credentials, no such table. New roles, keys and
    /// permissions take some seconds to work.
    ///
    /// The call is retried, also beyond [`max_attempts`](crate::EventStoreBuilder::max_attempts). The refusal is final
    /// once the service has refused every call for [`refusal_timeout`](crate::EventStoreBuilder::refusal_timeout). Then
    /// every queued event fails. A missing table is final at once, unless the store has written to it before.
    Refused,
    /// No call can succeed: the request cannot be built, or the credentials are set up wrong. Every queued event fails
    /// without a retry.
    Fatal,
    /// The [`BatchWriter`](crate::BatchWriter) panicked. The call is not retried.
    Panicked,
}

impl FailureClass {
    /// Whether the table had no capacity for the event.
    pub(crate) const fn is_throttled(self) -> bool {
        matches!(self, Self::Throttled | Self::Unprocessed)
    }

    /// Whether the store may send an event again after a failure of this class.
    ///
    /// `false` for [`Invalid`](Self::Invalid), as only a batch of several events is sent again, in halves. `false` for
    /// [`Duplicate`](Self::Duplicate), as the event is not sent again under its key.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Unprocessed
            | Self::Throttled
            | Self::Transient
            | Self::ExpiredCredentials
            | Self::ClockSkew
            | Self::Refused => true,
            Self::Invalid | Self::Duplicate | Self::Fatal | Self::Panicked => false,
        }
    }
}

/// One attempt to write a batch failed, or left an event unprocessed.
///
/// The message never contains an event's body or a credential. Implementations of
/// [`BatchWriter`](crate::BatchWriter) must ensure this.
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
    /// A failure of this class. `certainty` says whether the batch may have been applied.
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

    /// Adds the limits for which the service throttled the call.
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

    /// Reverts [`with_call_over`](Self::with_call_over).
    pub(crate) fn with_call_in_flight(mut self) -> Self {
        self.is_call_over = false;
        self
    }

    /// Marks the call as finished by the service, which then applies nothing more of it.
    ///
    /// This matters if the call may have been applied and the event is not found when it is read back. The
    /// event is then [`NotStored`](Certainty::NotStored). Without `with_call_over` the call may still be
    /// applied, and the event stays [`MaybeStored`](Certainty::MaybeStored).
    #[must_use]
    pub fn with_call_over(mut self) -> Self {
        self.is_call_over = true;
        self
    }

    /// Adds the cause of the failure. It must not contain a request or a response, which contain bodies.
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
            "the service returned the item in UnprocessedItems: the table has too little write \
             capacity",
        );
        match request_id {
            Some(request_id) => error.with_request_id(request_id),
            None => error,
        }
    }

    /// The attempt was dropped after `limit`.
    pub(crate) fn timed_out(limit: std::time::Duration) -> Self {
        Self::new(
            FailureClass::Transient,
            Certainty::MaybeStored,
            format!("no response within {limit:?}"),
        )
    }

    /// A response arrived, but it does not answer this call.
    pub(crate) fn invalid_response(what: &str) -> Self {
        Self::new(
            FailureClass::Transient,
            Certainty::MaybeStored,
            format!("the response is invalid: {what}"),
        )
    }

    /// The class of the failure.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        self.class
    }

    /// Whether the batch may have been applied despite the failure.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.certainty
    }

    /// Whether the service is known to have finished the call, so that it applies nothing more of it.
    #[must_use]
    pub fn is_call_over(&self) -> bool {
        self.is_call_over
    }

    /// The service's error code, if its response has one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The service's id of the failed request, if the response has one. AWS support asks for it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The limits for which the service throttled the call; empty if it named none.
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
    /// Omits the source: the `Debug` of other crates' errors may print whole requests.
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
    /// Class, code, message, request id and, if there are any, throttling reasons. Omits the source, as
    /// `Debug` does.
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
