//! The records of one `GetRecords` answer.

use std::collections::HashMap;

use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsOutput;
use aws_sdk_dynamodbstreams::types::{AttributeValue, OperationType, Record};

use crate::event::scanned_item::ScannedItem;
use crate::event::{BODY_ATTRIBUTE, KEY_ATTRIBUTE};

/// What was done to an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Inserted(ScannedItem),
    Replaced(ScannedItem),
    /// The key of the item.
    Removed(String),
}

/// One record of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRecord {
    pub(crate) sequence_number: String,
    /// When the service made the record, in seconds after the Unix epoch.
    pub(crate) created_at: Option<i64>,
    pub(crate) change: Change,
}

/// The records at an iterator.
#[derive(Debug)]
pub(crate) struct RecordPage {
    pub(crate) records: Vec<StreamRecord>,
    /// The iterator after them. `None` at the end of the shard.
    pub(crate) next_iterator: Option<String>,
}

/// The page in an answer. An incomplete answer must not count as the end of a shard: the SDK reads an empty 200 of a proxy
/// as a last page without records.
pub(super) fn parse(output: GetRecordsOutput) -> Result<RecordPage, &'static str> {
    let records = output.records.ok_or("a 200 without Records")?;
    let records = records.into_iter().map(stream_record).collect::<Result<_, _>>()?;
    Ok(RecordPage { records, next_iterator: output.next_shard_iterator })
}

fn stream_record(record: Record) -> Result<StreamRecord, &'static str> {
    let operation = record.event_name.ok_or("a record without eventName")?;
    let record = record.dynamodb.ok_or("a record without its data")?;
    let item = record.new_image;
    let item = || item.ok_or("a record without NewImage").and_then(scanned_item);
    let change = match operation {
        OperationType::Insert => Change::Inserted(item()?),
        OperationType::Modify => Change::Replaced(item()?),
        OperationType::Remove => {
            let key = record.keys.and_then(|mut keys| keys.remove(KEY_ATTRIBUTE));
            Change::Removed(key.and_then(string).ok_or("a record without a key")?)
        }
        _ => return Err("a record with an eventName that is not known"),
    };
    Ok(StreamRecord {
        sequence_number: record.sequence_number.ok_or("a record without SequenceNumber")?,
        created_at: record.approximate_creation_date_time.map(|time| time.secs()),
        change,
    })
}

fn scanned_item(mut item: HashMap<String, AttributeValue>) -> Result<ScannedItem, &'static str> {
    let key = item.remove(KEY_ATTRIBUTE).and_then(string).ok_or("an item without a key")?;
    let body = item.remove(BODY_ATTRIBUTE).map(string);
    Ok(ScannedItem::of(key, body, item.into_keys().collect()))
}

fn string(value: AttributeValue) -> Option<String> {
    match value {
        AttributeValue::S(text) => Some(text),
        _ => None,
    }
}
