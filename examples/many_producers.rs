//! Many tasks that put events faster than the table accepts them.
//!
//! `put` waits while the buffer is full. So the producers run at the rate of the table, in bounded memory, and no
//! event passes its deadline while it waits.
//!
//! ```text
//! cargo run --example many_producers --features local
//! ```
//!
//! The table is in this process and accepts 500 write units a second.

use std::error::Error;
use std::time::Duration;

use dynamodb_eventstore::{EventStore, LocalTable, PutError, WriteCapacity};
use serde_json::json;
use tokio::task::JoinSet;

const PRODUCERS: u64 = 8;
const EVENTS_EACH: u64 = 250;
const MAX_BUFFERED_EVENTS: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let capacity = WriteCapacity::provisioned(500);
    let table = LocalTable::builder().write_capacity(capacity).start().await?;
    let store = table.store_builder().max_buffered_events(MAX_BUFFERED_EVENTS).start().await?;

    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(produce(store.clone(), producer));
    }
    let mut most_pending = 0;
    while let Some(joined) = producers.join_next().await {
        most_pending = most_pending.max(joined??);
    }

    let stats = store.stats();
    let report = store.close(Duration::from_secs(20)).await?;
    println!("{} events stored, {} failed", report.stored, report.failed);
    println!("at most {most_pending} events were buffered");
    println!("{} write units were throttled and sent again", stats.throttled_units);
    for error in &report.errors {
        eprintln!("{error}");
    }
    Ok(())
}

/// Puts events one after the other, and returns the largest number of pending events that it saw.
async fn produce(store: EventStore, producer: u64) -> Result<u64, PutError> {
    let mut most_pending = 0;
    for number in 0..EVENTS_EACH {
        // Waits while the buffer is full. The ticket is dropped, so `close` reports the event if it fails.
        drop(store.put(&json!({ "producer": producer, "number": number })).await?);
        most_pending = most_pending.max(store.stats().pending);
    }
    Ok(most_pending)
}
