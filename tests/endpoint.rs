//! Tests of the scripted endpoint itself, with a client that is not the store.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_get_item::{BatchGetItemError, BatchGetItemOutput};
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use support::endpoint::signature::signature;
use support::endpoint::{Endpoint, ReadReply, Reply, Script, Selector, TABLE, Transport};
use support::puts::{ATTEMPT_TIMEOUT, body, in_time, put_many, settle, store_at};

// How connections end.

const KEY: &str = "20151231T235959999000010000";

/// A request to put one event. Its `content-length` is what `announced` returns for the real length.
fn put_request(announced: impl FnOnce(usize) -> usize) -> String {
    let item = json!({ "key": { "S": KEY }, "body": { "S": "{}" } });
    let body = json!({ "RequestItems": { TABLE: [{ "PutRequest": { "Item": item } }] } });
    let body = body.to_string();
    format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         x-amz-target: DynamoDB_20120810.BatchWriteItem\r\ncontent-length: {}\r\n\r\n{body}",
        announced(body.len())
    )
}

/// The whole response to `request`, and how the connection ends.
async fn send(endpoint: &Endpoint, request: &str) -> (String, io::Result<usize>) {
    let url = endpoint.url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).await;
    (String::from_utf8(answer).unwrap(), end)
}

fn was_reset(end: io::Result<usize>) -> bool {
    end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn truncated_response_closes_the_connection() {
    in_time(async {
        let endpoint = Endpoint::start(Script::of([Reply::CutShort]).unsigned()).await;
        let (answer, end) = send(&endpoint, &put_request(|length| length)).await;
        assert!(answer.ends_with("\r\n\r\n{\"Unprocess"), "{answer}");
        end.unwrap();
        assert_eq!(endpoint.table().await, BTreeMap::new());
    })
    .await;
}

#[tokio::test]
async fn reset_in_response_ends_with_a_reset() {
    in_time(async {
        let endpoint =
            Endpoint::start(Script::of([Reply::ResetInResponse.once_applied()]).unsigned()).await;
        let (answer, end) = send(&endpoint, &put_request(|length| length)).await;
        assert!(answer.ends_with("\r\n\r\n{\"Unprocess"), "{answer}");
        assert!(was_reset(end));
        let rows = BTreeMap::from([(KEY.to_owned(), "{}".to_owned())]);
        assert_eq!(endpoint.table().await, rows);
    })
    .await;
}

#[tokio::test]
async fn reset_in_request_ends_with_a_reset_and_no_response() {
    in_time(async {
        let endpoint = Endpoint::start([Reply::ResetInRequest]).await;
        let (answer, end) = send(&endpoint, &put_request(|length| length * 2)).await;
        assert_eq!(answer, "");
        assert!(was_reset(end));
        assert_eq!(endpoint.sizes(), [0]);
        assert_eq!(endpoint.table().await, BTreeMap::new());
    })
    .await;
}

#[tokio::test]
async fn hang_up_closes_the_connection_without_a_response() {
    in_time(async {
        let endpoint = Endpoint::start(Script::of([Reply::HangUp.once_applied()]).unsigned()).await;
        let (answer, end) = send(&endpoint, &put_request(|length| length)).await;
        assert_eq!((answer.as_str(), end.unwrap()), ("", 0));
        assert_eq!(endpoint.table().await.len(), 1);
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "was sent with another body")]
async fn key_sent_with_two_bodies_fails_the_test() {
    in_time(async {
        let endpoint = Endpoint::start(Script::always(Reply::Unprocessed(Selector::All))).await;
        let request = put_request(|length| length);
        for request in [request.clone(), request.replace("{}", "[]")] {
            let (answer, _) = send(&endpoint, &request).await;
            assert!(answer.contains(KEY), "{answer}");
        }
    })
    .await;
}

// Reading back.

type Found = Result<BatchGetItemOutput, SdkError<BatchGetItemError>>;

fn client(endpoint: &Endpoint) -> Client {
    let config = endpoint.sdk_config().into_builder().retry_config(RetryConfig::disabled()).build();
    Client::new(&config)
}

fn consistent_read<'a>(keys: impl IntoIterator<Item = &'a String>) -> KeysAndAttributes {
    let key = |key: &String| HashMap::from([("key".to_owned(), AttributeValue::S(key.clone()))]);
    let keys = keys.into_iter().map(key).collect();
    KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build().unwrap()
}

fn read(endpoint: &Endpoint, asked: KeysAndAttributes) -> BoxFuture<'static, Found> {
    client(endpoint).batch_get_item().request_items(TABLE, asked).send().boxed()
}

/// The bodies in a response, by key.
fn bodies(found: &BatchGetItemOutput) -> BTreeMap<String, String> {
    let text = |value: &AttributeValue| value.as_s().unwrap().clone();
    let items = &found.responses.as_ref().unwrap()[TABLE];
    items.iter().map(|item| (text(&item["key"]), text(&item["body"]))).collect()
}

fn unprocessed(found: &BatchGetItemOutput) -> Vec<String> {
    let unprocessed = found.unprocessed_keys.as_ref().unwrap().get(TABLE);
    let keys = unprocessed.into_iter().flat_map(|unprocessed| unprocessed.keys());
    keys.map(|key| key["key"].as_s().unwrap().clone()).collect()
}

/// An endpoint with three events in its table, and their keys.
async fn with_three_events(transport: Transport, script: Script) -> (Endpoint, Vec<String>) {
    let endpoint = Endpoint::start_over(transport, script).await;
    let store = store_at(&endpoint).await;
    let puts = put_many(&store, 3).await;
    let answers = settle(&store, &endpoint, puts).await;
    let keys = answers.into_iter().map(|stored| stored.unwrap().key.to_string()).collect();
    (endpoint, keys)
}

#[tokio::test]
async fn read_finds_stored_items_and_is_no_write() {
    in_time(async {
        for transport in [Transport::Http, Transport::Https] {
            let (endpoint, keys) = with_three_events(transport, Script::of([])).await;
            let asked = [keys[2].clone(), KEY.to_owned(), keys[0].clone()];
            let found = read(&endpoint, consistent_read(&asked)).await.unwrap();
            let expected = [(keys[0].clone(), body(0)), (keys[2].clone(), body(2))];
            assert_eq!(bodies(&found), BTreeMap::from(expected));
            assert_eq!(unprocessed(&found), Vec::<String>::new());

            let reads = endpoint.calls("BatchGetItem");
            assert_eq!(reads.len(), 1);
            assert_eq!(reads[0].keys, asked);
            assert_eq!(endpoint.sizes(), [3]);
        }
    })
    .await;
}

#[tokio::test]
async fn read_of_the_keys_alone_returns_the_keys_alone() {
    in_time(async {
        let (endpoint, keys) = with_three_events(Transport::Http, Script::of([])).await;
        let asked = KeysAndAttributes::builder()
            .set_keys(consistent_read(&keys[..1]).keys.into())
            .consistent_read(true)
            .projection_expression("#key")
            .expression_attribute_names("#key", "key")
            .build()
            .unwrap();
        let found = read(&endpoint, asked).await.unwrap();
        let item = HashMap::from([("key".to_owned(), AttributeValue::S(keys[0].clone()))]);
        assert_eq!(found.responses.unwrap()[TABLE], [item]);
    })
    .await;
}

#[tokio::test]
async fn reads_follow_their_script_in_turn() {
    in_time(Box::pin(async {
        let script = Script::of([])
            .first_reading([
                ReadReply::Unprocessed(Selector::Places(vec![2, 0])),
                ReadReply::Unprocessed(Selector::PlacesAndUnknownKey(vec![])),
                ReadReply::WithoutResponses,
            ])
            .reading(ReadReply::Unprocessed(Selector::All));
        let (endpoint, keys) = with_three_events(Transport::Http, script).await;
        let read = || read(&endpoint, consistent_read(&keys));

        let found = read().await.unwrap();
        assert_eq!(bodies(&found), BTreeMap::from([(keys[1].clone(), body(1))]));
        assert_eq!(unprocessed(&found), [keys[2].clone(), keys[0].clone()]);

        let found = read().await.unwrap();
        assert_eq!((bodies(&found).len(), unprocessed(&found).len()), (3, 1));

        let found = read().await.unwrap();
        assert_eq!((&found.responses, unprocessed(&found)), (&None, Vec::new()));

        for _ in 0..2 {
            let found = read().await.unwrap();
            assert_eq!((bodies(&found), unprocessed(&found)), (BTreeMap::new(), keys.clone()));
        }
        assert_eq!(endpoint.calls("BatchGetItem").len(), 5);
    }))
    .await;
}

#[tokio::test]
async fn reads_fail_as_scripted() {
    in_time(async {
        let script = Script::of([])
            .first_reading([
                ReadReply::error(400, "AccessDeniedException"),
                ReadReply::raw(200, "<html></html>"),
                ReadReply::HangUp,
                ReadReply::Hang,
            ])
            .reading(ReadReply::error(500, "InternalServerError"));
        let endpoint = Endpoint::start(script).await;
        let keys = [KEY.to_owned()];
        let read = || read(&endpoint, consistent_read(&keys));
        assert_eq!(read().await.unwrap_err().code(), Some("AccessDeniedException"));
        assert_eq!(read().await.unwrap_err().code(), None);
        let hung_up = read().await.unwrap_err();
        assert!(matches!(hung_up, SdkError::DispatchFailure(_)), "{hung_up:?}");
        timeout(ATTEMPT_TIMEOUT, read()).await.unwrap_err();
        for _ in 0..2 {
            assert_eq!(read().await.unwrap_err().code(), Some("InternalServerError"));
        }
        assert_eq!(endpoint.calls("BatchGetItem").len(), 6);
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "a read that is not consistent")]
async fn inconsistent_read_fails_the_test() {
    in_time(async {
        let endpoint = Endpoint::start([]).await;
        let mut asked = consistent_read(&[KEY.to_owned()]);
        asked.consistent_read = None;
        read(&endpoint, asked).await.unwrap_err();
    })
    .await;
}

/// Examples of the signing test suite of AWS (`aws-signing-test-suite/v4` of aws-sdk-rust: get-vanilla,
/// post-vanilla, get-vanilla-with-session-token).
#[test]
fn signatures_match_the_published_examples() {
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    for (method, token, expected) in [
        ("GET", None, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", None, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", Some(token), "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"),
    ] {
        let mut headers = hyper::HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        let mut signed = "host;x-amz-date".to_owned();
        if let Some(token) = token {
            headers.insert("x-amz-security-token", token.parse().unwrap());
            signed.push_str(";x-amz-security-token");
        }
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders={signed}, Signature="
        );
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let signature = signature(method, &headers, b"", &authorization, secret);
        assert_eq!(signature.as_deref(), Some(expected));
    }
}
