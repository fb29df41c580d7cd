//! The JSON text of a value.

use std::cell::Cell;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::Error;

use crate::error::PutError;
use crate::event::{MAX_BODY_BYTES, MAX_ITEM_BYTES, check_body};

/// More than most events take. What a larger one has made of the memory is given back.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    /// To write into: it has grown to its size once, and is used again.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Serialises an event, with one allocation: its text's.
pub(crate) fn serialise<E: Serialize + ?Sized>(event: &E) -> Result<Arc<str>, PutError> {
    with_scratch(|scratch| {
        serde_json::to_writer(&mut *scratch, event).map_err(PutError::NotSerializable)?;
        // The serialiser only writes text, but does not say so in its types.
        let body = std::str::from_utf8(scratch)
            .map_err(|error| PutError::NotSerializable(serde_json::Error::custom(error)))?;
        check_body(body)?;
        Ok(Arc::from(body))
    })
}

/// Bytes of the buffer that an event with this body takes: those of its item.
pub(crate) fn room_of(body: &str) -> u32 {
    const OVERHEAD: usize = MAX_ITEM_BYTES - MAX_BODY_BYTES;
    u32::try_from(body.len() + OVERHEAD).unwrap_or(u32::MAX)
}

/// Lends empty memory. Whoever asks for it while it is lent gets other memory: a value that puts another
/// one while it is being serialised.
fn with_scratch<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    // A thread that is ending may have none any more.
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    let written = write(&mut scratch);
    if scratch.capacity() <= KEPT_BYTES {
        let _ = SCRATCH.try_with(|kept| kept.set(scratch));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_lent_empty_and_to_one_at_a_time() {
        with_scratch(|outer| {
            outer.extend_from_slice(b"outer");
            with_scratch(|inner| {
                assert!(inner.is_empty());
                inner.extend_from_slice(b"inner");
            });
            assert_eq!(outer, b"outer");
        });
        with_scratch(|again| assert!(again.is_empty()));
    }

    #[test]
    fn memory_is_kept_unless_it_is_much() {
        let capacity = |bytes| {
            with_scratch(|scratch| scratch.resize(bytes, 0));
            with_scratch(|scratch| scratch.capacity())
        };
        assert!(capacity(1_000) >= 1_000);
        assert_eq!(capacity(KEPT_BYTES + 1), 0);
    }
}
