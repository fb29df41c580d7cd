//! The endpoint's responses.

use std::io;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use serde_json::{Value, json};
use tokio::task::yield_now;

use super::batch::{Item, Read};
use super::script::{KeyPart, Selector};
use super::{TABLE, request_id};
use crate::support::clock;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Response = hyper::Response<Body>;

/// How a request is answered.
pub(super) enum Answer {
    Text {
        status: u16,
        body: String,
    },
    Drip {
        body: String,
        pause: Duration,
    },
    CutShort {
        body: String,
    },
    WrongChecksum {
        body: String,
    },
    Endless,
    ResetInResponse {
        body: String,
    },
    /// The response has the table's answer to the insert of each item, or this error.
    Inserted {
        items: Vec<(Item, Option<&'static str>)>,
    },
    /// The response has what the table returns for this read, without the keys in `unprocessed`.
    Read {
        read: Read,
        unprocessed: Selector,
        with_responses: bool,
    },
    /// The response is that of the table to this request.
    Scan {
        request: Vec<u8>,
    },
    HangUp,
    Hang,
}

impl Answer {
    pub(super) fn json(value: &Value) -> Self {
        Self::Text { status: 200, body: value.to_string() }
    }

    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::Text { status, body: error(code, message).to_string() }
    }

    /// A throttling error with its reason, which DynamoDB adds since 2025.
    pub(super) fn throttled(code: &str, reason: &str) -> Self {
        let mut body = error(code, "Throughput exceeds the current capacity of your table.");
        let table = format!("arn:aws:dynamodb:us-east-1:123456789012:table/{TABLE}");
        let member = match code {
            "ThrottlingException" => "throttlingReasons",
            _ => "ThrottlingReasons",
        };
        body[member] = json!([{ "reason": reason, "resource": table }]);
        Self::Text { status: 400, body: body.to_string() }
    }
}

fn error(code: &str, message: &str) -> Value {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": message })
}

pub(super) fn described_table(key: &[KeyPart], status: &str) -> Value {
    let schema: Vec<Value> = key
        .iter()
        .map(|part| json!({ "AttributeName": part.name, "KeyType": part.role }))
        .collect();
    let attributes: Vec<Value> = key
        .iter()
        .map(|part| json!({ "AttributeName": part.name, "AttributeType": part.of_type }))
        .collect();
    json!({
        "Table": {
            "TableName": TABLE,
            "TableStatus": status,
            "KeySchema": schema,
            "AttributeDefinitions": attributes,
        }
    })
}

/// The headers of every response.
pub(super) struct Head {
    /// The number of the request, from 1.
    pub(super) number: usize,
    /// The time, if the endpoint's clock is not the machine's.
    pub(super) date: Option<String>,
}

impl Head {
    fn response(&self, status: u16) -> hyper::http::response::Builder {
        let head = hyper::Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "application/x-amz-json-1.0")
            .header("x-amzn-requestid", request_id(self.number));
        match &self.date {
            Some(date) => head.header(DATE, date),
            None => head,
        }
    }

    pub(super) fn text(&self, status: u16, body: String) -> Response {
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
        self.response(status).body(body.boxed_unsync()).unwrap()
    }

    /// Announces the whole body, and ends the connection in the middle of it.
    pub(super) fn cut_short(&self, body: String) -> Response {
        let length = body.len();
        let half = Bytes::from(body).slice(..length / 2);
        // Without the pause hyper would not send the bytes it has before the error.
        let broken = yield_now().map(|()| Err(io::Error::other("cut short, as scripted")));
        let parts = stream::iter([Ok(Frame::data(half))]).chain(stream::once(broken));
        self.response_of_length(length).body(StreamBody::new(parts).boxed_unsync()).unwrap()
    }

    pub(super) fn wrong_checksum(&self, body: String) -> Response {
        let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
        self.response(200).header("x-amz-crc32", "1").body(body.boxed_unsync()).unwrap()
    }

    /// Sends blanks without an end.
    pub(super) fn endless(&self) -> Response {
        let blanks = Bytes::from(vec![b' '; 1 << 16]);
        let parts = stream::repeat_with(move || Ok(Frame::data(blanks.clone())));
        self.response(200).body(StreamBody::new(parts).boxed_unsync()).unwrap()
    }

    /// Sends a body byte by byte, with a pause before each.
    pub(super) fn drip(&self, body: String, pause: Duration) -> Response {
        let length = body.len();
        let bytes = stream::iter(body.into_bytes()).then(move |byte| async move {
            clock::wait(pause).await;
            Ok(Frame::data(Bytes::copy_from_slice(&[byte])))
        });
        self.response_of_length(length).body(StreamBody::new(bytes).boxed_unsync()).unwrap()
    }

    fn response_of_length(&self, length: usize) -> hyper::http::response::Builder {
        self.response(200).header(CONTENT_LENGTH, length)
    }
}
