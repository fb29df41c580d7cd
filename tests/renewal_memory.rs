//! Tests that a thousand renewals of credentials leak no memory. It is a test binary of its own,
//! because it counts the allocations of the whole process.

mod support;

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use dynamodb_eventstore::{Backoff, EventStore};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region as Heap, StatsAlloc};

use support::http_client::{HttpClientFn, response};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A leaking renewal leaves some kilobytes allocated. A failed attempt leaves a few bytes in the
/// history of its event.
const MAX_BYTES_LEFT_PER_RENEWAL: usize = 200;

/// A service that answers this many calls with expired credentials, and stores the batches of the
/// others.
fn service(expired_calls: Arc<AtomicU32>) -> HttpClientFn {
    HttpClientFn::new(move |_| {
        let left = expired_calls
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let mut response = if left.is_ok() {
            response(400, r#"{"__type":"ExpiredTokenException","message":"expired"}"#)
        } else {
            response(200, r#"{"UnprocessedItems":{}}"#)
        };
        response.headers_mut().insert("x-amzn-requestid", "REQUEST");
        response
    })
}

#[tokio::test(start_paused = true)]
async fn thousand_renewals_leave_the_heap_unchanged() {
    for is_client_given in [false, true] {
        let expired_calls = Arc::new(AtomicU32::new(100));
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(service(Arc::clone(&expired_calls)))
            .build();
        let store = match is_client_given {
            false => EventStore::builder().sdk_config(&config),
            true => EventStore::builder().client(&Client::new(&config)),
        };
        // Ten seconds between refusals, so that each of them causes a renewal of the credentials.
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
        expired_calls.store(1_000, Ordering::Relaxed);
        assert_eq!(store.put(&1).await.unwrap().await.unwrap().attempts, 1_001);
        let change = before.change();
        let left = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
        assert!(left < 1_000 * MAX_BYTES_LEFT_PER_RENEWAL, "{left} bytes more");

        // The dropped store releases the HTTP client, and with it the connections.
        store.close(pause).await.unwrap();
        drop((store, config));
        while Arc::strong_count(&expired_calls) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
