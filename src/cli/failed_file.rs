//! The `--failed` file: it holds whole lines, those of one run, for nobody else to read.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file of one run, locked for as long as it runs.
#[derive(Debug)]
pub(crate) struct FailedFile {
    path: PathBuf,
    file: File,
    is_regular: bool,
    /// Bytes of whole lines.
    written: u64,
    /// Set when the file could not be written. It is not tried again.
    broken: Option<io::Error>,
}

impl FailedFile {
    /// A file that holds something is left alone, for it may be all that is left of an earlier
    /// run's events. So is one that another run writes to, and a symbolic link, behind which
    /// another file may be.
    pub(crate) fn create(path: &Path) -> Result<Self, String> {
        let refused = |reason: &str| format!("cannot write {}: {reason}", path.display());
        let failed = |error: io::Error| refused(&error.to_string());
        let (file, is_new) = open(path).map_err(|error| {
            if path.is_symlink() {
                refused("it is a symbolic link; name the file itself")
            } else {
                failed(error)
            }
        })?;
        let is_regular = file.metadata().map_err(failed)?.is_file();
        if is_regular {
            match file.try_lock() {
                Ok(()) => {}
                // Nobody else has a file that was not there. Another run may have one that was.
                Err(TryLockError::Error(_)) if is_new => {}
                Err(TryLockError::Error(error)) => {
                    return Err(refused(&format!(
                        "it exists, and cannot be locked: {error}; name a file that does not exist"
                    )));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(refused("another run is writing to it; name another file"));
                }
            }
            // Only now: the run that had the lock may have written.
            if file.metadata().map_err(failed)?.len() > 0 {
                return Err(format!(
                    "{} exists and is not empty; it may hold lines of an earlier run: move it away \
                     or name another file",
                    path.display()
                ));
            }
            keep_to_the_user(&file).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, is_regular, written: 0, broken: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line, and says whether it is there. Half a line is taken back.
    pub(crate) fn write(&mut self, line: &str) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let line = format!("{line}\n");
        match self.file.write_all(line.as_bytes()) {
            Ok(()) => self.written += line.len() as u64,
            Err(error) => {
                if self.is_regular {
                    // Where this fails as well, the error that is reported says that lines are
                    // missing.
                    let _ = self.file.set_len(self.written);
                }
                self.broken = Some(error);
            }
        }
        self.broken.is_none()
    }

    /// Waits until the file is on disk; an error means that it does not hold every line.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        // Pipes and devices have no such thing, and say that it is an error.
        if self.is_regular && self.broken.is_none() {
            self.broken = self.file.sync_all().err();
        }
        let Some(error) = &self.broken else { return Ok(()) };
        let path = self.path.display();
        Err(format!("{path} does not hold all lines that were not stored: {error}"))
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

/// The file, and whether it was not there before.
fn open(path: &Path) -> io::Result<(File, bool)> {
    match options().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((options().open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options.append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

#[cfg(not(unix))]
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    options
}

/// An empty file that was there may have been open to others.
#[cfg(unix)]
fn keep_to_the_user(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn keep_to_the_user(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_something_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failed.ndjson");
        drop(FailedFile::create(&path).unwrap());
        drop(FailedFile::create(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();
        let refused = FailedFile::create(&path).unwrap_err();
        assert!(refused.contains("exists and is not empty"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_file_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failed.ndjson");
        let first = FailedFile::create(&path).unwrap();
        let refused = FailedFile::create(&path).unwrap_err();
        assert!(refused.contains("another run is writing to it"), "{refused}");
        drop(first);
        FailedFile::create(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_for_its_user_alone_and_no_link() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("failed.ndjson"), folder.path().join("link"));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        symlink(&path, &link).unwrap();
        let refused = FailedFile::create(&link).unwrap_err();
        assert!(refused.contains("symbolic link"), "{refused}");
        drop(FailedFile::create(&path).unwrap());
        let new = folder.path().join("new.ndjson");
        drop(FailedFile::create(&new).unwrap());
        for path in [&path, &new] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
