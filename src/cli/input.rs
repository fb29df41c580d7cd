//! Lines of a file or of standard input, whatever is in them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};

/// Longest line that is kept whole, in bytes. Far above what an event may have, so that a line
/// that is too large for an event can still be handed back.
pub(crate) const LONGEST_KEPT: usize = 16 * 1024 * 1024;

/// Lines read ahead of the one that is being put: few, as each may be of the longest.
const READ_AHEAD: usize = 16;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where the lines come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Stdin,
    File(PathBuf),
}

impl Source {
    pub(crate) fn new(name: Option<PathBuf>) -> Self {
        match name {
            Some(path) if path != Path::new("-") => Self::File(path),
            _ => Self::Stdin,
        }
    }

    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdin) && io::stdin().is_terminal()
    }

    /// Whether it can be read once more.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(self, Self::File(path) if path.is_file())
    }

    /// Opens the source, and says how many bytes it has where that is known.
    pub(crate) fn open(&self) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
        match self {
            Self::Stdin => Ok((Box::new(io::stdin()), None)),
            Self::File(path) => {
                let file = File::open(path)?;
                let metadata = file.metadata()?;
                if metadata.is_dir() {
                    return Err(io::Error::other("it is a directory, not a file of events"));
                }
                let length = metadata.is_file().then_some(metadata.len());
                Ok((Box::new(file), length))
            }
        }
    }
}

/// One line that is not blank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1, blank lines included.
    pub(crate) number: u64,
    /// Without its line ending. Cut off after [`LONGEST_KEPT`] bytes.
    pub(crate) text: Vec<u8>,
    /// Length before it was cut off.
    pub(crate) length: u64,
    /// Where the line ends in the input, in bytes.
    pub(crate) end: u64,
}

impl Line {
    pub(crate) fn is_whole(&self) -> bool {
        self.text.len() as u64 == self.length
    }
}

/// Lines that a thread of its own reads: a read of a terminal or a pipe can block for ever, and no
/// task can be called back from it. The thread ends with the input, at a read error, or when
/// nobody takes its lines any more.
#[derive(Debug)]
pub(crate) struct Input {
    lines: mpsc::Receiver<io::Result<Line>>,
    gate: Arc<Gate>,
    is_waiting: watch::Receiver<bool>,
}

impl Input {
    /// Begins to read. Lines before `first_line` are left out.
    pub(crate) fn read(input: Box<dyn Read + Send>, first_line: u64) -> io::Result<Self> {
        let (sender, lines) = mpsc::channel(READ_AHEAD);
        let (is_waiting, waits) = watch::channel(false);
        let gate = Arc::new(Gate { is_closed: AtomicBool::new(false), is_waiting });
        let shared = Arc::clone(&gate);
        thread::Builder::new().name("input".to_owned()).spawn(move || {
            let input = BufReader::with_capacity(256 * 1024, input);
            let mut lines = Lines::new(input, first_line, shared);
            while let Some(line) = lines.next().transpose() {
                let is_last = line.is_err();
                if sender.blocking_send(line).is_err() || is_last {
                    break;
                }
            }
        })?;
        Ok(Self { lines, gate, is_waiting: waits })
    }

    /// The next line, or `None` at the end of the input. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Line>> {
        self.lines.recv().await
    }

    /// The next line if it is here already.
    pub(crate) fn try_next(&mut self) -> Result<io::Result<Line>, mpsc::error::TryRecvError> {
        self.lines.try_recv()
    }

    /// Has nothing more read from the source. What was read of it comes yet: up to the end of the
    /// last whole line.
    pub(crate) fn stop_reading(&self) {
        self.gate.is_closed.store(true, Ordering::Relaxed);
    }

    /// The next line that was read before [`stop_reading`](Self::stop_reading), or `None` after the
    /// last. Cancel safe.
    pub(crate) async fn next_left(&mut self) -> Option<io::Result<Line>> {
        tokio::select! {
            biased;
            line = self.lines.recv() => line,
            // The thread is in a read that may never end: nothing comes after what is here now.
            _ = self.is_waiting.wait_for(|waits| *waits) => self.lines.try_recv().ok(),
        }
    }
}

/// What the thread that reads and its reader tell each other.
#[derive(Debug)]
struct Gate {
    /// Nothing more is to be read.
    is_closed: AtomicBool,
    /// Whether the source is being read at this moment.
    is_waiting: watch::Sender<bool>,
}

/// Runs what may block for ever, and what no task could therefore be made to wait for: a program's
/// end waits for tokio's blocking tasks, but not for this thread.
pub(crate) async fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        // Whoever waited may have gone.
        let _ = done.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("a thread panicked"))
}

#[derive(Debug)]
struct Lines<R> {
    input: BufReader<R>,
    first_line: u64,
    number: u64,
    position: u64,
    gate: Arc<Gate>,
}

impl<R: Read> Lines<R> {
    fn new(input: BufReader<R>, first_line: u64, gate: Arc<Gate>) -> Self {
        Self { input, first_line, number: 0, position: 0, gate }
    }

    /// The next line that is not blank, or `None` at the end.
    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some((mut text, mut length)) = self.read_line()? else {
                return Ok(None);
            };
            self.number += 1;
            if self.number == 1 && text.starts_with(BYTE_ORDER_MARK) {
                text.drain(..BYTE_ORDER_MARK.len());
                length -= BYTE_ORDER_MARK.len() as u64;
            }
            let is_blank = text.iter().all(u8::is_ascii_whitespace);
            if !is_blank && self.number >= self.first_line {
                return Ok(Some(Line { number: self.number, text, length, end: self.position }));
            }
        }
    }

    /// One line without its `\n` or `\r\n`, and its length before it was cut off.
    fn read_line(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
        let mut text = Vec::new();
        let mut length = 0;
        let mut is_empty = true;
        if self.input.buffer().is_empty() && self.gate.is_closed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        loop {
            let reads = self.input.buffer().is_empty();
            if reads {
                self.gate.is_waiting.send_replace(true);
            }
            let filled = self.input.fill_buf();
            if reads {
                self.gate.is_waiting.send_replace(false);
            }
            let chunk = match filled {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                break;
            }
            is_empty = false;
            let (part, consumed, ends) = match chunk.iter().position(|&byte| byte == b'\n') {
                Some(end) => (chunk.get(..end).unwrap_or_default(), end + 1, true),
                None => (chunk, chunk.len(), false),
            };
            let room = LONGEST_KEPT.saturating_sub(text.len());
            text.extend(part.iter().take(room));
            length += part.len() as u64;
            self.input.consume(consumed);
            self.position += consumed as u64;
            if ends {
                break;
            }
        }
        if is_empty {
            return Ok(None);
        }
        if length == text.len() as u64 && text.last() == Some(&b'\r') {
            text.pop();
            length -= 1;
        }
        Ok(Some((text, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate> {
        Arc::new(Gate { is_closed: AtomicBool::new(false), is_waiting: watch::channel(false).0 })
    }

    fn read(input: &[u8]) -> Vec<(u64, Vec<u8>)> {
        // A buffer of three bytes, so that lines lie across its ends.
        let mut lines = Lines::new(BufReader::with_capacity(3, input), 0, gate());
        let mut read = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            assert!(line.is_whole());
            read.push((line.number, line.text));
        }
        assert_eq!(lines.position, input.len() as u64);
        read
    }

    #[test]
    fn lines_end_with_either_line_ending_or_with_the_input() {
        let expected = [(1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"three".to_vec())];
        assert_eq!(read(b"one\ntwo\nthree"), expected);
        assert_eq!(read(b"one\r\ntwo\r\nthree\r\n"), expected);
    }

    #[test]
    fn blank_lines_are_counted_and_skipped() {
        assert_eq!(read(b"\n  \none\n\r\n\t\ntwo"), [(3, b"one".to_vec()), (6, b"two".to_vec())]);
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\n"), []);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(
            read(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}"),
            [(1, b"{}".to_vec()), (2, b"\xef\xbb\xbf{}".to_vec())]
        );
    }

    #[test]
    fn lines_before_the_first_are_left_out_and_counted() {
        let input = &b"one\ntwo\n\nfour\nfive"[..];
        let mut lines = Lines::new(BufReader::new(input), 3, gate());
        let numbers: Vec<u64> =
            std::iter::from_fn(|| lines.next().unwrap()).map(|line| line.number).collect();
        assert_eq!(numbers, [4, 5]);
    }

    #[tokio::test]
    async fn what_was_read_before_the_stop_comes_yet_and_nothing_else() {
        let (mut writer, reader) = {
            let (reader, writer) = io::pipe().unwrap();
            (writer, reader)
        };
        let mut input = Input::read(Box::new(reader), 0).unwrap();
        let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
        io::Write::write_all(&mut writer, lines.as_bytes()).unwrap();
        assert_eq!(input.next().await.unwrap().unwrap().text, b"0");
        input.stop_reading();
        let mut last = 0;
        // The pipe stays open: the end of the input is not what ends it.
        while let Some(line) = input.next_left().await {
            last = line.unwrap().number;
        }
        assert_eq!(last, 100);
        drop(writer);
    }

    #[test]
    fn bytes_that_are_no_text_come_through_as_they_are() {
        assert_eq!(read(b"\xff\xfe\n\0"), [(1, b"\xff\xfe".to_vec()), (2, b"\0".to_vec())]);
    }

    #[test]
    fn a_line_beyond_all_measure_is_cut_off_and_says_so() {
        let length = LONGEST_KEPT as u64 + 5;
        let input = io::repeat(b'x').take(length).chain(&b"\nnext"[..]);
        let mut lines = Lines::new(BufReader::new(input), 0, gate());
        let long = lines.next().unwrap().unwrap();
        assert_eq!((long.text.len(), long.length), (LONGEST_KEPT, length));
        assert!(!long.is_whole());
        assert_eq!(lines.next().unwrap().unwrap().text, b"next");
    }
}
