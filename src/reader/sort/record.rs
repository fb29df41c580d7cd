//! [`Record`]: an item as bytes, in memory and in a run.

use std::cmp::Ordering;
use std::io;

use crate::event::key::EventKey;
use crate::event::scanned_item::{ScannedItem, StoredEvent, UnexpectedItem};

/// Bytes of the length of a key, at the beginning of a record. The service takes keys of up to 2,048 bytes.
const KEY_LENGTH_BYTES: usize = 2;

/// What follows the key: the body of an event, or the whole item as JSON.
const EVENT: u8 = 0;
const UNEXPECTED: u8 = 1;

/// An item as bytes: the length of its key, the key, a kind, and the rest. Records are ordered by their keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record(Box<[u8]>);

impl Record {
    /// Memory of a record besides its bytes: the pointer in a list, the list's spare room, and the allocator's part.
    pub(super) const OVERHEAD_BYTES: usize = 48;

    pub(super) fn of(item: &ScannedItem) -> io::Result<Self> {
        let unexpected;
        let (kind, rest) = match item {
            ScannedItem::Event(event) => (EVENT, event.body.as_bytes()),
            ScannedItem::Unexpected(item) => {
                unexpected = serde_json::to_vec(item)?;
                (UNEXPECTED, unexpected.as_slice())
            }
        };
        let key = item.key().as_bytes();
        let length = u16::try_from(key.len()).map_err(|_| invalid("a key is too long"))?;
        let mut bytes = Vec::with_capacity(KEY_LENGTH_BYTES + key.len() + 1 + rest.len());
        bytes.extend(length.to_le_bytes());
        bytes.extend(key);
        bytes.push(kind);
        bytes.extend(rest);
        Ok(Self(bytes.into()))
    }

    pub(super) fn from_bytes(bytes: Box<[u8]>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Memory of the record.
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.len() + Self::OVERHEAD_BYTES
    }

    fn parts(&self) -> Option<(&[u8], u8, &[u8])> {
        let (length, rest) = self.0.split_first_chunk::<KEY_LENGTH_BYTES>()?;
        let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        let (kind, rest) = rest.split_first()?;
        Some((key, *kind, rest))
    }

    fn key(&self) -> &[u8] {
        self.parts().map_or(&[], |(key, ..)| key)
    }

    pub(super) fn into_item(self) -> io::Result<ScannedItem> {
        let broken = || invalid("a record is broken");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| broken());
        let (key, kind, rest) = self.parts().ok_or_else(broken)?;
        match kind {
            EVENT => {
                let key = text(key)?.parse::<EventKey>().map_err(|_| broken())?;
                Ok(ScannedItem::Event(StoredEvent { key, body: text(rest)? }))
            }
            UNEXPECTED => {
                let item: UnexpectedItem = serde_json::from_slice(rest)?;
                Ok(ScannedItem::Unexpected(item))
            }
            _ => Err(broken()),
        }
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn item_comes_out_of_its_record_unchanged(
            key in "[0-9]{1,9}|\\PC{1,40}",
            body in prop::option::of(prop::option::of(any::<String>())),
            others in prop::collection::vec("\\PC{1,5}", 0..3),
        ) {
            let key = match key.parse::<u32>() {
                Ok(_) => format!("20130927T005240652{key}"),
                Err(_) => key,
            };
            for body in [body, Some(Some("{\"a\":\n1}".to_owned()))] {
                let item = ScannedItem::of(key.clone(), body, others.clone());
                let record = Record::of(&item).unwrap();
                prop_assert_eq!(record.key(), key.as_bytes());
                let read = Record::from_bytes(record.bytes().into()).into_item().unwrap();
                prop_assert_eq!(read, item);
            }
        }

        #[test]
        fn broken_record_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let record = Record::from_bytes(bytes.into());
            prop_assert_eq!(record.cmp(&record), Ordering::Equal);
            let _ = record.into_item();
        }
    }
}
