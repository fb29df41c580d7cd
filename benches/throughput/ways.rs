//! The ways of writing the same events to the same endpoint.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use dynamodb_eventstore::{
    BODY_ATTRIBUTE, BatchError, BatchReceipt, BatchWriter, Event, EventStore, KEY_ATTRIBUTE,
    MAX_BATCH_EVENTS, Stats,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::task::JoinSet;

use super::endpoint::Endpoint;
use super::measure::{Sample, Watch};

const TABLE: &str = "events";

/// Calls at the same time, for the SDK by itself: the store's default.
const IN_FLIGHT: usize = 8;

/// How many values are put, over and over.
const VALUES: usize = 1_000;

/// A way of writing events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The SDK's `PutItem`, the next one when the last one is answered.
    PutItem,
    /// The SDK's `PutItem`, as many at a time as the store has batches.
    PutItemInFlight,
    /// The SDK's `BatchWriteItem` with full batches that lie ready.
    FullBatches,
    /// The store with its default settings, from a value to an answered ticket.
    Store,
    /// The store over a writer that does nothing: what the store itself costs.
    StoreAlone,
}

impl Way {
    pub(crate) const ALL: [Self; 5] =
        [Self::PutItem, Self::PutItemInFlight, Self::FullBatches, Self::Store, Self::StoreAlone];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PutItem => "SDK, PutItem one by one",
            Self::PutItemInFlight => "SDK, PutItem, 8 in flight",
            Self::FullBatches => "SDK, full batches, 8 in flight",
            Self::Store => "EventStore",
            Self::StoreAlone => "EventStore, writer does nothing",
        }
    }

    /// How many events make up one run, at full length: a tenth of a second's work or so, and for
    /// the store as many as its buffer takes.
    pub(crate) fn events(self) -> usize {
        match self {
            Self::PutItem => 1_000,
            Self::PutItemInFlight => 2_000,
            Self::FullBatches | Self::Store | Self::StoreAlone => 10_000,
        }
    }
}

/// Everything that is made once and used for every run: values of one size, a client, and the
/// stores. Runs of all ways share it, connections included.
pub(crate) struct Stage {
    values: Vec<Value>,
    client: Client,
    store: EventStore,
    store_alone: EventStore,
    next_key: AtomicU64,
}

impl Stage {
    pub(crate) async fn new(endpoint: &Endpoint, body_bytes: usize) -> Self {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "benchmark"))
            .endpoint_url(endpoint.url())
            .retry_config(RetryConfig::disabled())
            .build();
        let client = Client::from_conf(config);
        let store = EventStore::builder()
            .client(&client)
            .table(TABLE)
            .check_table(false)
            .start()
            .await
            .unwrap();
        let store_alone = EventStore::builder().batch_writer(Nothing).start().await.unwrap();
        Self {
            values: (0..VALUES).map(|number| Value::new(number, body_bytes)).collect(),
            client,
            store,
            store_alone,
            next_key: AtomicU64::new(0),
        }
    }

    /// Writes events in one way, and says what that took. What the SDK by itself is to send is
    /// made before the watch starts and handed over without a copy; the store begins with values
    /// that are yet to be serialised.
    pub(crate) async fn run(&self, way: Way, events: usize) -> Sample {
        match way {
            Way::PutItem => self.put_items(1, events).await,
            Way::PutItemInFlight => self.put_items(IN_FLIGHT, events).await,
            Way::FullBatches => self.full_batches(events).await,
            Way::Store => self.put(&self.store, events).await,
            Way::StoreAlone => self.put(&self.store_alone, events).await,
        }
    }

    /// The counters of the store that writes to the endpoint.
    pub(crate) fn stats(&self) -> Stats {
        self.store.stats()
    }

    async fn put_items(&self, in_flight: usize, events: usize) -> Sample {
        let client = self.client.clone();
        let send = move |item| {
            let call = client.put_item().table_name(TABLE).set_item(Some(item));
            async move {
                call.send().await.unwrap();
            }
        };
        let items: Vec<Item> = self.items().take(events).collect();
        let watch = Watch::start();
        send_all(in_flight, items, send).await;
        watch.stop(events)
    }

    async fn full_batches(&self, events: usize) -> Sample {
        let client = self.client.clone();
        let send = move |batch| {
            let call = client.batch_write_item().request_items(TABLE, batch);
            async move {
                let output = call.send().await.unwrap();
                assert!(output.unprocessed_items.is_some_and(|left| left.is_empty()));
            }
        };
        let mut requests = self.items().map(write_request);
        let batches: Vec<Vec<WriteRequest>> = (0..events / MAX_BATCH_EVENTS)
            .map(|_| requests.by_ref().take(MAX_BATCH_EVENTS).collect())
            .collect();
        let watch = Watch::start();
        send_all(IN_FLIGHT, batches, send).await;
        watch.stop(events)
    }

    async fn put(&self, store: &EventStore, events: usize) -> Sample {
        let mut tickets = Vec::with_capacity(events);
        let watch = Watch::start();
        for value in self.values.iter().cycle().take(events) {
            tickets.push(store.put(value).await.unwrap());
        }
        for ticket in tickets {
            ticket.await.unwrap();
        }
        watch.stop(events)
    }

    /// Items as the store would write them, each with a key of its own.
    fn items(&self) -> impl Iterator<Item = Item> {
        self.values.iter().cycle().map(|value| {
            let key = self.next_key.fetch_add(1, Ordering::Relaxed);
            let body = serde_json::to_string(value).unwrap();
            HashMap::from([
                (
                    KEY_ATTRIBUTE.to_owned(),
                    AttributeValue::S(format!("20130927T005240652{key:09}")),
                ),
                (BODY_ATTRIBUTE.to_owned(), AttributeValue::S(body)),
            ])
        })
    }
}

type Item = HashMap<String, AttributeValue>;

fn write_request(item: Item) -> WriteRequest {
    let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}

/// Sends every piece of `work`, `in_flight` at a time: as many tasks, which fetch their next piece
/// when they are done with one. Nothing a program of one's own could do is cheaper.
async fn send_all<W, S, F>(in_flight: usize, work: Vec<W>, send: S)
where
    W: Send + 'static,
    S: Fn(W) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let work = Arc::new(Mutex::new(work.into_iter()));
    let mut senders = JoinSet::new();
    for _ in 0..in_flight {
        let (work, send) = (Arc::clone(&work), send.clone());
        senders.spawn(async move {
            loop {
                let next = work.lock().unwrap().next();
                match next {
                    Some(piece) => send(piece).await,
                    None => break,
                }
            }
        });
    }
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
}

/// What is put: something like a line of an application's log.
#[derive(Debug, Serialize)]
struct Value {
    number: u64,
    kind: &'static str,
    visitor: &'static str,
    milliseconds: f64,
    returning: bool,
    note: String,
}

impl Value {
    /// A value whose JSON text has `body_bytes` bytes.
    fn new(number: usize, body_bytes: usize) -> Self {
        let mut value = Self {
            number: 100_000 + number as u64,
            kind: "page.visited",
            visitor: "198.51.100.7",
            milliseconds: 12.5,
            returning: number.is_multiple_of(2),
            note: String::new(),
        };
        let empty = serde_json::to_string(&value).unwrap().len();
        value.note = "the quick brown fox jumps over the lazy dog; "
            .chars()
            .cycle()
            .take(body_bytes - empty)
            .collect();
        value
    }
}

/// A writer that takes every batch at once.
struct Nothing;

impl BatchWriter for Nothing {
    fn write_batch<'a>(
        &'a self,
        _events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        std::future::ready(Ok(BatchReceipt::all_processed())).boxed()
    }
}
