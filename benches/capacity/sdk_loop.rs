//! A loop over the AWS SDK for Rust, as its documentation advises: several tasks, each with one call of 25
//! items in flight. Unprocessed items are sent again with the next items, after an exponential backoff.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use dynamodb_eventstore::{BODY_ATTRIBUTE, KEY_ATTRIBUTE, MAX_BATCH_EVENTS};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::config;
use super::endpoint::TABLE;
use super::store;

/// The backoff of the SDK: up to 1 s before the first retry, doubled for each further one, at most 20 s.
const BASE: Duration = Duration::from_secs(1);
const CEILING: Duration = Duration::from_secs(20);

pub(crate) fn play(url: &str, duration: Duration, in_flight: usize, is_adaptive: bool) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let retries = if is_adaptive { RetryConfig::adaptive() } else { RetryConfig::standard() };
        let config = config(url).await.into_builder().retry_config(retries).build();
        let client = Client::new(&config);
        let next_key = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for task in 0..in_flight as u64 {
            let random = StdRng::seed_from_u64(task);
            senders.spawn(write(client.clone(), Arc::clone(&next_key), random));
        }
        // The tasks never end by themselves.
        let ended = timeout(duration, senders.join_next()).await;
        assert!(ended.is_err(), "{ended:?}");
    });
    runtime.shutdown_background();
}

async fn write(client: Client, next_key: Arc<AtomicUsize>, mut random: StdRng) {
    let body = store::body();
    let mut batch = Vec::new();
    let mut refusals = 0;
    loop {
        while batch.len() < MAX_BATCH_EVENTS {
            batch.push(request(next_key.fetch_add(1, Ordering::Relaxed), &body));
        }
        let call = client.batch_write_item().request_items(TABLE, batch.clone());
        // A call that failed after all of its retries is repeated, because every event must be stored.
        if let Ok(output) = call.send().await {
            let mut left = output.unprocessed_items.unwrap_or_default();
            batch = left.remove(TABLE).unwrap_or_default();
        }
        refusals = if batch.is_empty() { 0 } else { refusals + 1 };
        if refusals > 0 {
            let max_wait = BASE.saturating_mul(1 << (refusals - 1).min(8)).min(CEILING);
            wait(max_wait.mul_f64(random.random())).await;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "such loops sleep")]
async fn wait(duration: Duration) {
    tokio::time::sleep(duration).await;
}

fn request(number: usize, body: &str) -> WriteRequest {
    let item = HashMap::from([
        (KEY_ATTRIBUTE.to_owned(), AttributeValue::S(format!("20130927T005240652{number:09}"))),
        (BODY_ATTRIBUTE.to_owned(), AttributeValue::S(body.to_owned())),
    ]);
    let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}
