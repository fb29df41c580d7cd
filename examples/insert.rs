//! The integration check of the npm module: inserts `{foo: "bar"}` into the table `all-events` in
//! us-east-1, and prints `done`, after `error` if it failed.
//!
//! ```text
//! DYNAMODB_ES_TEST_ACCESS_KEY_ID=… DYNAMODB_ES_TEST_SECRET_ACCESS_KEY=… cargo run --example insert
//! ```
//!
//! With `AWS_ENDPOINT_URL` it writes to another endpoint than AWS, for example to
//! `dynamodb-eventstore local`.

use std::env;
use std::error::Error;

use dynamodb_eventstore::EventStore;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (id, secret) = ("DYNAMODB_ES_TEST_ACCESS_KEY_ID", "DYNAMODB_ES_TEST_SECRET_ACCESS_KEY");
    let (Ok(access_key_id), Ok(secret_access_key)) = (env::var(id), env::var(secret)) else {
        println!("set {id} and {secret} in the environment to run this check");
        return;
    };
    if let Err(error) = insert(access_key_id, secret_access_key).await {
        println!("error");
        eprintln!("{error}");
    }
    println!("done");
}

async fn insert(access_key_id: String, secret_access_key: String) -> Result<(), Box<dyn Error>> {
    let store = EventStore::builder()
        .table("all-events")
        .region("us-east-1")
        .credentials(access_key_id, secret_access_key)
        .start()
        .await?;
    store.put(&json!({ "foo": "bar" })).await?.await?;
    Ok(())
}
