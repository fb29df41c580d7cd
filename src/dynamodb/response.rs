//! The response's body, read without the SDK's help, and strictly: what is not an answer is none.

use std::borrow::Cow;
use std::collections::HashMap;

use aws_sdk_dynamodb::config::http::HttpResponse;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::BatchReceipt;
use crate::error::{BatchError, Certainty, FailureClass, ThrottlingReason};

/// What nearly every answer says.
const ALL_PROCESSED: &[u8] = br#"{"UnprocessedItems":{}}"#;

/// Without the map, or with a null in its place, an answer is none: the SDK reads an empty 200 of some proxy the same
/// way, and DynamoDB always sends the map.
#[derive(Deserialize)]
struct BatchWriteItemOutput<'a> {
    #[serde(rename = "UnprocessedItems", borrow)]
    unprocessed: Option<HashMap<Cow<'a, str>, Vec<WriteRequest<'a>>>>,
    #[serde(rename = "ConsumedCapacity")]
    consumed: Option<Vec<ConsumedCapacity>>,
}

#[derive(Deserialize)]
struct ConsumedCapacity {
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

/// What a 200 to a batch for `table` says.
pub(super) fn receipt(table: &str, body: &[u8]) -> Result<BatchReceipt, BatchError> {
    if body == ALL_PROCESSED {
        return Ok(BatchReceipt::all_processed());
    }
    // What is no JSON at all is the service's own answer in pieces; see `BatchError::with_call_over`.
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() && !body.is_empty() {
        return Err(BatchError::invalid_response("a 200 that is not JSON").with_call_over());
    }
    let output: BatchWriteItemOutput<'_> = serde_json::from_slice(body)
        .map_err(|_| BatchError::invalid_response("a 200 that is no answer to a write"))?;
    let Some(unprocessed) = output.unprocessed else {
        return Err(BatchError::invalid_response("a 200 without UnprocessedItems"));
    };
    let mut keys = Vec::new();
    for (of_table, requests) in unprocessed {
        if of_table != table && !requests.is_empty() {
            return Err(BatchError::invalid_response("unprocessed items of a table not written to"));
        }
        keys.extend(requests.into_iter().map(|request| request.put.item.key.text.into_owned()));
    }
    let receipt = BatchReceipt::with_unprocessed(keys);
    Ok(match output.consumed {
        Some(consumed) => receipt
            .with_consumed_write_units(consumed.iter().filter_map(|consumed| consumed.units).sum()),
        None => receipt,
    })
}

/// The service's error code and message, where the answer has them. As the SDK reads them: of each the
/// first that is a text.
pub(super) fn error(response: &HttpResponse, body: &[u8]) -> (Option<String>, Option<String>) {
    let (code, message) = told(body);
    let header = response.headers().get("x-amzn-errortype");
    let code = header.map(|code| bare(code).to_owned()).or(code);
    (code.filter(|code| !code.is_empty()), message)
}

fn told(body: &[u8]) -> (Option<String>, Option<String>) {
    let told: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let first =
        |names: &[&str]| names.iter().find_map(|name| told.get(*name)?.as_str()).map(str::to_owned);
    let code = first(&["code", "__type"]).map(|code| bare(&code).to_owned());
    (code, first(&["message", "Message", "errorMessage"]))
}

/// The limits that a throttled answer names. The member's first letter differs from one exception to another.
#[derive(Deserialize)]
struct Throttled<'a> {
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

/// The limits that the answer names as reasons for its refusal; none where it names them in another form.
pub(super) fn throttling_reasons(body: &[u8]) -> Vec<ThrottlingReason> {
    let Ok(Throttled { reasons }) = serde_json::from_slice(body) else { return Vec::new() };
    let reasons = reasons.into_iter().map(|Reason { reason, resource }| {
        let named = ThrottlingReason::new(reason);
        match resource {
            Some(resource) => named.with_resource(resource),
            None => named,
        }
    });
    reasons.collect()
}

/// The answer broke off before its end.
pub(super) fn broken_off(response: &HttpResponse) -> BatchError {
    let (class, certainty) = (FailureClass::Transient, Certainty::MaybeStored);
    let failure = BatchError::new(class, certainty, "the answer could not be read");
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

/// `com.amazonaws.dynamodb.v20120810#ThrottlingException:http://…` is a `ThrottlingException`.
fn bare(code: &str) -> &str {
    let code = code.split_once('#').map_or(code, |(_, code)| code);
    code.split_once(':').map_or(code, |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "20130927T005240652508858176";

    fn unprocessed(body: &str) -> Result<Vec<String>, BatchError> {
        Ok(receipt("events", body.as_bytes())?.unprocessed().to_vec())
    }

    #[test]
    fn an_answer_that_lists_nothing_as_unprocessed_is_an_acknowledgement() {
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
    fn the_units_that_a_call_took_are_told_where_the_answer_has_them() {
        for (body, units) in [
            (r#"{"UnprocessedItems":{}}"#, None),
            (
                r#"{"ConsumedCapacity":[{"TableName":"events","CapacityUnits":26.0}],"UnprocessedItems":{}}"#,
                Some(26.0),
            ),
            (r#"{"ConsumedCapacity":null,"UnprocessedItems":{}}"#, None),
        ] {
            assert_eq!(receipt("events", body.as_bytes()).unwrap().consumed_write_units(), units);
        }
    }

    #[test]
    fn the_keys_that_come_back_are_told() {
        let item = format!(
            r#"{{"PutRequest":{{"Item":{{"body":{{"S":"{{}}"}},"key":{{"S":"{KEY}"}}}}}}}}"#
        );
        let body = format!(r#"{{"UnprocessedItems":{{"events":[{item}]}}}}"#);
        assert_eq!(unprocessed(&body).unwrap(), [KEY]);
    }

    #[test]
    fn anything_else_is_no_answer_and_only_what_is_broken_is_over() {
        for (body, over) in [
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
            assert_eq!(error.is_call_over(), over, "{body}");
        }
    }

    #[test]
    fn a_code_is_bare_of_its_namespace_and_its_address() {
        for code in [
            "ThrottlingException",
            "com.amazonaws.dynamodb.v20120810#ThrottlingException",
            "ThrottlingException:http://internal.amazon.com/coral/",
            "aws.protocols#ThrottlingException:http://internal.amazon.com/coral/",
        ] {
            assert_eq!(bare(code), "ThrottlingException");
        }
    }

    #[test]
    fn throttling_reasons_are_read_under_either_name() {
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
    fn a_code_is_found_beside_whatever_else_there_is() {
        for (body, code, message) in [
            (r#"{"__type":"a#Foo","message":"m"}"#, Some("Foo"), Some("m")),
            (r#"{"__type":"a#Foo","message":"m","Message":"n"}"#, Some("Foo"), Some("m")),
            (r#"{"__type":"a#Foo","code":400}"#, Some("Foo"), None),
            (r#"{"__type":"a#Foo","message":{"a":1}}"#, Some("Foo"), None),
            (r#"{"__type":"a#Foo","code":"Bar","Message":"n"}"#, Some("Bar"), Some("n")),
            ("<html>", None, None),
            ("", None, None),
        ] {
            let told = told(body.as_bytes());
            assert_eq!((told.0.as_deref(), told.1.as_deref()), (code, message), "{body}");
        }
    }
}
