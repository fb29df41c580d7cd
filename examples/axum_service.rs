//! An HTTP service that answers 202 with the key of the event. Before it ends, it stores all events that it has
//! accepted.
//!
//! ```text
//! TABLE=all-events LISTEN=127.0.0.1:3000 cargo run --example axum_service
//! curl -i --json '{"order":7}' http://127.0.0.1:3000/events
//! ```
//!
//! Region and credentials come from the AWS environment or profile. With `AWS_ENDPOINT_URL=http://127.0.0.1:8000` it
//! writes to a table of `dynamodb-eventstore local`.

use std::env;
use std::error::Error;
use std::time::Duration;

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use dynamodb_eventstore::{EventStore, PutError};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long to wait for open requests after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// How long to wait for accepted events after that. Kubernetes and ECS wait 30 s between SIGTERM and SIGKILL.
const CLOSE: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = EventStore::builder().table(env::var("TABLE")?).start().await?;

    let app = Router::new().route("/events", post(accept)).with_state(store.clone());
    let listener = TcpListener::bind(env::var("LISTEN")?).await?;
    println!("listening on {}", listener.local_addr()?);

    let (stop, mut stopped) = watch::channel(());
    let shutdown = async move { _ = stopped.changed().await };
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown);
    let server = tokio::spawn(server.into_future());
    terminated().await?;
    stop.send(())?;
    // A client that never finishes its request must not keep the store from closing.
    if let Ok(served) = timeout(DRAIN, server).await {
        served??;
    }

    let report = store.close(CLOSE).await?;
    println!("{} events stored, {} failed", report.stored, report.failed);
    // `dynamodb-eventstore resume` takes these lines. Save them where they outlive the container.
    report.write_ndjson(std::io::stderr())?;
    Ok(())
}

async fn accept(
    State(store): State<EventStore>,
    Json(event): Json<Value>,
) -> (StatusCode, Json<Value>) {
    match store.try_put(&event) {
        // The ticket is dropped, but the event is still written. If it fails, the close report lists it.
        Ok(ticket) => (StatusCode::ACCEPTED, Json(json!({ "key": ticket.key() }))),
        Err(error) => {
            let status = match error {
                PutError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
                // The buffer is full, the table is too slow, or the service is stopping: try later.
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, Json(json!({ "error": error.to_string() })))
        }
    }
}

/// Waits for SIGTERM, or for Ctrl-C where there is no such signal.
async fn terminated() -> std::io::Result<()> {
    #[cfg(unix)]
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?.recv().await;
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}
