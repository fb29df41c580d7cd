//! Classifies failed calls: the class of the failure, and whether the call may have been applied.
//!
//! Both writers and [`Table`](super::table::Table) use it. The table in the docs of [`FailureClass`] shows the
//! classes.

use std::error::Error;
use std::ops::RangeInclusive;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;
use chrono::Datelike;

use super::response::throttling_reasons;
use super::signing_state::SigningInfo;
use crate::error::{BatchError, Certainty, FailureClass};

/// The service's error codes that other modules compare with.
pub(super) const ACCESS_DENIED: &str = "AccessDeniedException";
pub(super) const RESOURCE_NOT_FOUND: &str = "ResourceNotFoundException";

/// A wrong clock is the cause of a refused signature if the signature's time differs from the service's clock by at
/// least this. The service allows five minutes. The SDK's own threshold is four.
const MIN_CLOCK_SKEW: Duration = Duration::from_secs(4 * 60);

/// Length to which messages of the service and of credentials providers are cut, in characters.
const MAX_MESSAGE_CHARACTERS: usize = 300;

/// Classifies the SDK's error of one call.
///
/// Clock skew is measured against the time in the signature. That is not always this machine's time: the SDK
/// corrects it by the service's clock, and its correction is wrong after this machine's clock was set.
pub(super) fn classify<E>(error: &SdkError<E, HttpResponse>, signing: SigningInfo) -> BatchError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let classified = match error {
        SdkError::ConstructionFailure(_) => BatchError::new(
            FailureClass::Fatal,
            Certainty::NotStored,
            format!("the request could not be built: {}", root_cause(error)),
        ),
        SdkError::TimeoutError(_) if !signing.may_have_been_sent => {
            not_sent("the SDK's time-out passed before it was signed")
        }
        SdkError::TimeoutError(_) => {
            transient(Certainty::MaybeStored, "the SDK's time-out passed without a response")
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(connector) => dispatch_failure(connector, signing),
            None => transient(Certainty::MaybeStored, "the request could not be sent"),
        },
        SdkError::ResponseError(_) => {
            transient(Certainty::MaybeStored, "the response could not be read")
        }
        SdkError::ServiceError(service) => {
            let response = service.raw();
            let body = response.body().bytes().unwrap_or_default();
            error_response(response, body, service.err().code(), service.err().message(), signing)
        }
        _ => transient(Certainty::MaybeStored, "the SDK failed with an unknown kind of error"),
    };
    let Some(request_id) = error.request_id() else { return classified };
    let classified = classified.with_request_id(request_id);
    // A 200 with the service's request id: the service has finished the call, although the rest of its
    // response cannot be read.
    if is_success(error) { classified.with_call_over() } else { classified }
}

/// Classifies an error response by the code and the message in its body.
pub(super) fn error_response(
    response: &HttpResponse,
    body: &[u8],
    code: Option<&str>,
    message: Option<&str>,
    signing: SigningInfo,
) -> BatchError {
    let status = response.status().as_u16();
    let Some(code) = code else {
        let (class, certainty) = classify_status(status);
        let message = format!("HTTP {status} without an error code");
        return BatchError::new(class, certainty, message);
    };
    let skew = signing.signed_at.and_then(|signed_at| clock_skew(response, signed_at));
    let is_skewed = skew.is_some_and(|skew| skew > MIN_CLOCK_SKEW);
    let (class, certainty) = classify_code(code, status, is_skewed);
    let message = redacted(code, message.unwrap_or("no message"));
    let reasons = match class {
        FailureClass::Throttled => throttling_reasons(body),
        _ => Vec::new(),
    };
    BatchError::new(class, certainty, message).with_code(code).with_throttling_reasons(reasons)
}

fn is_success<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|response| response.status().is_success())
}

/// The failure of a request that was not sent, for this reason.
fn not_sent(reason: &str) -> BatchError {
    let reason: String = reason.chars().take(MAX_MESSAGE_CHARACTERS).collect();
    transient(Certainty::NotStored, &format!("the request could not be prepared: {reason}"))
}

fn transient(certainty: Certainty, message: &str) -> BatchError {
    BatchError::new(FailureClass::Transient, certainty, message)
}

/// The meaning of an error `code` in a response with this HTTP `status`. `is_skewed` says whether the time of
/// the signature differs too much from the service's clock.
fn classify_code(code: &str, status: u16, is_skewed: bool) -> (FailureClass, Certainty) {
    use Certainty::{MaybeStored, NotStored};
    match code {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "LimitExceededException"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "PriorRequestNotComplete"
        | "EC2ThrottledException"
        | "SlowDown" => (FailureClass::Throttled, NotStored),

        "InternalServerError"
        | "InternalServerErrorException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "ReplicatedWriteConflictException"
        | "TransactionInProgressException"
        | "RequestAbortedException"
        | "RequestTimeout"
        | "RequestTimeoutException" => (FailureClass::Transient, MaybeStored),

        "TransactionConflictException" | "InvalidEndpointException" => {
            (FailureClass::Transient, NotStored)
        }

        "ExpiredToken" | "ExpiredTokenException" => (FailureClass::ExpiredCredentials, NotStored),

        "RequestTimeTooSkewed" | "RequestExpired" => (FailureClass::ClockSkew, NotStored),
        "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "AuthFailure"
        | "AccessDeniedException"
            if is_skewed =>
        {
            (FailureClass::ClockSkew, NotStored)
        }

        // One event of the batch may be the cause.
        "ValidationException"
        | "ValidationError"
        | "SerializationException"
        | "ItemCollectionSizeLimitExceededException"
        | "RequestEntityTooLarge"
        | "RequestEntityTooLargeException" => (FailureClass::Invalid, NotStored),

        // A code of the service that this crate does not know.
        _ if matches!(status, 400..=499) && !matches!(status, 408 | 413 | 421 | 429) => {
            (FailureClass::Refused, NotStored)
        }
        _ => classify_status(status),
    }
}

/// The meaning of a response without a known error code. A 4xx without a code does not come from the service but
/// from a proxy or a captive portal, and says nothing about the next attempt.
fn classify_status(status: u16) -> (FailureClass, Certainty) {
    match status {
        408 => (FailureClass::Transient, Certainty::MaybeStored),
        // The request is too large for the service or for a proxy. One event may be the cause.
        413 => (FailureClass::Invalid, Certainty::NotStored),
        429 => (FailureClass::Throttled, Certainty::NotStored),
        400..=499 => (FailureClass::Transient, Certainty::NotStored),
        // 5xx, and statuses that an error does not have: an invalid 200, a redirect.
        _ => (FailureClass::Transient, Certainty::MaybeStored),
    }
}

/// Classifies a call that could not be made, or that got no response.
pub(super) fn dispatch_failure(connector: &ConnectorError, signing: SigningInfo) -> BatchError {
    if let Some(failure) = credentials_failure(connector, signing.has_ever_signed) {
        return failure;
    }
    if !signing.may_have_been_sent {
        return not_sent(&one_line(root_cause(connector)));
    }
    let never_connected = find_source::<hyper_util::client::legacy::Error>(connector)
        .is_some_and(hyper_util::client::legacy::Error::is_connect);
    let (certainty, what) = if never_connected {
        (Certainty::NotStored, "no connection to the service")
    } else {
        (Certainty::MaybeStored, "the connection broke before a response came")
    };
    // Only the root cause says what happened.
    transient(certainty, &format!("{what}: {}", root_cause(connector)))
}

/// Classifies `error` if credentials that could not be loaded are its cause.
pub(super) fn credentials_failure(
    error: &(dyn Error + 'static),
    has_signed: bool,
) -> Option<BatchError> {
    let credentials = find_source::<CredentialsError>(error)?;
    let (class, message) = match credentials {
        // Retried, because credentials may appear: a role may be attached to the instance, for example. The
        // message of the provider chain repeats this failure once for each provider, so it is replaced.
        CredentialsError::CredentialsNotLoaded(_) if !has_signed => {
            (FailureClass::ExpiredCredentials, NO_CREDENTIALS.to_owned())
        }
        CredentialsError::InvalidConfiguration(_) => {
            (FailureClass::Fatal, with_reason("the AWS credentials are set up wrong", credentials))
        }
        // There were credentials before, or the provider failed: a temporary failure.
        _ => {
            let what = "the AWS credentials could not be loaded";
            (FailureClass::ExpiredCredentials, with_reason(what, credentials))
        }
    };
    Some(BatchError::new(class, Certainty::NotStored, message))
}

const NO_CREDENTIALS: &str = "no AWS credentials were found: set AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the builder credentials";

/// `what` with the root cause, and with the feature to enable if one is missing.
fn with_reason(what: &str, credentials: &CredentialsError) -> String {
    let reason = one_line(root_cause(credentials));
    let shortened: String = reason.chars().take(MAX_MESSAGE_CHARACTERS).collect();
    let hint = missing_feature(&reason).map(feature_hint).unwrap_or_default();
    format!("{what}: {shortened}{hint}")
}

/// The feature of `aws-config` that a profile needs and that is not enabled, from the SDK's message.
fn missing_feature(reason: &str) -> Option<&str> {
    let (_, feature) = reason.split_once("cargo feature(s) enabled: ")?;
    Some(feature.split_once(". ").map_or(feature, |(feature, _)| feature).trim_end_matches('.'))
}

fn feature_hint(feature: &str) -> String {
    match feature {
        "sso" | "credentials-process" => format!("; enable this crate's feature `{feature}`"),
        _ => format!("; depend on `aws-config` with the feature `{feature}`"),
    }
}

/// `error` and its sources, outermost first.
pub(super) fn error_chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The message in one line. The SDK's message about a chain of providers has one line for each.
fn one_line(error: &dyn Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    error_chain(error).last().unwrap_or(error)
}

fn find_source<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error_chain(error).find_map(|error| error.downcast_ref::<E>())
}

fn clock_skew(response: &HttpResponse, signed_at: i64) -> Option<Duration> {
    Some(Duration::from_secs(service_time(response)?.abs_diff(signed_at)))
}

/// Years that the service's clock can show: DynamoDB began in 2012, and a signature has four digits for the year.
const PLAUSIBLE_YEARS: RangeInclusive<i32> = 2012..=9998;

/// The time in the response's `date` header, in seconds after the Unix epoch. `None` if it cannot be the service's.
pub(super) fn service_time(response: &HttpResponse) -> Option<i64> {
    let date = response.headers().get("date")?;
    let date = chrono::DateTime::parse_from_rfc2822(date).ok()?;
    PLAUSIBLE_YEARS.contains(&date.year()).then(|| date.timestamp())
}

/// The service's message up to the place from which it may contain data. Some messages repeat parts of the request
/// or of the signed text, after a quote, a bracket or a new line, and validation errors also after a colon.
pub(super) fn redacted(code: &str, message: &str) -> String {
    let begins_data = |character| match character {
        '\n' | '\'' | '"' | '`' | '{' | '[' | '<' => true,
        ':' => matches!(code, "ValidationException" | "ValidationError"),
        _ => false,
    };
    let end = message.find(begins_data).unwrap_or(message.len());
    let safe = message.get(..end).unwrap_or_default();
    let mut redacted: String = safe.chars().take(MAX_MESSAGE_CHARACTERS).collect();
    if redacted.len() < message.len() {
        redacted.push_str("[…]");
    }
    redacted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_decides_class_and_certainty() {
        use Certainty::{MaybeStored, NotStored};
        use FailureClass::{ClockSkew, ExpiredCredentials, Invalid, Refused, Throttled, Transient};
        for (code, status, is_skewed, class, certainty) in [
            ("ProvisionedThroughputExceededException", 400, false, Throttled, NotStored),
            ("ThrottlingException", 400, false, Throttled, NotStored),
            ("RequestLimitExceeded", 400, false, Throttled, NotStored),
            ("ThrottlingException", 503, false, Throttled, NotStored),
            ("PriorRequestNotComplete", 400, false, Throttled, NotStored),
            ("EC2ThrottledException", 503, false, Throttled, NotStored),
            ("RequestAbortedException", 400, false, Transient, MaybeStored),
            ("ValidationError", 400, false, Invalid, NotStored),
            ("InternalServerError", 500, false, Transient, MaybeStored),
            ("ServiceUnavailable", 503, false, Transient, MaybeStored),
            ("ReplicatedWriteConflictException", 400, false, Transient, MaybeStored),
            ("ExpiredTokenException", 400, false, ExpiredCredentials, NotStored),
            ("RequestTimeTooSkewed", 403, false, ClockSkew, NotStored),
            ("InvalidSignatureException", 400, true, ClockSkew, NotStored),
            ("InvalidSignatureException", 400, false, Refused, NotStored),
            ("AccessDeniedException", 400, false, Refused, NotStored),
            ("ValidationException", 400, false, Invalid, NotStored),
            ("ResourceNotFoundException", 400, false, Refused, NotStored),
            ("UnrecognizedClientException", 400, false, Refused, NotStored),
            ("MissingAuthenticationTokenException", 400, false, Refused, NotStored),
            ("TransactionConflictException", 400, false, Transient, NotStored),
            ("InvalidEndpointException", 421, false, Transient, NotStored),
            ("SomethingNew", 421, false, Transient, NotStored),
            ("SerializationException", 400, false, Invalid, NotStored),
            ("ItemCollectionSizeLimitExceededException", 400, false, Invalid, NotStored),
            ("SomethingNew", 413, false, Invalid, NotStored),
            ("SomethingNew", 400, false, Refused, NotStored),
            ("SomethingNew", 500, false, Transient, MaybeStored),
            ("SomethingNew", 200, false, Transient, MaybeStored),
        ] {
            assert_eq!(
                classify_code(code, status, is_skewed),
                (class, certainty),
                "{code} {status}"
            );
        }
    }

    #[test]
    fn missing_feature_is_named_in_the_message() {
        for (feature, hint) in [
            ("sso", "; enable this crate's feature `sso`"),
            ("credentials-process", "; enable this crate's feature `credentials-process`"),
            ("credentials-login", "; depend on `aws-config` with the feature `credentials-login`"),
        ] {
            for more in [". In order to spawn a subprocess", ""] {
                let reason = format!(
                    "This behavior requires following cargo feature(s) enabled: {feature}{more}"
                );
                let error = CredentialsError::invalid_configuration(reason);
                let message = with_reason("the AWS credentials are set up wrong", &error);
                assert!(message.ends_with(hint), "{message}");
            }
        }
        let error = CredentialsError::not_loaded("a feature of the profile");
        assert_eq!(with_reason("wrong", &error), "wrong: a feature of the profile");
    }

    #[test]
    fn implausible_service_time_is_ignored() {
        for (date, is_plausible) in [
            ("Tue, 24 Nov 2026 03:16:36 GMT", true),
            ("Fri, 24 Nov 99999 03:16:36 GMT", false),
            ("Thu, 01 Jan 1970 00:00:00 GMT", false),
            ("yesterday", false),
        ] {
            let mut response = HttpResponse::new(400.try_into().unwrap(), "".into());
            response.headers_mut().insert("date", date);
            assert_eq!(service_time(&response).is_some(), is_plausible, "{date}");
        }
    }

    #[test]
    fn response_without_a_code_is_classified_by_its_status() {
        assert_eq!(classify_status(429), (FailureClass::Throttled, Certainty::NotStored));
        assert_eq!(classify_status(413), (FailureClass::Invalid, Certainty::NotStored));
        assert_eq!(classify_status(421), (FailureClass::Transient, Certainty::NotStored));
        assert_eq!(classify_status(404), (FailureClass::Transient, Certainty::NotStored));
        assert_eq!(classify_status(502), (FailureClass::Transient, Certainty::MaybeStored));
        assert_eq!(classify_status(200), (FailureClass::Transient, Certainty::MaybeStored));
    }

    #[test]
    fn repeated_request_is_cut_from_the_message() {
        let invalid = |message| redacted("ValidationException", message);
        let echo = "1 validation error detected: Value '{events=[{\"body\":\"secret\"}]}' at …";
        assert_eq!(invalid(echo), "1 validation error detected[…]");
        assert_eq!(redacted("ValidationError", "No good: secret"), "No good[…]");
        assert_eq!(invalid("The item {body=secret} is no good"), "The item […]");
        assert_eq!(invalid("The item 'secret' is no good"), "The item […]");
        assert_eq!(invalid("No good: secret"), "No good[…]");
        let whole = "The provided key element does not match the schema";
        assert_eq!(invalid(whole), whole);
    }

    #[test]
    fn signed_text_is_cut_from_the_message() {
        let signature = "The signature does not match.\n\nThe Canonical String was\n'POST\ntoken'";
        let message = redacted("InvalidSignatureException", signature);
        assert_eq!(message, "The signature does not match.[…]");
    }

    #[test]
    fn message_without_data_is_kept_up_to_a_length() {
        let denied = "User: arn:aws:iam::1:user/x is not authorized to perform: dynamodb:PutItem";
        assert_eq!(redacted("AccessDeniedException", denied), denied);
        assert!(redacted("ThrottlingException", &"é".repeat(1_000)).chars().count() < 310);
    }
}
