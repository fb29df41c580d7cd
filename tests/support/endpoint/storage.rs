//! The real table behind the endpoint: the embedded engine of the feature `local`.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, PutRequest, WriteRequest};
use dynamodb_eventstore::LocalTable;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::TABLE;
use super::batch::{Item, Read};
use crate::support::table::rows;

/// The table, in the hands of a task of its own: what it was told to apply is applied although the
/// client that sent it has gone meanwhile, and before anything is read that is asked for later.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Apply(Vec<Item>, oneshot::Sender<()>),
    Read(Read, oneshot::Sender<Vec<Value>>),
    Rows(oneshot::Sender<BTreeMap<String, String>>),
}

impl Storage {
    pub(super) async fn start() -> Self {
        let table = LocalTable::builder().table(TABLE).start().await.unwrap();
        let (orders, to_do) = mpsc::unbounded_channel();
        tokio::spawn(keep(table, to_do));
        Self { orders }
    }

    pub(super) async fn apply(&self, items: Vec<Item>) {
        self.order(|done| Order::Apply(items, done)).await;
    }

    /// The items under these keys, those that are there, as DynamoDB writes them.
    pub(super) async fn read(&self, read: Read) -> Vec<Value> {
        self.order(|done| Order::Read(read, done)).await
    }

    /// All that is there: key and body.
    pub(super) async fn rows(&self) -> BTreeMap<String, String> {
        self.order(Order::Rows).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> T {
        let (done, answer) = oneshot::channel();
        self.orders.send(order(done)).expect("the table to be there");
        answer.await.expect("the table to take it")
    }
}

/// Follows one order after the other until nobody can give any. Whoever gave one may have gone.
async fn keep(table: LocalTable, mut to_do: mpsc::UnboundedReceiver<Order>) {
    let client = table.client();
    while let Some(order) = to_do.recv().await {
        match order {
            Order::Apply(items, done) => {
                apply(client, &items).await;
                let _ = done.send(());
            }
            Order::Read(asked, done) => {
                let _ = done.send(read(client, asked).await);
            }
            Order::Rows(done) => {
                let _ = done.send(rows(client, TABLE).await);
            }
        }
    }
}

async fn apply(client: &Client, items: &[Item]) {
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

async fn read(client: &Client, Read { keys, projection, names }: Read) -> Vec<Value> {
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
