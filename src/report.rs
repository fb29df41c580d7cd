//! What flush and close say when they are done.

use std::io;

use crate::error::WriteError;

/// What became of the events that a [`flush`](crate::EventStore::flush) waited for.
///
/// It counts every event accepted before the call and not yet counted by a flush that had returned
/// before it. Flushes one after the other count each event once; flushes at the same time count
/// the events they share, each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct FlushReport {
    /// Events stored: acknowledged by the service, or found by a read.
    pub stored: u64,
    /// Events given up; their tickets say why.
    pub failed: u64,
}

/// What a closed store leaves behind; see [`close`](crate::EventStore::close).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Events stored over the store's whole life: acknowledged by the service, or found by a read.
    pub stored: u64,
    /// Events given up over the store's whole life.
    pub failed: u64,
    /// Every event that was given up since close was called, and every earlier one whose ticket
    /// had been dropped, so that nobody has heard of its failure; each with its key, body, attempts,
    /// certainty and last cause. [`write_ndjson`](Self::write_ndjson) keeps them.
    pub not_stored: Vec<WriteError>,
    /// Failed events with a dropped ticket that are missing from `not_stored`, because as many as
    /// the buffer may hold were kept already.
    pub not_listed: u64,
}

impl CloseReport {
    /// Whether every event that the store ever accepted is stored.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed == 0
    }

    /// Writes every event of [`not_stored`](Self::not_stored) as one line of JSON: its key and body,
    /// certainty, attempts and causes. Those that are only counted, in
    /// [`not_listed`](Self::not_listed), are not among them, nor those of which a ticket has heard.
    ///
    /// `dynamodb-eventstore resume FILE` puts the events of such lines again, under the same keys. A
    /// program reads each line as an [`Event`](crate::Event) and hands it to
    /// [`put_event`](crate::EventStore::put_event).
    ///
    /// # Errors
    ///
    /// Those of `writer`. Lines before the error are whole.
    ///
    /// # Example
    ///
    /// ```
    /// # async fn example(store: dynamodb_eventstore::EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let report = store.close(std::time::Duration::from_secs(20)).await?;
    /// if !report.not_stored.is_empty() {
    ///     let mut options = std::fs::OpenOptions::new();
    ///     let mut file = options.append(true).create(true).open("not-stored.ndjson")?;
    ///     report.write_ndjson(&mut file)?;
    ///     file.sync_all()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_ndjson(&self, mut writer: impl io::Write) -> io::Result<()> {
        for error in &self.not_stored {
            let mut line = serde_json::to_vec(error)?;
            line.push(b'\n');
            writer.write_all(&line)?;
        }
        writer.flush()
    }
}
