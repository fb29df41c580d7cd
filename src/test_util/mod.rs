//! Feature `test-util`: a table without a service, for the tests of programs that store events.
//!
//! [`FakeTable`] is a [`BatchWriter`](crate::BatchWriter) that keeps its items in memory, obeys the
//! service's rules, and fails as it is told: by a script, or at random from a seed. Behind it the store
//! is the real one, with its retries, its deadlines and its answers. On tokio's paused clock
//! (`#[tokio::test(start_paused = true)]`) hours of outage take no time.
//!
//! How a program copes with a throttled event, and with an outage that outlasts the event's deadline:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::time::pause();
//! use dynamodb_eventstore::Certainty;
//! use dynamodb_eventstore::test_util::{FakeTable, Reply};
//! use serde_json::json;
//!
//! // The first call hands its first event back, as the service does when it is short of capacity.
//! let table = FakeTable::scripted([Reply::Unprocessed(vec![0])]);
//! let store = table.store_builder().start().await?;
//! let stored = store.put(&json!({ "order": 7 })).await?.await?;
//! assert_eq!(stored.attempts, 2);
//! assert_eq!(table.body(&stored.key).as_deref(), Some(r#"{"order":7}"#));
//!
//! // From now on nothing answers. The ticket says so when its minute is over.
//! table.reply_from_now_on(Reply::Hang);
//! let error = store.put(&json!({ "order": 8 })).await?.await.unwrap_err();
//! assert_eq!(error.certainty(), Certainty::MaybeStored);
//! assert!(error.attempts() > 1);
//! # Ok(())
//! # }
//! ```
//!
//! A bad day that is the same every time:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::time::pause();
//! use dynamodb_eventstore::test_util::{FakeTable, FaultRates};
//!
//! let seed = 20130927;
//! let table = FakeTable::seeded(seed, FaultRates::default());
//! let store = table.store_builder().deterministic(seed).start().await?;
//! let mut tickets = Vec::new();
//! for number in 0..100 {
//!     tickets.push(store.put(&number).await?);
//! }
//! for ticket in tickets {
//!     let key = *ticket.key();
//!     if ticket.await.is_ok() {
//!         assert!(table.body(&key).is_some());
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod fake_table;
mod reply;
mod rules;
mod state;
mod throughput;

pub use fake_table::FakeTable;
pub use reply::{FaultRates, ReadReply, Reply};
pub use state::Call;
pub use throughput::Throughput;
