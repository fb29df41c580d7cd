//! Simulates the journal on a disk that fails and loses power. A seed determines each run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::SyncPolicy;
use super::index::Index;
use super::queue::{Durability, Queue, record_bytes};
use super::reader::Reader;
use super::recovery::recover;
use super::storage::{SegmentFile, Storage};
use super::writer::Writer;
use crate::event::Event;
use crate::event::key::{EventKey, KeyGenerator, WriterId};

/// A file: its synced content, which a power cut leaves, and its whole content.
#[derive(Debug, Clone, Default)]
struct SimulatedFile {
    synced: Vec<u8>,
    content: Vec<u8>,
    /// Whether the directory entry survives a power cut.
    is_entry_synced: bool,
}

#[derive(Debug)]
struct Disk {
    files: BTreeMap<u64, SimulatedFile>,
    random: StdRng,
    /// Probability that an operation fails.
    fault_rate: f64,
    failed_lines: Vec<u8>,
    kept_aside: usize,
}

#[derive(Debug, Clone)]
struct SimulatedDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct OpenFile {
    disk: SimulatedDisk,
    segment: u64,
}

fn no_space() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl SimulatedDisk {
    fn new(seed: u64, fault_rate: f64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            files: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            fault_rate,
            failed_lines: Vec::new(),
            kept_aside: 0,
        })))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Disk) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    fn set_fault_rate(&self, fault_rate: f64) {
        self.with(|disk| disk.fault_rate = fault_rate);
    }

    /// The power fails. Of the bytes that were not synced, some sectors survive and others do
    /// not.
    fn lose_power(&self) {
        self.with(|disk| {
            let Disk { files, random, .. } = disk;
            files.retain(|_, file| file.is_entry_synced || random.random_bool(0.5));
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
    fn lose_process(&self) {
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
        self.with(|disk| disk.files.remove(&segment));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.with(|disk| {
            if disk.fails() {
                return Err(io::Error::other("the directory cannot be synced"));
            }
            disk.files.values_mut().for_each(|file| file.is_entry_synced = true);
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

fn reader(disk: &SimulatedDisk, index: Index) -> Reader {
    Reader { storage: Arc::new(disk.clone()), index: Arc::new(index) }
}

/// Reads all of these events, as often as it takes.
fn read_all(reader: &Reader, sequences: &[NonZeroU64]) -> Vec<(NonZeroU64, Event)> {
    let mut events = Vec::new();
    while events.len() < sequences.len() {
        let read = reader.read_first(&sequences[events.len()..]);
        assert!(!read.is_empty());
        events.extend(read.into_iter().map(|(sequence, event)| (sequence, event.unwrap())));
    }
    let read: Vec<NonZeroU64> = events.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(read, sequences);
    events
}

/// What the processes of one run have promised.
#[derive(Debug, Default)]
struct Promises {
    /// Events that are durable and not settled. The next process must find them.
    owed: BTreeMap<EventKey, String>,
    /// Everything that was ever put.
    put: BTreeMap<EventKey, String>,
}

/// Runs processes one after another on one disk. Each of them ends in the middle of its work.
fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimulatedDisk::new(random.random(), 0.0);
    let mut promises = Promises::default();
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    for process in 0..4 {
        let mut recovered = recover(&disk).unwrap();
        let reader = reader(&disk, std::mem::take(&mut recovered.index));
        let mut found = BTreeMap::new();
        for (sequence, event) in read_all(&reader, &recovered.unsettled) {
            found.insert(*event.key(), (event.body().into_owned(), sequence));
        }
        for (key, body) in &promises.owed {
            let in_journal = found.get(key).map(|(body, _)| body);
            assert_eq!(in_journal, Some(body), "seed {seed}, process {process}: {key} is lost");
        }
        for (key, (body, _)) in &found {
            assert_eq!(promises.put.get(key), Some(body), "seed {seed}: {key} was never put");
        }
        let sequences: BTreeSet<NonZeroU64> =
            found.values().map(|(_, sequence)| *sequence).collect();
        assert_eq!(sequences.len(), found.len(), "seed {seed}: two events have the same number");

        // Small, so that segments are often full.
        let segment_bytes = random.random_range(200..2_000);
        let total_bytes = recovered.segments.iter().map(|segment| segment.bytes).sum();
        let queue = Arc::new(Queue::new(recovered.last_sequence, total_bytes, u64::MAX));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let mut writer = Writer::new(
            Arc::clone(&queue),
            storage,
            Arc::clone(&reader.index),
            SyncPolicy::Always,
            segment_bytes,
            recovered.segments,
        );
        disk.set_fault_rate(if random.random_bool(0.5) { 0.05 } else { 0.0 });
        let mut unsettled: Vec<(EventKey, NonZeroU64)> =
            found.iter().map(|(key, (_, sequence))| (*key, *sequence)).collect();
        for _ in 0..random.random_range(1..30) {
            for _ in 0..random.random_range(0..5) {
                let key = keys.next(1_700_000_000_000).unwrap();
                let body = format!("{{\"n\":\"{}\"}}", "x".repeat(random.random_range(0..200)));
                let event = Event::new(key, &body).unwrap();
                let Ok(room) = queue.try_reserve(record_bytes(&event)) else { continue };
                let sequence = queue.append(&event, room);
                promises.put.insert(key, body);
                unsettled.push((key, sequence));
            }
            while !unsettled.is_empty() && random.random_bool(0.5) {
                let index = random.random_range(0..unsettled.len());
                let (key, sequence) = unsettled.swap_remove(index);
                promises.owed.remove(&key);
                queue.settle_all(std::iter::once(sequence), None);
            }
            writer.write(queue.take_now());
            for (key, sequence) in &unsettled {
                if queue.durability(*sequence) == Durability::Durable {
                    promises.owed.insert(*key, promises.put[key].clone());
                }
            }
            // Durable events can be read while others are written, in any selection.
            let mut wanted: Vec<NonZeroU64> =
                unsettled.iter().map(|(_, sequence)| *sequence).collect();
            wanted.retain(|sequence| {
                queue.durability(*sequence) == Durability::Durable && random.random_bool(0.5)
            });
            wanted.sort_unstable();
            for (_, event) in read_all(&reader, &wanted) {
                let key = event.key();
                assert_eq!(
                    promises.put.get(key).map(String::as_str),
                    Some(&*event.body()),
                    "seed {seed}"
                );
            }
        }
        disk.set_fault_rate(0.0);
        if random.random_bool(0.5) { disk.lose_power() } else { disk.lose_process() }
    }
}

#[test]
fn durable_events_survive_every_end_of_a_process() {
    let seeds = std::env::var("JOURNAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(500) {
        run(seed);
    }
}

#[test]
fn unsettled_event_keeps_only_its_own_segment() {
    let disk = SimulatedDisk::new(1, 0.0);
    let queue = Arc::new(Queue::new(0, 0, u64::MAX));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let index = Arc::default();
    let mut writer =
        Writer::new(Arc::clone(&queue), storage, index, SyncPolicy::Always, 500, Vec::new());
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    for number in 0..300 {
        let event = Event::new(keys.next(0).unwrap(), "{}").unwrap();
        let room = queue.try_reserve(record_bytes(&event)).unwrap();
        let sequence = queue.append(&event, room);
        if number > 0 {
            queue.settle_all(std::iter::once(sequence), None);
        }
        writer.write(queue.take_now());
    }
    let segments = disk.segments().unwrap();
    assert!(segments.len() <= 5 && segments[0] == 1, "{segments:?}");
    let bytes: usize = disk.with(|disk| disk.files.values().map(|file| file.content.len()).sum());
    assert_eq!(queue.total_bytes(), bytes as u64);
    disk.lose_process();
    let mut recovered = recover(&disk).unwrap();
    assert_eq!(recovered.unsettled, [NonZeroU64::MIN]);
    let reader = reader(&disk, std::mem::take(&mut recovered.index));
    assert_eq!(read_all(&reader, &recovered.unsettled)[0].1.body(), "{}");
}

#[test]
fn settled_events_leave_no_segment() {
    let disk = SimulatedDisk::new(1, 0.0);
    let queue = Arc::new(Queue::new(0, 0, u64::MAX));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let index = Arc::default();
    let mut writer =
        Writer::new(Arc::clone(&queue), storage, index, SyncPolicy::Always, 500, Vec::new());
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    let mut sequences = Vec::new();
    for _ in 0..100 {
        let event = Event::new(keys.next(0).unwrap(), "{}").unwrap();
        let room = queue.try_reserve(record_bytes(&event)).unwrap();
        sequences.push(queue.append(&event, room));
        writer.write(queue.take_now());
    }
    assert!(disk.segments().unwrap().len() > 5);
    for sequence in sequences {
        queue.settle_all(std::iter::once(sequence), None);
    }
    queue.close();
    writer.run();
    assert_eq!(disk.segments().unwrap(), Vec::<u64>::new());
    assert_eq!(queue.total_bytes(), 0);
}
