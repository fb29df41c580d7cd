//! The ways of writing the same events to the same endpoint.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use bytes::Bytes;
use dynamodb_eventstore::bench_internals::{DirectTransport, request_body};
use dynamodb_eventstore::{
    BODY_ATTRIBUTE, BatchError, BatchReceipt, BatchWriter, Event, EventStore, KEY_ATTRIBUTE,
    MAX_BATCH_EVENTS, PutTicket, Stats, WriteMode,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::JoinSet;

use super::endpoint::Endpoint;
use super::measure::{Sample, Watch};
use super::value::Value;

const TABLE: &str = "events";

/// Calls in flight with the SDK alone. It is the number with which the store begins.
const IN_FLIGHT: usize = 8;

/// Tickets that all producers together hold before they await the oldest.
const MAX_HELD_TICKETS: usize = 1_000;

/// The number of values, which are put repeatedly.
const VALUES: usize = 1_000;

/// How the endpoint is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Transport {
    Http,
    Https,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "TLS",
        }
    }
}

/// A way of writing events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The SDK's `PutItem`, one call after the other.
    PutItem,
    /// The SDK's `PutItem`, with [`IN_FLIGHT`] calls in flight.
    PutItemInFlight,
    /// The SDK's `BatchWriteItem` with full batches that were built before the measured time.
    ReadyBatches,
    /// The SDK's `BatchWriteItem` with full batches that are built from values, as in the store.
    BuiltBatches,
    /// The store's direct transport with request bodies that were built before the measured time.
    /// It signs and sends them, and reads the responses.
    Transport,
    /// The store with its default settings, from a value to a settled ticket.
    Store,
    /// The same with an SDK client.
    StoreWithClient,
    /// The store with its default settings, which inserts instead of puts.
    StoreInserting,
    /// The store with a writer that does nothing: the cost of the store itself.
    StoreAlone,
}

impl Way {
    pub(crate) const ALL: [Self; 9] = [
        Self::PutItem,
        Self::PutItemInFlight,
        Self::ReadyBatches,
        Self::BuiltBatches,
        Self::Transport,
        Self::Store,
        Self::StoreWithClient,
        Self::StoreInserting,
        Self::StoreAlone,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PutItem => "SDK PutItem, one by one",
            Self::PutItemInFlight => "SDK PutItem, 8 in flight",
            Self::ReadyBatches => "SDK BatchWriteItem, ready batches, 8 in flight",
            Self::BuiltBatches => "SDK BatchWriteItem, from values, 8 in flight",
            Self::Transport => "EventStore's transport, ready bodies, 8 in flight",
            Self::Store => "EventStore",
            Self::StoreWithClient => "EventStore, through an SDK client",
            Self::StoreInserting => "EventStore, inserting",
            Self::StoreAlone => "EventStore, its writer does nothing",
        }
    }

    /// The events of one full run: about a tenth of a second of work, and for the store as many as its
    /// buffer holds.
    pub(crate) fn events(self) -> usize {
        match self {
            Self::PutItem => 1_000,
            Self::PutItemInFlight => 2_000,
            _ => 10_000,
        }
    }
}

/// The objects that all runs share: values of one size, a client, four stores, and their open
/// connections.
pub(crate) struct Stage {
    values: Arc<[Value]>,
    config: SdkConfig,
    client: Client,
    transport: Arc<DirectTransport>,
    store: EventStore,
    store_with_client: EventStore,
    store_inserting: EventStore,
    store_alone: EventStore,
    next_key: Arc<AtomicU64>,
}

impl Stage {
    pub(crate) async fn new(endpoint: &Endpoint, transport: Transport, body_bytes: usize) -> Self {
        Self::with_linger(endpoint, transport, body_bytes, Duration::from_millis(5)).await
    }

    /// A stage whose [`Way::Store`] and [`Way::StoreAlone`] have this linger.
    pub(crate) async fn with_linger(
        endpoint: &Endpoint,
        transport: Transport,
        body_bytes: usize,
        linger: Duration,
    ) -> Self {
        let credentials = Credentials::new("test", "test", None, None, "benchmark");
        let mut config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials));
        config = match transport {
            Transport::Http => config.endpoint_url(endpoint.url()),
            Transport::Https => {
                config.endpoint_url(endpoint.tls_url()).http_client(endpoint.http_client())
            }
        };
        let config = config.build();
        let client = Client::new(&config);
        let store = EventStore::builder().sdk_config(&config).table(TABLE).check_table(false);
        let store = store.linger(linger).start().await.unwrap();
        let store_with_client =
            EventStore::builder().client(&client).table(TABLE).check_table(false);
        let store_with_client = store_with_client.start().await.unwrap();
        let store_inserting = EventStore::builder().sdk_config(&config).table(TABLE);
        let store_inserting =
            store_inserting.check_table(false).write_mode(WriteMode::Insert).start().await.unwrap();
        let store_alone = EventStore::builder().batch_writer(NoopWriter).linger(linger);
        let store_alone = store_alone.start().await.unwrap();
        Self {
            values: (0..VALUES).map(|number| Value::new(number, body_bytes)).collect(),
            config,
            transport: Arc::new(DirectTransport::new(&client, TABLE)),
            client,
            store,
            store_with_client,
            store_inserting,
            store_alone,
            next_key: Arc::default(),
        }
    }

    /// Writes events in one way, and measures it.
    pub(crate) async fn run(&self, way: Way, events: usize) -> Sample {
        match way {
            Way::PutItem => self.put_items(1, events).await,
            Way::PutItemInFlight => self.put_items(IN_FLIGHT, events).await,
            Way::ReadyBatches => {
                let batches: Vec<_> = self.batches(events).collect();
                let watch = Watch::start();
                self.send_batches(batches.into_iter()).await;
                watch.stop(events)
            }
            Way::BuiltBatches => {
                let watch = Watch::start();
                self.send_batches(self.batches(events)).await;
                watch.stop(events)
            }
            Way::Transport => {
                let bodies: Vec<_> = self.bodies(events).collect();
                let watch = Watch::start();
                self.send_bodies(bodies.into_iter()).await;
                watch.stop(events)
            }
            Way::Store | Way::StoreWithClient | Way::StoreInserting | Way::StoreAlone => {
                self.put(way, events, MAX_HELD_TICKETS).await
            }
        }
    }

    /// The counters of the store that writes to the endpoint.
    pub(crate) fn stats(&self) -> Stats {
        self.store.stats()
    }

    /// The items are built before the watch starts, and are sent without a copy.
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
        send_all(in_flight, items.into_iter(), send).await;
        watch.stop(events)
    }

    async fn send_batches(
        &self,
        batches: impl Iterator<Item = Vec<WriteRequest>> + Send + 'static,
    ) {
        let client = self.client.clone();
        let send = move |batch| {
            let call = client.batch_write_item().request_items(TABLE, batch);
            async move {
                let output = call.send().await.unwrap();
                assert!(output.unprocessed_items.is_some_and(|left| left.is_empty()));
            }
        };
        send_all(IN_FLIGHT, batches, send).await;
    }

    async fn send_bodies(&self, bodies: impl Iterator<Item = Bytes> + Send + 'static) {
        let transport = Arc::clone(&self.transport);
        let send = move |body| {
            let transport = Arc::clone(&transport);
            async move {
                let receipt = transport.send(body).await.unwrap();
                assert!(receipt.unprocessed().is_empty());
            }
        };
        send_all(IN_FLIGHT, bodies, send).await;
    }

    /// The store that [`Way::Store`] writes with.
    pub(crate) fn store(&self) -> &EventStore {
        &self.store
    }

    /// A store for the same endpoint with this linger.
    pub(crate) async fn store_with_linger(&self, linger: Duration) -> EventStore {
        let store = EventStore::builder().sdk_config(&self.config).table(TABLE);
        store.check_table(false).linger(linger).start().await.unwrap()
    }

    /// Builds what a run builds before its measured time, and drops it.
    pub(crate) fn prepare(&self, way: Way, events: usize) {
        match way {
            Way::PutItem | Way::PutItemInFlight => {
                drop(self.items().take(events).collect::<Vec<_>>())
            }
            Way::ReadyBatches => drop(self.batches(events).collect::<Vec<_>>()),
            Way::Transport => drop(self.bodies(events).collect::<Vec<_>>()),
            Way::BuiltBatches
            | Way::Store
            | Way::StoreWithClient
            | Way::StoreInserting
            | Way::StoreAlone => {}
        }
    }

    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }

    /// One `PutItem` call.
    pub(crate) async fn put_item(&self) {
        let item = self.items().next();
        self.client.put_item().table_name(TABLE).set_item(item).send().await.unwrap();
    }

    /// Puts `events` events from `producers` tasks.
    pub(crate) async fn put_from(
        self: &Arc<Self>,
        way: Way,
        producers: usize,
        events: usize,
    ) -> Sample {
        let watch = Watch::start();
        let mut tasks = JoinSet::new();
        for _ in 0..producers {
            let stage = Arc::clone(self);
            tasks.spawn(async move {
                stage.put(way, events / producers, MAX_HELD_TICKETS / producers).await
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        watch.stop(events)
    }

    async fn put(&self, way: Way, events: usize, max_held: usize) -> Sample {
        let store = match way {
            Way::StoreWithClient => &self.store_with_client,
            Way::StoreInserting => &self.store_inserting,
            Way::StoreAlone => &self.store_alone,
            _ => &self.store,
        };
        let mut tickets: VecDeque<PutTicket> = VecDeque::with_capacity(max_held);
        let watch = Watch::start();
        for value in self.values.iter().cycle().take(events) {
            if tickets.len() == max_held
                && let Some(oldest) = tickets.pop_front()
            {
                oldest.await.unwrap();
            }
            tickets.push_back(store.put(value).await.unwrap());
        }
        for ticket in tickets {
            ticket.await.unwrap();
        }
        watch.stop(events)
    }

    /// Full batches of items, each built on demand.
    fn batches(&self, events: usize) -> impl Iterator<Item = Vec<WriteRequest>> + Send + use<> {
        let mut requests = self.items().map(write_request);
        (0..events / MAX_BATCH_EVENTS)
            .map(move |_| requests.by_ref().take(MAX_BATCH_EVENTS).collect())
    }

    /// The bodies of requests for full batches.
    fn bodies(&self, events: usize) -> impl Iterator<Item = Bytes> + Send + use<> {
        let values = Arc::clone(&self.values);
        let mut numbered = repeated_values(values).zip(1_u64..);
        (0..events / MAX_BATCH_EVENTS).map(move |_| {
            let batch: Vec<Event> = numbered
                .by_ref()
                .take(MAX_BATCH_EVENTS)
                .map(|(body, number)| {
                    let key = format!("20130927T005240652{number:09}").parse().unwrap();
                    Event::new(key, body).unwrap()
                })
                .collect();
            request_body(TABLE, &batch)
        })
    }

    /// Items as the store writes them, with distinct keys.
    fn items(&self) -> impl Iterator<Item = Item> + Send + use<> {
        let (values, next_key) = (Arc::clone(&self.values), Arc::clone(&self.next_key));
        repeated_values(values).map(move |body| {
            let key = next_key.fetch_add(1, Ordering::Relaxed);
            let key = AttributeValue::S(format!("20130927T005240652{key:09}"));
            HashMap::from([
                (KEY_ATTRIBUTE.to_owned(), key),
                (BODY_ATTRIBUTE.to_owned(), AttributeValue::S(body)),
            ])
        })
    }
}

/// The JSON texts of the values, repeated without end.
fn repeated_values(values: Arc<[Value]>) -> impl Iterator<Item = String> + Send {
    (0..).map_while(move |number| {
        let value = values.get(number % values.len())?;
        Some(serde_json::to_string(value).unwrap())
    })
}

type Item = HashMap<String, AttributeValue>;

fn write_request(item: Item) -> WriteRequest {
    let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}

/// Sends every piece of `work` with `in_flight` tasks. Each task takes the next piece after one is sent,
/// so that no task is spawned per piece.
async fn send_all<W, S, F>(in_flight: usize, work: W, send: S)
where
    W: Iterator<Item: Send> + Send + 'static,
    S: Fn(W::Item) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let work = Arc::new(Mutex::new(work));
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

/// A writer that acknowledges every batch at once.
struct NoopWriter;

impl BatchWriter for NoopWriter {
    fn write_batch<'a>(
        &'a self,
        _events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        std::future::ready(Ok(BatchReceipt::all_processed())).boxed()
    }
}
