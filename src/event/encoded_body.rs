//! The encoded body of an event: its JSON text, escaped as inside a JSON string.
//!
//! A body is escaped once, when the event is put. Each request that carries it only copies it.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::Error;
use serde_json::ser::Serializer;

use super::escape::{EscapingFormatter, push_escaped, unescape};
use super::{EventTooLarge, check_body};

/// Why a value cannot be encoded as the body of an event.
#[derive(Debug)]
pub(crate) enum EncodeError {
    TooLarge(EventTooLarge),
    NotSerializable(serde_json::Error),
}

impl From<EventTooLarge> for EncodeError {
    fn from(error: EventTooLarge) -> Self {
        Self::TooLarge(error)
    }
}

/// An escaped JSON text. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EncodedBody {
    encoded: Arc<str>,
    /// Length of the text before escaping. Texts of over 4 GiB count as 4 GiB, and no item may be as large.
    text_bytes: u32,
}

/// Approximate memory of a buffered event besides its encoded body: key, ticket and the worker's
/// state. Measured by `benches/costs`.
const OVERHEAD_BYTES: usize = 350;

impl EncodedBody {
    /// The JSON text of a value. Allocates once, and not at all for a text that is too large.
    pub(crate) fn from_value<E: Serialize + ?Sized>(value: &E) -> Result<Self, EncodeError> {
        let mut buffer = take_buffer().into_bytes();
        let mut added_bytes = 0;
        let formatter = EscapingFormatter { added_bytes: &mut added_bytes };
        value
            .serialize(&mut Serializer::with_formatter(&mut buffer, formatter))
            .map_err(EncodeError::NotSerializable)?;
        // The serialiser writes UTF-8 only, but its types do not say so.
        let buffer = String::from_utf8(buffer)
            .map_err(|error| EncodeError::NotSerializable(serde_json::Error::custom(error)))?;
        let text_bytes = buffer.len() - added_bytes;
        let body = check_body(text_bytes).map(|()| Self::new(&buffer, text_bytes));
        return_buffer(buffer);
        Ok(body?)
    }

    /// The body with this text, which is not checked to be JSON.
    pub(crate) fn from_text(text: &str) -> Self {
        let mut buffer = take_buffer();
        push_escaped(&mut buffer, text);
        let body = Self::new(&buffer, text.len());
        return_buffer(buffer);
        body
    }

    /// The body with this encoded form; `None` if it is not one.
    #[cfg(feature = "journal")]
    pub(crate) fn from_encoded(encoded: &str) -> Option<Self> {
        let text_bytes =
            if encoded.contains('\\') { unescape(encoded).ok()?.len() } else { encoded.len() };
        Some(Self::new(encoded, text_bytes))
    }

    fn new(encoded: &str, text_bytes: usize) -> Self {
        Self {
            encoded: Arc::from(encoded),
            text_bytes: u32::try_from(text_bytes).unwrap_or(u32::MAX),
        }
    }

    /// Length of the text before escaping.
    pub(super) fn text_bytes(&self) -> usize {
        self.text_bytes as usize
    }

    /// Bytes of memory that an event with this body takes until it is settled.
    pub(crate) fn buffered_bytes(&self) -> u32 {
        u32::try_from(self.encoded.len() + OVERHEAD_BYTES).unwrap_or(u32::MAX)
    }

    /// The text before escaping.
    pub(super) fn text(&self) -> Cow<'_, str> {
        if self.encoded.len() == self.text_bytes() {
            return Cow::Borrowed(&self.encoded);
        }
        // Unescaping what this module escaped does not fail. If it did, the encoded form would still
        // hold the whole event.
        unescape(&self.encoded).map_or(Cow::Borrowed(&self.encoded), Cow::Owned)
    }

    /// Bytes of the encoded form.
    #[cfg(feature = "journal")]
    pub(crate) fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// The text as it is written inside a JSON string.
    pub(super) fn encoded(&self) -> &str {
        &self.encoded
    }
}

/// Capacity up to which a thread keeps its buffer: more than most events need.
const MAX_KEPT_BUFFER_BYTES: usize = 64 * 1024;

thread_local! {
    /// Reused for every body that the thread encodes, so that it seldom has to grow.
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

/// Takes the thread's buffer, emptied. A nested call gets a new one: a value may put another value
/// while it is being serialised.
fn take_buffer() -> String {
    // The thread-local may be destroyed already in a thread that is ending.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    buffer
}

fn return_buffer(buffer: String) {
    if buffer.capacity() <= MAX_KEPT_BUFFER_BYTES {
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Clone, Serialize)]
    enum Shape {
        Unit,
        Text(String),
        Number(i64, f64),
        Named { character: char, flag: Option<bool> },
        Map(BTreeMap<String, Self>),
        Numbered(BTreeMap<i32, Self>),
        List(Vec<Self>),
        Bytes(#[serde(serialize_with = "as_bytes")] Vec<u8>),
        Raw(Box<RawValue>),
    }

    fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a\"\\\\\u{0}-\u{1f}\u{7f}é😀 /]{0,40}"]
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let leaf = prop_oneof![
            Just(Shape::Unit),
            text().prop_map(Shape::Text),
            any::<(i64, f64)>().prop_map(|(whole, real)| Shape::Number(whole, real)),
            any::<(char, Option<bool>)>()
                .prop_map(|(character, flag)| Shape::Named { character, flag }),
            any::<Vec<u8>>().prop_map(Shape::Bytes),
            text().prop_map(|text| {
                let spaced = format!("[ \t{}\r\n]", serde_json::to_string(&text).unwrap());
                Shape::Raw(RawValue::from_string(spaced).unwrap())
            }),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            prop_oneof![
                prop::collection::btree_map(text(), inner.clone(), 0..5).prop_map(Shape::Map),
                prop::collection::btree_map(any::<i32>(), inner.clone(), 0..5)
                    .prop_map(Shape::Numbered),
                prop::collection::vec(inner, 0..5).prop_map(Shape::List),
            ]
        })
    }

    proptest! {
        #[test]
        fn value_is_encoded_like_its_serde_json_text(value in shape()) {
            let body = EncodedBody::from_value(&value).unwrap();
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(body.text(), text.as_str());
            prop_assert_eq!(body.text_bytes(), text.len());
            prop_assert!(body == EncodedBody::from_text(&text));
        }
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let body = EncodedBody::from_text("[1,2]");
        assert!(matches!(body.text(), Cow::Borrowed("[1,2]")));
    }

    #[test]
    fn nested_call_gets_another_empty_buffer() {
        let mut outer = take_buffer();
        outer.push_str("outer");
        let mut inner = take_buffer();
        assert!(inner.is_empty());
        inner.push_str("inner");
        return_buffer(inner);
        return_buffer(outer);
        assert!(take_buffer().is_empty());
    }

    #[test]
    fn large_buffer_is_not_kept() {
        let capacity = |bytes| {
            drop(take_buffer());
            return_buffer(String::with_capacity(bytes));
            take_buffer().capacity()
        };
        assert!(capacity(1_000) >= 1_000);
        assert_eq!(capacity(MAX_KEPT_BUFFER_BYTES + 1), 0);
    }
}
