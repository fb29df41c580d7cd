//! The thread that reads lines.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, watch};

use super::lines::{Line, Lines, ReadState};

/// Lines read ahead of the one that is being put. They are few, because each may have the maximum
/// length.
const LINES_READ_AHEAD: usize = 16;

/// Receives lines from a thread of its own, because a read of a terminal or a pipe can block for
/// ever and cannot be cancelled. The thread ends at the end of the input, at a read error, or when
/// this receiver is dropped.
#[derive(Debug)]
pub(crate) struct LineReader {
    lines: mpsc::Receiver<io::Result<Line>>,
    state: Arc<ReadState>,
    is_reading: watch::Receiver<bool>,
}

impl LineReader {
    /// Starts the thread. Lines before `first_line` are skipped.
    pub(crate) fn start(input: Box<dyn Read + Send>, first_line: u64) -> io::Result<Self> {
        let (sender, lines) = mpsc::channel(LINES_READ_AHEAD);
        let (state, is_reading) = ReadState::new();
        let thread_state = Arc::clone(&state);
        thread::Builder::new().name("input".to_owned()).spawn(move || {
            let input = BufReader::with_capacity(256 * 1024, input);
            let mut lines = Lines::new(input, first_line, thread_state);
            while let Some(line) = lines.next().transpose() {
                let is_last = line.is_err();
                if sender.blocking_send(line).is_err() || is_last {
                    break;
                }
            }
        })?;
        Ok(Self { lines, state, is_reading })
    }

    /// The next line, or `None` at the end of the input. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Line>> {
        self.lines.recv().await
    }

    /// The next line, if it has been read already.
    pub(crate) fn try_next(&mut self) -> Result<io::Result<Line>, mpsc::error::TryRecvError> {
        self.lines.try_recv()
    }

    /// Reads nothing more from the source. The lines that were read before are still returned, up
    /// to the last whole one.
    pub(crate) fn stop_reading(&self) {
        self.state.stop();
    }

    /// The next line that was read before [`stop_reading`](Self::stop_reading), or `None` after the
    /// last. Cancel safe.
    pub(crate) async fn next_already_read(&mut self) -> Option<io::Result<Line>> {
        tokio::select! {
            biased;
            line = self.lines.recv() => line,
            // The thread is in a read that may never end, so no line comes after those in the
            // channel.
            _ = self.is_reading.wait_for(|&is_reading| is_reading) => self.lines.try_recv().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopped_reader_returns_the_lines_already_read() {
        let (mut writer, reader) = {
            let (reader, writer) = io::pipe().unwrap();
            (writer, reader)
        };
        let mut input = LineReader::start(Box::new(reader), 0).unwrap();
        let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
        io::Write::write_all(&mut writer, lines.as_bytes()).unwrap();
        assert_eq!(input.next().await.unwrap().unwrap().text, b"0");
        input.stop_reading();
        let mut last = 0;
        // The pipe stays open: the end of the input is not what ends the loop.
        while let Some(line) = input.next_already_read().await {
            last = line.unwrap().number;
        }
        assert_eq!(last, 100);
        drop(writer);
    }
}
