//! Reading a table back.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use dynamodb_eventstore::{Certainty, Stored, WriteError};

/// Items on one page of a scan: few enough that a thousand events take several pages.
const PAGE: i32 = 300;

/// Every event in the table: key and body. Fails the test if an item is anything but that.
pub(crate) async fn rows(client: &Client, table: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    let scan = client.scan().table_name(table).consistent_read(true).limit(PAGE);
    let mut pages = scan.into_paginator().send();
    while let Some(page) = pages.next().await {
        for item in page.unwrap().items.unwrap_or_default() {
            let (key, body) = event(&item);
            let before = rows.insert(key.clone(), body);
            assert_eq!(before, None, "{key} came twice");
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
    assert_eq!(item.len(), 2, "attributes other than key and body");
    let text = |attribute: &str| item[attribute].as_s().unwrap().clone();
    (text("key"), text("body"))
}

/// Takes an event's row out of the table's, and holds what its ticket said against it: what is called
/// stored is there, what is called not stored is not.
pub(crate) fn hold_against(
    rows: &mut BTreeMap<String, String>,
    key: &str,
    body: String,
    answer: &Result<Stored, WriteError>,
) {
    let row = rows.remove(key);
    match answer {
        Ok(stored) => {
            assert_eq!(stored.key.as_str(), key);
            assert_eq!(row, Some(body), "{key} is called stored");
        }
        Err(error) => {
            assert_eq!(error.key().as_str(), key);
            match error.certainty() {
                Certainty::NotStored => assert_eq!(row, None, "{key} is called not stored"),
                Certainty::MaybeStored => assert!(row.is_none_or(|row| row == body)),
            }
        }
    }
}
