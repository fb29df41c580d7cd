//! Records which store has made keys with which writer id, and in which range of
//! time.

use std::collections::HashMap;
use std::ops::Range;

use crate::event::key::{EventKey, WriterId};

/// The keys that one store has made under one lease.
#[derive(Debug)]
struct Tenure {
    store: usize,
    grant: usize,
    times: Range<u64>,
}

/// All keys of a [simulation](super::simulation), by their writer ids.
#[derive(Debug, Default)]
pub(super) struct Tenures(HashMap<WriterId, Vec<Tenure>>);

impl Tenures {
    /// Records a key of this store under its lease of this number.
    pub(super) fn record(&mut self, store: usize, grant: usize, key: &EventKey) {
        let id = WriterId::new(key.as_str()[18..23].parse().unwrap()).unwrap();
        let time = u64::try_from(key.timestamp().timestamp_millis()).unwrap();
        let tenures = self.0.entry(id).or_default();
        match tenures.iter_mut().find(|tenure| tenure.store == store && tenure.grant == grant) {
            Some(tenure) => tenure.times.end = time + 1,
            None => tenures.push(Tenure { store, grant, times: time..time + 1 }),
        }
    }

    /// Checks that no two stores have made keys with the same id in overlapping
    /// ranges of time.
    pub(super) fn check(&self) {
        for (id, tenures) in &self.0 {
            for (place, one) in tenures.iter().enumerate() {
                for other in &tenures[..place] {
                    let (a, b) = (&one.times, &other.times);
                    let overlap = a.start < b.end && b.start < a.end;
                    assert!(!overlap, "two stores made keys with {id}: {one:?} and {other:?}");
                }
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}
