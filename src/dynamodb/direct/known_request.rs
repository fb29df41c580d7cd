//! Compares a captured request with the form that the SDK's requests are known to have. Only such a request is
//! repeated without the SDK.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde_json::{Value, json};

use crate::write_mode::WriteMode;

/// Headers that a request of the SDK may have. They do not depend on the body, except those that each repeated request
/// sets for itself.
const KNOWN_HEADERS: [&str; 11] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "content-type",
    "user-agent",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-target",
    "x-amz-user-agent",
    TRACE_HEADER,
];

/// Headers that a request must have, with their values.
fn expected_headers(mode: WriteMode) -> [(&'static str, &'static str); 2] {
    let target = match mode {
        WriteMode::Put => "DynamoDB_20120810.BatchWriteItem",
        WriteMode::Insert => "DynamoDB_20120810.BatchExecuteStatement",
    };
    [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", target)]
}

fn expected_body(mode: WriteMode, table: &str) -> Value {
    match mode {
        WriteMode::Put => json!({ "RequestItems": { table: [] } }),
        WriteMode::Insert => json!({ "Statements": [] }),
    }
}

/// Names the AWS Lambda invocation. Repeated requests set it from the environment, so any other value would be lost.
const TRACE_HEADER: &str = "x-amzn-trace-id";

/// The first difference between `request` and the known request that writes no items to `table` in this mode. `None` if
/// there is no difference. `trace_id` is the value that the environment gives for the trace header.
pub(super) fn difference_from_known(
    request: &HttpRequest,
    mode: WriteMode,
    table: &str,
    trace_id: Option<&str>,
) -> Option<String> {
    if request.method() != "POST" {
        return Some(format!("its method is {}", request.method()));
    }
    for (name, value) in request.headers() {
        if !KNOWN_HEADERS.contains(&name) || (name == TRACE_HEADER && Some(value) != trace_id) {
            return Some(format!("it has the header {name}"));
        }
    }
    for (name, value) in expected_headers(mode) {
        if request.headers().get(name) != Some(value) {
            return Some(format!("its header {name} is not {value}"));
        }
    }
    let body: Option<Value> =
        request.body().bytes().and_then(|body| serde_json::from_slice(body).ok());
    if body != Some(expected_body(mode, table)) {
        return Some("its body is not that of a batch without items".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn request() -> HttpRequest {
        let mut request = HttpRequest::new(SdkBody::from(r#"{"RequestItems":{"events":[]}}"#));
        request.set_method("POST").unwrap();
        for (name, value) in expected_headers(WriteMode::Put) {
            request.headers_mut().insert(name, value);
        }
        request
    }

    #[test]
    fn known_request_has_no_difference() {
        assert_eq!(difference_from_known(&request(), WriteMode::Put, "events", None), None);
        let mut insert = request();
        for (name, value) in expected_headers(WriteMode::Insert) {
            insert.headers_mut().insert(name, value);
        }
        assert!(difference_from_known(&insert, WriteMode::Insert, "events", None).is_some());
        *insert.body_mut() = SdkBody::from(r#"{"Statements":[]}"#);
        assert_eq!(difference_from_known(&insert, WriteMode::Insert, "events", None), None);
        assert!(difference_from_known(&insert, WriteMode::Put, "events", None).is_some());
    }

    #[test]
    fn difference_is_named() {
        type Change = fn(&mut HttpRequest);
        let changes: [(Change, &str); 5] = [
            (|request| request.set_method("PUT").unwrap(), "its method is PUT"),
            (
                |request| drop(request.headers_mut().insert("x-amz-checksum-crc32", "1")),
                "it has the header x-amz-checksum-crc32",
            ),
            (
                |request| drop(request.headers_mut().insert("content-type", "application/cbor")),
                "its header content-type is not",
            ),
            (
                |request| drop(request.headers_mut().remove("x-amz-target")),
                "its header x-amz-target",
            ),
            (|request| *request.body_mut() = SdkBody::from(vec![0xbf, 0xff]), "its body is not"),
        ];
        for (change, expected) in changes {
            let mut request = request();
            change(&mut request);
            let difference =
                difference_from_known(&request, WriteMode::Put, "events", None).unwrap();
            assert!(difference.starts_with(expected), "{difference}");
        }
        assert!(difference_from_known(&request(), WriteMode::Put, "others", None).is_some());
    }

    #[test]
    fn trace_header_must_match_the_environment() {
        let mut request = request();
        request.headers_mut().insert(TRACE_HEADER, "Root=1-2-3");
        assert_eq!(
            difference_from_known(&request, WriteMode::Put, "events", Some("Root=1-2-3")),
            None
        );
        for trace_id in [None, Some("Root=4-5-6")] {
            let difference =
                difference_from_known(&request, WriteMode::Put, "events", trace_id).unwrap();
            assert_eq!(difference, "it has the header x-amzn-trace-id");
        }
    }
}
