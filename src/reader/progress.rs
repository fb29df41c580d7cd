//! [`ReadProgress`]: the size of the table, and how much of it was read.

use std::sync::{Arc, Mutex, PoisonError};

use crate::dynamodb::scan::{ScanPage, TableSize};
use crate::error::BatchError;
use crate::event::scanned_item::ScannedItem;
use crate::policy::read_pace::units_per_byte;

/// The size of the table, and how much of it an [`EventReader`](crate::EventReader) has read.
///
/// It counts what the service has sent. Of that, a few pages may not have been taken from the stream yet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct ReadProgress {
    /// Items in the table, as `DescribeTable` states them. The service updates the number about every six hours
    /// ([TableDescription](https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TableDescription.html)),
    /// so it is 0 for a table that was filled just now. `None` if the role is not allowed to describe the table.
    pub estimated_items: Option<u64>,
    /// Bytes of the table, stated in the same way.
    pub estimated_bytes: Option<u64>,
    /// Read units that reading the whole table takes, computed from `estimated_bytes`.
    pub estimated_read_units: Option<f64>,
    /// Items that the service has evaluated, within the range of times or not.
    pub scanned_items: u64,
    /// Items within the range of times.
    pub matching_items: u64,
    /// Bytes of the keys and bodies of these items, and of their attribute names. 0 while items are only counted.
    pub matching_bytes: u64,
    /// Read units consumed, as the service counts them.
    pub read_units: f64,
    /// Pages read.
    pub pages: u64,
    /// Attempts that were throttled.
    pub throttled_attempts: u64,
    /// Attempts that failed in another way.
    pub failed_attempts: u64,
}

/// The progress as the tasks of a reader count it.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedProgress(Arc<Mutex<ReadProgress>>);

impl SharedProgress {
    pub(super) fn of(size: Option<TableSize>, is_consistent: bool) -> Self {
        let units = |size: TableSize| size.bytes as f64 * units_per_byte(is_consistent);
        Self(Arc::new(Mutex::new(ReadProgress {
            estimated_items: size.map(|size| size.items),
            estimated_bytes: size.map(|size| size.bytes),
            estimated_read_units: size.map(|size| units(size).ceil()),
            ..ReadProgress::default()
        })))
    }

    pub(super) fn get(&self) -> ReadProgress {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_page(&self, page: &ScanPage) {
        let bytes: u64 = page.items.iter().map(ScannedItem::bytes).sum();
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.scanned_items += page.scanned;
        progress.matching_items += page.matching;
        progress.matching_bytes += bytes;
        progress.read_units += page.read_units;
        progress.pages += 1;
    }

    pub(super) fn add_failure(&self, error: &BatchError) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if error.class().is_throttled() {
            progress.throttled_attempts += 1;
        } else {
            progress.failed_attempts += 1;
        }
    }
}
