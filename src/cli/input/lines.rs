//! Splits an input into lines. The input may hold any bytes.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Maximum length of a line that is kept whole. It is far above the limit of an event, so that a
/// line that is too large for an event is still in the `--failed` file.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line that is not blank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1, blank lines included.
    pub(crate) number: u64,
    /// Without its line break, truncated to [`MAX_LINE_BYTES`].
    pub(crate) text: Vec<u8>,
    /// Length in bytes before the truncation.
    pub(crate) length: u64,
    /// Where the line ends in the input, in bytes.
    pub(crate) end: u64,
}

impl Line {
    pub(crate) fn is_whole(&self) -> bool {
        self.text.len() as u64 == self.length
    }
}

/// The state that the reading thread shares with the task that takes its lines.
#[derive(Debug)]
pub(super) struct ReadState {
    is_stopped: AtomicBool,
    /// Whether the thread is reading from the source, which may block for ever.
    is_reading: watch::Sender<bool>,
}

impl ReadState {
    pub(super) fn new() -> (Arc<Self>, watch::Receiver<bool>) {
        let (is_reading, receiver) = watch::channel(false);
        (Arc::new(Self { is_stopped: AtomicBool::new(false), is_reading }), receiver)
    }

    /// Ends the lines before the next read of the source.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// The lines of one input from `first_line` on.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: BufReader<R>,
    first_line: u64,
    number: u64,
    position: u64,
    state: Arc<ReadState>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: BufReader<R>, first_line: u64, state: Arc<ReadState>) -> Self {
        Self { input, first_line, number: 0, position: 0, state }
    }

    /// The next line that is not blank, or `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
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

    /// One line without its `\n` or `\r\n`, and its length before the truncation.
    fn read_line(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
        let mut text = Vec::new();
        let mut length = 0;
        let mut is_empty = true;
        if self.input.buffer().is_empty() && self.state.is_stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        loop {
            let reads_source = self.input.buffer().is_empty();
            if reads_source {
                self.state.is_reading.send_replace(true);
            }
            let filled = self.input.fill_buf();
            if reads_source {
                self.state.is_reading.send_replace(false);
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
            let capacity = MAX_LINE_BYTES.saturating_sub(text.len());
            text.extend(part.iter().take(capacity));
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

    fn state() -> Arc<ReadState> {
        ReadState::new().0
    }

    fn read(input: &[u8]) -> Vec<(u64, Vec<u8>)> {
        // A buffer of three bytes, so that lines lie across its ends.
        let mut lines = Lines::new(BufReader::with_capacity(3, input), 0, state());
        let mut read = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            assert!(line.is_whole());
            read.push((line.number, line.text));
        }
        assert_eq!(lines.position, input.len() as u64);
        read
    }

    #[test]
    fn line_ends_at_either_line_break_or_the_end() {
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
    fn byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(
            read(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}"),
            [(1, b"{}".to_vec()), (2, b"\xef\xbb\xbf{}".to_vec())]
        );
    }

    #[test]
    fn lines_before_the_first_are_counted_and_skipped() {
        let input = &b"one\ntwo\n\nfour\nfive"[..];
        let mut lines = Lines::new(BufReader::new(input), 3, state());
        let numbers: Vec<u64> =
            std::iter::from_fn(|| lines.next().unwrap()).map(|line| line.number).collect();
        assert_eq!(numbers, [4, 5]);
    }

    #[test]
    fn bytes_that_are_not_text_are_unchanged() {
        assert_eq!(read(b"\xff\xfe\n\0"), [(1, b"\xff\xfe".to_vec()), (2, b"\0".to_vec())]);
    }

    #[test]
    fn line_over_the_maximum_is_truncated_and_marked() {
        let length = MAX_LINE_BYTES as u64 + 5;
        let input = io::repeat(b'x').take(length).chain(&b"\nnext"[..]);
        let mut lines = Lines::new(BufReader::new(input), 0, state());
        let long = lines.next().unwrap().unwrap();
        assert_eq!((long.text.len(), long.length), (MAX_LINE_BYTES, length));
        assert!(!long.is_whole());
        assert_eq!(lines.next().unwrap().unwrap().text, b"next");
    }
}
