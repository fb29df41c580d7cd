//! [`Run`]: sorted records in a temporary file.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::record::Record;

/// Buffer of a run while it is written or read.
pub(super) const BUFFER_BYTES: usize = 64 * 1024;

/// Sorted records in a temporary file. The file has no name on Unix, and is removed with the run.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    records: u64,
    /// How often its records were merged.
    pub(super) level: u32,
}

/// Which step with a file failed.
#[derive(Debug)]
pub(super) struct RunError {
    pub(super) action: &'static str,
    pub(super) cause: io::Error,
}

impl RunError {
    pub(super) fn read(cause: io::Error) -> Self {
        Self { action: "read", cause }
    }

    fn written(cause: io::Error) -> Self {
        Self { action: "written", cause }
    }
}

impl Run {
    /// Writes records that are sorted.
    pub(super) fn write(
        directory: &Path,
        level: u32,
        records: impl IntoIterator<Item = Result<Record, RunError>>,
    ) -> Result<Self, RunError> {
        // On Unix it has mode 0600 and is unlinked; on Windows it is deleted when it is closed.
        let file = tempfile::tempfile_in(directory)
            .map_err(|cause| RunError { action: "created", cause })?;
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut count = 0;
        for record in records {
            write_record(&mut writer, record?.bytes()).map_err(RunError::written)?;
            count += 1;
        }
        let mut file =
            writer.into_inner().map_err(|error| RunError::written(error.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(RunError::written)?;
        Ok(Self { file, records: count, level })
    }

    pub(super) fn read(self) -> RunReader {
        let input = BufReader::with_capacity(BUFFER_BYTES, self.file);
        RunReader { input, left: self.records }
    }
}

fn write_record(writer: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(bytes)
}

/// The records of a run, in their order.
#[derive(Debug)]
pub(super) struct RunReader {
    input: BufReader<File>,
    left: u64,
}

impl Iterator for RunReader {
    type Item = Result<Record, RunError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(read_record(&mut self.input).map_err(RunError::read))
    }
}

fn read_record(input: &mut impl Read) -> io::Result<Record> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut bytes)?;
    Ok(Record::from_bytes(bytes.into()))
}
