//! A scripted endpoint: HTTP on loopback that answers as it is told, for what DynamoDB does on its
//! bad days and what the emulators never do.
//!
//! What is to happen is data: a [`Script`] of [`Reply`]s. What was asked is parsed in one place,
//! [`Batch::parse`], which also holds the store to every rule for which DynamoDB would reject the
//! batch. What was applied is a table in memory, to be compared with what the tickets say.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dynamodb_eventstore::{EventStore, EventStoreBuilder};
use futures::{FutureExt, StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet, yield_now};

/// The table that the endpoint has.
pub(crate) const TABLE: &str = "events";

// The limits are written down here once more: those of the crate are under test. What DynamoDB
// calls 16 MB is the smaller reading of it.
const MAX_ITEMS: usize = 25;
const MAX_ITEM_BYTES: usize = 409_600;
const MAX_REQUEST_BYTES: usize = 16_000_000;

/// Stands in a scripted message for the body of the batch's first item.
pub(crate) const ECHO: &str = "<body>";

/// A key that no store of today makes.
const STRANGER: &str = "20130927T005240652508858176";

/// What becomes of one `BatchWriteItem` call.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Every item is applied and acknowledged.
    Ok,
    /// These items are handed back, in this order; the others are applied.
    Unprocessed(Selector),
    /// Nothing is applied, and this is the answer. [`ECHO`] in the message becomes a body.
    Error { status: u16, code: &'static str, message: &'static str },
    /// Nothing is applied, and this text is the answer.
    Raw { status: u16, body: &'static str },
    /// Nothing is applied, and of the answer only the head and half of the body come.
    CutShort,
    /// Nothing is applied, and the connection is closed without an answer.
    HangUp,
    /// Nothing is applied, and no answer ever comes.
    Hang,
    /// Every item is applied, and then the answer is that of the other.
    Applied(Box<Self>),
}

impl Reply {
    /// An error as DynamoDB words it when nobody will look at the words.
    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        let message = "As scripted.";
        Self::Error { status, code, message }
    }

    pub(crate) fn raw(status: u16, body: &'static str) -> Self {
        Self::Raw { status, body }
    }

    /// The same answer, but every item is in the table when it comes.
    pub(crate) fn once_applied(self) -> Self {
        Self::Applied(Box::new(self))
    }
}

/// Which items of a batch are handed back.
#[derive(Debug, Clone)]
pub(crate) enum Selector {
    All,
    /// Those at these places of the request. The answer names them in this order.
    Places(Vec<usize>),
    /// Those at these places, and one that was never sent.
    PlacesAndStranger(Vec<usize>),
}

/// What `DescribeTable` says.
#[derive(Debug, Clone)]
pub(crate) enum Described {
    /// The table has this key and this status.
    Table { key: Vec<KeyPart>, status: &'static str },
    /// The call is refused.
    Error { status: u16, code: &'static str },
}

impl Described {
    /// An active table with this key.
    pub(crate) fn with_key(key: impl Into<Vec<KeyPart>>) -> Self {
        let (key, status) = (key.into(), "ACTIVE");
        Self::Table { key, status }
    }
}

/// One attribute of a table's key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPart {
    pub(crate) name: &'static str,
    /// `HASH` or `RANGE`.
    pub(crate) role: &'static str,
    /// `S`, `N` or `B`.
    pub(crate) of_type: &'static str,
}

/// The key that a table for events has.
pub(crate) const EVENT_KEY: KeyPart = KeyPart { name: "key", role: "HASH", of_type: "S" };

/// All that the endpoint is to do.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// For the first calls that write, one each.
    replies: VecDeque<Reply>,
    /// For those that come after.
    then: Reply,
    /// A batch with one of these bodies is invalid, whatever its turn. It takes no reply's turn.
    poisonous: HashSet<String>,
    described: VecDeque<Described>,
    /// For the calls after those.
    then_described: Described,
}

impl Script {
    /// These replies in turn, and from then on [`Reply::Ok`].
    pub(crate) fn of(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self {
            replies: replies.into_iter().collect(),
            then: Reply::Ok,
            poisonous: HashSet::new(),
            described: VecDeque::new(),
            then_described: Described::with_key([EVENT_KEY]),
        }
    }

    /// This reply to every call.
    pub(crate) fn always(reply: Reply) -> Self {
        Self::of([]).then(reply)
    }

    /// What to answer when the replies are used up.
    pub(crate) fn then(self, then: Reply) -> Self {
        Self { then, ..self }
    }

    /// Calls every batch invalid that has one of these bodies, as DynamoDB does with an item that
    /// it does not like.
    pub(crate) fn poison(mut self, bodies: impl IntoIterator<Item = String>) -> Self {
        self.poisonous.extend(bodies);
        self
    }

    /// What every `DescribeTable` is told, beyond those told otherwise.
    pub(crate) fn describing(self, then_described: Described) -> Self {
        Self { then_described, ..self }
    }

    /// What the first calls of `DescribeTable` are told, one each.
    pub(crate) fn first_describing(
        mut self,
        described: impl IntoIterator<Item = Described>,
    ) -> Self {
        self.described.extend(described);
        self
    }
}

impl<const N: usize> From<[Reply; N]> for Script {
    fn from(replies: [Reply; N]) -> Self {
        Self::of(replies)
    }
}

/// One request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) operation: String,
    /// Of the items, in the order of the request.
    pub(crate) keys: Vec<String>,
    pub(crate) bytes: usize,
}

/// The endpoint, for as long as it is held. When it goes it fails the test if any request broke a
/// rule of the service.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    script: Script,
    requests: Vec<Request>,
    table: BTreeMap<String, String>,
    violations: Vec<String>,
}

impl Endpoint {
    /// Listens on a free port of loopback.
    pub(crate) async fn start(script: impl Into<Script>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            script: script.into(),
            requests: Vec::new(),
            table: BTreeMap::new(),
            violations: Vec::new(),
        }));
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A builder of a store that writes here, built from configuration as a user's is.
    pub(crate) fn store(&self) -> EventStoreBuilder {
        EventStore::builder()
            .table(TABLE)
            .region("us-east-1")
            .credentials("test", "test")
            .endpoint_url(self.url())
    }

    /// What was applied: key and body.
    pub(crate) fn table(&self) -> BTreeMap<String, String> {
        lock(&self.state).table.clone()
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }

    /// The requests that write.
    pub(crate) fn batches(&self) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.operation == "BatchWriteItem");
        requests
    }

    /// How many items each request that writes carried.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.batches().iter().map(|batch| batch.keys.len()).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
        if !std::thread::panicking() {
            assert_eq!(lock(&self.state).violations, Vec::<String>::new());
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections until it is aborted, which ends them as well.
async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &state));
            // An error is a client that went away, or a reply that breaks the connection: hyper
            // closes it without a word when the service fails.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Response = hyper::Response<Body>;

async fn answer(
    request: hyper::Request<Incoming>,
    state: &Mutex<State>,
) -> Result<Response, io::Error> {
    let operation = operation(&request);
    let bytes = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        // The client broke off: there is nobody to answer.
        Err(error) => return Err(io::Error::other(error)),
    };
    let (answer, number) = {
        let mut state = lock(state);
        let answer = match operation.as_str() {
            "BatchWriteItem" => state.write(&bytes),
            "DescribeTable" => state.describe(&bytes),
            // The role of these tests may write and not read.
            "BatchGetItem" => {
                state.log("BatchGetItem", Vec::new(), &bytes);
                Answer::error(400, "AccessDeniedException", "User is not authorized")
            }
            _ => state.violation(format!("a call of `{operation}`")),
        };
        (answer, state.requests.len())
    };
    match answer {
        Answer::Text { status, body } => Ok(response(number, status, body)),
        Answer::CutShort { body } => Ok(cut_short(number, body)),
        Answer::HangUp => Err(io::Error::other("hung up, as scripted")),
        Answer::Hang => pending().await,
    }
}

/// What goes out, once it is decided.
enum Answer {
    Text { status: u16, body: String },
    CutShort { body: String },
    HangUp,
    Hang,
}

impl Answer {
    fn json(value: &Value) -> Self {
        Self::Text { status: 200, body: value.to_string() }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let body = json!({
            "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
            "message": message,
        });
        Self::Text { status, body: body.to_string() }
    }
}

impl State {
    fn write(&mut self, bytes: &[u8]) -> Answer {
        let batch = match Batch::parse(bytes) {
            Ok(batch) => batch,
            Err(broken) => {
                self.log("BatchWriteItem", Vec::new(), bytes);
                return self.violation(broken);
            }
        };
        self.log("BatchWriteItem", batch.keys(), bytes);
        if batch.items.iter().any(|item| self.script.poisonous.contains(&item.body)) {
            return Answer::error(400, "ValidationException", "One or more items are not valid.");
        }
        let reply = self.script.replies.pop_front();
        let mut reply = reply.unwrap_or_else(|| self.script.then.clone());
        if let Reply::Applied(then) = reply {
            self.apply(&batch.items);
            reply = *then;
        }
        match reply {
            Reply::Ok => {
                self.apply(&batch.items);
                Answer::json(&json!({ "UnprocessedItems": {} }))
            }
            Reply::Unprocessed(selector) => {
                let (back, applied) = selector.split(batch.items);
                self.apply(&applied);
                let back: Vec<Value> = back.iter().map(Item::write_request).collect();
                Answer::json(&json!({ "UnprocessedItems": { TABLE: back } }))
            }
            Reply::Error { status, code, message } => {
                let first = batch.items.first().map_or("", |item| item.body.as_str());
                Answer::error(status, code, &message.replace(ECHO, first))
            }
            Reply::Raw { status, body } => Answer::Text { status, body: body.to_owned() },
            Reply::CutShort => {
                Answer::CutShort { body: json!({ "UnprocessedItems": {} }).to_string() }
            }
            Reply::HangUp => Answer::HangUp,
            Reply::Hang => Answer::Hang,
            Reply::Applied(_) => unreachable!("taken apart above"),
        }
    }

    fn describe(&mut self, bytes: &[u8]) -> Answer {
        self.log("DescribeTable", Vec::new(), bytes);
        let asked: Value = serde_json::from_slice(bytes).unwrap_or_default();
        if asked["TableName"] != TABLE {
            let message = "Requested resource not found: Table: not found";
            return Answer::error(400, "ResourceNotFoundException", message);
        }
        let described = self.script.described.pop_front();
        match described.unwrap_or_else(|| self.script.then_described.clone()) {
            Described::Table { key, status } => Answer::json(&described_table(&key, status)),
            Described::Error { status, code } => Answer::error(status, code, "As scripted."),
        }
    }

    fn log(&mut self, operation: &str, keys: Vec<String>, bytes: &[u8]) {
        self.requests.push(Request { operation: operation.to_owned(), keys, bytes: bytes.len() });
    }

    fn apply(&mut self, items: &[Item]) {
        for Item { key, body } in items {
            let before = self.table.insert(key.clone(), body.clone());
            if before.is_some_and(|before| before != *body) {
                self.violations.push(format!("{key} was overwritten with another body"));
            }
        }
    }

    /// Notes it for the end of the test, and answers as DynamoDB would.
    fn violation(&mut self, what: String) -> Answer {
        let answer = Answer::error(400, "ValidationException", &what);
        self.violations.push(what);
        answer
    }
}

impl Selector {
    /// The items to hand back, and those to apply.
    fn split(&self, items: Vec<Item>) -> (Vec<Item>, Vec<Item>) {
        match self {
            Self::All => (items, Vec::new()),
            Self::Places(places) => {
                let back = places.iter().filter_map(|&place| items.get(place).cloned()).collect();
                let applied = items
                    .into_iter()
                    .enumerate()
                    .filter(|(place, _)| !places.contains(place))
                    .map(|(_, item)| item)
                    .collect();
                (back, applied)
            }
            Self::PlacesAndStranger(places) => {
                let (mut back, applied) = Self::Places(places.clone()).split(items);
                back.push(Item { key: STRANGER.to_owned(), body: "{}".to_owned() });
                (back, applied)
            }
        }
    }
}

/// The items of one `BatchWriteItem` request that keeps the rules.
struct Batch {
    items: Vec<Item>,
}

#[derive(Clone)]
struct Item {
    key: String,
    body: String,
}

impl Item {
    fn write_request(&self) -> Value {
        let Self { key, body } = self;
        json!({ "PutRequest": { "Item": { "key": { "S": key }, "body": { "S": body } } } })
    }

    /// Size as DynamoDB counts it: the bytes of attribute names and values.
    fn bytes(&self) -> usize {
        "key".len() + self.key.len() + "body".len() + self.body.len()
    }
}

impl Batch {
    /// Reads a request body, or says which rule it breaks.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_REQUEST_BYTES {
            return Err(format!("a request of {} bytes", bytes.len()));
        }
        let request: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
        let tables = request["RequestItems"].as_object().ok_or("no RequestItems")?;
        let requests = match tables.iter().next() {
            Some((table, requests)) if table == TABLE && tables.len() == 1 => {
                requests.as_array().ok_or("RequestItems without a list")?
            }
            _ => return Err(format!("tables other than `{TABLE}`, or none")),
        };
        if !(1..=MAX_ITEMS).contains(&requests.len()) {
            return Err(format!("{} items in a batch", requests.len()));
        }
        let items = requests.iter().map(Self::parse_item).collect::<Result<Vec<_>, _>>()?;
        let distinct: HashSet<&str> = items.iter().map(|item| item.key.as_str()).collect();
        if distinct.len() < items.len() {
            return Err("a key twice in a batch".to_owned());
        }
        Ok(Self { items })
    }

    fn parse_item(request: &Value) -> Result<Item, String> {
        let text = |attribute: &str| {
            let text = &request["PutRequest"]["Item"][attribute]["S"];
            text.as_str().map(str::to_owned)
        };
        let (Some(key), Some(body)) = (text("key"), text("body")) else {
            return Err("an item without a key or a body".to_owned());
        };
        let item = Item { key, body };
        // Nothing may stand in the request but what was just read out of it.
        if *request != item.write_request() {
            return Err(format!("more than a key and a body at {}", item.key));
        }
        if !is_key(&item.key) {
            return Err(format!("`{}` for a key", item.key));
        }
        if item.bytes() > MAX_ITEM_BYTES {
            return Err(format!("an item of {} bytes", item.bytes()));
        }
        Ok(item)
    }

    fn keys(&self) -> Vec<String> {
        self.items.iter().map(|item| item.key.clone()).collect()
    }
}

/// Whether this is a key as the store makes them: 27 characters, all digits but for a `T` between
/// date and time.
fn is_key(text: &str) -> bool {
    let fits = |(place, byte): (usize, u8)| {
        if place == 8 { byte == b'T' } else { byte.is_ascii_digit() }
    };
    text.len() == 27 && text.bytes().enumerate().all(fits)
}

/// The operation that a request's headers name: `DynamoDB_20120810.BatchWriteItem` is a target.
fn operation(request: &hyper::Request<Incoming>) -> String {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    target
        .and_then(|target| target.strip_prefix("DynamoDB_20120810."))
        .unwrap_or("(none)")
        .to_owned()
}

fn described_table(key: &[KeyPart], status: &str) -> Value {
    let schema: Vec<Value> = key
        .iter()
        .map(|part| json!({ "AttributeName": part.name, "KeyType": part.role }))
        .collect();
    let attributes: Vec<Value> = key
        .iter()
        .map(|part| json!({ "AttributeName": part.name, "AttributeType": part.of_type }))
        .collect();
    json!({
        "Table": {
            "TableName": TABLE,
            "TableStatus": status,
            "KeySchema": schema,
            "AttributeDefinitions": attributes,
        }
    })
}

/// The id of the request that came as the `number`th.
pub(crate) fn request_id(number: usize) -> String {
    format!("REQUEST{number}")
}

fn response(number: usize, status: u16, body: String) -> Response {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    head(number, status).body(body.boxed_unsync()).unwrap()
}

/// Promises the whole body and breaks off in the middle of it.
fn cut_short(number: usize, body: String) -> Response {
    let promised = body.len();
    let half = Bytes::from(body).slice(..promised / 2);
    // The pause lets hyper send what it has; it would keep it back otherwise.
    let broken = yield_now().map(|()| Err(io::Error::other("cut short, as scripted")));
    let parts = stream::iter([Ok(Frame::data(half))]).chain(stream::once(broken));
    head(number, 200)
        .header(CONTENT_LENGTH, promised)
        .body(StreamBody::new(parts).boxed_unsync())
        .unwrap()
}

fn head(number: usize, status: u16) -> hyper::http::response::Builder {
    hyper::Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amzn-requestid", request_id(number))
}
