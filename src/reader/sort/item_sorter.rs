//! [`ItemSorter`]: sorts items that do not come from a reader.

use std::fmt;
use std::path::PathBuf;

use super::run::RunError;
use super::sorter::{Records, Sorter};
use super::{MIN_MEMORY_BYTES, SortSettings};
use crate::error::ConfigError;
use crate::event::scanned_item::ScannedItem;
use crate::reader::error::ReadError;

/// Sorts items by their keys, in bounded memory: what does not fit goes into temporary files.
///
/// A [sorted](crate::EventReaderBuilder::sorted) reader does the same with the items of a table. This is for items from
/// elsewhere, such as the files of `ExportTableToPointInTime`. The temporary files can be accessed by their user only. On
/// Unix they have no name, so that they are gone when the process ends.
///
/// It blocks on files. In an asynchronous program run it on a thread of its own.
///
/// ```
/// use dynamodb_eventstore::{ItemSorter, ScannedItem};
///
/// let mut sorter = ItemSorter::new(64 << 20, std::env::temp_dir())?;
/// for key in ["20130927T005240653", "20130927T005240652"] {
///     let line = format!(r#"{{"Item":{{"key":{{"S":"{key}1"}},"body":{{"S":"{{}}"}}}}}}"#);
///     sorter.push(&ScannedItem::from_dynamodb_json(line.as_bytes())?)?;
/// }
/// let mut keys = Vec::new();
/// for item in sorter.finish()? {
///     keys.push(item?.key().to_owned());
/// }
/// assert_eq!(keys, ["20130927T0052406521", "20130927T0052406531"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ItemSorter(Sorter);

impl ItemSorter {
    /// A sorter that takes this much memory, 4 MiB or more. Its temporary files are in this directory, which must exist.
    /// They take about as much space as the items. Items of more than 60 times the memory can take twice as much.
    ///
    /// # Errors
    ///
    /// The memory is less than 4 MiB.
    pub fn new(
        max_memory_bytes: usize,
        temporary_directory: impl Into<PathBuf>,
    ) -> Result<Self, ConfigError> {
        if max_memory_bytes < MIN_MEMORY_BYTES {
            let limit = format!("be {MIN_MEMORY_BYTES} bytes or more");
            return Err(ConfigError::new("max_memory_bytes", max_memory_bytes, limit));
        }
        Ok(Self::of(SortSettings { max_memory_bytes, directory: temporary_directory.into() }))
    }

    pub(super) fn of(settings: SortSettings) -> Self {
        Self(Sorter::new(settings))
    }

    /// Adds an item.
    ///
    /// # Errors
    ///
    /// [`ReadError::TemporaryFile`]: a temporary file cannot be written. The sorter must not be used after that.
    pub fn push(&mut self, item: &ScannedItem) -> Result<(), ReadError> {
        self.0.push(item).map_err(|error| self.0.settings.error(error))
    }

    /// All items, sorted. Items with the same key come in any order.
    ///
    /// # Errors
    ///
    /// [`ReadError::TemporaryFile`]: a temporary file cannot be written or read.
    pub fn finish(self) -> Result<SortedItems, ReadError> {
        let settings = self.0.settings.clone();
        match self.0.finish() {
            Ok(records) => Ok(SortedItems { settings, records }),
            Err(error) => Err(settings.error(error)),
        }
    }
}

impl fmt::Debug for ItemSorter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ItemSorter").field("settings", &self.0.settings).finish()
    }
}

/// The items of an [`ItemSorter`], sorted by their keys.
///
/// The only error is [`ReadError::TemporaryFile`]. No item follows it.
pub struct SortedItems {
    settings: SortSettings,
    records: Records,
}

impl Iterator for SortedItems {
    type Item = Result<ScannedItem, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.records.next()?;
        let item = item.and_then(|record| record.into_item().map_err(RunError::read));
        Some(item.map_err(|error| self.settings.error(error)))
    }
}

impl fmt::Debug for SortedItems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SortedItems").field("settings", &self.settings).finish()
    }
}
