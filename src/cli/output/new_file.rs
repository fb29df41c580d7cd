//! A file that has its name only when it is complete, and that replaces no other.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::checkpoint::Checkpoint;

/// A new file, readable by its user only. Until it is finished it has `.partial` at the end of its name.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    writer: BufWriter<File>,
}

impl NewFile {
    /// Creates the file under its partial name.
    ///
    /// # Errors
    ///
    /// If there is a file of either name: it may hold the only copy of something.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let partial = partial_of(path)?;
        let file =
            options().create_new(true).open(&partial).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => left_behind(&partial),
                _ => format!("cannot write {}: {error}", partial.display()),
            })?;
        Ok(Self { path: path.to_owned(), partial, writer: BufWriter::new(file) })
    }

    /// Opens the file under its partial name, to append to what another process has written up to a checkpoint. What
    /// follows the checkpoint is discarded. Without a checkpoint it is a new file. It is locked against other processes,
    /// where the file system has locks.
    ///
    /// # Errors
    ///
    /// The partial file is not that of the checkpoint, or there is a complete one: they may hold the only copy of
    /// something.
    pub(crate) fn open_after(path: &Path, checkpoint: Option<&Checkpoint>) -> Result<Self, String> {
        let partial = partial_of(path)?;
        let shown = partial.display();
        let failed = |error: io::Error| format!("cannot write {shown}: {error}");
        let is_new = checkpoint.is_none_or(|checkpoint| checkpoint.bytes == 0);
        let mut file =
            options().create(is_new).open(&partial).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound if !is_new => format!("{shown} is missing"),
                _ => failed(error),
            })?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another process is writing {shown}: wait until it has ended"));
            }
            // Not every file system has locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        match checkpoint {
            None if file.metadata().map_err(failed)?.len() > 0 => {
                return Err(left_behind(&partial));
            }
            None => {}
            Some(checkpoint) => {
                if !checkpoint.is_of(&mut file).map_err(failed)? {
                    return Err(format!(
                        "{shown} does not begin with the {} bytes that were written before",
                        checkpoint.bytes
                    ));
                }
                file.set_len(checkpoint.bytes).map_err(failed)?;
            }
        }
        Ok(Self { path: path.to_owned(), partial, writer: BufWriter::new(file) })
    }

    /// Waits until the `bytes` that were written are on disk.
    pub(crate) fn checkpoint(&mut self, bytes: u64) -> io::Result<Checkpoint> {
        self.writer.flush()?;
        self.writer.get_ref().sync_data()?;
        Checkpoint::of(self.writer.get_mut(), bytes)
    }

    /// The file while it is not complete.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }

    /// Waits until the file is on disk, gives it its name, and waits until that is on disk, too.
    ///
    /// # Errors
    ///
    /// If that fails, or there is a file of this name by now. The partial file stays.
    pub(crate) fn finish(self) -> Result<(), String> {
        let Self { path, partial, writer } = self;
        let failed = |error: io::Error| format!("cannot write {}: {error}", partial.display());
        let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        let partial = TempPath::try_from_path(&partial).map_err(failed)?;
        partial.persist_noclobber(&path).map_err(|error| {
            let kept = error.path.keep().unwrap_or_else(|_| path.clone());
            format!(
                "{} cannot be named {}, and has everything: {}",
                kept.display(),
                path.display(),
                error.error
            )
        })?;
        sync_directory(path.parent().unwrap_or_else(|| Path::new(""))).map_err(|error| {
            format!("cannot write to the directory of {}: {error}", path.display())
        })
    }
}

/// The name of a file until it is complete. Refuses a file that is complete already.
fn partial_of(path: &Path) -> Result<PathBuf, String> {
    if path.symlink_metadata().is_ok() {
        return Err(format!("{} exists: move it away, or name another file", path.display()));
    }
    Ok(partial_name(path))
}

/// The name of a file until it is complete.
pub(crate) fn partial_name(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

fn left_behind(partial: &Path) -> String {
    format!(
        "{} exists, of a run that did not end or is still going on: move it away, or name another file",
        partial.display()
    )
}

/// Waits until the names of the files in a directory are on disk.
#[cfg(unix)]
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    // The parent of a name alone is empty.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened as a file.
#[cfg(not(unix))]
pub(crate) fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Options for a file that only its user can access.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_its_name_only_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day.ndjson");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"{}\n").unwrap();
        assert!(!path.exists() && file.partial().exists());
        let refused = NewFile::create(&path).unwrap_err();
        assert!(refused.contains("day.ndjson.partial exists"), "{refused}");
        file.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn existing_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day.ndjson");
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        std::fs::write(&path, "precious").unwrap();
        let refused = file.finish().unwrap_err();
        assert!(refused.contains("has everything"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let partial = folder.path().join("day.ndjson.partial");
        assert_eq!(std::fs::read_to_string(partial).unwrap(), "new");
        let refused = NewFile::create(&path).unwrap_err();
        assert!(refused.contains("day.ndjson exists"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn file_is_for_its_user_only() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day.ndjson");
        NewFile::create(&path).unwrap().finish().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
