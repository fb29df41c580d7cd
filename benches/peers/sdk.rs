//! The AWS SDK for Rust alone, with full batches.
//!
//! All tasks share one client with the SDK's default configuration, including its retries, on tokio's
//! default runtime. Building the items is part of the measured time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use dynamodb_eventstore::{BODY_ATTRIBUTE, KEY_ATTRIBUTE, MAX_BATCH_EVENTS};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::measure::Watch;
use super::outcome::Outcome;

pub(crate) const ROLE: &str = "sdk";
pub(crate) const TABLE: &str = "events";

/// Every peer that can have several calls in flight has this many. It is the number with which the
/// store begins.
const IN_FLIGHT: usize = 8;

pub(crate) fn play(url: &str, bodies: Arc<[String]>, events: usize) -> Outcome {
    let runtime = Runtime::new().unwrap();
    let client = Client::new(&runtime.block_on(config(url)));
    let writer = Arc::new(Writer { client, bodies, next_key: AtomicUsize::new(0) });
    // Opens the connections.
    runtime.block_on(Arc::clone(&writer).write(events / 2));
    let watch = Watch::start();
    let answered = runtime.block_on(writer.write(events));
    let sample = watch.stop(answered);
    assert_eq!(answered, events);
    Outcome::new(sample, events, [("aws-sdk-dynamodb", aws_sdk_dynamodb::meta::PKG_VERSION)])
}

/// The default configuration with this endpoint.
pub(crate) async fn config(url: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .load()
        .await
}

struct Writer {
    client: Client,
    bodies: Arc<[String]>,
    next_key: AtomicUsize,
}

impl Writer {
    /// Writes this many events, and returns how many were acknowledged.
    async fn write(self: Arc<Self>, events: usize) -> usize {
        let begun = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (writer, begun) = (Arc::clone(&self), Arc::clone(&begun));
            senders.spawn(async move {
                let mut answered = 0;
                loop {
                    let first = begun.fetch_add(MAX_BATCH_EVENTS, Ordering::Relaxed);
                    if first >= events {
                        return answered;
                    }
                    let count = MAX_BATCH_EVENTS.min(events - first);
                    writer.send(writer.batch(first, count)).await;
                    answered += count;
                }
            });
        }
        senders.join_all().await.into_iter().sum()
    }

    fn batch(&self, first: usize, count: usize) -> Vec<WriteRequest> {
        let bodies = self.bodies.iter().cycle().skip(first % self.bodies.len());
        bodies.take(count).map(|body| self.request(body)).collect()
    }

    fn request(&self, body: &str) -> WriteRequest {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let item = HashMap::from([
            (KEY_ATTRIBUTE.to_owned(), AttributeValue::S(format!("20130927T005240652{key:09}"))),
            (BODY_ATTRIBUTE.to_owned(), AttributeValue::S(body.to_owned())),
        ]);
        let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    }

    async fn send(&self, batch: Vec<WriteRequest>) {
        let call = self.client.batch_write_item().request_items(TABLE, batch);
        let output = call.send().await.unwrap();
        assert!(output.unprocessed_items.is_some_and(|left| left.is_empty()));
    }
}
