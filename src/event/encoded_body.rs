//! An event's JSON text, kept as a request carries it.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::Error;
use serde_json::ser::Serializer;

use super::escape::{EscapingFormatter, push_escaped, unescaped};
use super::{EventTooLarge, check_body};

/// Why a value is no event.
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

/// A JSON text in its escaped form. A clone shares it.
///
/// It is escaped once, while it is made, and only copied into each request. Who asks for the text itself
/// has it unescaped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Body {
    wire: Arc<str>,
    /// Length of the text itself.
    bytes: usize,
}

/// About what an event takes beside its text: its key, its ticket, and what the worker notes of it
/// (`benches/costs` measures it).
const BOOKKEEPING_BYTES: usize = 350;

impl Body {
    /// A value's JSON text. One allocation, and none for a text that no event could have.
    pub(crate) fn of<E: Serialize + ?Sized>(value: &E) -> Result<Self, EncodeError> {
        let mut wire = take_scratch().into_bytes();
        let mut added_bytes = 0;
        let formatter = EscapingFormatter { added_bytes: &mut added_bytes };
        value
            .serialize(&mut Serializer::with_formatter(&mut wire, formatter))
            .map_err(EncodeError::NotSerializable)?;
        // The serialiser only writes text, but does not say so in its types.
        let wire = String::from_utf8(wire)
            .map_err(|error| EncodeError::NotSerializable(serde_json::Error::custom(error)))?;
        let bytes = wire.len() - added_bytes;
        let checked = check_body(bytes);
        let body = checked.map(|()| Self { wire: Arc::from(wire.as_str()), bytes });
        keep_scratch(wire);
        Ok(body?)
    }

    /// This text, as it is.
    pub(crate) fn from_text(text: &str) -> Self {
        let mut wire = take_scratch();
        push_escaped(&mut wire, text);
        let body = Self { wire: Arc::from(wire.as_str()), bytes: text.len() };
        keep_scratch(wire);
        body
    }

    /// Length of the text itself.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that an event with this body takes while it waits for its answer.
    pub(crate) fn buffered_bytes(&self) -> u32 {
        u32::try_from(self.wire.len() + BOOKKEEPING_BYTES).unwrap_or(u32::MAX)
    }

    /// The text itself.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        if self.wire.len() == self.bytes {
            return Cow::Borrowed(&self.wire);
        }
        // What was escaped can be unescaped. Were it not, this would still be all there is of the event.
        unescaped(&self.wire).map_or(Cow::Borrowed(&self.wire), Cow::Owned)
    }

    /// The text as it stands inside a JSON string.
    pub(crate) fn wire(&self) -> &str {
        &self.wire
    }
}

/// More than most events take. What a larger one has made of the memory is given back.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    /// To write into: it has grown to its size once, and is used again.
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
}

/// Lends empty memory. Whoever asks for it while it is lent gets other memory: a value that puts another
/// one while it is being serialised.
fn take_scratch() -> String {
    // A thread that is ending may have none any more.
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    scratch
}

fn keep_scratch(scratch: String) {
    if scratch.capacity() <= KEPT_BYTES {
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
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
        fn a_value_has_the_text_that_serde_json_gives_it_and_is_escaped_as_any_text(
            value in shape(),
        ) {
            let body = Body::of(&value).unwrap();
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(body.text(), text.as_str());
            prop_assert_eq!(body.len(), text.len());
            prop_assert!(body == Body::from_text(&text));
        }
    }

    #[test]
    fn a_text_without_escapes_is_not_copied() {
        let body = Body::from_text("[1,2]");
        assert!(matches!(body.text(), Cow::Borrowed("[1,2]")));
    }

    #[test]
    fn memory_is_lent_empty_and_to_one_at_a_time() {
        let mut outer = take_scratch();
        outer.push_str("outer");
        let mut inner = take_scratch();
        assert!(inner.is_empty());
        inner.push_str("inner");
        keep_scratch(inner);
        keep_scratch(outer);
        assert!(take_scratch().is_empty());
    }

    #[test]
    fn memory_is_kept_unless_it_is_much() {
        let capacity = |bytes| {
            drop(take_scratch());
            keep_scratch(String::with_capacity(bytes));
            take_scratch().capacity()
        };
        assert!(capacity(1_000) >= 1_000);
        assert_eq!(capacity(KEPT_BYTES + 1), 0);
    }
}
