//! The input of a producer, and the position in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::TryRecvError;

use crate::collector::Outcome;
use crate::input::{Line, LineReader};
use crate::stop::StopReason;

/// The lines of one input, and the channel for their outcomes.
#[derive(Debug)]
pub(crate) struct TrackedInput {
    reader: LineReader,
    outcomes: mpsc::Sender<Outcome>,
    /// Bytes of the input up to `last_line`.
    position: Arc<AtomicU64>,
    is_stopped: bool,
    /// The last line that was taken from the reader.
    last_read: u64,
    /// The last line that was accepted or refused.
    last_line: u64,
    /// Why the input could not be read to its end. The reader returns it only once.
    read_error: Option<String>,
}

impl TrackedInput {
    pub(crate) fn new(
        reader: LineReader,
        outcomes: mpsc::Sender<Outcome>,
        position: Arc<AtomicU64>,
    ) -> Self {
        Self {
            reader,
            outcomes,
            position,
            is_stopped: false,
            last_read: 0,
            last_line: 0,
            read_error: None,
        }
    }

    /// Reads nothing more from the source. The lines already read still come.
    pub(super) fn stop_reading(&mut self) {
        self.reader.stop_reading();
        self.is_stopped = true;
    }

    /// The next line. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Line, StopReason> {
        let next = if self.is_stopped {
            self.reader.next_already_read().await
        } else {
            self.reader.next().await
        };
        match (next, &self.read_error) {
            (Some(Ok(line)), _) => Ok(self.track(line)),
            (Some(Err(error)), _) => {
                let error = error.to_string();
                self.read_error = Some(error.clone());
                Err(StopReason::ReadError(error))
            }
            (None, Some(error)) => Err(StopReason::ReadError(error.clone())),
            (None, None) => Err(StopReason::EndOfInput),
        }
    }

    /// The next line, if it has been read already. [`next`](Self::next) returns the end of the input
    /// and errors.
    pub(super) fn try_next(&mut self) -> Option<Line> {
        match self.reader.try_next() {
            Ok(Ok(line)) => Some(self.track(line)),
            Ok(Err(error)) => {
                self.read_error = Some(error.to_string());
                None
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    fn track(&mut self, line: Line) -> Line {
        self.last_read = line.number;
        line
    }

    /// Reserves capacity for an outcome, before its line is put. A wait after an accepted put could
    /// be cancelled, and the ticket would be lost. Cancel safe.
    pub(super) async fn reserve_outcome(&self) -> Result<OwnedPermit<Outcome>, StopReason> {
        let permit = self.outcomes.clone().reserve_owned().await;
        permit.map_err(|_| {
            StopReason::FatalError("the task that records the outcomes has ended".to_owned())
        })
    }

    /// Records that the line was accepted or refused.
    pub(super) fn mark_done(&mut self, line: &Line) {
        self.last_line = line.number;
        self.position.store(line.end, Ordering::Relaxed);
    }

    pub(crate) fn last_read(&self) -> u64 {
        self.last_read
    }

    pub(crate) fn last_line(&self) -> u64 {
        self.last_line
    }

    pub(crate) fn read_error(&self) -> Option<&str> {
        self.read_error.as_deref()
    }
}
