//! The format of a segment file, version 1: a header, then records.
//!
//! ```text
//! header:  "DDBEVJL1" | number of the segment: u64
//! record:  length of the payload: u32 | CRC-32 of the payload: u32 | payload
//! payload: 1 | sequence number: u64 | length of the key: u8 | key | body, escaped as inside a JSON string
//!          2 | sequence numbers of settled events: u64 each
//! ```
//!
//! Numbers are little-endian. Each event of a journal has a sequence number, which increases from record to record. An
//! event is unsettled if no later record names its number. It may or may not be in the table.

use crate::event::key::EventKey;

pub(super) const HEADER_BYTES: usize = 16;
const MAGIC: &[u8; 8] = b"DDBEVJL1";

/// Bytes before the payload of a record.
const FRAME_BYTES: usize = 8;

/// The longest payload. No event has a longer one: with the shortest key a body has at most 409,574 bytes, and six
/// times as many if each is escaped. Nor has any list of settled events.
const MAX_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;

/// The most sequence numbers in one record.
pub(super) const MAX_SETTLED: usize = 64 * 1024;

const EVENT: u8 = 1;
const SETTLED: u8 = 2;

/// The content of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Event { sequence: u64, key: EventKey, encoded_body: &'a str },
    Settled(Vec<u64>),
}

/// What was found at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A whole record, of this many bytes.
    Record { record: Record<'a>, bytes: usize },
    /// No whole record.
    Damaged,
}

pub(super) fn header(segment: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let (magic, number) = header.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    number.copy_from_slice(&segment.to_le_bytes());
    header
}

/// Why these bytes do not begin with the header of this segment; `None` if they do.
pub(super) fn header_defect(bytes: &[u8], segment: u64) -> Option<&'static str> {
    match bytes.get(..HEADER_BYTES) {
        Some(found) if found == header(segment) => None,
        Some(found) if found.starts_with(MAGIC) => Some("it has another number than its name"),
        Some(_) => Some("it begins with other bytes"),
        None => Some("it is too short"),
    }
}

/// Bytes of the record of an event.
pub(super) fn event_bytes(key: &EventKey, encoded_body: &str) -> usize {
    bytes_with_longest_key(encoded_body.len()) - EventKey::LENGTH + key.as_str().len()
}

/// Whether these bytes are a header of this segment that was written only in part: its beginning, and then zeros.
pub(super) fn is_torn_header(bytes: &[u8], segment: u64) -> bool {
    bytes.iter().zip(header(segment)).all(|(found, expected)| *found == expected || *found == 0)
}

/// Bytes of the record of an event with the longest key.
pub(super) fn bytes_with_longest_key(encoded_body_bytes: usize) -> usize {
    FRAME_BYTES + 1 + 8 + 1 + EventKey::LENGTH + encoded_body_bytes
}

/// Appends the record of an event.
pub(super) fn push_event(buffer: &mut Vec<u8>, sequence: u64, key: &EventKey, encoded_body: &str) {
    push_record(buffer, EVENT, |payload| {
        payload.extend_from_slice(&sequence.to_le_bytes());
        // A key has at most 27 characters.
        payload.push(u8::try_from(key.as_str().len()).unwrap_or(u8::MAX));
        payload.extend_from_slice(key.as_str().as_bytes());
        payload.extend_from_slice(encoded_body.as_bytes());
    });
}

/// Appends records of these settled events.
pub(super) fn push_settled(buffer: &mut Vec<u8>, sequences: &[u64]) {
    for sequences in sequences.chunks(MAX_SETTLED) {
        push_record(buffer, SETTLED, |payload| {
            payload.extend(sequences.iter().flat_map(|sequence| sequence.to_le_bytes()));
        });
    }
}

fn push_record(buffer: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_BYTES]);
    buffer.push(kind);
    fill(buffer);
    let Some((frame, payload)) = buffer.get_mut(start..).map(|all| all.split_at_mut(FRAME_BYTES))
    else {
        return;
    };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let (length_bytes, checksum_bytes) = frame.split_at_mut(4);
    length_bytes.copy_from_slice(&length.to_le_bytes());
    checksum_bytes.copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
}

/// Parses the record at the beginning of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    parse_record(bytes).unwrap_or(Parsed::Damaged)
}

fn parse_record(bytes: &[u8]) -> Option<Parsed<'_>> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    let checksum = u32::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    // The kind is checked before the checksum, so that a search through damaged bytes seldom computes a checksum.
    let kind = *bytes.get(FRAME_BYTES)?;
    if !(1..=MAX_PAYLOAD_BYTES).contains(&length) || !matches!(kind, EVENT | SETTLED) {
        return None;
    }
    let payload = bytes.get(FRAME_BYTES..FRAME_BYTES + length)?;
    if crc32fast::hash(payload) != checksum {
        return None;
    }
    let content = payload.get(1..)?;
    let record = match kind {
        EVENT => parse_event(content)?,
        _ => Record::Settled(
            content.as_chunks().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect(),
        ),
    };
    Some(Parsed::Record { record, bytes: FRAME_BYTES + length })
}

fn parse_event(content: &[u8]) -> Option<Record<'_>> {
    let (sequence, rest) = content.split_first_chunk()?;
    let (key_bytes, rest) = rest.split_first()?;
    let (key, body) = rest.split_at_checked(usize::from(*key_bytes))?;
    Some(Record::Event {
        sequence: u64::from_le_bytes(*sequence),
        key: std::str::from_utf8(key).ok()?.parse().ok()?,
        encoded_body: std::str::from_utf8(body).ok()?,
    })
}

/// A part of a segment.
pub(super) enum Part<'a> {
    Record {
        record: Record<'a>,
        offset: usize,
    },
    /// No record begins here.
    Damage {
        offset: usize,
        bytes: &'a [u8],
    },
}

/// The parts of a segment from this offset on. After damage there is a record, or the end of the segment.
pub(super) fn scan(content: &[u8], mut offset: usize) -> impl Iterator<Item = Part<'_>> {
    std::iter::from_fn(move || {
        let rest = content.get(offset..).filter(|rest| !rest.is_empty())?;
        if let Parsed::Record { record, bytes } = parse(rest) {
            let part = Part::Record { record, offset };
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> EventKey {
        "20130927T005240652508858176".parse().unwrap()
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(
            body in ".{0,300}",
            sequence in any::<u64>(),
            settled in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            let mut buffer = Vec::new();
            push_event(&mut buffer, sequence, &key(), &body);
            prop_assert_eq!(buffer.len(), event_bytes(&key(), &body));
            push_settled(&mut buffer, &settled);
            let Parsed::Record { record, bytes } = parse(&buffer) else { panic!("{buffer:?}") };
            prop_assert_eq!(record, Record::Event { sequence, key: key(), encoded_body: &body });
            if !settled.is_empty() {
                let Parsed::Record { record, .. } = parse(&buffer[bytes..]) else { panic!() };
                prop_assert_eq!(record, Record::Settled(settled));
            }
        }

        #[test]
        fn record_with_one_changed_bit_is_damaged(body in "[a-z]{0,40}", bit in 0_usize..200) {
            let mut buffer = Vec::new();
            push_event(&mut buffer, 7, &key(), &body);
            let bit = bit % (buffer.len() * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(parse(&buffer), Parsed::Damaged);
        }
    }

    #[test]
    fn record_that_is_cut_off_anywhere_is_damaged() {
        let mut buffer = Vec::new();
        push_event(&mut buffer, 7, &key(), r#"{\"foo\":\"bar\"}"#);
        for length in 0..buffer.len() {
            assert_eq!(parse(&buffer[..length]), Parsed::Damaged, "{length}");
        }
    }

    #[test]
    fn header_names_the_format_and_the_segment() {
        assert_eq!(header_defect(&header(7), 7), None);
        assert_eq!(header_defect(&header(7), 8), Some("it has another number than its name"));
        assert_eq!(header_defect(b"SQLite format 3\0", 7), Some("it begins with other bytes"));
        assert_eq!(header_defect(b"DDB", 7), Some("it is too short"));
    }
}
