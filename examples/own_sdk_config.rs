//! One AWS configuration for the store, for the table and for the program's other AWS clients.
//!
//! ```text
//! TABLE=all-events cargo run --example own_sdk_config
//! ```
//!
//! The table is created if it does not exist. With `AWS_ENDPOINT_URL=http://127.0.0.1:8000` this example uses a table
//! of `dynamodb-eventstore local`.

use std::env;
use std::error::Error;
use std::time::Duration;

use aws_config::{AppName, BehaviorVersion};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use dynamodb_eventstore::{Capacity, EventStore, KEY_ATTRIBUTE, Table, TableError};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = env::var("TABLE").unwrap_or_else(|_| "all-events".to_owned());
    // The store takes region, credentials, endpoint, proxy and HTTP client from this configuration. It does not take
    // retries and time-outs: it has its own, so that it sees every attempt.
    let config = aws_config::defaults(BehaviorVersion::latest())
        .app_name(AppName::new("order-service")?)
        .load()
        .await;
    let client = Client::new(&config);

    let table = Table::new(&client, &name);
    match table.create(Capacity::OnDemand).await {
        Ok(()) | Err(TableError::Exists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    table.wait_until_active(Duration::from_secs(60)).await?;

    // `client(&client)` would keep the interceptors, spans and metrics of the client, but takes about twice the CPU
    // time.
    let store = EventStore::builder().sdk_config(&config).table(&name).start().await?;
    let stored = store.put(&json!({ "order": 7 })).await?.await?;
    store.close(Duration::from_secs(20)).await?;

    let read = client
        .get_item()
        .table_name(&name)
        .key(KEY_ATTRIBUTE, AttributeValue::S(stored.key.to_string()))
        .consistent_read(true)
        .send()
        .await?;
    println!("{:?}", read.item.ok_or("the event is not there")?);
    Ok(())
}
