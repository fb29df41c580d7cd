//! A file that has its name only when it is complete, and that replaces no other.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

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
        if path.symlink_metadata().is_ok() {
            return Err(format!("{} exists: move it away, or name another file", path.display()));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = open_options().open(&partial).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{} exists, of a run that did not end or is still going on: move it away, or name another file",
                partial.display()
            ),
            _ => format!("cannot write {}: {error}", partial.display()),
        })?;
        Ok(Self { path: path.to_owned(), partial, writer: BufWriter::new(file) })
    }

    /// The file while it is not complete.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }

    /// Waits until the file is on disk, and gives it its name.
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
        })
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
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
