//! [`FlushReport`] and [`CloseReport`], which [`EventStore`](crate::EventStore) returns from flush and close.

use std::io;

use crate::error::WriteError;

/// The outcome of a [`flush`](crate::EventStore::flush).
///
/// It counts every event that was accepted before the call, except those that an earlier, finished flush has counted.
/// So consecutive flushes count each event once. Concurrent flushes each count the events that they share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct FlushReport {
    /// Events stored: acknowledged by the service, or found by a read.
    pub stored: u64,
    /// Events that failed. Their tickets have the reasons.
    pub failed: u64,
}

/// The outcome of a store's whole life; see [`close`](crate::EventStore::close).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Events stored over the store's whole life: acknowledged by the service, or found by a read.
    pub stored: u64,
    /// Events that failed over the store's whole life.
    pub failed: u64,
    /// The failed events: every one since close was called, except those [left on disk](Self::left_on_disk), and of the
    /// earlier ones those whose tickets were dropped.
    /// Each has its key, body, attempts, certainty and last cause. [`write_ndjson`](Self::write_ndjson) saves them.
    pub errors: Vec<WriteError>,
    /// How many failed events are missing from `errors`. Before close, the store keeps at most
    /// [`max_buffered_events`](crate::EventStoreBuilder::max_buffered_events) and
    /// [`max_buffered_bytes`](crate::EventStoreBuilder::max_buffered_bytes) of those with dropped tickets. It keeps none
    /// that waited on disk and could not be read.
    pub not_listed: u64,
    /// How many of the failed events waited on disk, in the journal, and were not sent before the deadline. `errors` does
    /// not list them. The next store that opens the journal puts them.
    pub left_on_disk: u64,
}

impl CloseReport {
    /// Whether every event that the store has accepted is stored.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed == 0
    }

    /// Writes each event of [`errors`](Self::errors) as one line of JSON: its key, body, certainty, attempts
    /// and causes. It does not write events that are only counted, in [`not_listed`](Self::not_listed) and
    /// [`left_on_disk`](Self::left_on_disk), nor those that failed before close and whose tickets received the answer.
    ///
    /// `dynamodb-eventstore resume FILE` puts the events of such lines again, under the same keys. A program reads each
    /// line as an [`Event`](crate::Event) and passes it to [`put_event`](crate::EventStore::put_event).
    ///
    /// # Errors
    ///
    /// Those of `writer`. The lines before the one that failed are complete.
    ///
    /// # Example
    ///
    /// ```
    /// # async fn example(store: dynamodb_eventstore::EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let report = store.close(std::time::Duration::from_secs(20)).await?;
    /// if !report.errors.is_empty() {
    ///     let mut options = std::fs::OpenOptions::new();
    ///     let mut file = options.append(true).create(true).open("not-stored.ndjson")?;
    ///     report.write_ndjson(&mut file)?;
    ///     file.sync_all()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_ndjson(&self, mut writer: impl io::Write) -> io::Result<()> {
        for error in &self.errors {
            let mut line = serde_json::to_vec(error)?;
            line.push(b'\n');
            writer.write_all(&line)?;
        }
        writer.flush()
    }
}
