//! `BatchWriteItem` in one transaction.
//!
//! The engine's own `BatchWriteItem` writes each item in a transaction of its own, and syncs the file for
//! each. The engine's import writes many items in one transaction, but omits some checks. So this module
//! does these checks, and imports a batch that passes. Every other batch goes to the engine's
//! `BatchWriteItem`, which returns the proper error.

use std::collections::{HashMap, HashSet};

use dynoxide::actions::batch_write_item::{
    BatchWriteItemRequest, BatchWriteItemResponse, DeleteRequest, PutRequest, WriteRequest,
};
use dynoxide::types::{
    AttributeDefinition, AttributeValue, Item, KeySchemaElement, KeyType, MAX_ITEM_SIZE,
    ScalarAttributeType, item_size,
};
use dynoxide::{Database, ImportOptions, TableMetadata};
use serde_json::{Value, json};

use super::failure::Failure;
use super::json::{parse, serialise};
use super::limits::Limits;
use crate::event::MAX_BATCH_EVENTS;

/// Answers one call. Acknowledged items are on disk. Items beyond the capacity of their table are
/// unprocessed. If all items are beyond it, the call fails.
pub(super) fn batch_write_item(
    database: &Database,
    limits: Option<&Limits>,
    body: &str,
) -> Result<String, Failure> {
    let mut request: BatchWriteItemRequest = parse(body)?;
    let unprocessed = match limits {
        Some(limits) => take_throttled(&mut request, limits)?,
        None => HashMap::new(),
    };
    let mut response = write(database, request)?;
    for (table, writes) in unprocessed {
        response.unprocessed_items.insert(table, writes.into());
    }
    Ok(serialise(&response)?)
}

/// Removes the writes beyond the capacity from the request, and returns them by table. Fails if no write
/// is left.
fn take_throttled(
    request: &mut BatchWriteItemRequest,
    limits: &Limits,
) -> Result<HashMap<String, Vec<Value>>, Failure> {
    let mut throttled: HashMap<String, Vec<Value>> = HashMap::new();
    if request.request_items.values().map(Vec::len).sum::<usize>() > MAX_BATCH_EVENTS {
        // Such a request passes, because the engine refuses it.
        return Ok(throttled);
    }
    let mut last = None;
    for (table, writes) in &mut request.request_items {
        writes.retain(|write| {
            let (item, as_json) = match write {
                WriteRequest { put_request: Some(PutRequest { item }), .. } => {
                    (item, json!({ "PutRequest": { "Item": item } }))
                }
                WriteRequest { delete_request: Some(DeleteRequest { key }), .. } => {
                    (key, json!({ "DeleteRequest": { "Key": key } }))
                }
                // The engine refuses such a write.
                _ => return true,
            };
            let Err(throttle) = limits.admit(table, item) else { return true };
            throttled.entry(table.clone()).or_default().push(as_json);
            last = Some(Failure::Throttled { throttle, table: table.clone() });
            false
        });
    }
    request.request_items.retain(|_, writes| !writes.is_empty());
    match last {
        Some(failure) if request.request_items.is_empty() => Err(failure),
        _ => Ok(throttled),
    }
}

/// Writes the whole batch.
fn write(
    database: &Database,
    request: BatchWriteItemRequest,
) -> dynoxide::Result<BatchWriteItemResponse> {
    match PlainPuts::find(database, request)? {
        Ok(PlainPuts { table, items }) => {
            database.import_items(&table, items, ImportOptions::default())?;
            Ok(BatchWriteItemResponse::default())
        }
        Err(request) => database.batch_write_item(request),
    }
}

/// Puts into one table that has a hash key of type String, and no index or stream that a write would have
/// to update.
struct PlainPuts {
    table: String,
    items: Vec<Item>,
}

impl PlainPuts {
    /// Converts a batch. The inner error is the unchanged request, if it has anything but plain puts.
    fn find(
        database: &Database,
        mut request: BatchWriteItemRequest,
    ) -> dynoxide::Result<Result<Self, BatchWriteItemRequest>> {
        let mut tables = request.request_items.iter();
        let (Some((table, writes)), None) = (tables.next(), tables.next()) else {
            return Ok(Err(request));
        };
        let wants_no_report = request.return_consumed_capacity.is_none()
            && request.return_item_collection_metrics.is_none();
        let metadata = database.get_table_metadata(table)?;
        let key = metadata.as_ref().and_then(plain_key);
        if !wants_no_report || !key.is_some_and(|key| are_plain(writes, &key)) {
            return Ok(Err(request));
        }
        let only_table = request.request_items.drain().next();
        let (table, writes) = only_table.unwrap_or_default();
        let puts = writes.into_iter().filter_map(|write| write.put_request);
        Ok(Ok(Self { table, items: puts.map(|put| put.item).collect() }))
    }
}

/// The name of a table's key, if it is a single hash key of type String and the table has no index and no
/// stream.
fn plain_key(table: &TableMetadata) -> Option<String> {
    let derived = [&table.gsi_definitions, &table.lsi_definitions, &table.vector_index_definitions];
    if table.stream_enabled || derived.iter().any(|definitions| definitions.is_some()) {
        return None;
    }
    let schema: Vec<KeySchemaElement> = serde_json::from_str(&table.key_schema).ok()?;
    let [KeySchemaElement { attribute_name: key, key_type: KeyType::HASH }] = schema.as_slice()
    else {
        return None;
    };
    let attributes: Vec<AttributeDefinition> =
        serde_json::from_str(&table.attribute_definitions).ok()?;
    let is_text = attributes.iter().any(|attribute| {
        attribute.attribute_name == *key && attribute.attribute_type == ScalarAttributeType::S
    });
    is_text.then(|| key.clone())
}

/// Whether the writes are puts that pass the checks which the import omits: at most 25, no attribute
/// without a name, no item too large, and no duplicate key. The import checks keys and values itself.
fn are_plain(writes: &[WriteRequest], key: &str) -> bool {
    let mut keys = HashSet::with_capacity(writes.len());
    (1..=MAX_BATCH_EVENTS).contains(&writes.len())
        && writes.iter().all(|write| match write {
            WriteRequest { put_request: Some(PutRequest { item }), delete_request: None } => {
                matches!(item.get(key), Some(AttributeValue::S(text)) if keys.insert(text.as_str()))
                    && item_size(item) <= MAX_ITEM_SIZE
                    && !item.keys().any(String::is_empty)
            }
            _ => false,
        })
}
