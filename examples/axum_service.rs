//! An HTTP service that answers 202 with the key of the event, and stores what it has accepted before it ends.
//!
//! ```text
//! TABLE=all-events cargo run --example axum_service
//! curl -i --json '{"order":7}' http://127.0.0.1:3000/events
//! ```
//!
//! `LISTEN` is the address, 127.0.0.1:3000 by default. Region and credentials come from the AWS environment or
//! profile. With `AWS_ENDPOINT_URL=http://127.0.0.1:8000` it writes to a table of `dynamodb-eventstore local`.

use std::env;
use std::error::Error;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use dynamodb_eventstore::{EventStore, PutError};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

/// For open requests, after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// For accepted events, after that. Together they leave time within the 30 s that Kubernetes and ECS wait between
/// SIGTERM and SIGKILL.
const CLOSE: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let table = env::var("TABLE").unwrap_or_else(|_| "all-events".to_owned());
    let store = EventStore::builder().table(table).start().await?;
    let mut sigterm = signal(SignalKind::terminate())?;

    let app = Router::new().route("/events", post(accept)).with_state(store.clone());
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(listen).await?;
    println!("listening on {}", listener.local_addr()?);

    let (stop, mut stopped) = watch::channel(());
    let shutdown = async move { _ = stopped.changed().await };
    let server =
        tokio::spawn(async { axum::serve(listener, app).with_graceful_shutdown(shutdown).await });
    sigterm.recv().await;
    stop.send(())?;
    // A client that never finishes its request must not keep the store from closing.
    if let Ok(served) = timeout(DRAIN, server).await {
        served??;
    }

    let report = store.close(CLOSE).await?;
    println!("{} events stored, {} failed", report.stored, report.failed);
    // `dynamodb-eventstore resume` takes these lines. Keep them where they outlive the container.
    report.write_ndjson(std::io::stderr())?;
    Ok(())
}

async fn accept(
    State(store): State<EventStore>,
    Json(event): Json<Value>,
) -> (StatusCode, Json<Value>) {
    match store.try_put(&event) {
        // The ticket is dropped. The event is written all the same, and the close report lists it if it fails.
        Ok(ticket) => (StatusCode::ACCEPTED, Json(json!({ "key": ticket.key() }))),
        Err(error) => (status(&error), Json(json!({ "error": error.to_string() }))),
    }
}

fn status(error: &PutError) -> StatusCode {
    match error {
        PutError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        // The buffer is full, or the table is slower than the events come: the client should try later.
        PutError::Full { .. } | PutError::Throttled { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
