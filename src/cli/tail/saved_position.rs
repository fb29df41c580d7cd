//! `tail --position`: when the position is saved from which the next run goes on.

use std::path::Path;
use std::time::Duration;

use dynamodb_eventstore::TailPosition;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::position_file::PositionFile;
use crate::time::now;

const KIND: &str = "the position of a tail";

const VERSION: u32 = 1;

/// Time between two saves while records come.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two saves while none come. A position has the time at which it was taken.
const IDLE_SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// What the file contains. The position has a version of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<P> {
    tail: P,
}

#[derive(Debug)]
pub(super) struct SavedPosition {
    file: PositionFile,
    /// When the next save is due.
    due: Instant,
    saved_at: Instant,
    has_new_records: bool,
}

impl SavedPosition {
    /// The file and the position in it. `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// It is not the position of a tail.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<TailPosition>), String> {
        let file = PositionFile::new(path.to_owned(), KIND, VERSION);
        let saved: Option<Saved<TailPosition>> = file.read()?;
        let now = now();
        let opened = Self { file, due: now, saved_at: now, has_new_records: false };
        Ok((opened, saved.map(|saved| saved.tail)))
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// A record came, which the saved position does not have.
    pub(super) fn note_record(&mut self) {
        self.has_new_records = true;
    }

    /// Saves the position if records came, or if the saved one is old. The next save is due later.
    pub(super) fn save_if_new(&mut self, position: &TailPosition) -> Result<(), String> {
        if self.has_new_records || now() >= self.saved_at + IDLE_SAVE_INTERVAL {
            return self.save(position);
        }
        self.due = now() + SAVE_INTERVAL;
        Ok(())
    }

    /// Replaces the saved position.
    pub(super) fn save(&mut self, position: &TailPosition) -> Result<(), String> {
        self.file.save(&Saved { tail: position })?;
        self.saved_at = now();
        self.due = self.saved_at + SAVE_INTERVAL;
        self.has_new_records = false;
        Ok(())
    }
}
