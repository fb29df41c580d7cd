//! [`SavedPosition`]: the file with the position from which the next run resumes.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dynamodb_eventstore::TailPosition;
use tempfile::NamedTempFile;
use tokio::time::Instant;

use crate::time::now;

/// Time between two saves while records arrive.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two saves while none arrive. They keep the time in the position, by which its age is known, up to date.
const IDLE_SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// The file, and when it is written next.
#[derive(Debug)]
pub(super) struct SavedPosition {
    path: PathBuf,
    /// When the next save is due.
    due: Instant,
    saved_at: Instant,
    has_new_records: bool,
}

impl SavedPosition {
    /// The file and the position in it. `None` if there is no such file.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<TailPosition>), String> {
        let position = match fs::read(path) {
            Ok(saved) => Some(serde_json::from_slice(&saved).map_err(|error| {
                format!(
                    "{} is no position of `tail`: {error}; name another file, or begin anew without it",
                    path.display()
                )
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(format!("cannot read the position in {}: {error}", path.display()));
            }
        };
        let now = now();
        let path = path.to_owned();
        Ok((Self { path, due: now, saved_at: now, has_new_records: false }, position))
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Records that there is a record after the saved position.
    pub(super) fn note_record(&mut self) {
        self.has_new_records = true;
    }

    /// Saves the position if records have arrived since the last save, or if that is [`IDLE_SAVE_INTERVAL`] ago.
    pub(super) fn save_if_new(&mut self, position: &TailPosition) -> Result<(), String> {
        if self.has_new_records || now() >= self.saved_at + IDLE_SAVE_INTERVAL {
            return self.save(position);
        }
        self.due = now() + SAVE_INTERVAL;
        Ok(())
    }

    /// Replaces the file in one step, so that a process that is killed leaves the old position or the new one.
    pub(super) fn save(&mut self, position: &TailPosition) -> Result<(), String> {
        self.replace(position).map_err(|error| {
            format!("cannot save the position in {}: {error}", self.path.display())
        })?;
        self.saved_at = now();
        self.due = self.saved_at + SAVE_INTERVAL;
        self.has_new_records = false;
        Ok(())
    }

    fn replace(&self, position: &TailPosition) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut file = NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, position)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }
}
