//! The manifest of a directory of items.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use dynamodb_eventstore::{Event, EventKey};
use serde::{Deserialize, Serialize};

use super::DATA_DIRECTORY;
use crate::output::new_file::NewFile;

/// Name of the manifest.
const FILE: &str = "manifest.json";

/// The form of the manifest and of the shards. A reader refuses any other.
const VERSION: u32 = 1;

/// What a directory holds. It is written last, so a directory with a manifest is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// The values of `InputFormat` and `InputCompressionType` in a call of `ImportTable` or `StartBulkPutItems`.
    input_format: String,
    input_compression_type: String,
    pub(crate) totals: Totals,
    /// In the order of their keys.
    pub(crate) shards: Vec<Shard>,
}

/// One file of items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shard {
    /// Path within the directory.
    pub(crate) file: String,
    /// Of the file as it is, compressed.
    pub(crate) sha256: String,
    pub(crate) first_key: EventKey,
    pub(crate) last_key: EventKey,
    #[serde(flatten)]
    pub(crate) totals: Totals,
}

/// Sums over the events of a shard, or of a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    /// Bytes of the files, compressed.
    pub(crate) bytes: u64,
    /// Bytes of the lines.
    pub(crate) uncompressed_bytes: u64,
    /// Bytes of the items as DynamoDB counts them: names and values of the attributes.
    pub(crate) item_bytes: u64,
    pub(crate) write_units: u64,
}

impl Totals {
    /// Counts an event, without its line.
    pub(crate) fn add_event(&mut self, event: &Event) {
        self.events += 1;
        self.item_bytes += event.item_bytes() as u64;
        self.write_units += event.write_units();
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.uncompressed_bytes += other.uncompressed_bytes;
        self.item_bytes += other.item_bytes;
        self.write_units += other.write_units;
    }
}

impl Manifest {
    pub(super) fn of(shards: Vec<Shard>) -> Self {
        let mut manifest = Self {
            version: VERSION,
            input_format: "DYNAMODB_JSON".to_owned(),
            input_compression_type: "GZIP".to_owned(),
            totals: Totals::default(),
            shards,
        };
        manifest.totals = manifest.sum_of_shards();
        manifest
    }

    pub(crate) fn sum_of_shards(&self) -> Totals {
        let mut totals = Totals::default();
        self.shards.iter().for_each(|shard| totals.add(&shard.totals));
        totals
    }

    /// Writes the manifest into a directory that has its shards.
    pub(super) fn write(&self, directory: &Path) -> Result<(), String> {
        let path = directory.join(FILE);
        let mut file = NewFile::create(&path)?;
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        writeln!(file, "{text}")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        file.finish()
    }

    /// Reads the manifest of a directory. `None` if it has none.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not one that this version writes.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join(FILE);
        let shown = path.display();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {shown}: {error}")),
        };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| {
            format!("{shown} is not a manifest that `prepare` has written: {error}")
        })?;
        if manifest.version != VERSION {
            return Err(format!(
                "{shown} is of version {}, and this program knows version {VERSION} only: use the one that wrote it",
                manifest.version
            ));
        }
        if let Some(shard) = manifest.shards.iter().find(|shard| !is_in_data(&shard.file)) {
            return Err(format!(
                "{shown} names the file `{}`, which is not in {DATA_DIRECTORY}/: the manifest was changed",
                shard.file
            ));
        }
        Ok(Some(manifest))
    }
}

/// Whether the path names a file in the data directory. A manifest may come from somebody else, and must not lead to
/// other files.
fn is_in_data(file: &str) -> bool {
    let name = file.strip_prefix(DATA_DIRECTORY).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| !name.is_empty() && name != ".." && !name.contains(['/', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_names_only_files_in_its_data_directory() {
        assert!(is_in_data("data/00001.json.gz"));
        for file in [
            "/etc/passwd",
            "data/../x",
            "data/..",
            "data/",
            "data",
            "datax/1",
            "data\\1",
            "../data/1",
        ] {
            assert!(!is_in_data(file), "{file}");
        }
    }
}
