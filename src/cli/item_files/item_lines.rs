//! Reads the lines of a compressed file.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::input::LineReader;

/// The lines of a gzip file. The end of the lines is the end of the file: a file that is cut off is an error.
pub(crate) fn item_lines(path: &Path) -> io::Result<LineReader> {
    let file = File::open(path)?;
    // An export has such a file for a partition without items.
    let is_empty = file.metadata()?.len() == 0;
    let file = BufReader::with_capacity(256 * 1024, file);
    let lines: Box<dyn Read + Send> =
        if is_empty { Box::new(io::empty()) } else { Box::new(MultiGzDecoder::new(file)) };
    LineReader::start(lines, 1)
}
