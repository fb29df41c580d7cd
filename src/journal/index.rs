//! [`Index`]: where the records of events are in the segments.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The least distance of two marks in one segment, in bytes.
pub(super) const MARK_INTERVAL: u64 = 64 * 1024;

/// A sparse index: it has the offset of one event per [`MARK_INTERVAL`]. To find the events between two marks, the extent
/// is read. The index of a journal of 4 GiB takes about 2 MB.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By the sequence number of the event at the mark.
    marks: Mutex<BTreeMap<u64, Mark>>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    segment: u64,
    offset: u64,
}

/// A part of a segment that begins with the record of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// `None` if it ends with the segment.
    pub(super) bytes: Option<u64>,
    /// The events in it have smaller sequence numbers.
    pub(super) end_sequence: u64,
}

impl Index {
    /// Forgets a segment that is removed.
    pub(super) fn remove(&self, segment: u64) {
        self.marks().retain(|_, mark| mark.segment != segment);
    }

    /// The extent in which the event with this number is, if it is in the journal.
    pub(super) fn extent(&self, sequence: NonZeroU64) -> Option<Extent> {
        let marks = self.marks();
        let (_, &Mark { segment, offset }) = marks.range(..=sequence.get()).next_back()?;
        let next = marks.range((Excluded(sequence.get()), Unbounded)).next();
        let bytes =
            next.filter(|(_, next)| next.segment == segment).map(|(_, next)| next.offset - offset);
        let end_sequence = next.map_or(u64::MAX, |(sequence, _)| *sequence);
        Some(Extent { segment, offset, bytes, end_sequence })
    }

    fn marks(&self) -> MutexGuard<'_, BTreeMap<u64, Mark>> {
        // A panic cannot leave the marks inconsistent, so a poisoned lock does not matter.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the events of one segment, in the order of their offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marker {
    segment: u64,
    /// Events before this offset need no mark.
    next: u64,
}

impl Marker {
    pub(super) fn new(segment: u64) -> Self {
        Self { segment, next: 0 }
    }

    /// Marks the event at this offset, unless the mark before it is near.
    pub(super) fn mark(&mut self, index: &Index, sequence: u64, offset: u64) {
        if offset >= self.next {
            self.next = offset + MARK_INTERVAL;
            index.marks().insert(sequence, Mark { segment: self.segment, offset });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).unwrap()
    }

    #[test]
    fn event_between_marks_is_in_the_extent_of_the_first() {
        let index = Index::default();
        let mut marker = Marker::new(1);
        marker.mark(&index, 1, 16);
        marker.mark(&index, 2, 1_000);
        marker.mark(&index, 3, 100_000);
        Marker::new(2).mark(&index, 4, 16);
        let extent = |number| index.extent(sequence(number)).unwrap();
        let first = Extent { segment: 1, offset: 16, bytes: Some(99_984), end_sequence: 3 };
        assert_eq!((extent(1), extent(2)), (first, first));
        let last = Extent { segment: 1, offset: 100_000, bytes: None, end_sequence: 4 };
        assert_eq!(extent(3), last);
        let other = Extent { segment: 2, offset: 16, bytes: None, end_sequence: u64::MAX };
        assert_eq!(extent(9), other);
    }

    #[test]
    fn removed_segment_has_no_extent() {
        let index = Index::default();
        Marker::new(1).mark(&index, 1, 16);
        Marker::new(2).mark(&index, 5, 16);
        index.remove(1);
        assert_eq!(index.extent(sequence(4)), None);
        assert!(index.extent(sequence(5)).is_some());
    }
}
