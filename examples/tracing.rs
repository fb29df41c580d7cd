//! Logs the outcome of each event.
//!
//! ```text
//! cargo run --example tracing --features test-util
//! ```
//!
//! The store's events have the target `dynamodb_eventstore`:
//!
//! | event | level | fields |
//! |---|---|---|
//! | `put` | TRACE | `key`, `body` |
//! | `ok` | DEBUG | `key`, `attempts`, `proof` |
//! | `error` | ERROR | `key`, `attempts`, `certainty`, `error` |
//!
//! Warnings are about things that the operator should look at: a table whose schema is not checked, a call that is
//! throttled.

use std::error::Error;
use std::time::Duration;

use dynamodb_eventstore::test_util::FakeTable;
use serde_json::json;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // DEBUG for the store shows keys and no bodies. The AWS SDK logs whole requests at TRACE, so it stays at WARN.
    let levels = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("dynamodb_eventstore", LevelFilter::DEBUG);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(levels).init();

    // A table that refuses one of the events as invalid, so that there is a failure to log.
    let table = FakeTable::new();
    table.reject(r#"{"order":"invalid"}"#);
    let store = table.store_builder().start().await?;
    drop(store.put(&json!({ "order": 7 })).await?);
    drop(store.put(&json!({ "order": "invalid" })).await?);
    let report = store.close(Duration::from_secs(20)).await?;
    println!("{} event stored, {} failed", report.stored, report.failed);
    Ok(())
}
