//! What a failed SDK call means: its class, and whether it may have been applied.

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

/// From this much difference between the service's clock and a signature's time its refusal is put down
/// to the clock. The service allows five minutes; the SDK's own threshold is four.
const CLOCK_SKEW: Duration = Duration::from_secs(4 * 60);

/// Longest message of the service that is passed on, in characters.
const LONGEST_MESSAGE: usize = 300;

/// Turns the SDK's error for one attempt, its retries switched off, into ours.
///
/// `signed` has the time by which the request was signed. It is not always this machine's: the SDK
/// corrects it by the service's, and is wrong itself when this machine's clock has been set since.
pub(crate) fn classify<E>(error: &SdkError<E, HttpResponse>, signed: SigningInfo) -> BatchError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let classified = match error {
        SdkError::ConstructionFailure(_) => BatchError::new(
            FailureClass::Fatal,
            Certainty::NotStored,
            format!("the request could not be built: {}", innermost(error)),
        ),
        SdkError::TimeoutError(_) if !signed.may_have_left => {
            unprepared("the SDK's time-out passed before it was signed")
        }
        SdkError::TimeoutError(_) => {
            transient(Certainty::MaybeStored, "the SDK's time-out passed without an answer")
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(connector) => dispatch_failure(connector, signed),
            None => transient(Certainty::MaybeStored, "the request could not be sent"),
        },
        SdkError::ResponseError(_) => {
            transient(Certainty::MaybeStored, "the answer could not be read")
        }
        SdkError::ServiceError(service) => {
            let response = service.raw();
            let body = response.body().bytes().unwrap_or_default();
            refused(response, body, service.err().code(), service.err().message(), signed)
        }
        _ => transient(Certainty::MaybeStored, "the SDK failed in a way this crate does not know"),
    };
    let Some(request_id) = error.request_id() else { return classified };
    let classified = classified.with_request_id(request_id);
    // The service itself has begun to say that the call went well: whatever became of the rest of its
    // answer, nothing of the call is still to come.
    if is_success(error) { classified.with_call_over() } else { classified }
}

/// What an answer means that is an error, with the code and the message that its body tells.
pub(super) fn refused(
    response: &HttpResponse,
    body: &[u8],
    code: Option<&str>,
    message: Option<&str>,
    signed: SigningInfo,
) -> BatchError {
    let status = response.status().as_u16();
    let Some(code) = code else {
        let (class, certainty) = by_status(status);
        let message = format!("HTTP {status} without an error code");
        return BatchError::new(class, certainty, message);
    };
    let skew = signed.at.and_then(|signed_at| clock_skew(response, signed_at));
    let (class, certainty) = by_code(code, status, skew.is_some_and(|skew| skew > CLOCK_SKEW));
    let message = passable(code, message.unwrap_or("no message"));
    let reasons = match class {
        FailureClass::Throttled => throttling_reasons(body),
        _ => Vec::new(),
    };
    BatchError::new(class, certainty, message).with_code(code).with_throttling_reasons(reasons)
}

fn is_success<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|response| response.status().is_success())
}

/// The request was never sent, for this reason.
fn unprepared(reason: &str) -> BatchError {
    let reason: String = reason.chars().take(LONGEST_MESSAGE).collect();
    transient(Certainty::NotStored, &format!("the request could not be prepared: {reason}"))
}

fn transient(certainty: Certainty, message: &str) -> BatchError {
    BatchError::new(FailureClass::Transient, certainty, message)
}

/// The meaning of the service's error `code`, which came with HTTP `status`; `skewed` says whether
/// the service's clock and the signature's time are far apart.
fn by_code(code: &str, status: u16, skewed: bool) -> (FailureClass, Certainty) {
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
            if skewed =>
        {
            (FailureClass::ClockSkew, NotStored)
        }

        // One event may be at fault.
        "ValidationException"
        | "ValidationError"
        | "SerializationException"
        | "ItemCollectionSizeLimitExceededException"
        | "RequestEntityTooLarge"
        | "RequestEntityTooLargeException" => (FailureClass::Poison, NotStored),

        // A refusal in the service's own words, if in new ones.
        _ if matches!(status, 400..=499) && !matches!(status, 408 | 413 | 421 | 429) => {
            (FailureClass::Refused, NotStored)
        }
        _ => by_status(status),
    }
}

/// The meaning of an answer that only its HTTP status tells. A refusal without the service's code is
/// somebody else's, a proxy's or a captive portal's, and says nothing of the next attempt.
fn by_status(status: u16) -> (FailureClass, Certainty) {
    match status {
        408 => (FailureClass::Transient, Certainty::MaybeStored),
        // Too large, for one event among them perhaps, whoever says so.
        413 => (FailureClass::Poison, Certainty::NotStored),
        429 => (FailureClass::Throttled, Certainty::NotStored),
        400..=499 => (FailureClass::Transient, Certainty::NotStored),
        // 5xx, and whatever has no business in an error: a 200 that is no answer, a redirect.
        _ => (FailureClass::Transient, Certainty::MaybeStored),
    }
}

/// What it means that a call could not be made, or got no answer.
pub(super) fn dispatch_failure(connector: &ConnectorError, signed: SigningInfo) -> BatchError {
    if let Some(failure) = credentials_failure(connector, signed.ever) {
        return failure;
    }
    if !signed.may_have_left {
        return unprepared(&one_line(innermost(connector)));
    }
    let never_connected = find_source::<hyper_util::client::legacy::Error>(connector)
        .is_some_and(hyper_util::client::legacy::Error::is_connect);
    let (certainty, what) = if never_connected {
        (Certainty::NotStored, "no connection to the service")
    } else {
        (Certainty::MaybeStored, "the connection broke before an answer came")
    };
    // The innermost error names what happened; those around it only say that something did.
    transient(certainty, &format!("{what}: {}", innermost(connector)))
}

/// What it means that credentials could not be had, if that is what `error` is about.
pub(super) fn credentials_failure(
    error: &(dyn Error + 'static),
    has_signed: bool,
) -> Option<BatchError> {
    let credentials = find_source::<CredentialsError>(error)?;
    let (class, message) = match credentials {
        // The chain of providers has a sentence for each, which say the same. There may be some in a moment: a role
        // that is attached to an instance, a container's.
        CredentialsError::CredentialsNotLoaded(_) if !has_signed => {
            (FailureClass::ExpiredCredentials, NO_CREDENTIALS.to_owned())
        }
        CredentialsError::InvalidConfiguration(_) => {
            (FailureClass::Fatal, with_reason("the AWS credentials are set up wrong", credentials))
        }
        // Where there have been credentials there will be: whoever provides them has a hiccup.
        _ => {
            let what = "no AWS credentials could be had just now";
            (FailureClass::ExpiredCredentials, with_reason(what, credentials))
        }
    };
    Some(BatchError::new(class, Certainty::NotStored, message))
}

const NO_CREDENTIALS: &str = "no AWS credentials were found: set AWS_ACCESS_KEY_ID and \
    AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the builder credentials";

/// The innermost reason says what happened, and is short enough for a message.
fn with_reason(what: &str, credentials: &CredentialsError) -> String {
    let reason = one_line(innermost(credentials));
    let kept: String = reason.chars().take(LONGEST_MESSAGE).collect();
    let hint = missing_feature(&reason).map(feature_hint).unwrap_or_default();
    format!("{what}: {kept}{hint}")
}

/// The feature of `aws-config` that a profile needs and that is not compiled in.
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

/// `error`, what caused it, what caused that, and so on.
pub(super) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The SDK tells a whole chain of providers in as many lines; a log has one.
fn one_line(error: &dyn Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    chain(error).last().unwrap_or(error)
}

fn find_source<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

fn clock_skew(response: &HttpResponse, signed_at: i64) -> Option<Duration> {
    Some(Duration::from_secs(date(response)?.abs_diff(signed_at)))
}

/// The years in which the service can be: DynamoDB began in 2012, and a signature has four digits for the year.
const YEARS: RangeInclusive<i32> = 2012..=9998;

/// The service's time, in seconds after the Unix epoch. `None` for a time that cannot be the service's.
pub(super) fn date(response: &HttpResponse) -> Option<i64> {
    let date = response.headers().get("date")?;
    let date = chrono::DateTime::parse_from_rfc2822(date).ok()?;
    YEARS.contains(&date.year()).then(|| date.timestamp())
}

/// The service's message as far as it cannot hold data. Some of its messages echo the request or what
/// was signed: behind a quote, a bracket or a new line, and where it calls the request invalid behind a colon.
fn passable(code: &str, message: &str) -> String {
    let echoes = |character| match character {
        '\n' | '\'' | '"' | '`' | '{' | '[' | '<' => true,
        ':' => matches!(code, "ValidationException" | "ValidationError"),
        _ => false,
    };
    let end = message.find(echoes).unwrap_or(message.len());
    let kept = message.get(..end).unwrap_or_default();
    let mut passed: String = kept.chars().take(LONGEST_MESSAGE).collect();
    if passed.len() < message.len() {
        passed.push_str("[…]");
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_code_has_its_class_and_its_certainty() {
        use Certainty::{MaybeStored, NotStored};
        use FailureClass::{ClockSkew, ExpiredCredentials, Poison, Refused, Throttled, Transient};
        for (code, status, skewed, class, certainty) in [
            ("ProvisionedThroughputExceededException", 400, false, Throttled, NotStored),
            ("ThrottlingException", 400, false, Throttled, NotStored),
            ("RequestLimitExceeded", 400, false, Throttled, NotStored),
            ("ThrottlingException", 503, false, Throttled, NotStored),
            ("PriorRequestNotComplete", 400, false, Throttled, NotStored),
            ("EC2ThrottledException", 503, false, Throttled, NotStored),
            ("RequestAbortedException", 400, false, Transient, MaybeStored),
            ("ValidationError", 400, false, Poison, NotStored),
            ("InternalServerError", 500, false, Transient, MaybeStored),
            ("ServiceUnavailable", 503, false, Transient, MaybeStored),
            ("ReplicatedWriteConflictException", 400, false, Transient, MaybeStored),
            ("ExpiredTokenException", 400, false, ExpiredCredentials, NotStored),
            ("RequestTimeTooSkewed", 403, false, ClockSkew, NotStored),
            ("InvalidSignatureException", 400, true, ClockSkew, NotStored),
            ("InvalidSignatureException", 400, false, Refused, NotStored),
            ("AccessDeniedException", 400, false, Refused, NotStored),
            ("ValidationException", 400, false, Poison, NotStored),
            ("ResourceNotFoundException", 400, false, Refused, NotStored),
            ("UnrecognizedClientException", 400, false, Refused, NotStored),
            ("MissingAuthenticationTokenException", 400, false, Refused, NotStored),
            ("TransactionConflictException", 400, false, Transient, NotStored),
            ("InvalidEndpointException", 421, false, Transient, NotStored),
            ("SomethingNew", 421, false, Transient, NotStored),
            ("SerializationException", 400, false, Poison, NotStored),
            ("ItemCollectionSizeLimitExceededException", 400, false, Poison, NotStored),
            ("SomethingNew", 413, false, Poison, NotStored),
            ("SomethingNew", 400, false, Refused, NotStored),
            ("SomethingNew", 500, false, Transient, MaybeStored),
            ("SomethingNew", 200, false, Transient, MaybeStored),
        ] {
            assert_eq!(by_code(code, status, skewed), (class, certainty), "{code} {status}");
        }
    }

    #[test]
    fn a_profile_that_needs_a_feature_is_told_which() {
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
                let said = with_reason("the AWS credentials are set up wrong", &error);
                assert!(said.ends_with(hint), "{said}");
            }
        }
        let said = with_reason("wrong", &CredentialsError::not_loaded("a feature of the profile"));
        assert_eq!(said, "wrong: a feature of the profile");
    }

    #[test]
    fn a_date_that_cannot_be_the_services_is_none() {
        for (date, is_one) in [
            ("Tue, 24 Nov 2026 03:16:36 GMT", true),
            ("Fri, 24 Nov 99999 03:16:36 GMT", false),
            ("Thu, 01 Jan 1970 00:00:00 GMT", false),
            ("yesterday", false),
        ] {
            let mut response = HttpResponse::new(400.try_into().unwrap(), "".into());
            response.headers_mut().insert("date", date);
            assert_eq!(super::date(&response).is_some(), is_one, "{date}");
        }
    }

    #[test]
    fn a_status_alone_is_enough() {
        assert_eq!(by_status(429), (FailureClass::Throttled, Certainty::NotStored));
        assert_eq!(by_status(413), (FailureClass::Poison, Certainty::NotStored));
        assert_eq!(by_status(421), (FailureClass::Transient, Certainty::NotStored));
        assert_eq!(by_status(404), (FailureClass::Transient, Certainty::NotStored));
        assert_eq!(by_status(502), (FailureClass::Transient, Certainty::MaybeStored));
        assert_eq!(by_status(200), (FailureClass::Transient, Certainty::MaybeStored));
    }

    #[test]
    fn an_echoed_request_is_cut_out_of_a_message() {
        let invalid = |message| passable("ValidationException", message);
        let echo = "1 validation error detected: Value '{events=[{\"body\":\"secret\"}]}' at …";
        assert_eq!(invalid(echo), "1 validation error detected[…]");
        assert_eq!(passable("ValidationError", "No good: secret"), "No good[…]");
        assert_eq!(invalid("The item {body=secret} is no good"), "The item […]");
        assert_eq!(invalid("The item 'secret' is no good"), "The item […]");
        assert_eq!(invalid("No good: secret"), "No good[…]");
        let whole = "The provided key element does not match the schema";
        assert_eq!(invalid(whole), whole);
    }

    #[test]
    fn what_was_signed_is_cut_out_of_a_message() {
        let signature = "The signature does not match.\n\nThe Canonical String was\n'POST\ntoken'";
        let passed = passable("InvalidSignatureException", signature);
        assert_eq!(passed, "The signature does not match.[…]");
    }

    #[test]
    fn a_message_without_data_is_passed_on_up_to_a_length() {
        let denied = "User: arn:aws:iam::1:user/x is not authorized to perform: dynamodb:PutItem";
        assert_eq!(passable("AccessDeniedException", denied), denied);
        assert!(passable("ThrottlingException", &"é".repeat(1_000)).chars().count() < 310);
    }
}
