//! [`Sorter`]: the external merge sort itself.

use super::SortSettings;
use super::merge::Merge;
use super::record::Record;
use super::run::{Run, RunError};
use crate::event::scanned_item::ScannedItem;

pub(super) type Records = Box<dyn Iterator<Item = Result<Record, RunError>> + Send>;

/// Takes records in any order, and returns them sorted.
pub(super) struct Sorter {
    pub(super) settings: SortSettings,
    records: Vec<Record>,
    memory_bytes: usize,
    /// Higher levels first.
    runs: Vec<Run>,
}

impl Sorter {
    pub(super) fn new(settings: SortSettings) -> Self {
        Self { settings, records: Vec::new(), memory_bytes: 0, runs: Vec::new() }
    }

    pub(super) fn push(&mut self, item: &ScannedItem) -> Result<(), RunError> {
        let record = Record::of(item).map_err(RunError::read)?;
        let memory_bytes = self.memory_bytes + record.memory_bytes();
        if memory_bytes > self.settings.max_memory_bytes && !self.records.is_empty() {
            self.spill()?;
        }
        self.memory_bytes += record.memory_bytes();
        self.records.push(record);
        Ok(())
    }

    /// Writes the records in memory into a run.
    fn spill(&mut self) -> Result<(), RunError> {
        // The list goes as well: its memory is for the merges.
        let mut records = std::mem::take(&mut self.records);
        self.memory_bytes = 0;
        records.sort_unstable();
        let run = Run::write(&self.settings.directory, 0, records.into_iter().map(Ok))?;
        self.runs.push(run);
        self.merge_full_levels()
    }

    /// Merges the runs of a level when there are as many as can be merged at a time. So each record is merged about
    /// log(table size / memory) times.
    fn merge_full_levels(&mut self) -> Result<(), RunError> {
        while let Some(level) = self.runs.last().map(|run| run.level) {
            let of_level = self.runs.iter().rev().take_while(|run| run.level == level).count();
            if of_level < self.settings.fan_in() {
                return Ok(());
            }
            self.merge_last(of_level)?;
        }
        Ok(())
    }

    fn merge_last(&mut self, runs: usize) -> Result<(), RunError> {
        let level = self.runs.last().map_or(0, |run| run.level) + 1;
        let merged = self.runs.split_off(self.runs.len().saturating_sub(runs));
        let merge = Merge::new(merged.into_iter().map(Run::read))?;
        self.runs.push(Run::write(&self.settings.directory, level, merge)?);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Records, RunError> {
        if self.runs.is_empty() {
            self.records.sort_unstable();
            return Ok(Box::new(self.records.into_iter().map(Ok)));
        }
        if !self.records.is_empty() {
            self.spill()?;
        }
        // The last runs are the smallest ones.
        let fan_in = self.settings.fan_in();
        while self.runs.len() > fan_in {
            let surplus = self.runs.len() - fan_in + 1;
            self.merge_last(surplus.min(fan_in))?;
        }
        Ok(Box::new(Merge::new(self.runs.into_iter().map(Run::read))?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::sort::{MAX_FAN_IN, MIN_MEMORY_BYTES};

    fn settings(max_memory_bytes: usize) -> SortSettings {
        SortSettings { max_memory_bytes, directory: std::env::temp_dir() }
    }

    fn item(key: u32, body: &str) -> ScannedItem {
        let key = format!("20130927T005240652{key}");
        ScannedItem::of(key, Some(Some(body.to_owned())), Vec::new())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn sorted_items_are_all_items_by_key(
            keys in prop::collection::vec(any::<u32>(), 0..600),
            max_memory_bytes in 200_usize..20_000,
        ) {
            // So little memory makes a fan-in of two, and several levels.
            let items: Vec<ScannedItem> = keys.iter().map(|key| item(*key, "{}")).collect();
            let mut sorter = Sorter::new(settings(max_memory_bytes));
            for item in &items {
                sorter.push(item).unwrap();
                prop_assert!(sorter.memory_bytes <= max_memory_bytes);
            }
            let sorted = sorter.finish().unwrap();
            let sorted: Vec<_> = sorted.map(|record| record.unwrap().into_item().unwrap()).collect();
            let mut expected = items;
            expected.sort_by(|a, b| a.key().cmp(b.key()));
            prop_assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn runs_of_a_level_are_merged_when_they_are_full() {
        let mut sorter = Sorter::new(settings(100));
        for key in 0..100 {
            sorter.push(&item(key, "{}")).unwrap();
        }
        assert!(sorter.runs.len() <= 7, "{}", sorter.runs.len());
        assert!(sorter.runs.is_sorted_by(|a, b| a.level > b.level));
    }

    #[test]
    fn missing_directory_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap().path().join("gone");
        let settings = SortSettings { max_memory_bytes: 100, directory };
        let mut sorter = Sorter::new(settings.clone());
        let refused = (0..3).find_map(|key| sorter.push(&item(key, "{}")).err()).unwrap();
        let shown = settings.error(refused).to_string();
        assert!(shown.contains("gone could not be created"), "{shown}");
    }

    #[test]
    fn least_memory_merges_eight_runs_at_a_time() {
        assert_eq!(settings(MIN_MEMORY_BYTES).fan_in(), 8);
        assert_eq!(settings(usize::MAX).fan_in(), MAX_FAN_IN);
    }
}
