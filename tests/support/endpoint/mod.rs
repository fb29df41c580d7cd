//! A scripted endpoint: HTTP on loopback, with or without TLS. It injects faults of DynamoDB that the
//! emulators never have.
//!
//! A [`Script`] is data: its [`Reply`]s say how the calls are answered. `batch.rs` parses each request
//! and checks every rule for which DynamoDB would reject it. Writes are applied to a real table, the
//! embedded one, so that tests can compare it with the answers of the tickets.

mod answer;
mod batch;
mod connection;
mod script;
pub(crate) mod signature;
mod storage;
pub(crate) mod tls;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use dynamodb_eventstore::{EventStore, EventStoreBuilder};
use hyper::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, yield_now};

use answer::{Answer, Head, described_table};
use batch::{Batch, Item, Read};
use connection::Close;
pub(crate) use script::{
    Described, ECHO, EVENT_KEY, KeyPart, ReadReply, Reply, ScanReply, Script, Selector,
};
use storage::Storage;

/// Name of the endpoint's table.
pub(crate) const TABLE: &str = "events";

/// How a store calls the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Http,
    Https,
    /// Through an SDK client that is given to the store, over HTTP.
    Client,
}

/// One request that the endpoint received.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) operation: String,
    /// The keys of the items or of the read, in the order of the request.
    pub(crate) keys: Vec<String>,
    /// Bytes of its body that were read.
    pub(crate) bytes: usize,
    /// The request id of its response.
    pub(crate) id: String,
}

/// The id of request `number`, from 1.
fn request_id(number: usize) -> String {
    format!("REQUEST{number}")
}

/// The endpoint. It runs until it is dropped, and its drop fails the test if any request broke a rule
/// of the service.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    transport: Transport,
    inner: Arc<Inner>,
    closes: mpsc::UnboundedSender<Close>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    storage: Storage,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    /// Listens on a free port of loopback, without TLS.
    pub(crate) async fn start(script: impl Into<Script>) -> Self {
        Self::start_over(Transport::Http, script).await
    }

    /// Listens on a free port of loopback.
    pub(crate) async fn start_over(transport: Transport, script: impl Into<Script>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Mutex::new(State::new(script.into()));
        let inner = Arc::new(Inner { state, storage: Storage::start().await });
        let (closes, to_close) = mpsc::unbounded_channel();
        let serve = connection::serve(listener, transport, Arc::clone(&inner), to_close);
        Self { address, transport, inner, closes, server: tokio::spawn(serve) }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = match self.transport {
            Transport::Http | Transport::Client => "http",
            Transport::Https => "https",
        };
        format!("{scheme}://{}", self.address)
    }

    /// A builder of a store that writes to this endpoint. With TLS it takes an SDK configuration,
    /// because the builder has no setting for trusted certificates.
    pub(crate) fn store(&self) -> EventStoreBuilder {
        let store = EventStore::builder().table(TABLE);
        match self.transport {
            Transport::Http => {
                store.region("us-east-1").credentials("test", "test").endpoint_url(self.url())
            }
            Transport::Https => store.sdk_config(&self.sdk_config()),
            Transport::Client => store.client(&Client::new(&self.sdk_config())),
        }
    }

    /// Like [`store`](Self::store), with this configuration instead of
    /// [`sdk_config`](Self::sdk_config).
    pub(crate) fn store_with(&self, config: &aws_config::SdkConfig) -> EventStoreBuilder {
        let store = EventStore::builder().table(TABLE);
        match self.transport {
            Transport::Http | Transport::Https => store.sdk_config(config),
            Transport::Client => store.client(&Client::new(config)),
        }
    }

    /// The configuration of a client that calls this endpoint.
    pub(crate) fn sdk_config(&self) -> aws_config::SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "Endpoint");
        let config = aws_config::SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(self.url());
        match self.transport {
            Transport::Http | Transport::Client => config.build(),
            Transport::Https => config.http_client(tls::http_client()).build(),
        }
    }

    /// From now on refuses every request that is not signed with this access key, as if its
    /// credentials had expired.
    pub(crate) fn accept_only(&self, access_key: &'static str) {
        self.accept_only_with(access_key, "ExpiredTokenException");
    }

    /// From now on refuses with this code every request that is not signed with this access key.
    pub(crate) fn accept_only_with(&self, access_key: &'static str, code: &'static str) {
        self.inner.lock().script.only_access_key = Some((access_key, code));
    }

    /// The reply to every write after those of the script.
    pub(crate) fn reply_from_now_on(&self, reply: Reply) {
        self.inner.lock().script.then = reply;
    }

    /// The reply to every scan after those of the script.
    pub(crate) fn scan_from_now_on(&self, reply: ScanReply) {
        self.inner.lock().script.then_scan = reply;
    }

    /// Adds replies to the script, one for each write.
    pub(crate) fn reply_to_next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.inner.lock().script.replies.extend(replies);
    }

    /// Sets the endpoint's clock, see [`Script::with_clock_ahead`].
    pub(crate) fn set_clock_ahead(&self, hours_ahead: i64, code: &'static str) {
        self.inner.lock().script.set_clock_ahead(hours_ahead, code);
    }

    /// Every body in the table by key.
    pub(crate) async fn table(&self) -> BTreeMap<String, String> {
        self.inner.storage.rows().await
    }

    /// Adds an item to the table, as another writer does.
    pub(crate) async fn put_as_another(&self, key: impl Into<String>, body: impl Into<String>) {
        self.inner.storage.apply(vec![Item { key: key.into(), body: body.into() }]).await;
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.inner.lock().requests.clone()
    }

    /// The requests of this operation.
    pub(crate) fn calls(&self, operation: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.operation == operation);
        requests
    }

    /// The requests that write.
    pub(crate) fn batches(&self) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| connection::is_write(&request.operation));
        requests
    }

    /// How many items each request that writes carried.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.batches().iter().map(|batch| batch.keys.len()).collect()
    }

    /// The id of the last request that writes.
    pub(crate) fn last_batch_id(&self) -> String {
        self.batches().pop().unwrap().id
    }

    /// How many connections were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.inner.lock().connections
    }

    /// Closes all connections, even with requests in flight, and lets the client notice.
    pub(crate) async fn close_connections(&self) {
        let (close, closed) = oneshot::channel();
        self.closes.send(close).unwrap();
        closed.await.unwrap();
        // Before both yields return, a runtime with one thread has polled its sockets.
        yield_now().await;
        yield_now().await;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
        if !std::thread::panicking() {
            assert_eq!(self.inner.lock().violations, Vec::<String>::new());
        }
    }
}

#[derive(Debug)]
struct State {
    script: Script,
    requests: Vec<Request>,
    connections: usize,
    /// The body of every key that was ever sent. A key must always come with the same body.
    sent: HashMap<String, String>,
    violations: Vec<String>,
}

/// The body of the items with which another writer takes keys.
pub(crate) const OTHER_BODY: &str = "\"another writer's\"";

/// How one request is handled.
struct Decision {
    /// Items of another writer, which are there first.
    taken: Vec<Item>,
    to_apply: Vec<Item>,
    head: Head,
    /// Sent after the items are applied.
    answer: Answer,
}

impl State {
    fn new(script: Script) -> Self {
        let (requests, violations) = (Vec::new(), Vec::new());
        Self { script, requests, connections: 0, sent: HashMap::new(), violations }
    }

    fn decide(&mut self, operation: &str, headers: &HeaderMap, bytes: &[u8]) -> Decision {
        let (mut taken, mut to_apply) = (Vec::new(), Vec::new());
        if self.script.is_signed && !signature::is_signed(headers, bytes) {
            self.violations.push(format!("a {operation} whose signature does not match it"));
        }
        let answer = match operation {
            "BatchWriteItem" | "BatchExecuteStatement" => {
                self.write(operation, headers, bytes, &mut taken, &mut to_apply)
            }
            "BatchGetItem" => self.read(headers, bytes),
            "Scan" => self.scan(headers, bytes),
            "DescribeTable" => self.describe(headers, bytes),
            _ => self.violation(format!("a call of `{operation}`")),
        };
        let date = self.script.clock.map(|clock| signature::date(clock.now()));
        Decision { taken, to_apply, head: Head { number: self.requests.len(), date }, answer }
    }

    fn write(
        &mut self,
        operation: &str,
        headers: &HeaderMap,
        bytes: &[u8],
        taken: &mut Vec<Item>,
        to_apply: &mut Vec<Item>,
    ) -> Answer {
        let inserts = operation == "BatchExecuteStatement";
        if batch::has_empty_key(bytes) {
            self.log(operation, Vec::new(), bytes.len());
            if let Some(refusal) = signature::refusal(&self.script, headers) {
                return refusal;
            }
            return match self.script.then {
                Reply::Ok if inserts => Answer::json(
                    &json!({ "Responses": [storage::statement_error("ValidationError")] }),
                ),
                Reply::Statements { code, .. } => {
                    Answer::json(&json!({ "Responses": [storage::statement_error(code)] }))
                }
                Reply::Ok => Answer::error(400, "ValidationException", "An item has an empty key."),
                Reply::Error { status, code, message } => Answer::error(status, code, message),
                _ => self.violation("a script without an answer to an empty key".to_owned()),
            };
        }
        let parsed = if inserts { Batch::parse_inserts(bytes) } else { Batch::parse_puts(bytes) };
        let batch = match parsed {
            Ok(batch) => batch,
            Err(broken) => {
                self.log(operation, Vec::new(), bytes.len());
                return self.violation(broken);
            }
        };
        self.log(operation, batch.keys(), bytes.len());
        self.compare_with_earlier(&batch.items);
        if let Some(refusal) = signature::refusal(&self.script, headers) {
            return refusal;
        }
        if batch.items.iter().any(|item| self.script.poisonous.contains(&item.body)) {
            return Answer::error(400, "ValidationException", "One or more items are not valid.");
        }
        let reply = self.script.replies.pop_front();
        let mut reply = reply.unwrap_or_else(|| self.script.then.clone());
        if let Reply::Taken(places, then) = reply {
            let keys =
                places.iter().filter_map(|&place| batch.items.get(place)).map(|item| &item.key);
            taken.extend(keys.map(|key| Item { key: key.clone(), body: OTHER_BODY.to_owned() }));
            reply = *then;
        }
        if let Reply::Applied(then) = reply {
            to_apply.clone_from(&batch.items);
            reply = *then;
        }
        let acknowledged = if inserts {
            json!({ "Responses": vec![json!({ "TableName": TABLE }); batch.items.len()] })
        } else {
            json!({ "UnprocessedItems": {} })
        };
        match reply {
            Reply::Ok if inserts => {
                let items = batch.items.into_iter().map(|item| (item, None)).collect();
                Answer::Inserted { items }
            }
            Reply::Statements { places, code } if inserts => {
                let code = |place| places.contains(&place).then_some(code);
                let items = batch.items.into_iter().enumerate();
                Answer::Inserted { items: items.map(|(place, item)| (item, code(place))).collect() }
            }
            Reply::Ok => {
                *to_apply = batch.items;
                Answer::json(&acknowledged)
            }
            Reply::Unprocessed(selector) if !inserts => {
                let (unprocessed, applied) = selector.split(batch.items, Item::unknown());
                // An enclosing `Applied` has already applied all items.
                to_apply.extend(applied);
                let unprocessed: Vec<Value> = unprocessed.iter().map(Item::write_request).collect();
                Answer::json(&json!({ "UnprocessedItems": { TABLE: unprocessed } }))
            }
            Reply::Error { status, code, message } => {
                let first = batch.items.first().map_or("", |item| item.body.as_str());
                Answer::error(status, code, &message.replace(ECHO, first))
            }
            Reply::Throttled { code, reason } => Answer::throttled(code, reason),
            Reply::Raw { status, body } => Answer::Text { status, body: body.to_owned() },
            Reply::Drip { pause } => Answer::Drip { body: acknowledged.to_string(), pause },
            Reply::WrongChecksum => Answer::WrongChecksum { body: acknowledged.to_string() },
            Reply::Endless => Answer::Endless,
            Reply::CutShort => Answer::CutShort { body: acknowledged.to_string() },
            Reply::ResetInResponse => Answer::ResetInResponse { body: acknowledged.to_string() },
            Reply::HangUp => Answer::HangUp,
            Reply::Hang => Answer::Hang,
            Reply::ResetInRequest
            | Reply::Applied(_)
            | Reply::Taken(..)
            | Reply::Unprocessed(_)
            | Reply::Statements { .. } => {
                self.violation("a script with an impossible reply".to_owned())
            }
        }
    }

    /// Whether the next reply resets the connection before the batch is read. If so, removes the reply
    /// from the script.
    fn takes_reset_in_request(&mut self) -> bool {
        let next = self.script.replies.front().unwrap_or(&self.script.then);
        let takes = matches!(next, Reply::ResetInRequest);
        if takes {
            self.script.replies.pop_front();
        }
        takes
    }

    fn read(&mut self, headers: &HeaderMap, bytes: &[u8]) -> Answer {
        let read = match Read::parse(bytes) {
            Ok(read) => read,
            Err(broken) => {
                self.log("BatchGetItem", Vec::new(), bytes.len());
                return self.violation(broken);
            }
        };
        self.log("BatchGetItem", read.keys.clone(), bytes.len());
        if let Some(refusal) = signature::refusal(&self.script, headers) {
            return refusal;
        }
        let none = Selector::Places(Vec::new());
        let reply = self.script.read_replies.pop_front();
        match reply.unwrap_or_else(|| self.script.then_read.clone()) {
            ReadReply::Ok => Answer::Read { read, unprocessed: none, with_responses: true },
            ReadReply::Unprocessed(unprocessed) => {
                Answer::Read { read, unprocessed, with_responses: true }
            }
            ReadReply::WithoutResponses => {
                Answer::Read { read, unprocessed: none, with_responses: false }
            }
            ReadReply::Error { status, code } => Answer::error(status, code, "As scripted."),
            ReadReply::Raw { status, body } => Answer::Text { status, body: body.to_owned() },
            ReadReply::HangUp => Answer::HangUp,
            ReadReply::Hang => Answer::Hang,
        }
    }

    fn scan(&mut self, headers: &HeaderMap, bytes: &[u8]) -> Answer {
        let asked: Value = serde_json::from_slice(bytes).unwrap_or_default();
        // The segment stands in the place of the keys.
        self.log("Scan", vec![asked["Segment"].to_string()], bytes.len());
        if let Some(refusal) = signature::refusal(&self.script, headers) {
            return refusal;
        }
        let last_page = json!({
            "Items": [], "Count": 0, "ScannedCount": 0,
            "ConsumedCapacity": { "TableName": TABLE, "CapacityUnits": 0.5 },
        });
        let body = last_page.to_string();
        let reply = self.script.scan_replies.pop_front();
        match reply.unwrap_or_else(|| self.script.then_scan.clone()) {
            ScanReply::Ok => Answer::Scan { request: bytes.to_vec() },
            ScanReply::Error { status, code } => Answer::error(status, code, "As scripted."),
            ScanReply::Throttled { code, reason } => Answer::throttled(code, reason),
            ScanReply::Raw { status, body } => Answer::Text { status, body: body.to_owned() },
            ScanReply::CutShort => Answer::CutShort { body },
            ScanReply::WrongChecksum => Answer::WrongChecksum { body },
            ScanReply::HangUp => Answer::HangUp,
            ScanReply::Hang => Answer::Hang,
        }
    }

    fn describe(&mut self, headers: &HeaderMap, bytes: &[u8]) -> Answer {
        self.log("DescribeTable", Vec::new(), bytes.len());
        if let Some(refusal) = signature::refusal(&self.script, headers) {
            return refusal;
        }
        let asked: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if asked["TableName"] != TABLE {
            let message = "Requested resource not found: Table: not found";
            return Answer::error(400, "ResourceNotFoundException", message);
        }
        let described = self.script.described.pop_front();
        match described.unwrap_or_else(|| self.script.then_described.clone()) {
            Described::Table { key, status } => Answer::json(&described_table(&key, status)),
            Described::Sized { items, bytes } => {
                let mut described = described_table(&[EVENT_KEY], "ACTIVE");
                described["Table"]["ItemCount"] = json!(items);
                described["Table"]["TableSizeBytes"] = json!(bytes);
                Answer::json(&described)
            }
            Described::Error { status, code } => Answer::error(status, code, "As scripted."),
        }
    }

    fn log(&mut self, operation: &str, keys: Vec<String>, bytes: usize) {
        let (operation, id) = (operation.to_owned(), request_id(self.requests.len() + 1));
        self.requests.push(Request { operation, keys, bytes, id });
    }

    fn compare_with_earlier(&mut self, items: &[Item]) {
        for Item { key, body } in items {
            let before = self.sent.insert(key.clone(), body.clone());
            if before.is_some_and(|before| before != *body) {
                self.violations.push(format!("{key} was sent with another body"));
            }
        }
    }

    /// Records a broken rule, which fails the test at its end, and answers as DynamoDB would.
    fn violation(&mut self, rule: String) -> Answer {
        let answer = Answer::error(400, "ValidationException", &rule);
        self.violations.push(rule);
        answer
    }
}
