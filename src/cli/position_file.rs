//! [`PositionFile`]: the file with the position from which a stopped command resumes.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::output::new_file::{options, sync_directory};

/// A file with the position of one command, as JSON. It is replaced in one step, so that a process that is killed leaves
/// the old position or the new one.
#[derive(Debug)]
pub(crate) struct PositionFile {
    path: PathBuf,
    /// What the file is, in words. The file contains them.
    kind: &'static str,
    /// Version of the file's format. Files of other versions are refused.
    version: u32,
}

/// The fields that every position file has.
#[derive(Debug, Deserialize)]
struct Header {
    kind: String,
    version: u32,
}

#[derive(Serialize)]
struct Content<'a, T> {
    kind: &'a str,
    version: u32,
    #[serde(flatten)]
    position: &'a T,
}

impl PositionFile {
    pub(crate) fn new(path: PathBuf, kind: &'static str, version: u32) -> Self {
        Self { path, kind, version }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The position that was saved; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not a position of this kind, or has another version.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, String> {
        let shown = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {shown}: {error}")),
        };
        let header = serde_json::from_slice::<Header>(&text).ok();
        let Some(header) = header.filter(|header| header.kind == self.kind) else {
            return Err(format!(
                "{shown} is not {} that this program has saved: name another file, which need not exist",
                self.kind
            ));
        };
        if header.version != self.version {
            return Err(format!(
                "{shown} is of version {}, and this program knows version {} only: use the one that saved it",
                header.version, self.version
            ));
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("{shown} is damaged: {error}; it cannot be gone on from"))
    }

    /// Saves the position, and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// The file cannot be written. It has the old position then, or the new one.
    pub(crate) fn save<T: Serialize>(&self, position: &T) -> Result<(), String> {
        let content = Content { kind: self.kind, version: self.version, position };
        self.replace(&content).map_err(|error| {
            format!("cannot save the position in {}: {error}", self.path.display())
        })
    }

    fn replace(&self, content: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(content)?;
        text.push(b'\n');
        // A process that is killed may leave this file. The next save overwrites it.
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let mut file = options().create(true).truncate(true).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        sync_directory(self.path.parent().unwrap_or_else(|| Path::new("")))
    }

    /// Removes the file, because the command is complete.
    pub(crate) fn remove(&self) -> Result<(), String> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "the position of a test";

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Position {
        line: u64,
    }

    fn file(folder: &tempfile::TempDir, version: u32) -> PositionFile {
        PositionFile::new(folder.path().join("position.json"), KIND, version)
    }

    #[test]
    fn saved_position_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder, 1);
        assert_eq!(file.read::<Position>(), Ok(None));
        for line in [1, 20] {
            file.save(&Position { line }).unwrap();
            assert_eq!(file.read(), Ok(Some(Position { line })));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.read::<Position>(), Ok(None));
    }

    #[test]
    fn file_of_another_kind_or_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        file(&folder, 2).save(&Position { line: 1 }).unwrap();
        let refused = file(&folder, 1).read::<Position>().unwrap_err();
        assert!(refused.contains("is of version 2"), "{refused}");
        let header = format!(r#"{{"kind":"{KIND}","version":1"#);
        for (text, message) in [
            (String::new(), "is not the position of a test"),
            ("{}".to_owned(), "is not the position of a test"),
            (r#"{"kind":"another","version":1,"line":1}"#.to_owned(), "is not the position of a"),
            (format!("{header}}}"), "is damaged: missing field `line`"),
            (format!(r#"{header},"line":-1}}"#), "is damaged: invalid value"),
        ] {
            fs::write(folder.path().join("position.json"), text).unwrap();
            let refused = file(&folder, 1).read::<Position>().unwrap_err();
            assert!(refused.contains(message), "{refused}");
        }
    }
}
