//! How to test a program that stores events: with a `FakeTable`, on tokio's paused clock.
//!
//! ```text
//! cargo test --example testing --features test-util
//! ```
//!
//! The store in these tests is the real one, with its retries, deadlines and answers. Only the table is replaced.

use dynamodb_eventstore::{Event, EventStore, PutError};
use serde_json::json;

/// The program under test. It keeps events that could not be stored, and puts them again later.
struct Orders {
    store: EventStore,
    outbox: Vec<Event>,
}

impl Orders {
    /// Records a payment. Returns `false` if its event is in the outbox.
    async fn paid(&mut self, order: u64) -> Result<bool, PutError> {
        let answer = self.store.put(&json!({ "paid": order })).await?.await;
        let failed = answer.err().and_then(|error| error.event().cloned());
        self.outbox.extend(failed.clone());
        Ok(failed.is_none())
    }

    /// Puts the events of the outbox again, under the same keys, so that none is stored twice.
    async fn replay(&mut self) -> Result<(), PutError> {
        for event in std::mem::take(&mut self.outbox) {
            if self.store.put_event(event.clone()).await?.await.is_err() {
                self.outbox.push(event);
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = EventStore::builder().table("all-events").start().await?;
    let mut orders = Orders { store, outbox: Vec::new() };
    orders.paid(7).await?;
    Ok(orders.replay().await?)
}

#[cfg(test)]
mod tests {
    use dynamodb_eventstore::test_util::{FakeTable, Reply};

    use super::*;

    async fn orders(table: &FakeTable) -> Orders {
        Orders { store: table.store_builder().start().await.unwrap(), outbox: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_payment_is_recorded() {
        let table = FakeTable::scripted([Reply::throttle(), Reply::throttle()]);
        assert!(orders(&table).await.paid(7).await.unwrap());
        assert_eq!(table.calls().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_payment_during_an_outage_is_recorded_once_after_it() {
        let table = FakeTable::new();
        // The event is applied, but no answer comes. Reads fail as well.
        table.reply_from_now_on(Reply::StoreThenHang);
        table.reply_to_reads_from_now_on(dynamodb_eventstore::test_util::ReadReply::Hang);
        let mut orders = orders(&table).await;
        assert!(!orders.paid(7).await.unwrap());

        table.reply_from_now_on(Reply::Store);
        orders.replay().await.unwrap();
        assert!(orders.outbox.is_empty());
        assert_eq!(table.rows().into_values().collect::<Vec<_>>(), [r#"{"paid":7}"#]);
    }
}
