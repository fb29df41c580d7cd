//! [`Writer`]: writes the batches of the queue to segments, on the journal's thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::SyncPolicy;
use super::index::{Index, Marker};
use super::queue::{Batch, Queue};
use super::record::{HEADER_BYTES, header, push_settled};
use super::recovery::OldSegment;
use super::storage::{SegmentFile, Storage};
use crate::clock::now;
use crate::error::JournalError;

/// With more segments than this, settled ones are removed in any order, so that one event that waits for a long time
/// keeps only its own segment. The records in a removed segment that settled older events are lost with it, so these
/// events are read back.
const MAX_ORDERED_SEGMENTS: usize = 4;

/// How long events wait for others, to share a write with them, if nothing is synced.
const UNSYNCED_INTERVAL: Duration = Duration::from_millis(1);

/// A segment takes at most this part of the journal, so that there is room for the next event when all events are
/// settled, although the last segment is still open.
const LEAST_SEGMENTS: u64 = 8;

/// How many bytes of lines about failed events are kept in memory while their file cannot be written.
const MAX_UNKEPT_BYTES: usize = 16 * 1024 * 1024;

/// The state of the journal's thread.
pub(super) struct Writer {
    queue: Arc<Queue>,
    storage: Arc<dyn Storage>,
    index: Arc<Index>,
    sync: SyncPolicy,
    segment_bytes: u64,
    /// Every segment, the oldest first. If `file` is set, the last one is being written.
    segments: VecDeque<Segment>,
    file: Option<Box<dyn SegmentFile>>,
    /// Of the segment that is being written.
    marker: Marker,
    next_number: u64,
    /// Reused for the records of settled events.
    settled_records: Vec<u8>,
    unkept: Unkept,
}

/// Failed events whose lines could not be written. They are written with the next batch.
#[derive(Debug, Default)]
struct Unkept {
    sequences: Vec<u64>,
    lines: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// No event in it has a smaller sequence number.
    first_sequence: u64,
    /// Number of its events that are not settled.
    unsettled: u64,
}

/// A write that failed.
struct WriteFailure {
    error: JournalError,
    /// Whether what was written since the last sync may be lost, so that the journal must take no more events.
    is_final: bool,
}

impl Writer {
    /// `old` are the segments of earlier processes.
    pub(super) fn new(
        queue: Arc<Queue>,
        storage: Arc<dyn Storage>,
        index: Arc<Index>,
        sync: SyncPolicy,
        segment_bytes: u64,
        old: Vec<OldSegment>,
    ) -> Self {
        let segments: VecDeque<Segment> = old
            .into_iter()
            .map(|OldSegment { number, bytes, first_sequence, unsettled }| Segment {
                number,
                bytes,
                first_sequence,
                unsettled,
            })
            .collect();
        let next_number = segments.back().map_or(1, |segment| segment.number + 1);
        let segment_bytes = segment_bytes.min(queue.max_bytes / LEAST_SEGMENTS);
        Self {
            queue,
            storage,
            index,
            sync,
            segment_bytes,
            segments,
            file: None,
            marker: Marker::new(next_number),
            next_number,
            settled_records: Vec::new(),
            unkept: Unkept::default(),
        }
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self) {
        self.remove_settled();
        let mut not_before = now();
        while let Some(batch) = self.queue.take(not_before) {
            let began = now();
            self.write(batch);
            not_before = self.next_round(began);
        }
        if !self.unkept.sequences.is_empty() {
            self.write(Batch::default());
        }
        self.file = None;
        self.remove_settled();
        // Unlock first, so that a caller that waits for the end can open the journal again.
        self.storage.unlock();
        self.queue.closed();
    }

    /// The earliest time for the next batch.
    fn next_round(&self, began: Instant) -> Instant {
        match self.sync {
            SyncPolicy::Always => began,
            SyncPolicy::Every(interval) => began + interval,
            SyncPolicy::Os => began + UNSYNCED_INTERVAL,
        }
    }

    /// Writes a batch, and reports the result to the queue.
    pub(super) fn write(&mut self, mut batch: Batch) {
        // The lines of failed events are written first, so that each failed event is always in the file or in the
        // journal.
        let failed = self.keep_failed(&mut batch);
        batch.settled.extend(failed);
        let settled = batch.settled.as_slice();
        match self.append(&batch, settled) {
            Ok(other_bytes) => self.queue.succeeded(&batch, other_bytes),
            Err(WriteFailure { error, is_final }) => {
                if batch.events > 0 || is_final {
                    tracing::error!(events = batch.events, %error, "events are not in the journal");
                }
                self.queue.failed(&batch, &error, is_final);
            }
        }
        // Settled events count as settled even if their record could not be written. The next process then reads them
        // back.
        self.settle(settled);
        self.remove_settled();
    }

    /// Appends the lines of failed events to their file. Returns the sequence numbers of these events. If that fails,
    /// the events stay unsettled, and the next batch tries it again.
    fn keep_failed(&mut self, batch: &mut Batch) -> Vec<u64> {
        let Unkept { mut sequences, mut lines } = std::mem::take(&mut self.unkept);
        sequences.append(&mut batch.failed);
        lines.append(&mut batch.failed_lines);
        if lines.is_empty() {
            return sequences;
        }
        match self.storage.append_failed(&lines) {
            Ok(()) => sequences,
            Err(error) => {
                tracing::error!(%error, "failed events stay in the journal, as their file cannot be written");
                // If there are too many, the next process puts them again.
                if lines.len() <= MAX_UNKEPT_BYTES {
                    self.unkept = Unkept { sequences, lines };
                }
                Vec::new()
            }
        }
    }

    /// Appends the records of a batch, and syncs them. Returns the number of bytes of the records that are not of
    /// events.
    fn append(&mut self, batch: &Batch, settled: &[u64]) -> Result<u64, WriteFailure> {
        self.settled_records.clear();
        push_settled(&mut self.settled_records, settled);
        let mut other_bytes = self.settled_records.len() as u64;
        if batch.events > 0 {
            other_bytes += self.open_segment(batch)?;
        }
        let Some(mut file) = self.file.take() else {
            // No segment is open, and there are only settled events to record. They need no record.
            return Ok(0);
        };
        let Some(segment) = self.segments.back_mut() else { return Ok(0) };
        let path = self.storage.path(segment.number);
        let written = file.append(&batch.records).and_then(|()| file.append(&self.settled_records));
        if let Err(error) = written {
            let error = JournalError::io("write", &path)(error);
            // If the torn records cannot be removed, the next batch begins another segment. Recovery skips them.
            if file.truncate(segment.bytes).is_ok() {
                self.file = Some(file);
            }
            return Err(WriteFailure { error, is_final: false });
        }
        let start = segment.bytes;
        segment.bytes += (self.settled_records.len() + batch.records.len()) as u64;
        segment.unsettled += batch.events;
        if self.sync != SyncPolicy::Os
            && batch.events > 0
            && let Err(error) = file.sync()
        {
            // Linux drops the pages that it could not write, and a second sync succeeds without them.
            let error = JournalError::io("sync", &path)(error);
            return Err(WriteFailure { error, is_final: true });
        }
        for &(sequence, offset) in &batch.marks {
            self.marker.mark(&self.index, sequence, start + offset as u64);
        }
        self.file = Some(file);
        Ok(other_bytes)
    }

    /// Makes sure that there is a segment with room for a batch. Returns the number of bytes of its header if it is
    /// new.
    fn open_segment(&mut self, batch: &Batch) -> Result<u64, WriteFailure> {
        let is_full = |segment: &Segment| segment.bytes >= self.segment_bytes;
        if self.file.is_some() && !self.segments.back().is_some_and(is_full) {
            return Ok(0);
        }
        let number = self.next_number;
        let path = self.storage.path(number);
        let create = || -> io::Result<Box<dyn SegmentFile>> {
            let mut file = self.storage.create(number)?;
            file.append(&header(number))?;
            self.storage.sync_directory()?;
            Ok(file)
        };
        // The number is used up even if creation fails, as a failure may have left a file with this number.
        self.next_number += 1;
        let file = create().map_err(|error| WriteFailure {
            error: JournalError::io("create", &path)(error),
            is_final: false,
        })?;
        self.file = Some(file);
        self.marker = Marker::new(number);
        self.segments.push_back(Segment {
            number,
            bytes: HEADER_BYTES as u64,
            first_sequence: batch.sequences.map_or(0, |(first, _)| first),
            unsettled: 0,
        });
        Ok(HEADER_BYTES as u64)
    }

    /// Counts settled events.
    fn settle(&mut self, settled: &[u64]) {
        for sequence in self.queue.written(settled) {
            let after = self.segments.partition_point(|segment| segment.first_sequence <= sequence);
            if let Some(segment) =
                after.checked_sub(1).and_then(|index| self.segments.get_mut(index))
            {
                segment.unsettled = segment.unsettled.saturating_sub(1);
            }
        }
    }

    /// Removes segments without unsettled events, the oldest first, because the records of settled events in a
    /// segment are about this and older segments.
    fn remove_settled(&mut self) {
        let is_over =
            |segment: &Segment| segment.unsettled == 0 && segment.bytes >= self.segment_bytes;
        if self.segments.back().is_some_and(is_over) {
            // A full journal gets no event that would begin another segment.
            self.file = None;
        }
        // The segment that is written stays.
        let removable = self.segments.len() - usize::from(self.file.is_some());
        let mut index = 0;
        for _ in 0..removable {
            let Some(segment) = self.segments.get(index) else { break };
            if segment.unsettled > 0 {
                if self.segments.len() <= MAX_ORDERED_SEGMENTS {
                    break;
                }
                index += 1;
                continue;
            }
            if let Err(error) = self.storage.remove(segment.number) {
                // The next process finds its events settled, or reads them back. Then it removes the segment.
                tracing::warn!(%error, segment = segment.number, "a journal segment cannot be removed");
            }
            self.index.remove(segment.number);
            self.queue.removed(segment.bytes);
            self.segments.remove(index);
        }
    }
}
