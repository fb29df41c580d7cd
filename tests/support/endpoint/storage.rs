//! The table behind the endpoint: the embedded engine of the feature `local`.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client as TableClient;
use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementError, BatchStatementRequest, KeysAndAttributes, PutRequest,
    WriteRequest,
};
use dynamodb_eventstore::LocalTable;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::TABLE;
use super::batch::{Item, Read};
use crate::support::table::rows;

/// The table wants a signature, and does not look at it.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, \
                             SignedHeaders=host, Signature=0";

/// The table. A task of its own reads and writes it. So a batch is applied even if its client has
/// disconnected, and before every read that is requested later.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    commands: mpsc::UnboundedSender<Command>,
    url: String,
}

#[derive(Debug)]
enum Command {
    Apply(Vec<Item>, oneshot::Sender<()>),
    Insert(Vec<Item>, oneshot::Sender<Vec<Value>>),
    Read(Read, oneshot::Sender<Vec<Value>>),
    Rows(oneshot::Sender<BTreeMap<String, String>>),
}

impl Storage {
    pub(super) async fn start() -> Self {
        let table = LocalTable::builder().table(TABLE).start().await.unwrap();
        let (url, (commands, received)) = (table.endpoint_url(), mpsc::unbounded_channel());
        tokio::spawn(run(table, received));
        Self { commands, url }
    }

    pub(super) async fn apply(&self, items: Vec<Item>) {
        self.execute(|done| Command::Apply(items, done)).await;
    }

    /// Inserts each item whose key is free. Returns the answer to each statement, in DynamoDB's JSON.
    pub(super) async fn insert(&self, items: Vec<Item>) -> Vec<Value> {
        self.execute(|done| Command::Insert(items, done)).await
    }

    /// The stored items among these keys, in DynamoDB's JSON.
    pub(super) async fn read(&self, read: Read) -> Vec<Value> {
        self.execute(|done| Command::Read(read, done)).await
    }

    /// The table's own response to a request.
    pub(super) async fn scan(&self, request: Vec<u8>) -> String {
        let request = hyper::Request::post(&self.url)
            .header("x-amz-target", "DynamoDB_20120810.Scan")
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-date", "20260101T000000Z")
            .header("authorization", AUTHORIZATION)
            .body(Full::new(Bytes::from(request)))
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status(), 200, "the table refuses a scan");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// Every body in the table by key.
    pub(super) async fn rows(&self) -> BTreeMap<String, String> {
        self.execute(Command::Rows).await
    }

    async fn execute<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (done, result) = oneshot::channel();
        self.commands.send(command(done)).expect("the table task runs");
        result.await.expect("the table task executes the command")
    }
}

/// Executes commands one after the other until all senders are dropped. The sender of a command
/// need not wait for its result.
async fn run(table: LocalTable, mut commands: mpsc::UnboundedReceiver<Command>) {
    let client = table.client();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Apply(items, done) => {
                apply(client, &items).await;
                let _ = done.send(());
            }
            Command::Insert(items, done) => {
                let _ = done.send(insert(client, &items).await);
            }
            Command::Read(asked, done) => {
                let _ = done.send(read(client, asked).await);
            }
            Command::Rows(done) => {
                let _ = done.send(rows(client, TABLE).await);
            }
        }
    }
}

async fn apply(client: &TableClient, items: &[Item]) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let requests = items
        .iter()
        .map(|Item { key, body }| {
            let put = PutRequest::builder().item("key", text(key)).item("body", text(body));
            WriteRequest::builder().put_request(put.build().unwrap()).build()
        })
        .collect();
    let applied = client.batch_write_item().request_items(TABLE, requests).send().await.unwrap();
    assert_eq!(applied.unprocessed_items, Some(HashMap::new()));
}

async fn insert(client: &TableClient, items: &[Item]) -> Vec<Value> {
    if items.is_empty() {
        return Vec::new();
    }
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let statements = items.iter().map(|item| {
        let statement = item.statement()["Statement"].as_str().unwrap().to_owned();
        BatchStatementRequest::builder()
            .statement(statement)
            .parameters(text(&item.key))
            .parameters(text(&item.body))
            .build()
            .unwrap()
    });
    let call = client.batch_execute_statement().set_statements(Some(statements.collect()));
    let responses = call.send().await.unwrap().responses.unwrap();
    let answer =
        |error: &BatchStatementError| statement_error(error.code.as_ref().unwrap().as_str());
    let answers = responses.iter().map(|response| response.error.as_ref().map(answer));
    answers.map(|error| error.unwrap_or_else(|| json!({ "TableName": TABLE }))).collect()
}

/// The answer to a statement that failed.
pub(super) fn statement_error(code: &str) -> Value {
    json!({ "Error": { "Code": code, "Message": "As scripted." }, "TableName": TABLE })
}

async fn read(client: &TableClient, Read { keys, projection, names }: Read) -> Vec<Value> {
    if keys.is_empty() {
        return Vec::new();
    }
    let key = |key| HashMap::from([("key".to_owned(), AttributeValue::S(key))]);
    let asked = KeysAndAttributes::builder()
        .set_keys(Some(keys.into_iter().map(key).collect()))
        .consistent_read(true)
        .set_projection_expression(projection)
        .set_expression_attribute_names(Some(names).filter(|names| !names.is_empty()))
        .build()
        .unwrap();
    let found = client.batch_get_item().request_items(TABLE, asked).send().await.unwrap();
    assert_eq!(found.unprocessed_keys, Some(HashMap::new()));
    let items = found.responses.unwrap_or_default().remove(TABLE).unwrap_or_default();
    items
        .into_iter()
        .map(|item| {
            let texts = item.into_iter().map(|(name, value)| {
                let text = value.as_s().unwrap();
                (name, json!({ "S": text }))
            });
            texts.collect()
        })
        .collect()
}
