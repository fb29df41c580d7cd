//! An external merge sort: items that do not fit into memory go as sorted runs into temporary files, which are merged.
//!
//! It runs in a thread of its own, because it blocks on files, and because a runtime that is shut down waits for its
//! own blocking threads.

pub(crate) mod item_sorter;
mod merge;
mod record;
mod run;
mod sorter;

use std::path::PathBuf;
use std::thread;

use tokio::sync::mpsc;

use super::batch::{Batch, BatchSender, Batches};
use super::error::ReadError;
use super::position::ReadPosition;
use crate::event::MAX_ITEM_BYTES;
use item_sorter::ItemSorter;
use record::Record;
use run::{BUFFER_BYTES, RunError};

/// The least memory for sorting: 8 runs are merged at a time.
pub(super) const MIN_MEMORY_BYTES: usize = 4 * 1024 * 1024;

/// The most runs that are merged at a time. More would take more open files, and save little.
const MAX_FAN_IN: usize = 64;

/// Memory of one run that is merged: its buffer, and the next record.
const RUN_MEMORY_BYTES: usize = BUFFER_BYTES + MAX_ITEM_BYTES + Record::OVERHEAD_BYTES;

/// Sorted items go to the reader in batches of about this size, of which up to four exist.
const BATCH_BYTES: u64 = 64 * 1024;

/// Sorted batches that wait for the reader.
const WAITING_BATCHES: usize = 2;

/// How items are sorted.
#[derive(Debug, Clone)]
pub(super) struct SortSettings {
    pub(super) max_memory_bytes: usize,
    pub(super) directory: PathBuf,
}

impl SortSettings {
    fn fan_in(&self) -> usize {
        (self.max_memory_bytes / RUN_MEMORY_BYTES).clamp(2, MAX_FAN_IN)
    }

    fn error(&self, RunError { action, cause }: RunError) -> ReadError {
        ReadError::TemporaryFile { directory: self.directory.clone(), action, cause }
    }
}

/// Starts the thread that sorts `pages`. It ends with the last page, or when the reader is dropped.
pub(super) fn start(
    settings: SortSettings,
    pages: Batches,
    position: ReadPosition,
) -> Result<Batches, ReadError> {
    let (sender, sorted) = mpsc::channel(WAITING_BATCHES);
    let sort = move || {
        if let Err(error) = sort(settings, pages, position, &sender) {
            // Nobody waits for the error of a reader that was dropped.
            let _ = sender.blocking_send(Err(error));
        }
    };
    let thread = thread::Builder::new().name("event-reader-sort".to_owned());
    thread.spawn(sort).map_err(ReadError::Thread)?;
    Ok(sorted)
}

fn sort(
    settings: SortSettings,
    mut pages: Batches,
    mut position: ReadPosition,
    sorted: &BatchSender,
) -> Result<(), ReadError> {
    let mut sorter = ItemSorter::of(settings);
    while let Some(batch) = pages.blocking_recv() {
        let Batch::Page(page) = batch? else { continue };
        for item in &page.items {
            sorter.push(item)?;
        }
        position.advance(&page.next);
    }
    if !position.is_at_end() {
        return Err(ReadError::Stopped);
    }
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    for item in sorter.finish()? {
        let item = item?;
        batch_bytes += item.bytes();
        batch.push(item);
        if batch_bytes >= BATCH_BYTES {
            let full = Batch::Sorted(std::mem::take(&mut batch));
            batch_bytes = 0;
            if sorted.blocking_send(Ok(full)).is_err() {
                return Ok(());
            }
        }
    }
    for last in [Batch::Sorted(batch), Batch::SortedToTheEnd] {
        // Nobody waits for the rest of a reader that was dropped.
        let _ = sorted.blocking_send(Ok(last));
    }
    Ok(())
}
