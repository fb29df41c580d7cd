//! What the tickets said: in a file, so that it does not take part in what is measured.

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

/// An event takes so much of the file: its key, its body's hash and its verdict.
const RECORD_BYTES: usize = KEY_BYTES + 8 + 1;

/// What a ticket said of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stored,
    NotStored,
    MaybeStored,
}

/// How many tickets said what.
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

    /// Those that the endpoint called invalid: it does so where a request breaks a rule.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The file.
#[derive(Debug)]
pub(crate) struct Ledger(BufWriter<File>);

impl Ledger {
    /// A file that nobody else sees, and that ends with this process.
    pub(crate) fn create() -> io::Result<Self> {
        tempfile::tempfile().map(BufWriter::new).map(Self)
    }

    pub(crate) fn note(&mut self, key: &EventKey, hash: u64, verdict: Verdict) {
        self.0.write_all(key.as_str().as_bytes()).unwrap();
        self.0.write_all(&hash.to_le_bytes()).unwrap();
        self.0.write_all(&[verdict as u8]).unwrap();
    }

    /// All that the table holds beside all that the tickets said. Says what does not fit.
    pub(crate) async fn compare(self, client: &Client, table: &str) -> Vec<String> {
        let mut differences = Differences::default();
        let mut said = self.read(&mut differences);
        let scan = client.scan().table_name(table).consistent_read(true);
        let mut rows = scan.into_paginator().items().send();
        while let Some(row) = rows.next().await {
            let row = row.unwrap();
            let text = |attribute| row.get(attribute).unwrap().as_s().unwrap().as_str();
            let key: Key = text(KEY_ATTRIBUTE).as_bytes().try_into().unwrap();
            let found: u64 = text(BODY_ATTRIBUTE).parse().unwrap();
            match said.remove(&key) {
                None => differences.strangers += 1,
                Some((hash, _)) if hash != found => differences.other_bodies += 1,
                Some((_, Verdict::NotStored)) => differences.there += 1,
                Some((_, Verdict::Stored | Verdict::MaybeStored)) => {}
            }
        }
        differences.missing = said.values().filter(|(_, said)| *said == Verdict::Stored).count();
        differences.in_words()
    }

    fn read(self, differences: &mut Differences) -> HashMap<Key, (u64, Verdict)> {
        let mut file = self.0.into_inner().unwrap();
        let records = file.stream_position().unwrap() / RECORD_BYTES as u64;
        file.rewind().unwrap();
        let mut file = BufReader::new(file);
        let mut said = HashMap::new();
        for _ in 0..records {
            let (mut key, mut hash, mut verdict) = ([0; KEY_BYTES], [0; 8], [0]);
            file.read_exact(&mut key).unwrap();
            file.read_exact(&mut hash).unwrap();
            file.read_exact(&mut verdict).unwrap();
            let all = [Verdict::Stored, Verdict::NotStored, Verdict::MaybeStored];
            let [verdict] = verdict;
            let verdict = all.into_iter().find(|other| *other as u8 == verdict).unwrap();
            let before = said.insert(key, (u64::from_le_bytes(hash), verdict));
            differences.twice += usize::from(before.is_some());
        }
        said
    }
}

/// How many events are not as they should be.
#[derive(Debug, Default)]
struct Differences {
    twice: usize,
    strangers: usize,
    other_bodies: usize,
    there: usize,
    missing: usize,
}

impl Differences {
    fn in_words(&self) -> Vec<String> {
        let Self { twice, strangers, other_bodies, there, missing } = self;
        [
            (twice, "keys were given to two events"),
            (strangers, "were put by nobody"),
            (other_bodies, "have another body"),
            (there, "are called not stored, and are there"),
            (missing, "are called stored, and are not there"),
        ]
        .into_iter()
        .filter(|(count, _)| **count > 0)
        .map(|(count, what)| format!(" {count} {what}"))
        .collect()
    }
}
