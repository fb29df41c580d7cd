//! The answers of the tickets. They are kept in a file, so that they do not add to the
//! measured memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::Client;
use dynamodb_eventstore::{
    BODY_ATTRIBUTE, Certainty, EventKey, FailureReason, KEY_ATTRIBUTE, Stored, WriteError,
};

const KEY_BYTES: usize = 27;

pub(crate) type Key = [u8; KEY_BYTES];

/// The bytes of one event in the file: its key, the hash of its body and its verdict.
const RECORD_BYTES: usize = KEY_BYTES + 8 + 1;

/// The answer of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    NotStored,
    MaybeStored,
}

/// Counts the answers of the tickets.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    stored: AtomicU64,
    not_stored: AtomicU64,
    maybe_stored: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    pub(crate) fn count(&self, answer: &Result<Stored, WriteError>) -> Verdict {
        let (counter, verdict) = match answer.as_ref().map_err(WriteError::certainty) {
            Ok(_) => (&self.stored, Verdict::Stored),
            Err(Certainty::NotStored) => (&self.not_stored, Verdict::NotStored),
            Err(Certainty::MaybeStored) => (&self.maybe_stored, Verdict::MaybeStored),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if answer.as_ref().is_err_and(|error| error.reason() == FailureReason::NotRetryable) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    pub(crate) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.not_stored.load(Ordering::Relaxed) + self.maybe_stored()
    }

    pub(crate) fn maybe_stored(&self) -> u64 {
        self.maybe_stored.load(Ordering::Relaxed)
    }

    /// Events that failed as not retryable, because the endpoint refuses requests that break
    /// a rule.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct AnswerLog(BufWriter<File>);

impl AnswerLog {
    /// A file without a name, which is deleted with this process.
    pub(crate) fn create() -> io::Result<Self> {
        tempfile::tempfile().map(BufWriter::new).map(Self)
    }

    pub(crate) fn note(&mut self, key: &EventKey, hash: u64, verdict: Verdict) {
        self.0.write_all(key.as_str().as_bytes()).unwrap();
        self.0.write_all(&hash.to_le_bytes()).unwrap();
        self.0.write_all(&[verdict as u8]).unwrap();
    }

    /// Compares the table with the answers of all tickets, and describes the differences.
    pub(crate) async fn compare(self, client: &Client, table: &str) -> Vec<String> {
        let mut differences = Differences::default();
        let mut verdicts = self.read(&mut differences);
        let scan = client.scan().table_name(table).consistent_read(true);
        let mut rows = scan.into_paginator().items().send();
        while let Some(row) = rows.next().await {
            let row = row.unwrap();
            let text = |attribute| row.get(attribute).unwrap().as_s().unwrap().as_str();
            let key: Key = text(KEY_ATTRIBUTE).as_bytes().try_into().unwrap();
            let found: u64 = text(BODY_ATTRIBUTE).parse().unwrap();
            match verdicts.remove(&key) {
                None => differences.unknown_keys += 1,
                Some((hash, _)) if hash != found => differences.other_bodies += 1,
                Some((_, Verdict::NotStored)) => differences.unexpected += 1,
                Some((_, Verdict::Stored | Verdict::MaybeStored)) => {}
            }
        }
        differences.missing =
            verdicts.values().filter(|(_, verdict)| *verdict == Verdict::Stored).count();
        differences.describe()
    }

    fn read(self, differences: &mut Differences) -> HashMap<Key, (u64, Verdict)> {
        let mut file = self.0.into_inner().unwrap();
        let records = file.stream_position().unwrap() / RECORD_BYTES as u64;
        file.rewind().unwrap();
        let mut file = BufReader::new(file);
        let mut verdicts = HashMap::new();
        for _ in 0..records {
            let (mut key, mut hash, mut verdict) = ([0; KEY_BYTES], [0; 8], [0]);
            file.read_exact(&mut key).unwrap();
            file.read_exact(&mut hash).unwrap();
            file.read_exact(&mut verdict).unwrap();
            let all = [Verdict::Stored, Verdict::NotStored, Verdict::MaybeStored];
            let [verdict] = verdict;
            let verdict = all.into_iter().find(|other| *other as u8 == verdict).unwrap();
            let before = verdicts.insert(key, (u64::from_le_bytes(hash), verdict));
            differences.duplicate_keys += usize::from(before.is_some());
        }
        verdicts
    }
}

/// Counts the differences between the answers and the table.
#[derive(Debug, Default)]
struct Differences {
    duplicate_keys: usize,
    unknown_keys: usize,
    other_bodies: usize,
    unexpected: usize,
    missing: usize,
}

impl Differences {
    fn describe(&self) -> Vec<String> {
        let Self { duplicate_keys, unknown_keys, other_bodies, unexpected, missing } = self;
        [
            (duplicate_keys, "keys were given to two events"),
            (unknown_keys, "rows were not put"),
            (other_bodies, "rows have another body"),
            (unexpected, "events are called not stored, and are in the table"),
            (missing, "events are called stored, and are not in the table"),
        ]
        .into_iter()
        .filter(|(count, _)| **count > 0)
        .map(|(count, what)| format!(" {count} {what}"))
        .collect()
    }
}
