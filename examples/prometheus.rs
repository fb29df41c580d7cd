//! Serves the metrics of a store to Prometheus.
//!
//! ```text
//! cargo run --example prometheus --features local,metrics
//! curl http://127.0.0.1:9090/metrics
//! ```
//!
//! The program puts an event per `POST /events`. It listens on the address in `LISTEN`, until Ctrl-C. With the argument
//! `once` it stores one event, prints the metrics and ends. The table is in this process.

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use dynamodb_eventstore::{EventStore, LocalTable};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Buckets in seconds, from a fast call to an event's deadline. Without buckets the exporter makes summaries.
const SECONDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

async fn put(State(store): State<EventStore>, Json(event): Json<Value>) -> StatusCode {
    // The metrics show what becomes of the event.
    match store.put(&event).await {
        Ok(ticket) => drop(ticket),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE,
    }
    StatusCode::ACCEPTED
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The recorder comes first: a store looks up its metrics once, when it starts.
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(
            Matcher::Suffix("_batch_events".into()),
            &[1.0, 5.0, 10.0, 24.0, 25.0],
        )?
        .install_recorder()?;
    let table = LocalTable::in_memory().await?;
    let store = table.store_builder().start().await?;
    let render = move || {
        // Moves what the histograms have recorded into their buckets, so that the memory stays bounded.
        recorder.run_upkeep();
        recorder.render()
    };

    if std::env::args().nth(1).as_deref() == Some("once") {
        store.put(&json!({ "order": 7 })).await?.await?;
        store.close(Duration::from_secs(20)).await?;
        print!("{}", render());
        return Ok(());
    }
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:9090".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let service = axum::Router::new()
        .route("/metrics", get(async move || render()))
        .route("/events", post(put))
        .with_state(store.clone());
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    let report = store.close(Duration::from_secs(20)).await?;
    println!("{} events stored, {} failed", report.stored, report.failed);
    Ok(())
}
