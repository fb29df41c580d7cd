//! The store of this crate, with its default settings.

use std::time::Duration;

use dynamodb_eventstore::EventStore;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::client::config;
use super::endpoint::TABLE;

/// The body of each event: JSON text of 200 bytes.
pub(crate) fn body() -> String {
    format!("\"{}\"", "x".repeat(198))
}

pub(crate) fn play(url: &str, duration: Duration) {
    let url = url.to_owned();
    let runtime = Runtime::new().unwrap();
    let run = async move {
        let store = EventStore::builder().sdk_config(&config(&url).await).table(TABLE);
        let store = store.check_table(false).start().await.unwrap();
        let put_repeatedly = async {
            let body = body();
            loop {
                // The ticket is not needed: the table counts the events.
                drop(store.put_json(&body).await.unwrap());
            }
        };
        timeout(duration, put_repeatedly).await.unwrap_err();
        store.close(Duration::ZERO).await.unwrap();
    };
    runtime.block_on(runtime.spawn(run)).unwrap();
}
