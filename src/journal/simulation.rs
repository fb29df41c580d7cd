//! Simulates the journal on a disk that fails and loses power. A seed determines each run.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::panic::catch_unwind;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use disk::SimulatedDisk;

use super::SyncPolicy;
use super::index::Index;
use super::progress::Durability;
use super::queue::{Queue, record_bytes};
use super::reader::Reader;
use super::recovery::recover;
use super::storage::Storage;
use super::writer::Writer;
use crate::error::JournalError;
use crate::event::Event;
use crate::event::key::{EventKey, KeyGenerator, WriterId};

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
#[derive(Debug, Clone, Default)]
struct Promises {
    /// Events that are durable and not settled. The next process must find them.
    owed: BTreeMap<EventKey, String>,
    /// Durable events that failed for good. The next process must find them, unless their lines are written.
    failed: BTreeSet<EventKey>,
    /// Events that any process has settled.
    settled: BTreeSet<EventKey>,
    /// Everything that was ever put.
    put: BTreeMap<EventKey, String>,
}

/// One process of a run.
struct Process<'a> {
    disk: &'a SimulatedDisk,
    random: &'a mut StdRng,
    promises: &'a mut Promises,
    sync: SyncPolicy,
    queue: Arc<Queue>,
    writer: Writer,
    reader: Reader,
    unsettled: Vec<(EventKey, NonZeroU64)>,
}

impl<'a> Process<'a> {
    /// Opens the journal, and looks for everything that is promised.
    fn start(disk: &'a SimulatedDisk, random: &'a mut StdRng, promises: &'a mut Promises) -> Self {
        let mut recovered = recover(disk).unwrap();
        let reader = reader(disk, std::mem::take(&mut recovered.index));
        let events = read_all(&reader, &recovered.unsettled);
        let bodies: BTreeMap<EventKey, String> =
            events.iter().map(|(_, event)| (*event.key(), event.body().into_owned())).collect();
        assert_eq!(bodies.len(), events.len(), "an event is found twice");
        for (key, body) in &promises.owed {
            assert_eq!(bodies.get(key), Some(body), "{key} is lost");
        }
        for (key, body) in &bodies {
            assert_eq!(promises.put.get(key), Some(body), "{key} was never put");
        }
        for key in &promises.failed {
            assert!(bodies.contains_key(key) || disk.has_line_of(key), "failed {key} is lost");
        }
        // What is found is on the disk, so the next process must find it, too. But the record that has settled an event
        // may come back with a removed segment.
        let is_owed = |(key, _): &(EventKey, String)| !promises.settled.contains(key);
        promises.owed.extend(bodies.into_iter().filter(is_owed));
        // Small, so that segments are often full.
        let segment_bytes = random.random_range(200..2_000);
        let max_bytes =
            if random.random_bool(0.5) { random.random_range(800..5_000) } else { u64::MAX };
        let sync = if random.random_bool(0.3) { SyncPolicy::Os } else { SyncPolicy::Always };
        let total_bytes = recovered.segments.iter().map(|segment| segment.bytes).sum();
        let queue = Arc::new(Queue::new(recovered.last_sequence, total_bytes, max_bytes));
        let (storage, index) = (Arc::new(disk.clone()), Arc::clone(&reader.index));
        let segments = recovered.segments;
        let writer = Writer::new(Arc::clone(&queue), storage, index, sync, segment_bytes, segments);
        let unsettled = events.iter().map(|(sequence, event)| (*event.key(), *sequence)).collect();
        Self { disk, random, promises, sync, queue, writer, reader, unsettled }
    }

    fn put(&mut self, keys: &mut KeyGenerator) {
        let key = keys.next(1_700_000_000_000).unwrap();
        let body = format!("{{\"n\":\"{}\"}}", "x".repeat(self.random.random_range(0..200)));
        let event = Event::new(key, &body).unwrap();
        let Ok(room) = self.queue.try_reserve(record_bytes(&event)) else { return };
        let sequence = self.queue.append(&event, room);
        self.promises.put.insert(key, body);
        self.unsettled.push((key, sequence));
    }

    fn settle_one(&mut self) {
        let index = self.random.random_range(0..self.unsettled.len());
        let (key, sequence) = self.unsettled.swap_remove(index);
        let is_owed = self.promises.owed.remove(&key).is_some();
        self.promises.settled.insert(key);
        if self.random.random_bool(0.1) {
            if is_owed {
                self.promises.failed.insert(key);
            }
            self.queue.settle_all(std::iter::once(sequence), Some(format!("{key}\n").into_bytes()));
        } else {
            self.promises.failed.remove(&key);
            self.queue.settle_all(std::iter::once(sequence), None);
        }
    }

    fn write(&mut self) {
        self.writer.write(self.queue.take_now());
        for (key, sequence) in &self.unsettled {
            let is_owed = !self.promises.settled.contains(key);
            if is_owed && self.queue.durability(*sequence) == Durability::Durable {
                self.promises.owed.insert(*key, self.promises.put[key].clone());
            }
        }
    }

    /// Durable events can be read while others are written, in any selection.
    fn read(&mut self) {
        let mut wanted: Vec<NonZeroU64> =
            self.unsettled.iter().map(|(_, sequence)| *sequence).collect();
        wanted.retain(|sequence| {
            self.queue.durability(*sequence) == Durability::Durable && self.random.random_bool(0.5)
        });
        wanted.sort_unstable();
        for (_, event) in read_all(&self.reader, &wanted) {
            let body = self.promises.put.get(event.key());
            assert_eq!(body.map(String::as_str), Some(&*event.body()));
        }
    }

    /// Settles all events on a disk that works. Then a full journal has room again.
    fn settle_all(&mut self) {
        let fault_rate = self.disk.set_fault_rate(0.0);
        while !self.unsettled.is_empty() {
            self.settle_one();
        }
        self.write();
        let is_full = matches!(self.queue.try_reserve(256), Err(JournalError::Full { .. }));
        assert!(!is_full, "the journal has {} bytes and no event", self.queue.total_bytes());
        self.disk.set_fault_rate(fault_rate);
    }

    /// Ends the process in the middle of its work. `before` is what was promised before it began.
    fn end(self, before: &Promises) {
        self.disk.set_fault_rate(0.0);
        if self.random.random_bool(0.5) {
            self.disk.lose_process();
            return;
        }
        self.disk.lose_power();
        if self.sync == SyncPolicy::Os {
            self.promises.owed.retain(|key, _| before.owed.contains_key(key));
            self.promises
                .failed
                .retain(|key| before.owed.contains_key(key) || before.failed.contains(key));
        }
    }
}

/// Runs processes one after another on one disk.
fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimulatedDisk::new(random.random(), 0.0);
    let mut promises = Promises::default();
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    for _ in 0..4 {
        let mut process = Process::start(&disk, &mut random, &mut promises);
        let before = process.promises.clone();
        disk.set_fault_rate(if process.random.random_bool(0.5) { 0.05 } else { 0.0 });
        for _ in 0..process.random.random_range(1..30) {
            for _ in 0..process.random.random_range(0..5) {
                process.put(&mut keys);
            }
            process.read();
            while !process.unsettled.is_empty() && process.random.random_bool(0.5) {
                process.settle_one();
            }
            process.write();
            process.read();
            if process.random.random_bool(0.05) {
                process.settle_all();
            }
        }
        process.end(&before);
    }
}

#[test]
fn durable_events_survive_every_end_of_a_process() {
    let seeds = std::env::var("JOURNAL_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(500) {
        assert!(catch_unwind(|| run(seed)).is_ok(), "seed {seed} fails");
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
