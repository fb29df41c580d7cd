//! Parses responses to `BatchWriteItem` for the direct writer, which does not use the SDK's parser, and the
//! throttling reasons for both writers.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::config::http::HttpResponse;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::BatchReceipt;
use crate::error::{BatchError, Certainty, FailureClass, ThrottlingReason};

/// Body of most responses.
const ALL_PROCESSED_BODY: &[u8] = br#"{"UnprocessedItems":{}}"#;

/// The output of a `BatchWriteItem` call. A response without `UnprocessedItems`, or with null in its place, is invalid:
/// DynamoDB always sends the map, and an empty 200 of a proxy would look like an acknowledgement.
#[derive(Deserialize)]
struct BatchWriteItemOutput<'a> {
    #[serde(rename = "UnprocessedItems", borrow)]
    unprocessed: Option<HashMap<Cow<'a, str>, Vec<WriteRequest<'a>>>>,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<Vec<ConsumedCapacity>>,
}

#[derive(Deserialize)]
pub(super) struct ConsumedCapacity {
    #[serde(rename = "CapacityUnits")]
    units: Option<f64>,
}

#[derive(Deserialize)]
struct WriteRequest<'a> {
    #[serde(rename = "PutRequest", borrow)]
    put: PutRequest<'a>,
}

#[derive(Deserialize)]
struct PutRequest<'a> {
    #[serde(rename = "Item", borrow)]
    item: Item<'a>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    key: Text<'a>,
}

#[derive(Deserialize)]
struct Text<'a> {
    #[serde(rename = "S", borrow)]
    text: Cow<'a, str>,
}

/// Parses the body of a 200 to a batch for `table`.
pub(super) fn parse_receipt(table: &str, body: &[u8]) -> Result<BatchReceipt, BatchError> {
    if body == ALL_PROCESSED_BODY {
        return Ok(BatchReceipt::all_processed());
    }
    let output: BatchWriteItemOutput<'_> = parse_output(body)?;
    let Some(unprocessed) = output.unprocessed else {
        return Err(BatchError::invalid_response("a 200 without UnprocessedItems"));
    };
    let mut keys = Vec::new();
    for (of_table, requests) in unprocessed {
        if of_table != table && !requests.is_empty() {
            return Err(BatchError::invalid_response(
                "unprocessed items of a table not written to",
            ));
        }
        keys.extend(requests.into_iter().map(|request| request.put.item.key.text.into_owned()));
    }
    let receipt = BatchReceipt::with_unprocessed(keys);
    Ok(match output.consumed {
        Some(consumed) => receipt.with_consumed_write_units(total_units(&consumed)),
        None => receipt,
    })
}

pub(super) fn total_units(consumed: &[ConsumedCapacity]) -> f64 {
    consumed.iter().filter_map(|consumed| consumed.units).sum()
}

/// Parses the body of a 200 as the output of a write.
pub(super) fn parse_output<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BatchError> {
    // A body that is not JSON is a damaged response of the service, which has finished the call. The caller
    // reverts this if the response has no request id of the service.
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() && !body.is_empty() {
        return Err(BatchError::invalid_response("a 200 that is not JSON").with_call_over());
    }
    serde_json::from_slice(body)
        .map_err(|_| BatchError::invalid_response("a 200 that does not answer a write"))
}

/// The service's error code and message, if the response has them. Like the SDK, this takes the first member of each
/// kind that is a string, and prefers the code in the header.
pub(super) fn error_code_and_message(
    response: &HttpResponse,
    body: &[u8],
) -> (Option<String>, Option<String>) {
    let (code, message) = code_and_message(body);
    let header = response.headers().get("x-amzn-errortype");
    let code = header.map(|code| without_namespace(code).to_owned()).or(code);
    (code.filter(|code| !code.is_empty()), message)
}

fn code_and_message(body: &[u8]) -> (Option<String>, Option<String>) {
    let error: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let first = |names: &[&str]| {
        names.iter().find_map(|name| error.get(*name)?.as_str()).map(str::to_owned)
    };
    let code = first(&["code", "__type"]).map(|code| without_namespace(&code).to_owned());
    (code, first(&["message", "Message", "errorMessage"]))
}

/// The body of a throttling exception. The case of the member's first letter depends on the exception.
#[derive(Deserialize)]
struct ThrottlingException<'a> {
    #[serde(default, rename = "ThrottlingReasons", alias = "throttlingReasons", borrow)]
    reasons: Vec<Reason<'a>>,
}

#[derive(Deserialize)]
struct Reason<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(default, borrow)]
    resource: Option<Cow<'a, str>>,
}

/// The throttling reasons in the body; empty if it has none in the known form.
pub(super) fn throttling_reasons(body: &[u8]) -> Vec<ThrottlingReason> {
    let Ok(ThrottlingException { reasons }) = serde_json::from_slice(body) else {
        return Vec::new();
    };
    let reasons = reasons.into_iter().map(|Reason { reason, resource }| {
        let reason = ThrottlingReason::new(reason);
        match resource {
            Some(resource) => reason.with_resource(resource),
            None => reason,
        }
    });
    reasons.collect()
}

/// The failure of a call whose response could not be read to its end.
pub(super) fn incomplete(response: &HttpResponse) -> BatchError {
    let (class, certainty) = (FailureClass::Transient, Certainty::MaybeStored);
    let failure = BatchError::new(class, certainty, "the response could not be read");
    match request_id(response) {
        Some(id) if response.status().is_success() => failure.with_request_id(id).with_call_over(),
        Some(id) => failure.with_request_id(id),
        None => failure,
    }
}

pub(super) fn request_id(response: &HttpResponse) -> Option<&str> {
    let headers = response.headers();
    headers.get("x-amzn-requestid").or_else(|| headers.get("x-amz-request-id"))
}

/// The name of an error without its namespace and its address: `ThrottlingException` for
/// `com.amazonaws.dynamodb.v20120810#ThrottlingException:http://…`.
fn without_namespace(code: &str) -> &str {
    let code = code.split_once('#').map_or(code, |(_, code)| code);
    code.split_once(':').map_or(code, |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "20130927T005240652508858176";

    fn unprocessed(body: &str) -> Result<Vec<String>, BatchError> {
        Ok(parse_receipt("events", body.as_bytes())?.unprocessed().to_vec())
    }

    #[test]
    fn empty_unprocessed_items_acknowledge_the_batch() {
        for body in [
            r#"{"UnprocessedItems":{}}"#,
            r#" { "UnprocessedItems" : { } } "#,
            r#"{"UnprocessedItems":{"events":[]}}"#,
            r#"{"ConsumedCapacity":[{"CapacityUnits":1.0}],"UnprocessedItems":{}}"#,
        ] {
            assert!(unprocessed(body).unwrap().is_empty(), "{body}");
        }
    }

    #[test]
    fn consumed_write_units_are_parsed() {
        for (body, units) in [
            (r#"{"UnprocessedItems":{}}"#, None),
            (
                r#"{"ConsumedCapacity":[{"TableName":"events","CapacityUnits":26.0}],"UnprocessedItems":{}}"#,
                Some(26.0),
            ),
            (r#"{"ConsumedCapacity":null,"UnprocessedItems":{}}"#, None),
        ] {
            let receipt = parse_receipt("events", body.as_bytes()).unwrap();
            assert_eq!(receipt.consumed_write_units(), units);
        }
    }

    #[test]
    fn unprocessed_keys_are_parsed() {
        let item = format!(
            r#"{{"PutRequest":{{"Item":{{"body":{{"S":"{{}}"}},"key":{{"S":"{KEY}"}}}}}}}}"#
        );
        let body = format!(r#"{{"UnprocessedItems":{{"events":[{item}]}}}}"#);
        assert_eq!(unprocessed(&body).unwrap(), [KEY]);
    }

    #[test]
    fn invalid_response_is_an_error_and_damage_ends_the_call() {
        for (body, is_over) in [
            ("", false),
            ("{}", false),
            ("null", false),
            ("[]", false),
            (r#"{"UnprocessedItems":null}"#, false),
            (r#"{"UnprocessedItems":[]}"#, false),
            (
                r#"{"UnprocessedItems":{"other":[{"PutRequest":{"Item":{"key":{"S":"1"}}}}]}}"#,
                false,
            ),
            (r#"{"UnprocessedItems":{"events":[{"PutRequest":{"Item":{}}}]}}"#, false),
            (r#"{"UnprocessedItems":{}"#, true),
            ("<html>", true),
        ] {
            let error = unprocessed(body).unwrap_err();
            assert_eq!(error.is_call_over(), is_over, "{body}");
        }
    }

    #[test]
    fn namespace_and_address_are_removed_from_a_code() {
        for code in [
            "ThrottlingException",
            "com.amazonaws.dynamodb.v20120810#ThrottlingException",
            "ThrottlingException:http://internal.amazon.com/coral/",
            "aws.protocols#ThrottlingException:http://internal.amazon.com/coral/",
        ] {
            assert_eq!(without_namespace(code), "ThrottlingException");
        }
    }

    #[test]
    fn throttling_reasons_are_parsed_in_either_case() {
        let reason = ThrottlingReason::new("TableWriteKeyRangeThroughputExceeded");
        let with_resource = reason.clone().with_resource("arn:aws:dynamodb:::table/events");
        for (body, reasons) in [
            (
                r#"{"ThrottlingReasons":[{"reason":"TableWriteKeyRangeThroughputExceeded"}]}"#,
                &[reason][..],
            ),
            (
                r#"{"__type":"a#ThrottlingException","throttlingReasons":[{"resource":
                    "arn:aws:dynamodb:::table/events","reason":"TableWriteKeyRangeThroughputExceeded"}]}"#,
                &[with_resource],
            ),
            (r#"{"__type":"a#ThrottlingException"}"#, &[]),
            (r#"{"ThrottlingReasons":"none"}"#, &[]),
            ("<html>", &[]),
        ] {
            assert_eq!(throttling_reasons(body.as_bytes()), reasons, "{body}");
        }
    }

    #[test]
    fn code_and_message_are_parsed_among_other_members() {
        for (body, code, message) in [
            (r#"{"__type":"a#Foo","message":"m"}"#, Some("Foo"), Some("m")),
            (r#"{"__type":"a#Foo","message":"m","Message":"n"}"#, Some("Foo"), Some("m")),
            (r#"{"__type":"a#Foo","code":400}"#, Some("Foo"), None),
            (r#"{"__type":"a#Foo","message":{"a":1}}"#, Some("Foo"), None),
            (r#"{"__type":"a#Foo","code":"Bar","Message":"n"}"#, Some("Bar"), Some("n")),
            ("<html>", None, None),
            ("", None, None),
        ] {
            let parsed = code_and_message(body.as_bytes());
            assert_eq!((parsed.0.as_deref(), parsed.1.as_deref()), (code, message), "{body}");
        }
    }
}
