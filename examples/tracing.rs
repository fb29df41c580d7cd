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
//! Each call is a span, `write_batch`. It follows from the spans in which its events were put, which OpenTelemetry's
//! layers export as links. Here a layer prints them.
//!
//! Warnings are about things that the operator should look at: a table whose schema is not checked, a call that is
//! throttled.

use std::error::Error;
use std::time::Duration;

use dynamodb_eventstore::test_util::FakeTable;
use serde_json::json;
use tracing::span::Id;
use tracing::{Instrument, Subscriber, info_span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Prints each link from the span of a call to the span of a caller.
struct Links;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Links {
    fn on_follows_from(&self, call: &Id, caller: &Id, context: Context<'_, S>) {
        if let (Some(call), Some(caller)) = (context.span(call), context.span(caller)) {
            eprintln!("{} follows from {}", call.name(), caller.name());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // DEBUG for the store shows keys and no bodies. The AWS SDK logs whole requests at TRACE, so it stays at WARN.
    let levels = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("dynamodb_eventstore", LevelFilter::DEBUG)
        .with_target(module_path!(), LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(Links).with(levels).init();

    // A table that refuses one of the events as invalid, so that there is a failure to log.
    let table = FakeTable::new();
    table.reject(r#"{"order":"invalid"}"#);
    let store = table.store_builder().start().await?;
    drop(store.put(&json!({ "order": 7 })).instrument(info_span!("checkout")).await?);
    drop(store.put(&json!({ "order": "invalid" })).await?);
    let report = store.close(Duration::from_secs(20)).await?;
    println!("{} event stored, {} failed", report.stored, report.failed);
    Ok(())
}
