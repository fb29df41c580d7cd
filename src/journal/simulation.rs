//! Simulates the journal on a disk that fails and loses power. A seed determines each run.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::queue::{Queue, record_bytes};
use super::recovery::{Location, locate, recover};
use super::simulated_disk::SimulatedDisk;
use super::storage::Storage;
use super::writer::Writer;
use super::{SyncPolicy, read_event};
use crate::event::Event;
use crate::event::key::{EventKey, KeyGenerator, WriterId};

/// What the processes of one run have promised.
#[derive(Debug, Default)]
struct Promises {
    /// Events that are durable and not settled. The next process must find them.
    owed: BTreeMap<EventKey, String>,
    /// Everything that was ever put, under every key that it had.
    put: BTreeMap<EventKey, String>,
    /// Old keys of events whose new key is durable. No later process may find them.
    replaced: BTreeSet<EventKey>,
    /// Old keys of events whose new key, the value, could not be written.
    lost: BTreeMap<EventKey, EventKey>,
}

/// An event that a process has not settled.
#[derive(Clone, Copy)]
struct Unsettled {
    key: EventKey,
    sequence: NonZeroU64,
    /// Its old key, until the new one is durable.
    old_key: Option<EventKey>,
}

/// Runs processes one after another on one disk. Each of them ends in the middle of its work.
fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimulatedDisk::new(random.random(), 0.0);
    let mut promises = Promises::default();
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    for process in 0..4 {
        let recovered = recover(&disk).unwrap();
        let mut found = BTreeMap::new();
        for location in &recovered.unsettled {
            let event = read_event(&disk, location).unwrap();
            let sequence = location.sequence().unwrap();
            found.insert(*event.key(), (event.body().into_owned(), sequence));
        }
        // A record that was reported as not written may be on the disk all the same. Then it counts.
        for (old_key, key) in std::mem::take(&mut promises.lost) {
            if found.contains_key(&key) {
                if let Some(body) = promises.owed.remove(&old_key) {
                    promises.owed.insert(key, body);
                }
                promises.replaced.insert(old_key);
            }
        }
        for (key, body) in &promises.owed {
            let in_journal = found.get(key).map(|(body, _)| body);
            assert_eq!(in_journal, Some(body), "seed {seed}, process {process}: {key} is lost");
        }
        for (key, (body, _)) in &found {
            assert_eq!(promises.put.get(key), Some(body), "seed {seed}: {key} was never put");
            let is_replaced = promises.replaced.contains(key);
            assert!(
                !is_replaced,
                "seed {seed}, process {process}: {key} is back under its old key"
            );
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
            SyncPolicy::Always,
            segment_bytes,
            recovered.segments,
        );
        disk.set_fault_rate(if random.random_bool(0.5) { 0.05 } else { 0.0 });
        let mut unsettled: Vec<Unsettled> = found
            .iter()
            .map(|(key, (_, sequence))| Unsettled { key: *key, sequence: *sequence, old_key: None })
            .collect();
        for _ in 0..random.random_range(1..30) {
            for _ in 0..random.random_range(0..5) {
                let key = keys.next(1_700_000_000_000).unwrap();
                let body = format!("{{\"n\":\"{}\"}}", "x".repeat(random.random_range(0..200)));
                let event = Event::new(key, &body).unwrap();
                let Ok(room) = queue.try_reserve(record_bytes(&event, None)) else { continue };
                let sequence = queue.append(&event, None, room);
                promises.put.insert(key, body);
                unsettled.push(Unsettled { key, sequence, old_key: None });
            }
            while !unsettled.is_empty() && random.random_bool(0.2) {
                let index = random.random_range(0..unsettled.len());
                let Unsettled { key: old_key, sequence: replaced, old_key: older } =
                    unsettled[index];
                if older.is_some() {
                    // An event is not sent, and gets no further key, before its new key is durable or lost.
                    continue;
                }
                let key = keys.next(1_700_000_000_000).unwrap();
                let body = promises.put[&old_key].clone();
                let event = Event::new(key, &body).unwrap();
                let bytes = record_bytes(&event, Some(replaced));
                let Ok(room) = queue.try_reserve(bytes) else { continue };
                let sequence = queue.append(&event, Some(replaced), room);
                promises.put.insert(key, body);
                unsettled[index] = Unsettled { key, sequence, old_key: Some(old_key) };
            }
            while !unsettled.is_empty() && random.random_bool(0.5) {
                let index = random.random_range(0..unsettled.len());
                let Unsettled { key, sequence, old_key } = unsettled.swap_remove(index);
                promises.owed.remove(&key);
                old_key.map(|old_key| promises.owed.remove(&old_key));
                queue.settle(sequence, None);
            }
            writer.write(queue.take_now());
            for Unsettled { key, sequence, old_key } in &mut unsettled {
                if queue.is_durable(*sequence) {
                    if let Some(old_key) = old_key.take() {
                        promises.owed.remove(&old_key);
                        promises.replaced.insert(old_key);
                    }
                    promises.owed.insert(*key, promises.put[key].clone());
                } else if let Some(old_key) = old_key {
                    promises.lost.insert(*old_key, *key);
                }
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
    let mut writer = Writer::new(Arc::clone(&queue), storage, SyncPolicy::Always, 500, Vec::new());
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    for number in 0..300 {
        let event = Event::new(keys.next(0).unwrap(), "{}").unwrap();
        let room = queue.try_reserve(record_bytes(&event, None)).unwrap();
        let sequence = queue.append(&event, None, room);
        if number > 0 {
            queue.settle(sequence, None);
        }
        writer.write(queue.take_now());
    }
    let segments = disk.segments().unwrap();
    assert!(segments.len() <= 5 && segments[0] == 1, "{segments:?}");
    let bytes: usize = disk.with(|disk| disk.files.values().map(|file| file.content.len()).sum());
    assert_eq!(queue.total_bytes(), bytes as u64);
    disk.lose_process();
    let recovered = recover(&disk).unwrap();
    let first = recovered.unsettled.first().and_then(Location::sequence);
    assert_eq!(first, NonZeroU64::new(1));
    assert_eq!(locate(&disk, &[1]).unwrap().len(), 1);
}

#[test]
fn settled_events_leave_no_segment() {
    let disk = SimulatedDisk::new(1, 0.0);
    let queue = Arc::new(Queue::new(0, 0, u64::MAX));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut writer = Writer::new(Arc::clone(&queue), storage, SyncPolicy::Always, 500, Vec::new());
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    let mut sequences = Vec::new();
    for _ in 0..100 {
        let event = Event::new(keys.next(0).unwrap(), "{}").unwrap();
        let room = queue.try_reserve(record_bytes(&event, None)).unwrap();
        sequences.push(queue.append(&event, None, room));
        writer.write(queue.take_now());
    }
    assert!(disk.segments().unwrap().len() > 5);
    for sequence in sequences {
        queue.settle(sequence, None);
    }
    queue.close();
    writer.run();
    assert_eq!(disk.segments().unwrap(), Vec::<u64>::new());
    assert_eq!(queue.total_bytes(), 0);
}

/// Events that got new keys, and the numbers of their replacements.
fn replace_all(queue: &Queue, writer: &mut Writer, events: usize) -> Vec<NonZeroU64> {
    let mut keys = KeyGenerator::new(WriterId::new(7).unwrap());
    let mut append = |replaces: Option<NonZeroU64>| {
        let event = Event::new(keys.next(0).unwrap(), "{}").unwrap();
        let room = queue.try_reserve(record_bytes(&event, replaces)).unwrap();
        queue.append(&event, replaces, room)
    };
    let mut sequences = Vec::new();
    for _ in 0..events {
        sequences.push(append(None));
        writer.write(queue.take_now());
    }
    sequences.into_iter().map(|sequence| append(Some(sequence))).collect()
}

#[test]
fn replaced_events_leave_no_segment() {
    let disk = SimulatedDisk::new(1, 0.0);
    let queue = Arc::new(Queue::new(0, 0, u64::MAX));
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut writer = Writer::new(Arc::clone(&queue), storage, SyncPolicy::Always, 500, Vec::new());
    let sequences = replace_all(&queue, &mut writer, 50);
    writer.write(queue.take_now());
    let segments = disk.segments().unwrap();
    assert_eq!(segments.len(), 1, "that of the replacements: {segments:?}");
    assert_eq!(recover(&disk).unwrap().report.unsettled, 50);
    sequences.into_iter().for_each(|sequence| queue.settle(sequence, None));
    queue.close();
    writer.run();
    assert_eq!(disk.segments().unwrap(), Vec::<u64>::new());
    assert_eq!(queue.total_bytes(), 0);
}

#[test]
fn event_settles_its_old_record_if_the_new_one_was_not_written() {
    for is_settled_before in [false, true] {
        let disk = SimulatedDisk::new(1, 0.0);
        let queue = Arc::new(Queue::new(0, 0, u64::MAX));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let (sync, bytes) = (SyncPolicy::Always, 500);
        let mut writer = Writer::new(Arc::clone(&queue), storage, sync, bytes, Vec::new());
        let sequences = replace_all(&queue, &mut writer, 20);
        let settle = || sequences.iter().for_each(|sequence| queue.settle(*sequence, None));
        if is_settled_before {
            settle();
        }
        disk.set_fault_rate(1.0);
        writer.write(queue.take_now());
        disk.set_fault_rate(0.0);
        if !is_settled_before {
            assert!(sequences.iter().all(|sequence| queue.lost_replacement(*sequence).is_some()));
            settle();
        }
        queue.close();
        writer.run();
        assert_eq!(disk.segments().unwrap(), Vec::<u64>::new());
    }
}
