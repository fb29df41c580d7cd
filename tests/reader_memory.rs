//! The memory that sorting a table takes. It is a test binary of its own, because it counts the allocations of the whole
//! process.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step fails the test")]

mod support;

use std::alloc::System;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_smithy_types::body::SdkBody;
use dynamodb_eventstore::{EventReader, ScannedItem};
use futures::TryStreamExt;
use serde_json::Value;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region as Heap, StatsAlloc};

use support::clock;
use support::http_client::HttpClientFn;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SEGMENTS: usize = 4;
const PAGE_ITEMS: usize = 500;
const MAX_MEMORY_BYTES: usize = 4 << 20;

/// What pages on their way and the SDK take, besides the memory for sorting.
const PAGES_BYTES: usize = 3 << 20;

/// The heap in use since a moment, and its peak.
struct Peak {
    heap: Heap<'static, System>,
    bytes: AtomicUsize,
}

impl Peak {
    fn sample(&self) {
        let change = self.heap.change();
        let grown = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
        self.bytes.fetch_max(grown, Ordering::Relaxed);
    }
}

/// A table of this many events, in no order. It keeps none of them.
fn table(events: usize, peak: Arc<Peak>) -> Client {
    let read: Mutex<[usize; SEGMENTS]> = Mutex::default();
    let http_client = HttpClientFn::new(move |request| {
        peak.sample();
        let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let body = match request.headers().get("x-amz-target").unwrap() {
            "DynamoDB_20120810.Scan" => {
                let segment = usize::try_from(body["Segment"].as_u64().unwrap()).unwrap();
                page(events, segment, &mut read.lock().unwrap()[segment])
            }
            _ => DESCRIBED.to_owned(),
        };
        HttpResponse::new(200.try_into().unwrap(), SdkBody::from(body))
    });
    let credentials = Credentials::new("AKID", "secret", None, None, "test");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client)
        .build();
    Client::new(&config)
}

const DESCRIBED: &str = r#"{"Table":{"TableName":"events","TableStatus":"ACTIVE",
    "KeySchema":[{"AttributeName":"key","KeyType":"HASH"}],
    "AttributeDefinitions":[{"AttributeName":"key","AttributeType":"S"}]}}"#;

/// The next page of a segment.
fn page(events: usize, segment: usize, read: &mut usize) -> String {
    let of_segment = events / SEGMENTS;
    let until = of_segment.min(*read + PAGE_ITEMS);
    let mut page = r#"{"Items":["#.to_owned();
    let mut last_key = String::new();
    for place in *read..until {
        // A prime number spreads them.
        let number = (segment * of_segment + place) * 7_919 % events;
        last_key = format!("20260101T000000000{number:09}");
        let comma = if place == *read { "" } else { "," };
        let body = format!(r#"{{\"number\":{number},\"text\":\"{:0>200}\"}}"#, number % 7);
        write!(page, r#"{comma}{{"key":{{"S":"{last_key}"}},"body":{{"S":"{body}"}}}}"#).unwrap();
    }
    let count = until - *read;
    *read = until;
    let last_key = if until == of_segment {
        String::new()
    } else {
        format!(r#","LastEvaluatedKey":{{"key":{{"S":"{last_key}"}}}}"#)
    };
    let consumed = r#""ConsumedCapacity":{"CapacityUnits":16.0}"#;
    write!(page, r#"],"Count":{count},"ScannedCount":{count},{consumed}{last_key}}}"#).unwrap();
    page
}

/// Reads a table of this many events, and returns the peak of the heap.
async fn peak_of_sorting(events: usize) -> usize {
    let peak = Arc::new(Peak { heap: Heap::new(ALLOCATOR), bytes: AtomicUsize::new(0) });
    let client = table(events, Arc::clone(&peak));
    let reader = EventReader::builder(&client, "events")
        .segments(SEGMENTS as u32)
        .sorted(true)
        .max_memory_bytes(MAX_MEMORY_BYTES);
    let mut reader = reader.open().await.unwrap();
    let (mut read, mut bytes) = (0, 0);
    while let Some(item) = reader.try_next().await.unwrap() {
        let ScannedItem::Event(event) = item else { panic!("{item:?}") };
        assert_eq!(event.key.as_str(), format!("20260101T000000000{read:09}"));
        assert!(event.body.starts_with(&format!(r#"{{"number":{read},"#)));
        (read, bytes) = (read + 1, bytes + event.body.len());
        if read % 1_000 == 0 {
            peak.sample();
        }
    }
    assert_eq!(read, events);
    let peak = peak.bytes.load(Ordering::Relaxed);
    println!("{events} events, {bytes} bytes of bodies, sorted with a peak of {peak} bytes");
    assert!(bytes > 3 * (MAX_MEMORY_BYTES + PAGES_BYTES), "the table fits into memory");
    peak
}

#[tokio::test]
async fn large_table_is_sorted_within_the_memory_bound() {
    let peak = peak_of_sorting(200_000).await;
    assert!(peak <= MAX_MEMORY_BYTES + PAGES_BYTES, "{peak}");
}

#[tokio::test]
#[ignore = "takes minutes; cargo test --release --test reader_memory -- --ignored"]
async fn very_large_table_is_sorted_within_the_memory_bound() {
    let start = clock::now();
    let peak = peak_of_sorting(5_000_000).await;
    println!("{:.1} s", (clock::now() - start).as_secs_f64());
    assert!(peak <= MAX_MEMORY_BYTES + PAGES_BYTES, "{peak}");
}
