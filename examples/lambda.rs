//! A Lambda function that stores the records of each invocation before it answers.
//!
//! Lambda freezes the process between two invocations. Events that are still in the buffer then wait until the next
//! invocation, or are lost when there is none. So the handler waits for its events, and starts nothing that outlives it.
//!
//! `TABLE` names the table. The guide's page on permissions lists what the role needs.

use std::env;
use std::time::Duration;

use dynamodb_eventstore::EventStore;
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

/// At least one attempt timeout shorter than the timeout of the function, so that every ticket is answered in time.
const EVENT_DEADLINE: Duration = Duration::from_secs(20);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Started once for the execution environment, so that invocations share the connections and the pace.
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
    // Sends events without waiting for full batches, and waits until all are settled.
    store.flush().await?;
    let mut keys = Vec::with_capacity(tickets.len());
    for ticket in tickets {
        // An error fails the invocation. If Lambda then repeats it, the records get new keys.
        keys.push(ticket.await?.key);
    }
    Ok(json!({ "keys": keys }))
}
