//! Writes events as items into the shards of a new directory.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use dynamodb_eventstore::{Event, EventKey};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::DATA_DIRECTORY;
use super::hashed::Hashed;
use super::manifest::{Manifest, Shard, Totals};
use crate::output::new_file::NewFile;

/// A line of a shard.
#[derive(Serialize)]
struct ItemLine<'a> {
    #[serde(rename = "Item")]
    item: Item<'a>,
}

#[derive(Serialize)]
struct Item<'a> {
    key: Text<'a>,
    body: Text<'a>,
}

#[derive(Serialize)]
struct Text<'a> {
    #[serde(rename = "S")]
    text: &'a str,
}

/// Writes shards, one after the other, and the manifest at the end. If it is dropped before, the directory has no
/// manifest.
pub(crate) struct ShardWriter {
    directory: PathBuf,
    /// Uncompressed bytes of a shard.
    max_bytes: u64,
    open: Option<OpenShard>,
    shards: Vec<Shard>,
    /// The line that is being written; kept for its memory.
    line: Vec<u8>,
}

struct OpenShard {
    /// Path within the directory.
    file: String,
    writer: GzEncoder<Hashed<NewFile>>,
    first_key: EventKey,
    last_key: EventKey,
    totals: Totals,
}

impl ShardWriter {
    /// Creates the directory, or takes one that is empty.
    ///
    /// # Errors
    ///
    /// The directory has something in it: it may be the only copy of earlier events. Or it cannot be written to.
    pub(crate) fn create(directory: &Path, max_bytes: u64) -> Result<Self, String> {
        let shown = directory.display();
        let failed = |error: io::Error| format!("cannot write to the directory {shown}: {error}");
        match fs::read_dir(directory) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(format!("{shown} is not empty: name a new or an empty directory"));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                for_user_only().recursive(true).create(directory).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        // Fails if another run has just created it.
        for_user_only().create(directory.join(DATA_DIRECTORY)).map_err(failed)?;
        let directory = directory.to_owned();
        Ok(Self { directory, max_bytes, open: None, shards: Vec::new(), line: Vec::new() })
    }

    /// Appends an event, whose key must be greater than all before it.
    pub(crate) fn write(&mut self, event: &Event) -> Result<(), String> {
        let body = event.body();
        let key = Text { text: event.key().as_str() };
        let item = Item { key, body: Text { text: &body } };
        self.line.clear();
        serde_json::to_writer(&mut self.line, &ItemLine { item })
            .map_err(|error| error.to_string())?;
        self.line.push(b'\n');
        let line_bytes = self.line.len() as u64;
        if let Some(open) = &self.open
            && open.totals.uncompressed_bytes + line_bytes > self.max_bytes
        {
            self.finish_shard()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => OpenShard::create(&self.directory, self.shards.len() + 1, *event.key())?,
        };
        open.write(event, &self.line)?;
        self.open = Some(open);
        Ok(())
    }

    /// Completes the last shard, and writes the manifest.
    pub(crate) fn finish(mut self) -> Result<Manifest, String> {
        self.finish_shard()?;
        let manifest = Manifest::of(self.shards);
        // Each shard is on disk already, with its name.
        manifest.write(&self.directory)?;
        Ok(manifest)
    }

    fn finish_shard(&mut self) -> Result<(), String> {
        if let Some(open) = self.open.take() {
            self.shards.push(open.finish()?);
        }
        Ok(())
    }
}

impl OpenShard {
    fn create(directory: &Path, number: usize, first_key: EventKey) -> Result<Self, String> {
        let file = format!("{DATA_DIRECTORY}/{number:06}.json.gz");
        let new_file = NewFile::create(&directory.join(&file))?;
        let writer = GzEncoder::new(Hashed::new(new_file), Compression::default());
        Ok(Self { file, writer, first_key, last_key: first_key, totals: Totals::default() })
    }

    fn write(&mut self, event: &Event, line: &[u8]) -> Result<(), String> {
        self.writer.write_all(line).map_err(|error| self.failed(&error))?;
        self.totals.add_event(event);
        self.totals.uncompressed_bytes += line.len() as u64;
        self.last_key = *event.key();
        Ok(())
    }

    fn finish(mut self) -> Result<Shard, String> {
        self.writer.try_finish().map_err(|error| self.failed(&error))?;
        let Self { file, writer, first_key, last_key, mut totals } = self;
        let hashed = writer.finish().map_err(|error| format!("cannot write {file}: {error}"))?;
        totals.bytes = hashed.bytes;
        let (sha256, new_file) = hashed.finish();
        new_file.finish()?;
        Ok(Shard { file, sha256, first_key, last_key, totals })
    }

    fn failed(&self, error: &io::Error) -> String {
        let partial = self.writer.get_ref().inner.partial().display();
        format!("cannot write {partial}: {error}")
    }
}

/// Events may be confidential.
fn for_user_only() -> DirBuilder {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there is no mode to set"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}
