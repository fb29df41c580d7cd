//! [`Reader`]: reads events from the segments.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::index::{Extent, Index};
use super::record::{Part, Record, scan};
use super::storage::Storage;
use crate::error::JournalError;
use crate::event::Event;
use crate::event::encoded_body::EncodedBody;

/// One call reads no further extent after this many bytes.
const MAX_READ_BYTES: usize = 1024 * 1024;

/// An event of the journal, or why it cannot be read.
pub(crate) type ReadEvent = (NonZeroU64, Result<Event, JournalError>);

/// Reads events that are durable and not settled, from any thread. Its calls block.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) index: Arc<Index>,
}

impl Reader {
    /// Reads the first of the events with these sequence numbers, which must be ascending. Returns at least one of them,
    /// in their order, and none after about [`MAX_READ_BYTES`].
    pub(crate) fn read_first(&self, sequences: &[NonZeroU64]) -> Vec<ReadEvent> {
        let mut events = Vec::new();
        let (mut rest, mut bytes_read) = (sequences, 0);
        while let Some(first) = rest.first()
            && bytes_read < MAX_READ_BYTES
        {
            let Some(extent) = self.index.extent(*first) else {
                events.push((*first, Err(self.missing(0))));
                rest = rest.get(1..).unwrap_or_default();
                continue;
            };
            let length = rest.partition_point(|sequence| sequence.get() < extent.end_sequence);
            let (wanted, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            bytes_read += self.read_extent(extent, wanted, &mut events);
            rest = after;
        }
        events
    }

    /// Reads the wanted events of an extent. Returns how many bytes were read.
    fn read_extent(
        &self,
        extent: Extent,
        wanted: &[NonZeroU64],
        events: &mut Vec<ReadEvent>,
    ) -> usize {
        let Extent { segment, offset, bytes, .. } = extent;
        let path = self.storage.path(segment);
        let content = self
            .storage
            .read_at(segment, offset, bytes)
            .map_err(JournalError::io("read events of", &path));
        let content = match content {
            Ok(content) => content,
            Err(error) => {
                events.extend(wanted.iter().map(|sequence| (*sequence, Err(error.clone()))));
                return 0;
            }
        };
        let mut wanted = wanted.iter().copied().peekable();
        for part in scan(&content, 0) {
            let Part::Record { record: Record::Event { sequence, key, encoded_body }, .. } = part
            else {
                continue;
            };
            while let Some(missing) = wanted.next_if(|wanted| wanted.get() < sequence) {
                events.push((missing, Err(self.missing(segment))));
            }
            if let Some(wanted) = wanted.next_if(|wanted| wanted.get() == sequence) {
                let event = EncodedBody::from_encoded(encoded_body)
                    .and_then(|body| Event::with_body(key, body).ok())
                    .ok_or_else(|| self.missing(segment));
                events.push((wanted, event));
            }
        }
        events.extend(wanted.map(|missing| (missing, Err(self.missing(segment)))));
        content.len()
    }

    fn missing(&self, segment: u64) -> JournalError {
        let missing = io::Error::new(io::ErrorKind::NotFound, "a record is not there any more");
        JournalError::io("read events of", &self.storage.path(segment))(missing)
    }
}
