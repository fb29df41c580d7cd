//! A table with a limited capacity, served over HTTP.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use dynamodb_eventstore::test_util::FakeTable;
use dynamodb_eventstore::{BatchWriter, Event};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::cores::Cores;
use super::server::{Server, end_with_parent};
use super::table::Table;

pub(crate) const TABLE: &str = "events";

/// The running endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    server: Server,
}

/// The accepted and throttled write units of one second, and the calls that were throttled as a
/// whole.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Second {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) refused_calls: u64,
}

impl Endpoint {
    pub(crate) fn start(table: Table) -> Self {
        Self { server: Server::start(&serde_json::to_string(&table).unwrap()) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port())
    }

    /// The counts of each second so far.
    pub(crate) fn seconds(&self) -> Vec<Second> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    fn port(&self) -> u16 {
        self.server.greeting.trim().parse().unwrap()
    }
}

/// Serves on one thread, on the last core, until the benchmark is done.
pub(crate) fn serve(role: &str) {
    end_with_parent();
    Cores::given().keep_to_last();
    let table: Table = serde_json::from_str(role).unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        let table = FakeTable::with_capacity(table.capacity());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let table = table.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(table.clone(), request));
                // An error means that the client has closed its connection.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn answer(
    table: FakeTable,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = if request.method() == Method::GET {
        (200, figures(&table))
    } else {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        write(&table, &body).await
    };
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "REQUEST")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    Ok(response)
}

fn figures(table: &FakeTable) -> Value {
    let second = |second: &dynamodb_eventstore::test_util::Throughput| {
        json!({
            "accepted": second.accepted_units,
            "refused": second.throttled_units,
            "refused_calls": second.throttled_calls,
        })
    };
    table.throughput().iter().map(second).collect()
}

/// The JSON of a `BatchWriteItem` request.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchWriteItem {
    request_items: HashMap<String, Vec<WriteRequest>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WriteRequest {
    put_request: PutRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRequest {
    item: Item,
}

#[derive(Deserialize)]
struct Item {
    key: Text,
    body: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Text {
    s: String,
}

async fn write(table: &FakeTable, body: &[u8]) -> (u16, Value) {
    let mut request: BatchWriteItem = serde_json::from_slice(body).unwrap();
    let items = request.request_items.remove(TABLE).unwrap();
    let items: Vec<Item> = items.into_iter().map(|request| request.put_request.item).collect();
    let event = |item: &Item| Event::new(item.key.s.parse().unwrap(), &item.body.s).unwrap();
    let events: Vec<Event> = items.iter().map(event).collect();
    match table.write_batch(&events).await {
        Ok(receipt) => {
            let is_left = |item: &&Item| receipt.unprocessed().contains(&item.key.s);
            let left: Vec<Value> = items.iter().filter(is_left).map(Item::request).collect();
            let left = if left.is_empty() { json!({}) } else { json!({ (TABLE): left }) };
            (200, json!({ "UnprocessedItems": left }))
        }
        Err(error) => {
            let kind = format!("com.amazonaws.dynamodb.v20120810#{}", error.code().unwrap());
            (400, json!({ "__type": kind, "message": error.to_string() }))
        }
    }
}

impl Item {
    fn request(&self) -> Value {
        let item = json!({ "key": { "S": self.key.s }, "body": { "S": self.body.s } });
        json!({ "PutRequest": { "Item": item } })
    }
}
