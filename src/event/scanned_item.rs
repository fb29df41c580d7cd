//! What a scan returns: events, and items that are none.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::event::key::EventKey;
use crate::event::{BODY_ATTRIBUTE, Event, EventTooLarge, KEY_ATTRIBUTE};

/// An event as the table stores it.
///
/// `Debug` shows the size of the body and never its text.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct StoredEvent {
    /// Key of the event.
    pub key: EventKey,
    /// The JSON text, byte for byte as it is stored.
    pub body: String,
}

impl fmt::Debug for StoredEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StoredEvent")
            .field("key", &self.key)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

impl TryFrom<StoredEvent> for Event {
    type Error = EventTooLarge;

    /// The event to be put into another table under the same key, with
    /// [`put_event`](crate::EventStore::put_event). No table holds an event that is too large.
    fn try_from(StoredEvent { key, body }: StoredEvent) -> Result<Self, EventTooLarge> {
        Self::new(key, body)
    }
}

/// One item of a table for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScannedItem {
    /// An event: an event key, a body that is JSON, and nothing else.
    Event(StoredEvent),
    /// Anything else that somebody has put into the table.
    Unexpected(UnexpectedItem),
}

impl ScannedItem {
    /// Key of the item, as the table has it.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Event(event) => event.key.as_str(),
            Self::Unexpected(item) => &item.key,
        }
    }

    /// The item of one line of DynamoDB JSON, `{"Item":{"key":{"S":"…"},"body":{"S":"…"}}}`: the form of the files that
    /// `ExportTableToPointInTime` writes, and that `ImportTable` and `StartBulkPutItems` read
    /// ([export format](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html)).
    ///
    /// ```
    /// use dynamodb_eventstore::{ItemDefect, ScannedItem};
    ///
    /// let line = r#"{"Item":{"key":{"S":"20130927T005240652508858176"},"body":{"S":"{\"foo\":1}"}}}"#;
    /// match ScannedItem::from_dynamodb_json(line.as_bytes())? {
    ///     ScannedItem::Event(event) => assert_eq!(event.body, r#"{"foo":1}"#),
    ///     ScannedItem::Unexpected(item) => panic!("{}: {}", item.key, item.defect),
    /// }
    /// # Ok::<(), dynamodb_eventstore::ItemLineError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The line is not such an object, or its item has no `key` of type String. An item with a key that is not an event
    /// is no error, but [`ScannedItem::Unexpected`].
    pub fn from_dynamodb_json(line: &[u8]) -> Result<Self, ItemLineError> {
        // Serde's message may repeat the body of an event, so only the column is kept.
        let line: ItemLine = serde_json::from_slice(line)
            .map_err(|error| ItemLineError { kind: ItemLineErrorKind::Json(error.column()) })?;
        let mut item = line.item;
        let key = item.remove(KEY_ATTRIBUTE).and_then(|value| value.string);
        let key = key.ok_or(ItemLineError { kind: ItemLineErrorKind::NoKey })?;
        let body = item.remove(BODY_ATTRIBUTE).map(|value| value.string);
        Ok(Self::of(key, body, item.into_keys().collect()))
    }

    /// The item with this key and these attributes. `body` is `None` if there is none, `Some(None)` if it is not a
    /// String.
    pub(crate) fn of(key: String, body: Option<Option<String>>, mut others: Vec<String>) -> Self {
        let event_key = key.parse::<EventKey>();
        let defect = match &body {
            _ if event_key.is_err() => Some(ItemDefect::KeyIsNotAnEventKey),
            None => Some(ItemDefect::BodyIsMissing),
            Some(None) => Some(ItemDefect::BodyIsNotAString),
            Some(Some(body)) if !is_json(body) => Some(ItemDefect::BodyIsNotJson),
            _ if !others.is_empty() => {
                others.sort_unstable();
                Some(ItemDefect::OtherAttributes(others))
            }
            _ => None,
        };
        match (event_key, body.flatten(), defect) {
            (Ok(key), Some(body), None) => Self::Event(StoredEvent { key, body }),
            (_, body, defect) => {
                let defect = defect.unwrap_or(ItemDefect::BodyIsMissing);
                Self::Unexpected(UnexpectedItem { key, body, defect })
            }
        }
    }

    /// Size of the names and values of key and body, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let body = match self {
            Self::Event(event) => Some(&event.body),
            Self::Unexpected(item) => item.body.as_ref(),
        };
        let body = body.map_or(0, |body| BODY_ATTRIBUTE.len() + body.len());
        (KEY_ATTRIBUTE.len() + self.key().len() + body) as u64
    }
}

#[derive(Deserialize)]
struct ItemLine {
    #[serde(rename = "Item")]
    item: BTreeMap<String, AttributeText>,
}

/// An attribute value, of which only a String matters.
#[derive(Deserialize)]
struct AttributeText {
    #[serde(rename = "S")]
    string: Option<String>,
}

/// A line is not an item in DynamoDB JSON.
///
/// The message does not repeat the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an item in DynamoDB JSON, {}: {kind}",
    r#"{"Item":{"key":{"S":"…"},"body":{"S":"…"}}}"#
)]
pub struct ItemLineError {
    kind: ItemLineErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ItemLineErrorKind {
    #[error("column {0} does not fit")]
    Json(usize),
    #[error("it has no attribute `key` of type String")]
    NoKey,
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// An item of the table that is not an event.
///
/// `Debug` shows the size of the body and never its text.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct UnexpectedItem {
    /// Key of the item, as the table has it.
    pub key: String,
    /// The attribute `body`, if it is a String.
    pub body: Option<String>,
    /// The first defect of the item, in the order of [`ItemDefect`].
    pub defect: ItemDefect,
}

impl fmt::Debug for UnexpectedItem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("UnexpectedItem")
            .field("key", &self.key)
            .field("body_bytes", &self.body.as_ref().map(String::len))
            .field("defect", &self.defect)
            .finish()
    }
}

/// Why an item is not an event.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemDefect {
    /// The key is not an [`EventKey`].
    #[error("its key is not an event key")]
    KeyIsNotAnEventKey,
    /// There is no attribute `body`.
    #[error("it has no attribute `body`")]
    BodyIsMissing,
    /// The attribute `body` is not a String.
    #[error("its attribute `body` is not a String")]
    BodyIsNotAString,
    /// The body is not JSON.
    #[error("its body is not JSON")]
    BodyIsNotJson,
    /// It has an event key and a body, and other attributes too: their names.
    #[error("it has other attributes than `key` and `body`: {}", .0.join(", "))]
    OtherAttributes(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "20130927T005240652508858176";

    fn defect(key: &str, body: Option<Option<&str>>, others: &[&str]) -> Option<ItemDefect> {
        let body = body.map(|body| body.map(str::to_owned));
        let others = others.iter().map(|&name| name.to_owned()).collect();
        match ScannedItem::of(key.to_owned(), body, others) {
            ScannedItem::Event(_) => None,
            ScannedItem::Unexpected(item) => Some(item.defect),
        }
    }

    #[test]
    fn item_is_an_event_or_has_a_defect() {
        let json = Some(Some(" {\"foo\" :\n\"bar\"}"));
        assert_eq!(defect(KEY, json, &[]), None);
        assert_eq!(defect("20130927T0052406525", json, &[]), None);
        assert_eq!(defect("settings", json, &["x"]), Some(ItemDefect::KeyIsNotAnEventKey));
        assert_eq!(defect(KEY, None, &["x"]), Some(ItemDefect::BodyIsMissing));
        assert_eq!(defect(KEY, Some(None), &[]), Some(ItemDefect::BodyIsNotAString));
        for text in ["", "{", "{} {}", "\u{feff}{}"] {
            assert_eq!(defect(KEY, Some(Some(text)), &["x"]), Some(ItemDefect::BodyIsNotJson));
        }
        let others = Some(ItemDefect::OtherAttributes(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(defect(KEY, json, &["b", "a"]), others);
    }

    #[test]
    fn debug_shows_no_body() {
        for key in [KEY, "settings"] {
            let body = Some(Some(r#""hunter2""#.to_owned()));
            let shown = format!("{:?}", ScannedItem::of(key.to_owned(), body, Vec::new()));
            assert!(shown.contains(key) && !shown.contains("hunter2"), "{shown}");
        }
    }
}
