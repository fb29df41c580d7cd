//! A service that puts events as requests come in, and flushes gracefully when it is told to stop.
//!
//! It runs on a table in memory: `cargo run --example service --features local`. Ctrl-C stops it,
//! or the end of its hundred requests.

use std::error::Error;
use std::time::Duration;

use dynamodb_eventstore::{EventStore, LocalTable, PutError};
use serde_json::json;
use tokio::signal::ctrl_c;
use tokio::time::interval;

/// Shorter than the 30 s that Kubernetes and ECS wait between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let table = LocalTable::in_memory().await?;
    let store = table.store_builder().start().await?;

    tokio::select! {
        served = serve(store.clone()) => served?,
        _ = ctrl_c() => println!("stopping"),
    }

    let report = store.close(GRACE).await?;
    println!("{} events stored, {} not", report.stored, report.failed);
    for error in &report.not_stored {
        // The event itself is `error.event()`: keep it where it can be put again.
        eprintln!("{error}");
    }
    Ok(())
}

async fn serve(store: EventStore) -> Result<(), PutError> {
    let mut requests = interval(Duration::from_millis(10));
    for number in 0..100 {
        requests.tick().await;
        let ticket = store.put(&json!({ "request": number })).await?;
        // The answer to the request need not wait for the event; somebody should hear of a failure.
        tokio::spawn(async move {
            if let Err(error) = ticket.await {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}
