//! Reads the segments that an earlier process left, and finds unsettled events and damaged bytes.

use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;

use super::record::{HEADER_BYTES, Parsed, Record, header_defect, is_torn_header, parse};
use super::storage::Storage;
use crate::error::JournalError;
use crate::event::key::EventKey;

/// Where the record of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(super) sequence: u64,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: u32,
}

impl Location {
    fn new(sequence: u64, segment: u64, offset: usize, bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self { sequence, segment, offset: offset as u64, bytes }
    }

    pub(crate) fn sequence(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.sequence)
    }
}

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
    /// In the order of their sequence numbers.
    pub(super) unsettled: Vec<Location>,
    pub(super) last_sequence: u64,
    pub(super) last_key: Option<EventKey>,
    pub(super) report: RecoveryReport,
}

/// Reads all segments. Cuts off torn ends, and copies damaged bytes to `.damaged` files.
pub(super) fn recover(storage: &dyn Storage) -> Result<Recovered, JournalError> {
    let numbers = storage.segments().map_err(JournalError::io("list", &storage.path(0)))?;
    let mut recovered = Recovered::default();
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
        let bytes = recovered.read_segment(storage, number, &content)?;
        recovered.segments.push(OldSegment { number, bytes, first_sequence, unsettled: 0 });
    }
    recovered.unsettled.retain(|location| location.bytes > 0);
    recovered.report.unsettled = recovered.unsettled.len() as u64;
    for location in &recovered.unsettled {
        let found =
            recovered.segments.binary_search_by_key(&location.segment, |segment| segment.number);
        if let Some(segment) = found.ok().and_then(|index| recovered.segments.get_mut(index)) {
            segment.unsettled += 1;
        }
    }
    Ok(recovered)
}

/// Finds the events with these sequence numbers, which must be ascending. Reads every segment. A segment that was
/// removed has none of them.
pub(super) fn locate(storage: &dyn Storage, sequences: &[u64]) -> io::Result<Vec<Location>> {
    let mut located = Vec::new();
    for segment in storage.segments()? {
        let content = match storage.read(segment) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        located.extend(scan(&content).filter_map(|part| match part {
            Part::Record { record: Record::Event { sequence, .. }, offset, bytes }
                if sequences.binary_search(&sequence).is_ok() =>
            {
                Some(Location::new(sequence, segment, offset, bytes))
            }
            _ => None,
        }));
    }
    Ok(located)
}

/// A part of a segment.
enum Part<'a> {
    Record {
        record: Record<'a>,
        offset: usize,
        bytes: usize,
    },
    /// No record begins here.
    Damage {
        offset: usize,
        bytes: &'a [u8],
    },
}

/// The parts of a segment, after its header. After damage there is a record, or the end of the segment.
fn scan(content: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut offset = HEADER_BYTES;
    std::iter::from_fn(move || {
        let rest = content.get(offset..).filter(|rest| !rest.is_empty())?;
        if let Parsed::Record { record, bytes } = parse(rest) {
            let part = Part::Record { record, offset, bytes };
            offset += bytes;
            return Some(part);
        }
        let is_record = |at: &usize| rest.get(*at..).is_some_and(|at| parse(at) != Parsed::Damaged);
        let length = (1..rest.len()).find(is_record).unwrap_or(rest.len());
        let part = Part::Damage { offset, bytes: rest.get(..length).unwrap_or(rest) };
        offset += length;
        Some(part)
    })
}

impl Recovered {
    /// Reads the records of a segment, and returns its length without its torn end.
    fn read_segment(
        &mut self,
        storage: &dyn Storage,
        segment: u64,
        content: &[u8],
    ) -> Result<u64, JournalError> {
        let path = storage.path(segment);
        for part in scan(content) {
            let (offset, bytes) = match part {
                Part::Record { record, offset, bytes } => {
                    self.apply(record, segment, offset, bytes);
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

    fn apply(&mut self, record: Record<'_>, segment: u64, offset: usize, bytes: usize) {
        match record {
            Record::Event { sequence, key, .. } => {
                self.last_sequence = self.last_sequence.max(sequence);
                self.last_key = self.last_key.max(Some(key));
                self.unsettled.push(Location::new(sequence, segment, offset, bytes));
            }
            Record::Settled(sequences) => {
                for sequence in sequences {
                    let found = self
                        .unsettled
                        .binary_search_by_key(&sequence, |location| location.sequence);
                    // The event is only marked. To remove it would move all that follow.
                    if let Some(location) =
                        found.ok().and_then(|index| self.unsettled.get_mut(index))
                    {
                        location.bytes = 0;
                    }
                }
            }
        }
    }
}
