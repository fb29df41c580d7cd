//! Compares a captured request with the form that the SDK's requests are known to have. Only such a request is
//! repeated without the SDK.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde_json::{Value, json};

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
const EXPECTED_HEADERS: [(&str, &str); 2] = [
    ("content-type", "application/x-amz-json-1.0"),
    ("x-amz-target", "DynamoDB_20120810.BatchWriteItem"),
];

/// Names the AWS Lambda invocation. Repeated requests set it from the environment, so any other value would be lost.
const TRACE_HEADER: &str = "x-amzn-trace-id";

/// The first difference between `request` and the known request that writes no items to `table`. `None` if there is
/// no difference. `trace_id` is the value that the environment gives for the trace header.
pub(super) fn difference_from_known(
    request: &HttpRequest,
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
    for (name, value) in EXPECTED_HEADERS {
        if request.headers().get(name) != Some(value) {
            return Some(format!("its header {name} is not {value}"));
        }
    }
    let body: Option<Value> =
        request.body().bytes().and_then(|body| serde_json::from_slice(body).ok());
    if body != Some(json!({ "RequestItems": { table: [] } })) {
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
        for (name, value) in EXPECTED_HEADERS {
            request.headers_mut().insert(name, value);
        }
        request
    }

    #[test]
    fn known_request_has_no_difference() {
        assert_eq!(difference_from_known(&request(), "events", None), None);
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
            let difference = difference_from_known(&request, "events", None).unwrap();
            assert!(difference.starts_with(expected), "{difference}");
        }
        assert!(difference_from_known(&request(), "others", None).is_some());
    }

    #[test]
    fn trace_header_must_match_the_environment() {
        let mut request = request();
        request.headers_mut().insert(TRACE_HEADER, "Root=1-2-3");
        assert_eq!(difference_from_known(&request, "events", Some("Root=1-2-3")), None);
        for trace_id in [None, Some("Root=4-5-6")] {
            let difference = difference_from_known(&request, "events", trace_id).unwrap();
            assert_eq!(difference, "it has the header x-amzn-trace-id");
        }
    }
}
