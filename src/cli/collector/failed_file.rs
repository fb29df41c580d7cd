//! The `--failed` file. It has whole lines of one run, and only its user may read it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file of one run, locked until the run ends.
#[derive(Debug)]
pub(super) struct FailedFile {
    path: PathBuf,
    file: File,
    is_regular: bool,
    /// Bytes of the whole lines.
    written: u64,
    /// The first failed write. Nothing is written after it.
    write_error: Option<io::Error>,
}

impl FailedFile {
    /// Creates the file, or opens an empty one.
    ///
    /// # Errors
    ///
    /// The file is not empty: it may hold the only copy of an earlier run's events. Or another
    /// run is writing to it. Or it is a symbolic link, which may lead to another file.
    pub(super) fn create(path: &Path) -> Result<Self, String> {
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
                // A new file needs no lock, as no other run can have it open. An existing file
                // may be in use.
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
            // The length is read under the lock, because the run that had the lock may have
            // written.
            if file.metadata().map_err(failed)?.len() > 0 {
                return Err(format!(
                    "{} exists and is not empty; it may hold lines of an earlier run: move it away \
                     or name another file",
                    path.display()
                ));
            }
            restrict_to_user(&file).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), file, is_regular, written: 0, write_error: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line, and returns whether the file holds it. Part of a line is removed again.
    pub(super) fn write(&mut self, line: &str) -> bool {
        if self.write_error.is_some() {
            return false;
        }
        let line = format!("{line}\n");
        match self.file.write_all(line.as_bytes()) {
            Ok(()) => self.written += line.len() as u64,
            Err(error) => {
                if self.is_regular {
                    // If this fails too, the reported error says that lines are missing.
                    let _ = self.file.set_len(self.written);
                }
                self.write_error = Some(error);
            }
        }
        self.write_error.is_none()
    }

    /// Waits until the file is on disk. An error means that it does not hold every line.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        // Pipes and devices return an error.
        if self.is_regular && self.write_error.is_none() {
            self.write_error = self.file.sync_all().err();
        }
        let Some(error) = &self.write_error else { return Ok(()) };
        let path = self.path.display();
        Err(format!("{path} does not hold all lines that were not stored: {error}"))
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.write_error.is_some()
    }
}

/// Opens the file, and returns whether it is new.
fn open(path: &Path) -> io::Result<(File, bool)> {
    match open_options().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((open_options().open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn open_options() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = OpenOptions::new();
    options.append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

#[cfg(not(unix))]
fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true);
    options
}

/// Takes the permissions of other users away: an existing file may have granted them.
#[cfg(unix)]
fn restrict_to_user(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn restrict_to_user(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_not_empty_is_left_unchanged() {
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
    fn file_in_use_by_another_run_is_refused() {
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
    fn file_is_private_and_not_a_symbolic_link() {
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
