//! What the SDK's request is known to look like. Only such a request is repeated without the SDK.

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use serde_json::{Value, json};

/// Headers that a request of the SDK is known to have. None of them depends on the body, but for those that each
/// repeated request has its own of.
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
    TRACE,
];

/// Headers that a request must have, with these values.
const EXPECTED_HEADERS: [(&str, &str); 2] = [
    ("content-type", "application/x-amz-json-1.0"),
    ("x-amz-target", "DynamoDB_20120810.BatchWriteItem"),
];

/// Tells an invocation of AWS Lambda. Each repeated request has that of its own time, and cannot know another's.
const TRACE: &str = "x-amzn-trace-id";

/// What is not as expected in a request that writes no items to `table`; `None` where all is. `trace` is what the
/// environment gives for the trace's header.
pub(super) fn unexpected(
    request: &HttpRequest,
    table: &str,
    trace: Option<&str>,
) -> Option<String> {
    if request.method() != "POST" {
        return Some(format!("its method is {}", request.method()));
    }
    for (name, value) in request.headers() {
        if !KNOWN_HEADERS.contains(&name) || (name == TRACE && Some(value) != trace) {
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
    fn the_known_request_is_as_expected() {
        assert_eq!(unexpected(&request(), "events", None), None);
    }

    #[test]
    fn anything_else_is_named() {
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
        for (change, said) in changes {
            let mut request = request();
            change(&mut request);
            let told = unexpected(&request, "events", None).unwrap();
            assert!(told.starts_with(said), "{told}");
        }
        assert!(unexpected(&request(), "others", None).is_some());
    }

    #[test]
    fn a_trace_is_known_where_the_environment_gives_it() {
        let mut request = request();
        request.headers_mut().insert(TRACE, "Root=1-2-3");
        assert_eq!(unexpected(&request, "events", Some("Root=1-2-3")), None);
        for trace in [None, Some("Root=4-5-6")] {
            let told = unexpected(&request, "events", trace).unwrap();
            assert_eq!(told, "it has the header x-amzn-trace-id");
        }
    }
}
