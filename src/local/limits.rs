//! The write capacity of local tables that have a limit.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dynoxide::types::{Item, item_size};
use serde::Deserialize;

use super::failure::Failure;
use crate::clock::now;
use crate::event::{KEY_ATTRIBUTE, WRITE_UNIT_BYTES};
use crate::write_capacity::{Buckets, Throttle, WriteCapacity};

/// The limit of each table. The time of a limit starts at the first write to its table.
pub(super) struct Limits {
    capacity: WriteCapacity,
    tables: Mutex<HashMap<String, Table>>,
}

struct Table {
    since: Instant,
    buckets: Buckets,
}

/// The JSON members of a single-item request that determine its write units.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ItemWrite {
    table_name: String,
    #[serde(default)]
    item: Item,
    #[serde(default)]
    key: Item,
}

impl Limits {
    pub(super) fn new(capacity: WriteCapacity) -> Self {
        Self { capacity, tables: Mutex::default() }
    }

    /// Takes the units of a write of `item` to `table`, or says what throttles it. If only the key of the item
    /// is known, the units are those of the key.
    pub(super) fn admit(&self, table: &str, item: &Item) -> Result<(), Throttle> {
        let units = item_size(item).div_ceil(WRITE_UNIT_BYTES).max(1);
        let now = now();
        let mut tables = self.tables();
        let Table { since, buckets } = tables
            .entry(table.to_owned())
            .or_insert_with(|| Table { since: now, buckets: Buckets::new(self.capacity.clone()) });
        buckets.admit(&partition_key(item), units as u64, now.saturating_duration_since(*since))
    }

    /// Takes the units of a request that writes one item, or fails.
    pub(super) fn admit_request(&self, body: &str) -> Result<(), Failure> {
        // The engine refuses a request that cannot be parsed.
        let Ok(ItemWrite { table_name: table, item, key }) = serde_json::from_str(body) else {
            return Ok(());
        };
        let item = if item.is_empty() { key } else { item };
        self.admit(&table, &item).map_err(|throttle| Failure::Throttled { throttle, table })
    }

    /// How long a write takes: zero unless a latency was set.
    pub(super) fn latency(&self) -> Duration {
        let now = now();
        let latency =
            |table: &Table| table.buckets.latency(now.saturating_duration_since(table.since));
        let none_yet = || self.capacity.least_latency();
        self.tables().values().map(latency).max().unwrap_or_else(none_yet)
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<String, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text that determines the partition: the event key, or the whole item if it has none.
fn partition_key(item: &Item) -> String {
    let key = item.get(KEY_ATTRIBUTE).map(serde_json::to_string);
    key.unwrap_or_else(|| serde_json::to_string(item)).unwrap_or_default()
}
