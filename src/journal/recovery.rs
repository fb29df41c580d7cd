//! Reads the segments that an earlier process left, and finds unsettled events and damaged bytes.

use std::num::NonZeroU64;
use std::path::PathBuf;

use super::index::{Index, Marker};
use super::record::{HEADER_BYTES, Part, Record, header_defect, is_torn_header, scan};
use super::storage::Storage;
use crate::error::JournalError;
use crate::event::key::EventKey;

/// Marks the number of a settled event. No sequence number is as large.
const SETTLED: u64 = 1 << 63;

/// A segment that an earlier process left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldSegment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    /// No event in it has a smaller sequence number.
    pub(super) first_sequence: u64,
    /// Events that are not settled.
    pub(super) unsettled: u64,
}

/// What opening a journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Events that an earlier process journalled and that are not known to be stored. The store puts them again.
    pub unsettled: u64,
    /// Segment files that were read.
    pub segments: u64,
    /// Records at the ends of segments that were written only in part. They were cut off.
    pub torn: Vec<Damage>,
    /// Records in the middle of a segment that cannot be read. Their bytes are kept in a file that ends in `.damaged`.
    pub damaged: Vec<Damage>,
}

/// Bytes of a segment that are not a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The segment file.
    pub file: PathBuf,
    /// The first of the bytes.
    pub offset: u64,
    /// The number of these bytes.
    pub bytes: u64,
}

/// What earlier processes have left in a journal.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) segments: Vec<OldSegment>,
    /// The sequence numbers of the events that are not settled, ascending.
    pub(super) unsettled: Vec<NonZeroU64>,
    pub(super) index: Index,
    pub(super) last_sequence: u64,
    pub(super) last_key: Option<EventKey>,
    pub(super) report: RecoveryReport,
}

/// Reads all segments. Cuts off torn ends, and copies damaged bytes to `.damaged` files.
pub(super) fn recover(storage: &dyn Storage) -> Result<Recovered, JournalError> {
    let numbers = storage.segments().map_err(JournalError::io("list", &storage.path(0)))?;
    let mut recovered = Recovered::default();
    let mut sequences = Vec::new();
    for &number in &numbers {
        let path = storage.path(number);
        let content = storage.read(number).map_err(JournalError::io("read", &path))?;
        recovered.report.segments += 1;
        if let Some(reason) = header_defect(&content, number) {
            // No record of such a segment was ever durable, because the sync that makes a record durable includes the
            // header.
            if is_torn_header(&content, number) {
                if content.len() > HEADER_BYTES {
                    storage
                        .keep_aside(number, 0, &content)
                        .map_err(JournalError::io("keep damaged bytes of", &path))?;
                }
                storage.remove(number).map_err(JournalError::io("remove", &path))?;
                let bytes = content.len() as u64;
                recovered.report.torn.push(Damage { file: path, offset: 0, bytes });
                continue;
            }
            return Err(JournalError::Format { file: path, reason });
        }
        let first_sequence = recovered.last_sequence + 1;
        let bytes = recovered.read_segment(storage, number, &content, &mut sequences)?;
        recovered.segments.push(OldSegment { number, bytes, first_sequence, unsettled: 0 });
    }
    sequences.retain(|sequence| sequence & SETTLED == 0);
    let mut before = sequences.len();
    for segment in recovered.segments.iter_mut().rev() {
        let first = sequences.partition_point(|sequence| *sequence < segment.first_sequence);
        segment.unsettled = (before - first) as u64;
        before = first;
    }
    recovered.report.unsettled = sequences.len() as u64;
    recovered.unsettled = sequences.into_iter().filter_map(NonZeroU64::new).collect();
    Ok(recovered)
}

impl Recovered {
    /// Reads the records of a segment, and returns its length without its torn end. Adds the numbers of its events to
    /// `sequences`, and marks those that are [`SETTLED`].
    fn read_segment(
        &mut self,
        storage: &dyn Storage,
        segment: u64,
        content: &[u8],
        sequences: &mut Vec<u64>,
    ) -> Result<u64, JournalError> {
        let path = storage.path(segment);
        let mut marker = Marker::new(segment);
        for part in scan(content, HEADER_BYTES) {
            let (offset, bytes) = match part {
                Part::Record { record: Record::Event { sequence, key, .. }, offset } => {
                    self.last_sequence = self.last_sequence.max(sequence);
                    self.last_key = self.last_key.max(Some(key));
                    sequences.push(sequence);
                    marker.mark(&self.index, sequence, offset as u64);
                    continue;
                }
                Part::Record { record: Record::Settled(settled), .. } => {
                    mark_settled(sequences, &settled);
                    continue;
                }
                Part::Damage { offset, bytes } => (offset, bytes),
            };
            let damage =
                Damage { file: path.clone(), offset: offset as u64, bytes: bytes.len() as u64 };
            if offset + bytes.len() == content.len() {
                storage
                    .truncate(segment, offset as u64)
                    .map_err(JournalError::io("cut off the torn end of", &path))?;
                self.report.torn.push(damage);
                return Ok(offset as u64);
            }
            storage
                .keep_aside(segment, offset as u64, bytes)
                .map_err(JournalError::io("keep damaged bytes of", &path))?;
            self.report.damaged.push(damage);
        }
        Ok(content.len() as u64)
    }
}

/// Marks events as settled. They are not removed yet, as that would move all that follow.
fn mark_settled(sequences: &mut [u64], settled: &[u64]) {
    for settled in settled {
        let found = sequences.binary_search_by_key(settled, |sequence| sequence & !SETTLED);
        if let Some(sequence) = found.ok().and_then(|index| sequences.get_mut(index)) {
            *sequence |= SETTLED;
        }
    }
}
