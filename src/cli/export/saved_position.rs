//! [`SavedPosition`]: the file of `export --position`, from which the same export resumes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dynamodb_eventstore::{EventReader, ReadPosition};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::sink::Sink;
use super::{Exported, Failure};
use crate::arguments::ReadOptions;
use crate::output::checkpoint::Checkpoint;
use crate::output::event_line::Form;
use crate::output::new_file::partial_name;
use crate::position_file::PositionFile;
use crate::target::Target;
use crate::time::{format_time, now};

const KIND: &str = "the position of an export";

const VERSION: u32 = 1;

/// The shortest time between two saves.
const INTERVAL: Duration = Duration::from_millis(200);

/// The next save is due after this many times the duration of the last one, as a disk may be slow to sync. So saves take
/// at most a tenth of the time.
const PAUSE_FACTOR: u32 = 9;

/// What tells one export from another. Only the same export can resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Export {
    table: String,
    from: Option<String>,
    to: Option<String>,
    with_keys: bool,
    /// Whether it goes to a file instead of standard output.
    to_file: bool,
}

/// What the file contains.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Saved {
    export: Export,
    exported: Exported,
    /// How far the output file was written. `None` for standard output.
    checkpoint: Option<Checkpoint>,
    read: ReadPosition,
}

/// The position of this export, and the file in which it is saved.
#[derive(Debug)]
pub(super) struct SavedPosition {
    file: PositionFile,
    export: Export,
    /// The output file. `None` for standard output.
    output: Option<PathBuf>,
    /// What was read from the file, or last saved in it.
    saved: Option<Saved>,
    due: Instant,
}

impl SavedPosition {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has the position of another export.
    pub(super) fn open(
        path: PathBuf,
        target: &Target,
        read: &ReadOptions,
        form: Form,
        output: Option<&Path>,
    ) -> Result<Self, String> {
        if output.is_some_and(|output| path == output || path == partial_name(output)) {
            return Err("--position is the file of --output: name another one".to_owned());
        }
        let (from, to) = read.times();
        let export = Export {
            table: target.identity(),
            from: from.as_ref().map(format_time),
            to: to.as_ref().map(format_time),
            with_keys: form == Form::WithKeys,
            to_file: output.is_some(),
        };
        let file = PositionFile::new(path, KIND, VERSION);
        let saved: Option<Saved> = file.read()?;
        if let Some(saved) = &saved
            && let Some(difference) = export.difference(&saved.export)
        {
            return Err(format!(
                "{} is the position of an export {difference}: repeat its command, or name another file",
                file.path().display()
            ));
        }
        let output = output.map(Path::to_owned);
        Ok(Self { file, export, output, saved, due: now() })
    }

    /// The position from which the reader resumes. `None` for a new export.
    pub(super) fn read_position(&self) -> Option<&ReadPosition> {
        self.saved.as_ref().map(|saved| &saved.read)
    }

    /// What was exported before.
    pub(super) fn exported(&self) -> Exported {
        self.saved.as_ref().map(|saved| saved.exported.clone()).unwrap_or_default()
    }

    /// Whether the output file is complete, so that only the position is left to remove.
    pub(super) fn is_complete(&self) -> bool {
        let (Some(saved), Some(output)) = (&self.saved, &self.output) else { return false };
        let Some(checkpoint) = saved.checkpoint.filter(|_| saved.read.is_at_end()) else {
            return false;
        };
        File::open(output).is_ok_and(|mut file| {
            let has_all = file.metadata().is_ok_and(|metadata| metadata.len() == checkpoint.bytes);
            has_all && checkpoint.is_of(&mut file).unwrap_or(false)
        })
    }

    /// Opens the output, to append to what was written before.
    pub(super) fn open_sink(&self) -> Result<Sink, String> {
        let checkpoint = self.saved.as_ref().and_then(|saved| saved.checkpoint.as_ref());
        Sink::open_after(self.output.as_deref(), checkpoint).map_err(|error| match self.saved {
            None => error,
            Some(_) => format!(
                "{error}; {} says how far it was written: put the file back, or delete both, and export anew",
                self.file.path().display()
            ),
        })
    }

    /// [Saves](Self::save) the position if that is due.
    pub(super) fn save_if_due(
        &mut self,
        reader: &EventReader,
        exported: &Exported,
        sink: &mut Sink,
    ) -> Result<(), Failure> {
        if now() >= self.due { self.save(reader, exported, sink) } else { Ok(()) }
    }

    /// Saves the position, unless the reader is within a page: from such a position items would be exported twice.
    pub(super) fn save(
        &mut self,
        reader: &EventReader,
        exported: &Exported,
        sink: &mut Sink,
    ) -> Result<(), Failure> {
        let Some(read) = reader.exact_position() else { return Ok(()) };
        if self.read_position() == Some(&read) {
            return Ok(());
        }
        let start = now();
        // The events before the position must be on disk before the position is.
        let checkpoint = sink.checkpoint(exported.bytes)?;
        let export = self.export.clone();
        let saved = Saved { export, exported: exported.clone(), checkpoint, read };
        self.file.save(&saved)?;
        self.saved = Some(saved);
        let end = now();
        self.due = end + INTERVAL.max((end - start) * PAUSE_FACTOR);
        Ok(())
    }

    /// Removes the file, after the export is complete.
    pub(super) fn remove(&self) -> Result<(), String> {
        self.file.remove()
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Export {
    /// How another export differs from this one, in words. `None` if it does not.
    fn difference(&self, other: &Self) -> Option<String> {
        let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "any time".to_owned());
        let differences = [
            (self.table != other.table)
                .then(|| format!("of {}, not of {}", other.table, self.table)),
            (self.from != other.from).then(|| format!("from {} on", time(&other.from))),
            (self.to != other.to).then(|| format!("up to {}", time(&other.to))),
            (self.with_keys != other.with_keys).then(|| match other.with_keys {
                true => "with --with-keys".to_owned(),
                false => "without --with-keys".to_owned(),
            }),
            (self.to_file != other.to_file).then(|| match other.to_file {
                true => "to a file (--output)".to_owned(),
                false => "to standard output".to_owned(),
            }),
        ];
        differences.into_iter().flatten().next()
    }
}
