//! Reads a table, and compares the answers of tickets with its rows.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use dynamodb_eventstore::{Certainty, PutTicket, Stored, WriteError};

/// Items on one page of a scan. A thousand events take several pages.
const PAGE: i32 = 300;

/// An accepted event with its ticket.
pub(crate) struct Put {
    pub(crate) body: String,
    pub(crate) ticket: PutTicket,
}

pub(crate) type Answer = Result<Stored, WriteError>;

/// Every event in the table by key. Fails the test if an item has other attributes than key and body.
pub(crate) async fn rows(client: &Client, table: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    let scan = client.scan().table_name(table).consistent_read(true).limit(PAGE);
    let mut pages = scan.into_paginator().send();
    while let Some(page) = pages.next().await {
        for item in page.unwrap().items.unwrap_or_default() {
            let (key, body) = event(&item);
            let before = rows.insert(key.clone(), body);
            assert_eq!(before, None, "the scan returned {key} twice");
        }
    }
    rows
}

/// The event under this key, if there is one.
pub(crate) async fn body(client: &Client, table: &str, key: &str) -> Option<String> {
    let read = client
        .get_item()
        .table_name(table)
        .consistent_read(true)
        .key("key", AttributeValue::S(key.to_owned()))
        .send()
        .await
        .unwrap();
    read.item.map(|item| event(&item).1)
}

fn event(item: &HashMap<String, AttributeValue>) -> (String, String) {
    assert_eq!(item.len(), 2, "an item has attributes other than key and body");
    let text = |attribute: &str| item[attribute].as_s().unwrap().clone();
    (text("key"), text("body"))
}

/// Removes an event's row from `rows` and compares it with the answer of its ticket: an event called
/// stored has a row with its body, an event called not stored has none.
pub(crate) fn assert_matches_row(
    rows: &mut BTreeMap<String, String>,
    key: &str,
    body: String,
    answer: &Answer,
) {
    let row = rows.remove(key);
    match answer {
        Ok(stored) => {
            assert_eq!(stored.key.as_str(), key);
            assert_eq!(row, Some(body), "the row of {key}, which is called stored");
        }
        Err(error) => {
            assert_eq!(error.key().as_str(), key);
            match error.certainty() {
                Certainty::NotStored => {
                    assert_eq!(row, None, "the row of {key}, which is called not stored");
                }
                Certainty::MaybeStored => assert!(row.is_none_or(|row| row == body)),
            }
        }
    }
}
