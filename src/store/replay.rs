//! [`Replay`]: puts events of the journal again if they are not stored and no ticket of this process waits for them.

use std::num::NonZeroU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::builder::EventStoreBuilder;
use super::{EventStore, Shared};
use crate::dynamodb::{BatchReading, BatchWriter};
use crate::error::{Certainty, WriteError};
use crate::event::key::EventKey;
use crate::event::{Event, MAX_BATCH_EVENTS};
use crate::journal::{Journal, ReadEvent, Unsettled};
use crate::pending::PutTicket;
use crate::settled::{Proof, Stored};
use crate::worker::WorkerExit;
use crate::write_mode::WriteMode;

/// The largest number of replayed events in the buffer at a time. The rest of the buffer is for new events.
const MAX_REPLAYED_EVENTS: usize = 1_000;

/// How often the store looks for events whose tickets were answered, but which are not stored, and puts them again.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The outcome of the events that an earlier process left in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Events that the table had already.
    pub found: u64,
    /// Events that were put again, and stored.
    pub stored: u64,
    /// Events that failed for good. They are in `failed.ndjson` in the journal's directory.
    pub failed: u64,
    /// Events that are still in the journal. Either they were not stored before the deadline of the event or of close,
    /// and this store or the next puts them again later. Or their records could not be read.
    pub left: u64,
}

impl EventStore {
    /// Waits until the events that an earlier process left in the journal are put again and answered, and returns their
    /// outcome. `None` without a journal.
    ///
    /// New events can be put meanwhile. After [`close`](Self::close) the rest stays in the journal.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only stops the wait.
    pub async fn replayed(&self) -> Option<ReplayReport> {
        let mut replayed = self.shared.replayed.clone()?;
        replayed.wait_for(Option::is_some).await.ok().and_then(|report| *report)
    }
}

/// # The journal
impl EventStoreBuilder {
    /// Keeps accepted events in this journal until they are settled, so that they survive the process. None by default.
    ///
    /// The store also puts again the events that an earlier process left in it; see [`replayed`](EventStore::replayed).
    pub fn journal(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }
}

/// Puts again the events that an earlier process left, and those of this process that missed their deadlines.
pub(super) struct Replay {
    shared: Weak<Shared>,
    writer: Arc<dyn BatchWriter>,
    mode: WriteMode,
    read_timeout: Duration,
    unsettled: Unsettled,
    exit: watch::Receiver<Option<WorkerExit>>,
    report: watch::Sender<Option<ReplayReport>>,
}

impl Replay {
    pub(super) fn new(
        shared: &Arc<Shared>,
        writer: Arc<dyn BatchWriter>,
        unsettled: Unsettled,
        report: watch::Sender<Option<ReplayReport>>,
    ) -> Self {
        let (read_timeout, exit) = (shared.config.worker.attempt_timeout, shared.exit.clone());
        let mode = shared.config.worker.write_mode;
        Self { shared: Arc::downgrade(shared), writer, mode, read_timeout, unsettled, exit, report }
    }

    /// First puts again the events that an earlier process left. Then, until the store ends, puts again the events that
    /// this process has kept.
    pub(super) async fn run(mut self) {
        let left = std::mem::take(&mut self.unsettled.sequences);
        let report = self.put_again(&left).await;
        if !left.is_empty() {
            tracing::info!(?report, "the events of an earlier process are put again");
        }
        self.report.send_replace(Some(report));
        while timeout(RETRY_INTERVAL, self.exit.wait_for(Option::is_some)).await.is_err() {
            let kept = self.unsettled.take_kept();
            if !kept.is_empty() {
                let report = self.put_again(&kept).await;
                tracing::info!(?report, "events of the journal are put again");
            }
        }
    }

    /// Reads the events back in their order, and puts those that the table does not have. Returns their outcome.
    ///
    /// A read that fails decides nothing: the event is put again, which changes nothing if it is stored.
    async fn put_again(&self, sequences: &[NonZeroU64]) -> ReplayReport {
        let mut report = ReplayReport::default();
        let mut tickets = FuturesUnordered::new();
        let mut rest = sequences;
        while !rest.is_empty() {
            let Some(read) = self.read_first(rest).await else {
                report.left += rest.len() as u64;
                break;
            };
            rest = rest.get(read.len()..).unwrap_or_default();
            let readable = read.into_iter().filter_map(|read| self.readable(read, &mut report));
            let mut events = readable.collect::<Vec<_>>().into_iter();
            while events.len() > 0 {
                let chunk = events.by_ref().take(MAX_BATCH_EVENTS).collect();
                self.put_chunk(chunk, &mut tickets, &mut report).await;
            }
        }
        while let Some(answer) = tickets.next().await {
            report.count(&answer);
        }
        report
    }

    async fn put_chunk(
        &self,
        events: Vec<(NonZeroU64, Event)>,
        tickets: &mut FuturesUnordered<PutTicket>,
        report: &mut ReplayReport,
    ) {
        let reading = self.read_back(&events).await;
        for (sequence, event) in events {
            match reading.as_ref().and_then(|reading| reading.body(event.key())) {
                Some(Some(body)) if body == event.body() => {
                    report.found += 1;
                    self.settle(sequence, None);
                    continue;
                }
                // To put the event would overwrite the other one.
                Some(_) => {
                    report.failed += 1;
                    tracing::error!(
                        key = %event.key(),
                        "another event is stored under the key of this event of the journal; the event is in \
                         failed.ndjson: put its body as a new event"
                    );
                    self.settle(sequence, Some(failed_line(&event)));
                    continue;
                }
                None => {}
            }
            while tickets.len() >= MAX_REPLAYED_EVENTS
                && let Some(answer) = tickets.next().await
            {
                report.count(&answer);
            }
            match self.put(sequence, event).await {
                Some(ticket) => tickets.push(ticket),
                None => report.left += 1,
            }
        }
    }

    /// Reads from the table which of the events it has. `None` if the read fails, and for inserts, which need none.
    async fn read_back(&self, events: &[(NonZeroU64, Event)]) -> Option<BatchReading> {
        if self.mode == WriteMode::Insert {
            return None;
        }
        let keys: Vec<EventKey> = events.iter().map(|(_, event)| *event.key()).collect();
        let reading = timeout(self.read_timeout, self.writer.read_batch(&keys)).await;
        reading.ok()?.ok().filter(|reading| reading.is_about(&keys))
    }

    /// Reads the first of these events from the disk. `None` if the runtime shuts down.
    async fn read_first(&self, sequences: &[NonZeroU64]) -> Option<Vec<ReadEvent>> {
        let sequences = sequences.get(..MAX_REPLAYED_EVENTS).unwrap_or(sequences).to_vec();
        let reader = self.unsettled.reader.clone();
        spawn_blocking(move || reader.read_first(&sequences)).await.ok()
    }

    /// An event that could be read. One that cannot be read now is kept, to be put later.
    fn readable(
        &self,
        (sequence, event): ReadEvent,
        report: &mut ReplayReport,
    ) -> Option<(NonZeroU64, Event)> {
        match event {
            Ok(event) => Some((sequence, event)),
            Err(error) => {
                tracing::error!(%error, "an event of the journal cannot be read");
                report.left += 1;
                self.unsettled.keep(sequence);
                None
            }
        }
    }

    /// Puts an event under its old key. `None` once the store is closed.
    async fn put(&self, sequence: NonZeroU64, event: Event) -> Option<PutTicket> {
        // The replay holds no handle while it waits, so that a store ends when its last handle is dropped. The next
        // process puts the rest.
        let accounting = Arc::clone(&self.shared.upgrade()?.accounting);
        let bytes = accounting.permit_bytes(event.buffered_bytes());
        let permit = accounting.flow_control.acquire(bytes).await.ok()?;
        let store = EventStore { shared: self.shared.upgrade()? };
        store.send_from_journal(event, sequence, permit).ok()
    }

    fn settle(&self, sequence: NonZeroU64, failed_line: Option<Vec<u8>>) {
        if let Some(shared) = self.shared.upgrade()
            && let Some(journal) = &shared.accounting.journal
        {
            journal.settle(sequence, failed_line);
        }
    }
}

/// A line of `failed.ndjson` for an event whose key another event has.
fn failed_line(event: &Event) -> Vec<u8> {
    let line = serde_json::json!({
        "key": event.key(),
        "certainty": Certainty::MaybeStored,
        "reason": "another event is under its key; put its body as a new event",
        "body": event.body(),
    });
    format!("{line}\n").into_bytes()
}

impl ReplayReport {
    fn count(&mut self, answer: &Result<Stored, WriteError>) {
        match answer {
            Ok(Stored { proof: Proof::ReadBack, .. }) => self.found += 1,
            Ok(_) => self.stored += 1,
            Err(error) if error.is_journalled() => self.left += 1,
            Err(_) => self.failed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;
    use crate::clock::now;
    use crate::dynamodb::BatchReceipt;
    use crate::error::BatchError;
    use crate::worker::CloseDeadlines;

    /// Answers no call.
    struct Silent;

    impl BatchWriter for Silent {
        fn write_batch<'a>(
            &'a self,
            _events: &'a [Event],
        ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn event_unsettled_when_the_store_ends_stays_journalled() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).await.unwrap();
        let store = EventStore::builder().batch_writer(Silent).journal(journal);
        let store = store.start().await.unwrap();
        let event = Event::new(store.shared.keys.next().unwrap(), "1").unwrap();
        let ticket = store.put_event(event.clone()).await.unwrap();
        ticket.journalled().await.unwrap();
        // The put gets its permit, but the worker ends before the event is sent to it.
        let permit = store.acquire(event.buffered_bytes()).await.unwrap();
        let deadlines = CloseDeadlines { fail_at: now(), answer_by: now() };
        store.shared.close_deadlines.send_replace(Some(deadlines));
        store.shared.exit.clone().wait_for(Option::is_some).await.unwrap();
        store.send_from_journal(event, NonZeroU64::MIN, permit).unwrap_err();
        store.close(Duration::ZERO).await.unwrap();
        drop(store);
        assert_eq!(Journal::open(folder.path()).await.unwrap().report().unsettled, 1);
    }
}
