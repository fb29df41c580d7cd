//! Feature `test-util`: a fake table for the tests of programs that store events.
//!
//! [`FakeTable`] is a [`BatchWriter`](crate::BatchWriter) that keeps its items in memory, obeys the
//! service's rules, and fails as scripted, or at random from a seed. The store that writes to it is
//! the real one, with its retries, deadlines and answers. On tokio's paused clock
//! (`#[tokio::test(start_paused = true)]`) an outage of hours takes no real time.
//!
//! A throttled event, and an outage that lasts longer than the event deadline:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::time::pause();
//! use dynamodb_eventstore::Certainty;
//! use dynamodb_eventstore::test_util::{FakeTable, Reply};
//! use serde_json::json;
//!
//! // The first call leaves its first event unprocessed, as the service does when it lacks capacity.
//! let table = FakeTable::scripted([Reply::Unprocessed(vec![0])]);
//! let store = table.store_builder().start().await?;
//! let stored = store.put(&json!({ "order": 7 })).await?.await?;
//! assert_eq!(stored.attempts, 2);
//! assert_eq!(table.body(&stored.key).as_deref(), Some(r#"{"order":7}"#));
//!
//! // From now on the table does not answer. The ticket fails at the event deadline of a minute.
//! table.reply_from_now_on(Reply::Hang);
//! let error = store.put(&json!({ "order": 8 })).await?.await.unwrap_err();
//! assert_eq!(error.certainty(), Certainty::MaybeStored);
//! assert!(error.attempts() > 1);
//! # Ok(())
//! # }
//! ```
//!
//! Random faults that are the same in every run:
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
