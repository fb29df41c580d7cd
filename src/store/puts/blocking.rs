//! [`EventStore::blocking_put`]: a put for threads outside of a runtime.

use serde::Serialize;

use crate::error::PutError;
use crate::pending::PutTicket;
use crate::store::EventStore;

impl EventStore {
    /// Puts an event from a thread that runs no async code, and blocks the thread while the buffer is full. Otherwise
    /// like [`put`](Self::put).
    ///
    /// The store's runtime has to run meanwhile: on threads of its own, or in a
    /// [`block_on`](tokio::runtime::Runtime::block_on) of another thread.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put). If the runtime was shut down, that is [`PutError::WorkerLost`].
    ///
    /// # Panics
    ///
    /// In async code, whether or not the buffer has room, like
    /// [`blocking_send`](tokio::sync::mpsc::Sender::blocking_send): a blocked thread would keep the other tasks of its
    /// runtime from running. Use [`put`](Self::put) there. In [`spawn_blocking`](tokio::task::spawn_blocking) it does
    /// not panic.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "test-util")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let table = dynamodb_eventstore::test_util::FakeTable::new();
    /// # let runtime = tokio::runtime::Runtime::new()?;
    /// # let store = runtime.block_on(table.store_builder().start())?;
    /// let thread = std::thread::spawn({
    ///     let store = store.clone();
    ///     move || {
    ///         let ticket = store.blocking_put(&serde_json::json!({ "foo": "bar" })).map_err(|e| e.to_string())?;
    ///         ticket.blocking_wait().map_err(|e| e.to_string())
    ///     }
    /// });
    /// let stored = thread.join().expect("it has not panicked")?;
    /// println!("stored under {}", stored.key);
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "test-util"))]
    /// # fn main() {}
    /// ```
    #[track_caller]
    pub fn blocking_put<E: Serialize + ?Sized>(&self, event: &E) -> Result<PutTicket, PutError> {
        // It also panics where the put would not wait. A misuse would else show under load only.
        self.shared.runtime.block_on(self.put(event))
    }
}
