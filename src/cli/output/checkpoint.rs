//! [`Checkpoint`]: how far a file was written.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};

/// How many of the bytes before a checkpoint are compared, to tell its file from another one.
const END_BYTES: u64 = 64 * 1024;

/// How far a file was written, so that another process can append to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) bytes: u64,
    /// Checksum of the last [`END_BYTES`] of them.
    crc32: u32,
}

impl Checkpoint {
    /// The checkpoint after these bytes of the file. Moves the file's cursor there.
    pub(super) fn of(file: &mut File, bytes: u64) -> io::Result<Self> {
        let start = file.seek(SeekFrom::Start(bytes.saturating_sub(END_BYTES)))?;
        let mut end = Vec::new();
        file.take(bytes - start).read_to_end(&mut end)?;
        if end.len() as u64 != bytes - start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { bytes, crc32: crc32fast::hash(&end) })
    }

    /// Whether this is the file of the checkpoint, judged by its length and the bytes before the checkpoint.
    pub(crate) fn is_of(&self, file: &mut File) -> io::Result<bool> {
        match Self::of(file, self.bytes) {
            Ok(checkpoint) => Ok(checkpoint == *self),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn checkpoint_tells_its_file_from_others() {
        let mut file = tempfile::tempfile().unwrap();
        let text = b"0123456789".repeat(20_000);
        file.write_all(&text).unwrap();
        let checkpoint = Checkpoint::of(&mut file, 150_000).unwrap();
        assert_eq!(file.stream_position().unwrap(), 150_000);
        assert!(checkpoint.is_of(&mut file).unwrap());
        file.set_len(150_000).unwrap();
        assert!(checkpoint.is_of(&mut file).unwrap());
        file.set_len(149_999).unwrap();
        assert!(!checkpoint.is_of(&mut file).unwrap());
        file.seek(SeekFrom::Start(149_999)).unwrap();
        file.write_all(b"x").unwrap();
        assert!(!checkpoint.is_of(&mut file).unwrap());
    }
}
