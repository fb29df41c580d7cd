//! Responses. They have DynamoDB's headers, and no header that would let a web page read
//! them.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

/// The content type of the service.
pub(super) const AMZ_JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.0");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const CRC32: HeaderName = HeaderName::from_static("x-amz-crc32");

/// An answer that has no request id yet.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: String) -> Self {
        Self { status, content_type: AMZ_JSON, body }
    }

    pub(super) fn text(status: StatusCode, body: &str) -> Self {
        let content_type = HeaderValue::from_static("text/plain");
        Self { status, content_type, body: body.to_owned() }
    }

    /// An error of the server itself, not of the engine.
    pub(super) fn error(status: StatusCode, kind: &str, message: &str) -> Self {
        Self::json(status, json!({ "__type": kind, "message": message }).to_string())
    }

    pub(super) fn into_response(self, request_id: &str) -> Response<Full<Bytes>> {
        let Self { status, content_type, body } = self;
        let checksum = crc32fast::hash(body.as_bytes());
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(CRC32, HeaderValue::from(checksum));
        if let Ok(request_id) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, request_id);
        }
        response
    }
}
