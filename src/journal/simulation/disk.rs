//! [`SimulatedDisk`]: a disk that fails and loses power.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::event::key::EventKey;
use crate::journal::storage::{SegmentFile, Storage};

/// A file: its synced content, which a power cut leaves, and its whole content.
#[derive(Debug, Clone, Default)]
pub(super) struct SimulatedFile {
    synced: Vec<u8>,
    pub(super) content: Vec<u8>,
    /// Whether the directory entry survives a power cut.
    is_entry_synced: bool,
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<u64, SimulatedFile>,
    /// Files whose removal a power cut may undo.
    removed: BTreeMap<u64, SimulatedFile>,
    random: StdRng,
    /// Probability that an operation fails.
    fault_rate: f64,
    failed_lines: Vec<u8>,
    kept_aside: usize,
}

#[derive(Debug, Clone)]
pub(super) struct SimulatedDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct OpenFile {
    disk: SimulatedDisk,
    segment: u64,
}

fn no_space() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64, fault_rate: f64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            fault_rate,
            failed_lines: Vec::new(),
            kept_aside: 0,
        })))
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// Returns the rate before.
    pub(super) fn set_fault_rate(&self, fault_rate: f64) -> f64 {
        self.with(|disk| std::mem::replace(&mut disk.fault_rate, fault_rate))
    }

    /// Whether the file of failed events has a line with this key.
    pub(super) fn has_line_of(&self, key: &EventKey) -> bool {
        self.with(|disk| {
            disk.failed_lines
                .split(|byte| *byte == b'\n')
                .any(|line| line == key.as_str().as_bytes())
        })
    }

    /// The power fails. Of the bytes that were not synced, some sectors survive and others do
    /// not. The same holds for the removals of files.
    pub(super) fn lose_power(&self) {
        self.with(|disk| {
            let Disk { files, removed, random, .. } = disk;
            files.retain(|_, file| file.is_entry_synced || random.random_bool(0.5));
            for (segment, file) in std::mem::take(removed) {
                if random.random_bool(0.5) {
                    files.entry(segment).or_insert(file);
                }
            }
            for file in files.values_mut() {
                let mut survived = file.content.clone();
                let unsynced = file.synced.len()..survived.len();
                if random.random_bool(0.5) {
                    let length = random.random_range(unsynced.start..=unsynced.end);
                    survived.truncate(length);
                }
                // Sectors of 64 bytes, so that small records are torn, too.
                for sector in (unsynced.start..survived.len()).step_by(64) {
                    if random.random_bool(0.2) {
                        let end = (sector + 64).min(survived.len());
                        survived[sector..end].fill(0);
                    }
                }
                file.content.clone_from(&survived);
                file.synced = survived;
                file.is_entry_synced = true;
            }
        });
    }

    /// The process dies. The system still writes everything that it was given.
    pub(super) fn lose_process(&self) {
        self.with(|disk| {
            for file in disk.files.values_mut() {
                file.synced.clone_from(&file.content);
                file.is_entry_synced = true;
            }
        });
    }
}

impl Disk {
    fn fails(&mut self) -> bool {
        self.random.random_bool(self.fault_rate)
    }
}

impl Storage for SimulatedDisk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self.with(|disk| disk.files.keys().copied().collect()))
    }

    fn create(&self, segment: u64) -> io::Result<Box<dyn SegmentFile>> {
        self.with(|disk| {
            if disk.fails() {
                return Err(no_space());
            }
            let is_new = disk.files.insert(segment, SimulatedFile::default()).is_none();
            assert!(is_new, "segment {segment} is created twice");
            Ok(())
        })?;
        Ok(Box::new(OpenFile { disk: self.clone(), segment }))
    }

    fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        Ok(self.with(|disk| disk.files[&segment].content.clone()))
    }

    fn read_at(&self, segment: u64, offset: u64, bytes: Option<u64>) -> io::Result<Vec<u8>> {
        self.with(|disk| {
            let content = &disk.files[&segment].content[offset as usize..];
            let bytes = bytes.unwrap_or(u64::MAX).min(content.len() as u64);
            Ok(content[..bytes as usize].to_vec())
        })
    }

    fn truncate(&self, segment: u64, bytes: u64) -> io::Result<()> {
        self.with(|disk| {
            let file = disk.files.get_mut(&segment).unwrap();
            file.content.truncate(bytes as usize);
            file.synced.clone_from(&file.content);
        });
        Ok(())
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        self.with(|disk| {
            if disk.fails() {
                return Err(io::Error::other("the file cannot be removed"));
            }
            let file = disk.files.remove(&segment).unwrap();
            if file.is_entry_synced {
                disk.removed.insert(segment, file);
            }
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.with(|disk| {
            if disk.fails() {
                return Err(io::Error::other("the directory cannot be synced"));
            }
            disk.files.values_mut().for_each(|file| file.is_entry_synced = true);
            disk.removed.clear();
            Ok(())
        })
    }

    fn keep_aside(&self, _: u64, _: u64, _: &[u8]) -> io::Result<()> {
        self.with(|disk| disk.kept_aside += 1);
        Ok(())
    }

    fn append_failed(&self, lines: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            if disk.fails() {
                return Err(no_space());
            }
            disk.failed_lines.extend_from_slice(lines);
            Ok(())
        })
    }

    fn unlock(&self) {}

    fn path(&self, segment: u64) -> PathBuf {
        PathBuf::from(segment.to_string())
    }
}

impl SegmentFile for OpenFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.with(|disk| {
            let written =
                if disk.fails() { disk.random.random_range(0..=bytes.len()) } else { bytes.len() };
            let file = disk.files.get_mut(&self.segment).unwrap();
            file.content.extend_from_slice(&bytes[..written]);
            if written < bytes.len() { Err(no_space()) } else { Ok(()) }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.with(|disk| {
            let fails = disk.fails();
            let file = disk.files.get_mut(&self.segment).unwrap();
            if fails {
                return Err(io::Error::other("a sector cannot be written"));
            }
            file.synced.clone_from(&file.content);
            Ok(())
        })
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.disk.with(|disk| {
            if disk.fails() {
                return Err(io::Error::other("the file cannot be cut off"));
            }
            let file = disk.files.get_mut(&self.segment).unwrap();
            file.content.truncate(bytes as usize);
            file.synced.truncate(bytes as usize);
            Ok(())
        })
    }
}
