//! The endpoint. It runs in its own process, so that its memory is not measured. For each event it
//! keeps the key and a hash of the body, and the body itself while it may be read back.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::answers::Key;
use super::faults::{Replies, Reply, Stalls};
use super::load::hash;
use super::server::{Server, end_with_parent};

pub(crate) const TABLE: &str = "events";

const MAX_ITEMS: usize = 25;
const MAX_REQUEST_BYTES: usize = 16_000_000;
const ROWS_ON_A_PAGE: usize = 2_000;

/// The running endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint(Server);

impl Endpoint {
    pub(crate) fn start(seed: u64) -> Self {
        Self(Server::start(&seed.to_string()))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.0.greeting.trim())
    }

    /// A client to read the table with.
    pub(crate) fn client(&self) -> Client {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "soak"))
            .endpoint_url(self.url())
            .build();
        Client::from_conf(config)
    }
}

/// Serves with faults drawn from this seed, until the parent process ends.
pub(crate) fn serve(seed: u64) {
    end_with_parent();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        let (set_silent, silent) = watch::channel(false);
        tokio::spawn(stall(set_silent, Stalls::new(seed)));
        let table = Arc::new(Mutex::new(Table::new(seed)));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            // A connection that the endpoint closes is reset.
            stream.set_zero_linger().unwrap();
            let (table, silent) = (Arc::clone(&table), silent.clone());
            let service = service_fn(move |request| {
                let (table, silent) = (Arc::clone(&table), silent.clone());
                async move { answer(request, &table, silent).await }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

async fn stall(set_silent: watch::Sender<bool>, stalls: Stalls) {
    for (answering, silent) in stalls {
        wait(answering).await;
        eprintln!("the endpoint does not answer for {silent:?}");
        set_silent.send_replace(true);
        wait(silent).await;
        eprintln!("the endpoint answers again");
        set_silent.send_replace(false);
    }
}

#[expect(clippy::disallowed_methods, reason = "the endpoint delays its answers")]
async fn wait(duration: Duration) {
    tokio::time::sleep(duration).await;
}

async fn answer(
    request: Request<Incoming>,
    table: &Mutex<Table>,
    mut silent: watch::Receiver<bool>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next()).unwrap_or("").to_owned();
    let writes = operation == "BatchWriteItem";
    if writes || operation == "BatchGetItem" {
        silent.wait_for(|silent| !silent).await.map_err(io::Error::other)?;
    }
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let (reply, answer) = {
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = if writes { table.replies.draw() } else { Reply::Answer };
        let answer = match operation.as_str() {
            "BatchWriteItem" => table.write(&body, reply),
            "DescribeTable" => Answer::ok(&described()),
            "BatchGetItem" => table.read(&body),
            "Scan" => table.page(&body),
            _ => Answer::invalid("no such operation"),
        };
        (reply, answer)
    };
    drop(body);
    match reply {
        Reply::Hang { .. } => return pending().await,
        Reply::Reset { .. } => return Err(io::Error::other("reset, as drawn")),
        Reply::AnswerLate(by) => wait(by).await,
        Reply::Answer | Reply::Throttle | Reply::Unprocessed(_) | Reply::Error { .. } => {}
    }
    let response = Response::builder()
        .status(answer.status)
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "REQUEST");
    response.body(Full::new(Bytes::from(answer.body))).map_err(io::Error::other)
}

struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn ok(value: &impl Serialize) -> Self {
        Self { status: 200, body: serde_json::to_string(value).unwrap() }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
        Self { status, body: json!({ "__type": kind, "message": message }).to_string() }
    }

    /// The store fails such events, so that the run fails.
    fn invalid(why: &str) -> Self {
        eprintln!("the endpoint refuses a request: {why}");
        Self::error(400, "ValidationException", why)
    }
}

struct Table {
    rows: BTreeMap<Key, u64>,
    /// Bodies that were applied by a call without an acknowledgement.
    unconfirmed: HashMap<Key, String>,
    replies: Replies,
}

impl Table {
    fn new(seed: u64) -> Self {
        Self { rows: BTreeMap::new(), unconfirmed: HashMap::new(), replies: Replies::new(seed) }
    }

    fn write(&mut self, body: &[u8], reply: Reply) -> Answer {
        let puts = match parse(body) {
            Ok(puts) => puts,
            Err(why) => return Answer::invalid(&why),
        };
        match reply {
            Reply::Throttle => {
                return Answer::error(400, "ProvisionedThroughputExceededException", "As drawn.");
            }
            Reply::Unprocessed(probability) => {
                let (unprocessed, applied): (Vec<_>, Vec<_>) =
                    puts.into_iter().partition(|_| self.replies.is_unprocessed(probability));
                self.apply(&applied, true);
                return Answer::ok(&json!({ "UnprocessedItems": { TABLE: unprocessed } }));
            }
            Reply::Error { applied } | Reply::Hang { applied } | Reply::Reset { applied } => {
                if applied {
                    self.apply(&puts, false);
                }
                return Answer::error(500, "InternalServerError", "As drawn.");
            }
            Reply::Answer | Reply::AnswerLate(_) => {}
        }
        self.apply(&puts, matches!(reply, Reply::Answer));
        Answer::ok(&json!({ "UnprocessedItems": {} }))
    }

    fn apply(&mut self, puts: &[WriteRequest<'_>], is_acknowledged: bool) {
        for WriteRequest { put: Put { item } } in puts {
            let key = item.key.text.as_bytes().try_into().unwrap();
            self.rows.insert(key, hash(&item.body.text));
            if is_acknowledged {
                self.unconfirmed.remove(&key);
            } else {
                self.unconfirmed.insert(key, item.body.text.clone().into_owned());
            }
        }
    }

    /// The bodies under these keys. A key whose body is no longer kept is left unprocessed,
    /// because its acknowledgement is in flight or came too late.
    fn read(&self, body: &[u8]) -> Answer {
        let asked: Value = serde_json::from_slice(body).unwrap();
        let asked = asked.pointer("/RequestItems/events/Keys").and_then(Value::as_array).unwrap();
        let (mut found, mut unprocessed) = (Vec::new(), Vec::new());
        for asked in asked {
            let key = asked.pointer("/key/S").and_then(Value::as_str).unwrap();
            let key: Key = key.as_bytes().try_into().unwrap();
            match (self.unconfirmed.get(&key), self.rows.contains_key(&key)) {
                (Some(body), _) => {
                    found.push(json!({ "key": asked["key"], "body": { "S": body } }))
                }
                (None, true) => unprocessed.push(asked.clone()),
                (None, false) => {}
            }
        }
        let unprocessed = match unprocessed.is_empty() {
            true => json!({}),
            false => json!({ TABLE: { "Keys": unprocessed, "ConsistentRead": true } }),
        };
        Answer::ok(&json!({ "Responses": { TABLE: found }, "UnprocessedKeys": unprocessed }))
    }

    /// A page of a scan, with hashes for bodies.
    fn page(&self, body: &[u8]) -> Answer {
        let asked: Value = serde_json::from_slice(body).unwrap();
        let after = asked.pointer("/ExclusiveStartKey/key/S").and_then(Value::as_str);
        let after: Option<Key> = after.and_then(|key| key.as_bytes().try_into().ok());
        let rows = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let text = |key: &Key| String::from_utf8_lossy(key).into_owned();
        let page: Vec<_> = self.rows.range(rows).take(ROWS_ON_A_PAGE).collect();
        let items: Vec<Value> = page
            .iter()
            .map(|(key, hash)| json!({ "key": { "S": text(key) }, "body": { "S": hash.to_string() } }))
            .collect();
        let mut answer =
            json!({ "Count": items.len(), "ScannedCount": items.len(), "Items": items });
        if let (ROWS_ON_A_PAGE, Some((key, _))) = (page.len(), page.last())
            && let Some(answer) = answer.as_object_mut()
        {
            answer.insert("LastEvaluatedKey".to_owned(), json!({ "key": { "S": text(key) } }));
        }
        Answer::ok(&answer)
    }
}

#[derive(Deserialize)]
struct BatchWriteItem<'a> {
    #[serde(rename = "RequestItems", borrow)]
    tables: HashMap<&'a str, Vec<WriteRequest<'a>>>,
}

#[derive(Deserialize, Serialize)]
struct WriteRequest<'a> {
    #[serde(rename = "PutRequest", borrow)]
    put: Put<'a>,
}

#[derive(Deserialize, Serialize)]
struct Put<'a> {
    #[serde(rename = "Item", borrow)]
    item: Item<'a>,
}

#[derive(Deserialize, Serialize)]
struct Item<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    #[serde(borrow)]
    body: Text<'a>,
}

#[derive(Deserialize, Serialize)]
struct Text<'a> {
    #[serde(rename = "S", borrow)]
    text: Cow<'a, str>,
}

/// The puts of a request. An error names the broken rule.
fn parse(body: &[u8]) -> Result<Vec<WriteRequest<'_>>, String> {
    if body.len() > MAX_REQUEST_BYTES {
        return Err(format!("{} bytes", body.len()));
    }
    let mut request: BatchWriteItem<'_> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let puts = request.tables.remove(TABLE).unwrap_or_default();
    if !request.tables.is_empty() || !(1..=MAX_ITEMS).contains(&puts.len()) {
        return Err(format!("{} items, or another table", puts.len()));
    }
    let keys: HashSet<&[u8]> =
        puts.iter().map(|request| request.put.item.key.text.as_bytes()).collect();
    if keys.len() < puts.len() || keys.iter().any(|key| key.len() != size_of::<Key>()) {
        return Err("a duplicate or malformed key".to_owned());
    }
    Ok(puts)
}

fn described() -> Value {
    json!({
        "Table": {
            "TableName": TABLE,
            "TableStatus": "ACTIVE",
            "KeySchema": [{ "AttributeName": "key", "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": "key", "AttributeType": "S" }],
        }
    })
}
