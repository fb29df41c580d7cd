//! [`Storage`]: the files of a journal. [`Directory`] keeps them on a disk. Tests use a simulated disk.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::JournalError;

/// The name of a segment is its number, in ten digits, and this ending.
const SEGMENT_ENDING: &str = ".journal";

const LOCK_FILE: &str = "lock";
const FAILED_FILE: &str = "failed.ndjson";

/// The files of one journal. One thread at a time writes to them.
pub(super) trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The numbers of the segments, ascending.
    fn segments(&self) -> io::Result<Vec<u64>>;

    /// Creates a segment that must not exist yet.
    fn create(&self, segment: u64) -> io::Result<Box<dyn SegmentFile>>;

    /// The whole content of a segment.
    fn read(&self, segment: u64) -> io::Result<Vec<u8>>;

    /// A part of a segment; with `None` up to its end.
    fn read_at(&self, segment: u64, offset: u64, bytes: Option<u64>) -> io::Result<Vec<u8>>;

    fn truncate(&self, segment: u64, bytes: u64) -> io::Result<()>;

    fn remove(&self, segment: u64) -> io::Result<()>;

    /// Makes the creation and removal of files durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// Keeps damaged bytes of a segment in a file of their own.
    fn keep_aside(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Appends lines to the file of failed events, durably.
    fn append_failed(&self, lines: &[u8]) -> io::Result<()>;

    /// Lets another process open the journal. Nothing must be written after this call.
    fn unlock(&self);

    /// The path that messages show for a segment.
    fn path(&self, segment: u64) -> PathBuf;
}

/// A segment that is being written.
pub(super) trait SegmentFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything appended durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Removes what was appended beyond this length.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
}

/// A directory on a disk. It is locked until [`unlock`](Storage::unlock), or until this value is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    lock: File,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that was just forked has it open until its exec. An error means that
        // it is already unlocked.
        let _ = self.lock.unlock();
    }
}

impl Directory {
    /// Creates the directory unless it exists, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |action| JournalError::io(action, path);
        create_directory(path).map_err(failed("create the directory"))?;
        let lock_path = path.join(LOCK_FILE);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock =
            private(&mut options).open(&lock_path).map_err(JournalError::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                let owner = owner.trim().parse().ok();
                return Err(JournalError::InUse { directory: path.to_owned(), owner });
            }
            Err(TryLockError::Error(error)) => {
                return Err(JournalError::io("lock", &lock_path)(error));
            }
        }
        let write_owner = |lock: &mut File| {
            lock.set_len(0)?;
            lock.seek(SeekFrom::Start(0))?;
            write!(lock, "{}", std::process::id())
        };
        write_owner(&mut lock).map_err(JournalError::io("write", &lock_path))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    fn segment_path(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:010}{SEGMENT_ENDING}"))
    }
}

impl Storage for Directory {
    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SEGMENT_ENDING));
            segments.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn create(&self, segment: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut options = File::options();
        options.append(true).create_new(true);
        let file = private(&mut options).open(self.segment_path(segment))?;
        Ok(Box::new(file))
    }

    fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        fs::read(self.segment_path(segment))
    }

    fn read_at(&self, segment: u64, offset: u64, bytes: Option<u64>) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.segment_path(segment))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut content = Vec::new();
        file.take(bytes.unwrap_or(u64::MAX)).read_to_end(&mut content)?;
        Ok(content)
    }

    fn truncate(&self, segment: u64, bytes: u64) -> io::Result<()> {
        let file = File::options().write(true).open(self.segment_path(segment))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        fs::remove_file(self.segment_path(segment))
    }

    fn sync_directory(&self) -> io::Result<()> {
        // Only Unix lets a directory be opened and synced.
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    fn keep_aside(&self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.join(format!("{segment:010}-{offset}.damaged"));
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        let mut file = private(&mut options).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn append_failed(&self, lines: &[u8]) -> io::Result<()> {
        let mut options = File::options();
        options.read(true).append(true).create(true);
        let mut file = private(&mut options).open(self.path.join(FAILED_FILE))?;
        // A write that failed, or whose process died, may have left a part of a line.
        if file.metadata()?.len() == 0 {
            // Perhaps it was created just now.
            self.sync_directory()?;
        } else {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        file.write_all(lines)?;
        file.sync_all()
    }

    fn unlock(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the journal stays locked until this process ends");
        }
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.segment_path(segment)
    }
}

impl SegmentFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Events may be confidential: only the user may read the directory.
fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// If the file is created, only the user may read it.
fn private(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_line_of_a_failed_event_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        directory.append_failed(b"1\n").unwrap();
        directory.append_failed(b"incompl").unwrap();
        directory.append_failed(b"2\n").unwrap();
        let lines = fs::read_to_string(folder.path().join(FAILED_FILE)).unwrap();
        assert_eq!(lines, "1\nincompl\n2\n");
    }
}
