//! The sources of credentials: the standard chain of the SDK, and the builder.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_dynamodb::Client;

use dynamodb_eventstore::{Certainty, EventStore, FailureReason};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use support::clock;
use support::endpoint::{Endpoint, TABLE};
use support::environment::in_environment;
use support::http_client::{HttpClientFn, all_stored};
use support::puts::{in_time, settle_one, with_short_waits};

/// A service on loopback that throttles its first calls, and answers the later ones with the credentials
/// of an assumed role. Returns its address and the number of its calls.
async fn security_token_service(throttled: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    const REFUSAL: &str = "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code>\
        <Message>Rate exceeded</Message></Error></ErrorResponse>";
    const ROLE: &str = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>\
        <Credentials><AccessKeyId>ROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
        <SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
        </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            let service = service_fn(move |_request| {
                let is_throttled = counted.fetch_add(1, Ordering::Relaxed) < throttled;
                let (status, body) = if is_throttled { (400, REFUSAL) } else { (200, ROLE) };
                let response = hyper::Response::builder()
                    .status(status)
                    .header("content-type", "text/xml")
                    .body(Full::new(Bytes::from_static(body.as_bytes())))
                    .unwrap();
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, calls)
}

/// The environment of a program whose role is assumed with a web identity.
fn web_identity(service: SocketAddr, token: &std::path::Path) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/writer".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap().to_owned()),
        ("AWS_ENDPOINT_URL_STS", format!("http://{service}")),
    ]
}

#[tokio::test]
async fn role_is_assumed_with_the_attempts_of_the_environment() {
    in_time(async {
        let (service, calls) = security_token_service(3).await;
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "token").unwrap();
        let mut environment = web_identity(service, token.path());
        environment.push(("AWS_MAX_ATTEMPTS", "4".to_owned()));
        let test = "role_is_assumed_with_the_attempts_of_the_environment";
        if !in_environment(test, environment).await {
            assert_eq!(calls.load(Ordering::Relaxed), 4);
            return;
        }
        let endpoint = Endpoint::start([]).await;
        endpoint.accept_only("ROLE");
        let store = EventStore::builder().table(TABLE).region("us-east-1");
        let store = with_short_waits(store.endpoint_url(endpoint.url())).start().await.unwrap();
        settle_one(&store, &endpoint).await.unwrap();
    })
    .await;
}

/// With a configuration that the caller has loaded, the role is assumed with the SDK's three attempts.
#[tokio::test]
async fn loaded_configuration_assumes_its_role_with_retries() {
    in_time(async {
        let (service, calls) = security_token_service(2).await;
        let token = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(token.path(), "token").unwrap();
        let environment = web_identity(service, token.path());
        if !in_environment("loaded_configuration_assumes_its_role_with_retries", environment).await
        {
            assert_eq!(calls.load(Ordering::Relaxed), 3);
            return;
        }
        let endpoint = Endpoint::start([]).await;
        endpoint.accept_only("ROLE");
        let config = aws_config::defaults(BehaviorVersion::latest()).region("us-east-1");
        let config = config.endpoint_url(endpoint.url()).load().await;
        let store = EventStore::builder().table(TABLE).sdk_config(&config);
        let store = with_short_waits(store).start().await.unwrap();
        settle_one(&store, &endpoint).await.unwrap();
    })
    .await;
}

/// Provides this access key. Its first load hangs if `hangs_first` is set. Counts its loads.
#[derive(Debug, Clone)]
struct Provider {
    access_key: &'static str,
    hangs_first: bool,
    loads: Arc<AtomicUsize>,
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let is_first = self.loads.fetch_add(1, Ordering::Relaxed) == 0;
        future::ProvideCredentials::new(async move {
            if self.hangs_first && is_first {
                pending::<()>().await;
            }
            Ok(Credentials::new(self.access_key, "secret", None, None, "tests"))
        })
    }
}

#[tokio::test]
async fn provider_given_to_the_builder_is_used() {
    in_time(async {
        let endpoint = Endpoint::start([]).await;
        endpoint.accept_only("MINE");
        let provider = Provider { access_key: "MINE", hangs_first: false, loads: Arc::default() };
        let store = EventStore::builder().table(TABLE).region("us-east-1");
        let store = store.credentials_provider(provider.clone()).endpoint_url(endpoint.url());
        let store = with_short_waits(store).check_table(false).start().await.unwrap();
        settle_one(&store, &endpoint).await.unwrap();
        assert_eq!(provider.loads.load(Ordering::Relaxed), 1);
    })
    .await;
}

/// A provider whose first load hangs, and a configuration with it whose HTTP client stores everything.
fn hanging() -> (Provider, SdkConfig) {
    let provider = Provider { access_key: "MINE", hangs_first: true, loads: Arc::default() };
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(provider.clone()))
        .http_client(HttpClientFn::new(|_| all_stored()))
        .build();
    (provider, config)
}

#[tokio::test(start_paused = true)]
async fn hanging_credentials_load_ends_soon_after_its_store() {
    let (provider, config) = hanging();
    let store = EventStore::builder().table(TABLE).sdk_config(&config).check_table(false);
    let store = Box::pin(store.start()).await.unwrap();
    let ticket = store.put(&1).await.unwrap();
    let report = store.close(Duration::from_secs(2)).await.unwrap();
    assert_eq!((report.failed, provider.loads.load(Ordering::Relaxed)), (1, 1));
    assert_eq!(ticket.await.unwrap_err().attempts(), 1);
    drop((store, config));
    clock::wait(Duration::from_secs(31)).await;
    assert_eq!(Arc::strong_count(&provider.loads), 1);
}

#[tokio::test(start_paused = true)]
async fn hanging_credentials_load_is_restarted() {
    let (provider, config) = hanging();
    for is_client_given in [false, true] {
        provider.loads.store(0, Ordering::Relaxed);
        let store = match is_client_given {
            false => EventStore::builder().sdk_config(&config),
            true => EventStore::builder().client(&Client::new(&config)),
        };
        let store = Box::pin(store.table(TABLE).check_table(false).start()).await.unwrap();
        let began = clock::now();
        let stored = store.put(&1).await.unwrap().await.unwrap();
        let took = (clock::now() - began).as_secs();
        assert!((30..45).contains(&took), "{took} s");
        assert_eq!((stored.attempts, provider.loads.load(Ordering::Relaxed)), (4, 2));
    }
}

#[tokio::test]
async fn start_without_a_region_says_where_to_set_it() {
    in_time(async {
        if in_environment("start_without_a_region_says_where_to_set_it", []).await {
            let store = EventStore::builder().table(TABLE).credentials("test", "test");
            let error = store.start().await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "setting `region` is missing; it must be given, here or as AWS_REGION or in the \
                 AWS profile"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn start_without_credentials_says_where_to_set_them() {
    in_time(async {
        if in_environment("start_without_credentials_says_where_to_set_them", []).await {
            let endpoint = Endpoint::start([]).await;
            let store =
                EventStore::builder().table(TABLE).region("us-east-1").endpoint_url(endpoint.url());
            let message = store.start().await.unwrap_err().to_string();
            for part in [
                "DescribeTable of table `events` failed: no AWS credentials",
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                "AWS_PROFILE",
                "give the builder credentials",
            ] {
                assert!(message.contains(part), "{message}");
            }
            assert!(endpoint.requests().is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn event_without_credentials_is_not_stored_and_says_why() {
    in_time(async {
        if in_environment("event_without_credentials_is_not_stored_and_says_why", []).await {
            let endpoint = Endpoint::start([]).await;
            let store = EventStore::builder()
                .table(TABLE)
                .region("us-east-1")
                .endpoint_url(endpoint.url())
                .check_table(false);
            let store = with_short_waits(store).max_attempts(3).start().await.unwrap();
            let error = settle_one(&store, &endpoint).await.unwrap_err();
            assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 3));
            assert_eq!(error.reason(), FailureReason::Attempts);
            let message = error.last_cause().unwrap().to_string();
            assert!(
                message.starts_with("no AWS credentials were found") && message.len() < 160,
                "{message}"
            );
            assert!(endpoint.requests().is_empty());
        }
    })
    .await;
}
