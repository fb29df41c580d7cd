//! What memory a thousand renewals of credentials leave behind. A test binary of its own, as it counts
//! what the whole process allocates.
#![expect(clippy::unwrap_used, reason = "what cannot be had fails the test")]

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::{Credentials, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use dynamodb_eventstore::{Backoff, EventStore};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region as Heap, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A renewal that leaks leaves some kilobytes. An attempt that fails leaves a few bytes of what the
/// event's receipt tells of it.
const MAX_BYTES_LEFT_PER_RENEWAL: usize = 200;

/// A service without a network. It calls the credentials of its next calls expired, so many times.
#[derive(Debug, Clone)]
struct Service(Arc<AtomicU32>);

impl HttpConnector for Service {
    fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
        let left =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let (status, body) = if left.is_ok() {
            (400, r#"{"__type":"ExpiredTokenException","message":"expired"}"#)
        } else {
            (200, r#"{"UnprocessedItems":{}}"#)
        };
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        response.headers_mut().insert("x-amzn-requestid", "REQUEST");
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl HttpClient for Service {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn thousand_renewals_leave_the_heap_unchanged() {
    for is_handed_in in [false, true] {
        let service = Service(Arc::new(AtomicU32::new(100)));
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(service.clone())
            .build();
        let store = match is_handed_in {
            false => EventStore::builder().sdk_config(&config),
            true => EventStore::builder().client(&Client::new(&config)),
        };
        // Refusals ten seconds apart, so that each of them has the credentials renewed.
        let pause = Duration::from_secs(10);
        let store = store
            .table("events")
            .check_table(false)
            .refusal_timeout(Duration::from_secs(24 * 60 * 60))
            .event_deadline(Duration::from_secs(24 * 60 * 60))
            .max_attempts(1_000_000)
            .backoff(Backoff { floor: pause, base: pause, ceiling: pause });
        let store = Box::pin(store.start()).await.unwrap();
        assert_eq!(store.put(&1).await.unwrap().await.unwrap().attempts, 101);

        let before = Heap::new(ALLOCATOR);
        service.0.store(1_000, Ordering::Relaxed);
        assert_eq!(store.put(&1).await.unwrap().await.unwrap().attempts, 1_001);
        let change = before.change();
        let left = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
        assert!(left < 1_000 * MAX_BYTES_LEFT_PER_RENEWAL, "{left} bytes more");

        // Nothing holds the HTTP client, and with it the connections, when the store is gone.
        store.close(pause).await.unwrap();
        drop((store, config));
        while Arc::strong_count(&service.0) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
