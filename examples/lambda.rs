//! A Lambda function that stores the records of each invocation before it answers.
//!
//! Lambda freezes the process between two invocations. Events that are still in the buffer then wait until the next
//! invocation, or are lost when there is none. So the handler waits for its events, and starts nothing that outlives it.
//!
//! `TABLE` names the table. The role needs the permissions of the guide's page on permissions.

use std::env;
use std::time::Duration;

use dynamodb_eventstore::EventStore;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

/// Shorter than the timeout of the function by the attempt timeout, so that every ticket is answered in time.
const EVENT_DEADLINE: Duration = Duration::from_secs(20);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Once for the execution environment: connections and the pace outlive an invocation.
    let store = EventStore::builder()
        .table(env::var("TABLE")?)
        .event_deadline(EVENT_DEADLINE)
        .attempt_timeout(ATTEMPT_TIMEOUT)
        .start()
        .await?;
    run(service_fn(|event| handle(&store, event))).await
}

async fn handle(store: &EventStore, event: LambdaEvent<Vec<Value>>) -> Result<Value, Error> {
    let mut tickets = Vec::with_capacity(event.payload.len());
    for record in &event.payload {
        tickets.push(store.put(record).await?);
    }
    // Sends what waits for more events to fill its batch, and waits until everything is settled.
    store.flush().await?;
    let mut keys = Vec::with_capacity(tickets.len());
    for ticket in tickets {
        // An error fails the invocation. If Lambda then repeats it, the records get new keys.
        keys.push(ticket.await?.key);
    }
    Ok(json!({ "keys": keys }))
}
