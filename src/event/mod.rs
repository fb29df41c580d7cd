//! An event: its key, its encoded body, and its size as the service counts it.
//!
//! Every part of the crate uses it. The limits of DynamoDB that bound an event or a batch are here.

pub(crate) mod encoded_body;
pub(crate) mod escape;
pub(crate) mod key;
#[cfg(feature = "reader")]
pub(crate) mod key_bounds;
#[cfg(feature = "reader")]
pub(crate) mod scanned_item;

use std::borrow::Cow;
use std::fmt;

use crate::event::encoded_body::EncodedBody;
use crate::event::key::EventKey;

/// Bytes of an item that one write unit covers.
pub(crate) const WRITE_UNIT_BYTES: usize = 1_024;

/// Name of the table's only key attribute: a hash key of type String.
pub const KEY_ATTRIBUTE: &str = "key";

/// Name of the attribute that holds the event's JSON text, of type String.
pub const BODY_ATTRIBUTE: &str = "body";

/// Size of the largest item that DynamoDB stores, in bytes of attribute names and values: 400 KiB
/// ([service limits](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html)).
pub const MAX_ITEM_BYTES: usize = 409_600;

/// Size of the largest body of an event with a key of 27 characters, in bytes.
///
/// The names `key` and `body` and the key itself take 34 bytes of [`MAX_ITEM_BYTES`].
pub const MAX_BODY_BYTES: usize =
    MAX_ITEM_BYTES - KEY_ATTRIBUTE.len() - BODY_ATTRIBUTE.len() - EventKey::LENGTH;

/// Largest number of items in one `BatchWriteItem` call
/// ([API reference](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html)).
pub const MAX_BATCH_EVENTS: usize = 25;

/// Size of the largest request body of one `BatchWriteItem` call, in bytes as sent.
///
/// The documentation says "16 MB". It does not say whether that is 16,000,000 or 16,777,216 bytes, nor
/// whether they are counted before or after JSON escaping. The smaller number, counted after escaping,
/// is within the limit in every case.
pub const MAX_BATCH_WIRE_BYTES: usize = 16_000_000;

/// Text of a request before an item's key.
pub(crate) const BEFORE_KEY: &str = r#"{"PutRequest":{"Item":{"key":{"S":""#;

/// Text of a request between an item's key and its body.
pub(crate) const BEFORE_BODY: &str = r#""},"body":{"S":""#;

/// Text of a request after an item's body.
pub(crate) const AFTER_BODY: &str = r#""}}}}"#;

/// Text of a request between two items.
pub(crate) const BETWEEN_ITEMS: &str = ",";

/// An event as the table stores it: a key and a JSON text, the body.
///
/// The body is kept JSON-escaped, as a request carries it. Clones share it. `Debug` shows its size
/// and never its text.
///
/// An event serialises to `{"key":"…","body":"…"}`. It deserialises from any JSON object that has these
/// two members.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "KeyAndBody", try_from = "KeyAndBody")]
pub struct Event {
    key: EventKey,
    body: EncodedBody,
}

impl Event {
    /// An event with this key and this JSON text. The text is stored unchanged. It is not checked to
    /// be JSON.
    ///
    /// # Errors
    ///
    /// [`EventTooLarge`] if the item would be larger than [`MAX_ITEM_BYTES`].
    pub fn new(key: EventKey, body: impl AsRef<str>) -> Result<Self, EventTooLarge> {
        let body = body.as_ref();
        check_body_limit(body.len(), MAX_ITEM_BYTES - item_overhead(&key))?;
        Ok(Self { key, body: EncodedBody::from_text(body) })
    }

    /// Like [`new`](Self::new), with a body that is encoded already.
    pub(crate) fn with_body(key: EventKey, body: EncodedBody) -> Result<Self, EventTooLarge> {
        check_body_limit(body.text_bytes(), MAX_ITEM_BYTES - item_overhead(&key))?;
        Ok(Self { key, body })
    }

    /// Key of the event: the item's hash key.
    #[must_use]
    pub fn key(&self) -> &EventKey {
        &self.key
    }

    /// The JSON text. It is borrowed if it needs no escaping in a request; otherwise each call unescapes
    /// it into a new `String`.
    #[must_use]
    pub fn body(&self) -> Cow<'_, str> {
        self.body.text()
    }

    /// Bytes of memory that the event takes until it is settled.
    pub(crate) fn buffered_bytes(&self) -> u32 {
        self.body.buffered_bytes()
    }

    /// The same body under another key.
    pub(crate) fn with_key(&self, key: EventKey) -> Result<Self, EventTooLarge> {
        Self::with_body(key, self.body.clone())
    }

    /// Length of the JSON text, in bytes.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.text_bytes()
    }

    /// The body in its encoded form.
    pub(crate) fn encoded(&self) -> &EncodedBody {
        &self.body
    }

    /// The JSON text, escaped as in a request.
    pub(crate) fn encoded_body(&self) -> &str {
        self.body.encoded()
    }

    /// Size of the item as DynamoDB counts it: the bytes of attribute names and values.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        item_overhead(&self.key) + self.body.text_bytes()
    }

    /// Write units that the item costs: [`item_bytes`](Self::item_bytes) in units of 1,024 bytes, rounded
    /// up
    /// ([capacity units](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html#write-operation-consumption)).
    #[must_use]
    pub fn write_units(&self) -> u64 {
        self.item_bytes().div_ceil(WRITE_UNIT_BYTES) as u64
    }

    /// Whether the last of several write units holds at most 64 bytes.
    pub(crate) fn is_just_over_write_unit(&self) -> bool {
        let bytes = self.item_bytes();
        bytes > WRITE_UNIT_BYTES && (bytes - 1) % WRITE_UNIT_BYTES < 64
    }

    /// Bytes that the event takes in a request body, escaping and JSON punctuation included.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        const ENVELOPE: usize =
            BEFORE_KEY.len() + BEFORE_BODY.len() + AFTER_BODY.len() + BETWEEN_ITEMS.len();
        ENVELOPE + self.key.len() + self.body.encoded().len()
    }
}

/// The serialised form of an event.
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

/// An event's body is too large for one DynamoDB item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event is too large: its body has {body_bytes} bytes and DynamoDB takes {limit} at most; \
     store the data elsewhere and put a reference to it"
)]
#[non_exhaustive]
pub struct EventTooLarge {
    /// Size of the refused body, in bytes.
    pub body_bytes: usize,
    /// Size of the largest body allowed, in bytes.
    pub limit: usize,
}

/// Refuses a body that is too large for an event with a key of 27 characters.
pub(crate) fn check_body(body_bytes: usize) -> Result<(), EventTooLarge> {
    check_body_limit(body_bytes, MAX_BODY_BYTES)
}

fn check_body_limit(body_bytes: usize, limit: usize) -> Result<(), EventTooLarge> {
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
    fn item_is_34_bytes_larger_than_its_body() {
        let event = Event::new(key(), "{}").unwrap();
        assert_eq!(event.item_bytes(), 36);
        assert_eq!(MAX_BODY_BYTES, 409_566);
    }

    #[test]
    fn write_units_are_kilobytes_rounded_up() {
        for (body_bytes, units) in [(2, 1), (990, 1), (991, 2), (2_014, 2), (MAX_BODY_BYTES, 400)] {
            assert_eq!(Event::new(key(), "x".repeat(body_bytes)).unwrap().write_units(), units);
        }
    }

    #[test]
    fn just_over_a_write_unit_means_1_to_64_bytes() {
        let is_just_over = |item_bytes: usize| {
            let body = "x".repeat(item_bytes - 34);
            let event = Event::new(key(), body).unwrap();
            assert_eq!(event.item_bytes(), item_bytes);
            event.is_just_over_write_unit()
        };
        for (item_bytes, expected) in [
            (36, false),
            (1_024, false),
            (1_025, true),
            (1_088, true),
            (1_089, false),
            (2_048, false),
            (2_049, true),
        ] {
            assert_eq!(is_just_over(item_bytes), expected, "{item_bytes} bytes");
        }
    }

    #[test]
    fn body_of_one_byte_more_than_the_largest_is_refused() {
        assert!(Event::new(key(), "x".repeat(MAX_BODY_BYTES)).is_ok());
        let refused = Event::new(key(), "x".repeat(MAX_BODY_BYTES + 1)).unwrap_err();
        assert_eq!(refused.body_bytes, 409_567);
        assert_eq!(refused.limit, 409_566);
    }

    #[test]
    fn shorter_key_allows_a_larger_body() {
        let key: EventKey = "20130927T0052406525".parse().unwrap();
        assert!(Event::new(key, "x".repeat(MAX_BODY_BYTES + 8)).is_ok());
        assert!(Event::new(key, "x".repeat(MAX_BODY_BYTES + 9)).is_err());
    }

    #[test]
    fn event_is_deserialised_from_any_object_with_key_and_body() {
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
    fn debug_shows_the_size_of_the_body_only() {
        let event = Event::new(key(), r#"{"password":"hunter2"}"#).unwrap();
        let shown = format!("{event:?}");
        assert!(shown.contains(KEY) && shown.contains("22"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    proptest! {
        /// serde_json escapes by the same rules, so its output has the expected length.
        #[test]
        fn wire_bytes_are_the_length_of_the_rendered_item(body in any::<String>()) {
            let event = Event::new(key(), body.clone()).unwrap();
            let rendered = serde_json::json!({
                "PutRequest": { "Item": { "key": { "S": KEY }, "body": { "S": body } } }
            });
            prop_assert_eq!(event.wire_bytes(), rendered.to_string().len() + 1);
        }
    }
}
