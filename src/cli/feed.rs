//! The lines as they come, and places for what becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::TryRecvError;

use crate::collecting::Outcome;
use crate::ending::End;
use crate::input::{Input, Line};

/// One input on its way to one collector of outcomes.
#[derive(Debug)]
pub(crate) struct Feed {
    input: Input,
    outcomes: mpsc::Sender<Outcome>,
    /// Bytes of the input of which something has become.
    position: Arc<AtomicU64>,
    is_stopped: bool,
    /// The last line that was taken from the input.
    last_read: u64,
    /// The last line that was accepted or refused.
    last_line: u64,
    /// Why the rest of the input is not known. It is kept, as the input says it once.
    read_error: Option<String>,
}

impl Feed {
    pub(crate) fn new(
        input: Input,
        outcomes: mpsc::Sender<Outcome>,
        position: Arc<AtomicU64>,
    ) -> Self {
        let (last_read, last_line) = (0, 0);
        Self {
            input,
            outcomes,
            position,
            is_stopped: false,
            last_read,
            last_line,
            read_error: None,
        }
    }

    /// Has nothing more read from the source. What was read of it comes yet.
    pub(crate) fn stop_reading(&mut self) {
        self.input.stop_reading();
        self.is_stopped = true;
    }

    /// The next line. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Line, End> {
        let next =
            if self.is_stopped { self.input.next_left().await } else { self.input.next().await };
        match (next, &self.read_error) {
            (Some(Ok(line)), _) => Ok(self.take(line)),
            (Some(Err(error)), _) => {
                let error = error.to_string();
                self.read_error = Some(error.clone());
                Err(End::ReadError(error))
            }
            (None, Some(error)) => Err(End::ReadError(error.clone())),
            (None, None) => Err(End::AllRead),
        }
    }

    /// The next line if it is here already. Whatever else there is to say, [`next`](Self::next)
    /// says.
    pub(crate) fn next_here(&mut self) -> Option<Line> {
        match self.input.try_next() {
            Ok(Ok(line)) => Some(self.take(line)),
            Ok(Err(error)) => {
                self.read_error = Some(error.to_string());
                None
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    fn take(&mut self, line: Line) -> Line {
        self.last_read = line.number;
        line
    }

    /// A place for an outcome. It is taken before anything is put: behind an accepted put nothing
    /// may wait, or the answer could be dropped there. Cancel safe.
    pub(crate) async fn place(&self) -> Result<OwnedPermit<Outcome>, End> {
        let place = self.outcomes.clone().reserve_owned().await;
        place.map_err(|_| End::Refused("what becomes of the lines is not recorded".to_owned()))
    }

    /// The line was accepted or refused.
    pub(crate) fn done_with(&mut self, line: &Line) {
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
