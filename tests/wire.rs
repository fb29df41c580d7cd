//! Compares the store's requests with the SDK's own, as a server receives them.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::types::{AttributeValue, BatchStatementRequest, PutRequest, WriteRequest};
use dynamodb_eventstore::{EventStore, EventStoreBuilder, WriteMode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use support::http_client::{HttpClientFn, all_stored};

/// Headers that differ from request to request.
const PER_REQUEST_HEADERS: [&str; 2] = ["x-amz-date", "authorization"];

/// Headers about the SDK's retries. The direct transport sends none.
const RETRY_HEADERS: [&str; 2] = ["amz-sdk-invocation-id", "amz-sdk-request"];

/// A request as it arrived.
#[derive(Debug)]
struct ReceivedRequest {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

impl ReceivedRequest {
    /// All headers except these.
    fn headers_without(&self, excluded: &[&str]) -> BTreeMap<&str, &str> {
        let all = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        all.filter(|(name, _)| !excluded.contains(name)).collect()
    }

    /// The part of the authorization header that begins with `prefix`, without it.
    fn authorization(&self, prefix: &str) -> &str {
        let parts = self.headers.get("authorization").unwrap().split([' ', ',']);
        parts.filter_map(|part| part.strip_prefix(prefix)).next().unwrap()
    }
}

/// Acknowledges every write, and passes on the received requests.
async fn listener() -> (SocketAddr, mpsc::UnboundedReceiver<ReceivedRequest>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (received, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let received = received.clone();
            let service = service_fn(move |request| answer(request, received.clone()));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, requests)
}

/// The answer to three puts and to three inserts.
const ACKNOWLEDGED: &[u8] = br#"{"UnprocessedItems":{},"Responses":[{},{},{}]}"#;

async fn answer(
    request: Request<Incoming>,
    received: mpsc::UnboundedSender<ReceivedRequest>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
    let request = ReceivedRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: headers.collect(),
        body: serde_json::from_slice(&body).unwrap(),
    };
    received.send(request).unwrap();
    let answer = Response::builder()
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "REQUEST")
        .body(Full::new(Bytes::from_static(ACKNOWLEDGED)));
    Ok(answer.unwrap())
}

fn config(address: SocketAddr) -> SdkConfig {
    let credentials = Credentials::new("AKID", "secret", Some("token".to_owned()), None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{address}"))
        .build()
}

/// Bodies with every kind of character that JSON escapes, and some that it does not.
const BODIES: [&str; 3] = [
    r#"{"quoted":"\"","path":"C:\\"}"#,
    "[\n\t\"lines\",\r\n\"controls: \u{1}\u{8}\u{c}\u{1f}\u{7f}\"]",
    r#""Grüße 😀 \u0041""#,
];

/// Stores the bodies, and returns their keys and the request that carried them.
async fn store(
    builder: EventStoreBuilder,
    requests: &mut mpsc::UnboundedReceiver<ReceivedRequest>,
) -> (Vec<String>, ReceivedRequest) {
    let builder = builder.table("all-events").check_table(false).linger(Duration::from_secs(5));
    let store = builder.start().await.unwrap();
    let mut keys = Vec::new();
    for body in BODIES {
        // The second body is not JSON. It is encoded like any other text.
        let key = format!("20130927T0052406525088581{:02}", keys.len());
        let event = dynamodb_eventstore::Event::new(key.parse().unwrap(), body).unwrap();
        keys.push(store.put_event(event).await.unwrap().key().to_string());
    }
    assert!(store.close(Duration::from_secs(5)).await.unwrap().is_complete());
    (keys, requests.recv().await.unwrap())
}

/// The request that the SDK itself sends for the same events.
async fn send(
    client: &Client,
    keys: &[String],
    requests: &mut mpsc::UnboundedReceiver<ReceivedRequest>,
) -> ReceivedRequest {
    let items = keys.iter().zip(BODIES).map(|(key, body)| {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let item = HashMap::from([("key".to_owned(), text(key)), ("body".to_owned(), text(body))]);
        let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    });
    client.batch_write_item().request_items("all-events", items.collect()).send().await.unwrap();
    requests.recv().await.unwrap()
}

#[tokio::test]
async fn both_transports_send_what_the_sdk_would() {
    let (address, mut requests) = listener().await;
    let config = config(address);
    let client = Client::new(&config);
    let (keys, direct) =
        Box::pin(store(EventStore::builder().sdk_config(&config), &mut requests)).await;
    let (_, through_client) =
        Box::pin(store(EventStore::builder().client(&client), &mut requests)).await;
    let sdk = send(&client, &keys, &mut requests).await;

    for ours in [&direct, &through_client] {
        assert_eq!((&ours.method, &ours.path), (&sdk.method, &sdk.path));
        assert_eq!(ours.body, sdk.body);
        assert_eq!(ours.headers.get("x-amz-target"), sdk.headers.get("x-amz-target"));
        assert_eq!(ours.headers.get("host"), sdk.headers.get("host"));
    }
    // The attributes may be in another order, which does not change the length.
    let excluded = [&PER_REQUEST_HEADERS[..], &RETRY_HEADERS, &["user-agent"]].concat();
    assert_eq!(direct.headers_without(&excluded), sdk.headers_without(&excluded));
    assert_eq!(
        direct.headers.keys().filter(|name| RETRY_HEADERS.contains(&name.as_str())).count(),
        0
    );
    let agent = |request: &ReceivedRequest| request.headers.get("user-agent").unwrap().clone();
    let expected = format!("{} lib/dynamodb-eventstore/{}", agent(&sdk), env!("CARGO_PKG_VERSION"));
    assert_eq!(agent(&direct), expected);
    let scope = |request: &ReceivedRequest| {
        let (_, scope) = request.authorization("Credential=").split_once('/').unwrap();
        scope.to_owned()
    };
    assert_eq!(scope(&direct), scope(&sdk));
    for signed in ["host", "x-amz-date", "x-amz-security-token", "x-amz-target", "content-type"] {
        assert!(
            direct.authorization("SignedHeaders=").split(';').any(|name| name == signed),
            "{signed}"
        );
    }
}

#[tokio::test]
async fn both_transports_insert_as_the_sdk_would() {
    let (address, mut requests) = listener().await;
    let config = config(address);
    let client = Client::new(&config);
    let inserting = || EventStore::builder().write_mode(WriteMode::Insert);
    let (keys, direct) = Box::pin(store(inserting().sdk_config(&config), &mut requests)).await;
    let (_, through_client) = Box::pin(store(inserting().client(&client), &mut requests)).await;
    let statements = keys.iter().zip(BODIES).map(|(key, body)| {
        BatchStatementRequest::builder()
            .statement(r#"INSERT INTO "all-events" VALUE {'key':?,'body':?}"#)
            .parameters(AttributeValue::S(key.clone()))
            .parameters(AttributeValue::S(body.to_owned()))
            .build()
            .unwrap()
    });
    let call = client.batch_execute_statement().set_statements(Some(statements.collect()));
    call.send().await.unwrap();
    let sdk = requests.recv().await.unwrap();

    for ours in [&direct, &through_client] {
        assert_eq!(ours.body, sdk.body);
        assert_eq!(ours.headers.get("x-amz-target"), sdk.headers.get("x-amz-target"));
    }
    let excluded = [&PER_REQUEST_HEADERS[..], &RETRY_HEADERS, &["user-agent"]].concat();
    assert_eq!(direct.headers_without(&excluded), sdk.headers_without(&excluded));
    let retries = direct.headers.keys().filter(|name| RETRY_HEADERS.contains(&name.as_str()));
    assert_eq!(retries.count(), 0, "the direct transport sends no headers about retries");
}

/// The address of each request, and the region that it is signed for.
#[derive(Debug, Clone, Default)]
struct Addresses(Arc<Mutex<Vec<(String, String)>>>);

impl Addresses {
    fn last(&self) -> (String, String) {
        self.0.lock().unwrap().last().cloned().unwrap()
    }

    /// A client that acknowledges every request, and records its address.
    fn http_client(&self) -> HttpClientFn {
        let Self(addresses) = self.clone();
        HttpClientFn::new(move |request| {
            let authorization = request.headers().get("authorization").unwrap();
            let region = authorization.split('/').nth(2).unwrap();
            addresses.lock().unwrap().push((request.uri().to_owned(), region.to_owned()));
            all_stored()
        })
    }
}

#[tokio::test]
async fn session_token_of_the_builder_is_sent_and_signed() {
    let (address, mut requests) = listener().await;
    let builder = EventStore::builder()
        .region("eu-central-1")
        .session_credentials("AKID", "secret", "a session's token")
        .endpoint_url(format!("http://{address}"));
    let (_, received) = Box::pin(store(builder, &mut requests)).await;
    assert_eq!(received.headers.get("x-amz-security-token").unwrap(), "a session's token");
    assert!(received.authorization("Credential=").starts_with("AKID/"));
    let signed = received.authorization("SignedHeaders=");
    assert!(signed.split(';').any(|name| name == "x-amz-security-token"), "{signed}");
}

/// The address and the signed region of a request with this configuration: of the direct transport,
/// and of the SDK itself.
async fn addresses(config: SdkConfig) -> [(String, String); 2] {
    let addresses = Addresses::default();
    let config = config.into_builder().behavior_version(BehaviorVersion::latest());
    let config = config.http_client(addresses.http_client()).build();
    let store = EventStore::builder().sdk_config(&config).table("all-events").check_table(false);
    Box::pin(store.start()).await.unwrap().put(&1).await.unwrap().await.unwrap();
    let direct = addresses.last();
    let key = AttributeValue::S("20130927T005240652508858176".to_owned());
    let put = PutRequest::builder().item("key", key).build().unwrap();
    let write = WriteRequest::builder().put_request(put).build();
    let call = Client::new(&config).batch_write_item().request_items("all-events", vec![write]);
    call.send().await.unwrap();
    [direct, addresses.last()]
}

#[tokio::test]
async fn requests_go_where_the_sdk_configuration_says() {
    let credentials = |account: Option<&str>| {
        let credentials = Credentials::builder().access_key_id("AKID").secret_access_key("secret");
        let mut credentials = credentials.provider_name("test");
        credentials.set_account_id(account.map(Into::into));
        SharedCredentialsProvider::new(credentials.build())
    };
    let to = |region: &'static str| {
        let config = SdkConfig::builder().region(Region::from_static(region));
        config.credentials_provider(credentials(None))
    };
    let of_an_account = to("us-east-1").credentials_provider(credentials(Some("123456789012")));
    for (config, address, region) in [
        (to("eu-central-1"), "https://dynamodb.eu-central-1.amazonaws.com/", "eu-central-1"),
        (to("cn-north-1"), "https://dynamodb.cn-north-1.amazonaws.com.cn/", "cn-north-1"),
        (
            to("us-east-1").use_fips(true),
            "https://dynamodb-fips.us-east-1.amazonaws.com/",
            "us-east-1",
        ),
        (to("us-east-1").use_dual_stack(true), "https://dynamodb.us-east-1.api.aws/", "us-east-1"),
        (of_an_account, "https://123456789012.ddb.us-east-1.amazonaws.com/", "us-east-1"),
    ] {
        let [direct, sdk] = addresses(config.build()).await;
        assert_eq!(direct, sdk);
        assert_eq!(direct, (address.to_owned(), region.to_owned()));
    }
}

/// Credentials that expire at once, so that each call loads them again. The account may change.
#[derive(Debug, Clone)]
struct Accounts(Arc<Mutex<&'static str>>);

impl ProvideCredentials for Accounts {
    fn provide_credentials<'a>(
        &'a self,
    ) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let credentials = Credentials::builder()
            .access_key_id("AKID")
            .secret_access_key("secret")
            .provider_name("test")
            .expiry(UNIX_EPOCH)
            .account_id(*self.0.lock().unwrap())
            .build();
        aws_credential_types::provider::future::ProvideCredentials::ready(Ok(credentials))
    }
}

#[tokio::test]
async fn requests_follow_the_account_of_new_credentials() {
    let addresses = Addresses::default();
    let accounts = Accounts(Arc::new(Mutex::new("111111111111")));
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(accounts.clone()))
        .http_client(addresses.http_client())
        .build();
    let store = EventStore::builder().sdk_config(&config).table("all-events").check_table(false);
    let store = Box::pin(store.start()).await.unwrap();
    for account in ["111111111111", "222222222222", "111111111111"] {
        *accounts.0.lock().unwrap() = account;
        store.put(&1).await.unwrap().await.unwrap();
        let (address, _) = addresses.last();
        assert_eq!(address, format!("https://{account}.ddb.us-east-1.amazonaws.com/"));
    }
}
