//! What is stored, and the arithmetic of the service's limits.

pub(crate) mod encoded_body;
pub(crate) mod escape;
pub(crate) mod key;

use std::borrow::Cow;
use std::fmt;

use crate::event::encoded_body::Body;
use crate::event::key::EventKey;

/// Bytes of an item that one write unit pays for.
pub(crate) const WRITE_UNIT_BYTES: usize = 1_024;

/// Name of the table's hash key attribute, a String.
pub const KEY_ATTRIBUTE: &str = "key";

/// Name of the attribute that holds the JSON text, a String.
pub const BODY_ATTRIBUTE: &str = "body";

/// Largest item DynamoDB stores: 400 KiB of attribute names and values
/// ([service limits](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)).
pub const MAX_ITEM_BYTES: usize = 409_600;

/// Largest body of an event under a 27 character key: an item is `key` + 27 + `body` + the body's
/// bytes, so 34 bytes of [`MAX_ITEM_BYTES`] are spoken for.
pub const MAX_BODY_BYTES: usize =
    MAX_ITEM_BYTES - KEY_ATTRIBUTE.len() - BODY_ATTRIBUTE.len() - EventKey::LENGTH;

/// Most items that one `BatchWriteItem` call takes
/// ([API reference](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html)).
pub const MAX_BATCH_EVENTS: usize = 25;

/// Most bytes that one `BatchWriteItem` call carries, as sent.
///
/// The documentation says "16 MB"; whether that is 16,000,000 or 16,777,216 bytes, and where they
/// are counted, it does not say. The smaller number, counted on the escaped request body, is safe
/// under each reading.
pub const MAX_BATCH_WIRE_BYTES: usize = 16_000_000;

/// What stands before an item's key in the request.
pub(crate) const BEFORE_KEY: &str = r#"{"PutRequest":{"Item":{"key":{"S":""#;

/// What stands between an item's key and its body.
pub(crate) const BEFORE_BODY: &str = r#""},"body":{"S":""#;

/// What stands after an item's body.
pub(crate) const AFTER_BODY: &str = r#""}}}}"#;

/// What stands between two items.
pub(crate) const BETWEEN_ITEMS: &str = ",";

/// An event as it stands in the table: a key and a JSON text.
///
/// A clone shares the text, which is kept as a request carries it: escaped. `Debug` shows the body's size
/// and never the body.
///
/// It serialises to `{"key":"…","body":"…"}`, and is read from any JSON object that has these two.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "KeyAndBody", try_from = "KeyAndBody")]
pub struct Event {
    key: EventKey,
    body: Body,
}

impl Event {
    /// Joins a key and a JSON text. The text is taken as it is; that it *is* JSON is the caller's
    /// promise.
    ///
    /// # Errors
    ///
    /// [`EventTooLarge`] when the item would be larger than [`MAX_ITEM_BYTES`].
    pub fn new(key: EventKey, body: impl AsRef<str>) -> Result<Self, EventTooLarge> {
        let body = body.as_ref();
        check_body_bytes(body.len(), MAX_ITEM_BYTES - item_overhead(&key))?;
        Ok(Self { key, body: Body::from_text(body) })
    }

    /// As [`new`](Self::new), with a body that is made already.
    pub(crate) fn with_body(key: EventKey, body: Body) -> Result<Self, EventTooLarge> {
        check_body_bytes(body.len(), MAX_ITEM_BYTES - item_overhead(&key))?;
        Ok(Self { key, body })
    }

    /// The key, which is the item's hash key.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.key
    }

    /// The JSON text. Unless nothing in it has to be escaped in a request, it is made anew at each call.
    #[must_use]
    pub fn body(&self) -> Cow<'_, str> {
        self.body.text()
    }

    /// Bytes of memory that the event takes while it waits for its answer.
    pub(crate) fn buffered_bytes(&self) -> u32 {
        self.body.buffered_bytes()
    }

    /// Length of the JSON text, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// The JSON text as it stands in a request.
    pub(crate) fn wire_body(&self) -> &str {
        self.body.wire()
    }

    /// Size of the item as DynamoDB counts it: the bytes of attribute names and values.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        item_overhead(&self.key) + self.body.len()
    }

    /// Write units that the item costs: one for each 1,024 bytes of [`item_bytes`](Self::item_bytes) that it
    /// begins
    /// ([capacity units](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html#write-operation-consumption)).
    #[must_use]
    pub fn write_units(&self) -> u64 {
        self.item_bytes().div_ceil(WRITE_UNIT_BYTES) as u64
    }

    /// Bytes the event takes in a request body, escaping and punctuation included.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        const ENVELOPE: usize =
            BEFORE_KEY.len() + BEFORE_BODY.len() + AFTER_BODY.len() + BETWEEN_ITEMS.len();
        ENVELOPE + self.key.len() + self.body.wire().len()
    }
}

/// An event as serde sees it.
#[derive(serde::Serialize, serde::Deserialize)]
struct KeyAndBody {
    key: EventKey,
    body: String,
}

impl From<Event> for KeyAndBody {
    fn from(event: Event) -> Self {
        Self { key: event.key, body: event.body().into_owned() }
    }
}

impl TryFrom<KeyAndBody> for Event {
    type Error = EventTooLarge;

    fn try_from(KeyAndBody { key, body }: KeyAndBody) -> Result<Self, Self::Error> {
        Self::new(key, body)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Event")
            .field("key", &self.key)
            .field("body_bytes", &self.body_bytes())
            .finish()
    }
}

/// An event's body does not fit into one DynamoDB item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event is too large: its body has {body_bytes} bytes and DynamoDB takes {limit} at most; \
     store the payload elsewhere and put a reference to it"
)]
#[non_exhaustive]
pub struct EventTooLarge {
    /// Size of the refused body, in bytes.
    pub body_bytes: usize,
    /// Largest body allowed, in bytes.
    pub limit: usize,
}

/// Refuses a body that no event of this store could have.
pub(crate) fn check_body(body_bytes: usize) -> Result<(), EventTooLarge> {
    check_body_bytes(body_bytes, MAX_BODY_BYTES)
}

fn check_body_bytes(body_bytes: usize, limit: usize) -> Result<(), EventTooLarge> {
    if body_bytes > limit {
        return Err(EventTooLarge { body_bytes, limit });
    }
    Ok(())
}

fn item_overhead(key: &EventKey) -> usize {
    KEY_ATTRIBUTE.len() + key.len() + BODY_ATTRIBUTE.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "20130927T005240652508858176";

    fn key() -> EventKey {
        KEY.parse().unwrap()
    }

    #[test]
    fn an_item_costs_34_bytes_more_than_its_body() {
        let event = Event::new(key(), "{}").unwrap();
        assert_eq!(event.item_bytes(), 36);
        assert_eq!(MAX_BODY_BYTES, 409_566);
    }

    #[test]
    fn an_item_costs_a_write_unit_for_each_kilobyte_begun() {
        for (body_bytes, units) in [(2, 1), (990, 1), (991, 2), (2_014, 2), (MAX_BODY_BYTES, 400)] {
            assert_eq!(Event::new(key(), "x".repeat(body_bytes)).unwrap().write_units(), units);
        }
    }

    #[test]
    fn the_largest_body_is_taken_and_one_byte_more_is_refused() {
        assert!(Event::new(key(), "x".repeat(MAX_BODY_BYTES)).is_ok());
        let refused = Event::new(key(), "x".repeat(MAX_BODY_BYTES + 1)).unwrap_err();
        assert_eq!(refused.body_bytes, 409_567);
        assert_eq!(refused.limit, 409_566);
    }

    #[test]
    fn a_shorter_key_of_the_npm_module_leaves_more_room_for_the_body() {
        let key: EventKey = "20130927T0052406525".parse().unwrap();
        assert!(Event::new(key, "x".repeat(MAX_BODY_BYTES + 8)).is_ok());
        assert!(Event::new(key, "x".repeat(MAX_BODY_BYTES + 9)).is_err());
    }

    #[test]
    fn an_event_is_read_from_any_object_with_a_key_and_a_body() {
        let event = Event::new(key(), r#"{"foo":"bar"}"#).unwrap();
        let written = serde_json::to_string(&event).unwrap();
        assert_eq!(written, format!(r#"{{"key":"{KEY}","body":"{{\"foo\":\"bar\"}}"}}"#));
        let more = format!(r#"{{"line":7,{}"#, &written[1..]);
        assert_eq!(serde_json::from_str::<Event>(&more).unwrap(), event);
        for broken in [r#"{"body":"{}"}"#.to_owned(), written.replace(KEY, "yesterday")] {
            assert!(serde_json::from_str::<Event>(&broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn debug_shows_the_size_of_a_body_and_not_the_body() {
        let event = Event::new(key(), r#"{"password":"hunter2"}"#).unwrap();
        let shown = format!("{event:?}");
        assert!(shown.contains(KEY) && shown.contains("22"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    proptest! {
        /// serde_json escapes by the same rules, so it can say whether the arithmetic is right.
        #[test]
        fn wire_bytes_are_what_the_item_takes_in_a_request(body in any::<String>()) {
            let event = Event::new(key(), body.clone()).unwrap();
            let rendered = serde_json::json!({
                "PutRequest": { "Item": { "key": { "S": KEY }, "body": { "S": body } } }
            });
            prop_assert_eq!(event.wire_bytes(), rendered.to_string().len() + 1);
        }
    }
}
