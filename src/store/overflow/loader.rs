//! [`Loader`]: the task that sends waiting events to the worker, in their order, while the buffer has room.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::queue::Entry;
use super::{Next, Overflow};
use crate::accounting::Accounting;
use crate::clock::now;
use crate::error::{FailureReason, WorkerLost};
use crate::event::Event;
use crate::flow_control::Permit;
use crate::journal::{ReadEvent, Reader};
use crate::pending::WaitingEvent;
use crate::store::{EventStore, Shared};
use crate::worker::{Command, WorkerExit};

/// The most events of one read. It limits the memory of the list of their sequence numbers.
const MAX_EVENTS_TO_READ: usize = 4_096;

/// Sends the events of an [`Overflow`] to the worker. Its `Drop` fails those that are left, so each of their tickets is
/// answered.
pub(in crate::store) struct Loader {
    overflow: Arc<Overflow>,
    accounting: Arc<Accounting>,
    reader: Reader,
    exit: watch::Receiver<Option<WorkerExit>>,
}

/// Why the loader stops sending.
enum Stop {
    /// The deadline of close has passed.
    Deadline,
    /// The worker has ended.
    Ended,
    /// The runtime shuts down.
    Shutdown,
}

impl Loader {
    pub(in crate::store) fn new(shared: &Shared, overflow: Arc<Overflow>, reader: Reader) -> Self {
        let (accounting, exit) = (Arc::clone(&shared.accounting), shared.exit.clone());
        Self { overflow, accounting, reader, exit }
    }

    /// Runs until the worker ends. After close it stops the worker once no event waits.
    pub(in crate::store) async fn run(self) {
        let mut exit = self.exit.clone();
        loop {
            if let Some(shared) = self.overflow.store() {
                match self.send_all(&shared).await {
                    Ok(()) => {}
                    Err(Stop::Deadline) => {
                        self.overflow.fail_all(FailureReason::CloseDeadline, &self.accounting);
                    }
                    Err(Stop::Ended | Stop::Shutdown) => return,
                }
                if let Some(deadlines) = self.overflow.deadlines() {
                    shared.stop_worker(deadlines);
                }
            }
            tokio::select! {
                biased;
                _ = exit.wait_for(Option::is_some) => return,
                () = self.overflow.added.notified() => {}
            }
        }
    }

    /// Sends events until none waits.
    async fn send_all(&self, shared: &Arc<Shared>) -> Result<(), Stop> {
        let past_deadline = std::pin::pin!(self.overflow.past_deadline());
        let mut past_deadline: Pin<&mut _> = past_deadline;
        let mut exit = self.exit.clone();
        while let Some(next) = self.overflow.next(MAX_EVENTS_TO_READ) {
            let events = match next {
                Next::InMemory(sequence, event) => vec![(sequence, Ok(event))],
                // A disk that hangs must not delay close past its deadline.
                Next::OnDisk(sequences) => tokio::select! {
                    biased;
                    () = &mut past_deadline => return Err(Stop::Deadline),
                    read = self.read(sequences) => read?,
                },
            };
            for (sequence, event) in events {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::error!(%error, "an event that waits on disk cannot be read");
                        self.fail_unreadable(shared, sequence);
                        continue;
                    }
                };
                let bytes = self.accounting.permit_bytes(event.buffered_bytes());
                let permit = tokio::select! {
                    biased;
                    _ = exit.wait_for(Option::is_some) => return Err(Stop::Ended),
                    () = &mut past_deadline => return Err(Stop::Deadline),
                    permit = self.accounting.flow_control.acquire(bytes) => permit,
                };
                let Ok(permit) = permit else { return Err(Stop::Ended) };
                self.send(shared, sequence, event, permit);
            }
        }
        Ok(())
    }

    /// Reads the first of these events from the disk.
    async fn read(&self, sequences: Vec<NonZeroU64>) -> Result<Vec<ReadEvent>, Stop> {
        let reader = self.reader.clone();
        let read = spawn_blocking(move || reader.read_first(&sequences)).await;
        read.map_err(|_| Stop::Shutdown)
    }

    fn send(&self, shared: &Arc<Shared>, sequence: NonZeroU64, event: Event, permit: Permit<'_>) {
        let store = EventStore { shared: Arc::clone(shared) };
        let key = *event.key();
        let lost = self.overflow.send_first(sequence, &self.accounting, |waiting| {
            let waiting = match waiting {
                Entry::Event(waiting) => waiting,
                Entry::Run { first, .. } => WaitingEvent::without_ticket(first, key),
            };
            store.send_loaded(waiting.into_pending(event, permit, &self.accounting))
        });
        if let Some(Some(mut lost)) = lost {
            // Dropping it answers its ticket: the worker is lost.
            lost.admit(&self.accounting, Default::default(), now());
            #[cfg(feature = "metrics")]
            self.accounting.metrics.accept(1, lost.usage(&self.accounting).bytes);
        }
    }

    /// Fails an event whose record cannot be read. It stays in the journal, and is put again later.
    fn fail_unreadable(&self, shared: &Shared, sequence: NonZeroU64) {
        let reason = FailureReason::Unreadable;
        self.overflow.fail_first(sequence, &self.accounting, |waiting| {
            let was_received = match waiting {
                Entry::Event(event) => event.fail(reason, &self.accounting).was_received,
                Entry::Run { first, .. } => {
                    self.accounting.settle_waiting(1, reason);
                    if let Some(journal) = &self.accounting.journal {
                        journal.keep(first);
                    }
                    false
                }
            };
            // Fails if the worker has ended. Then there is no report.
            let _ = shared.commands.send(Command::Unreadable { was_received });
        });
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let lost = match &*self.exit.borrow() {
            Some(WorkerExit::Lost(lost)) => *lost,
            Some(WorkerExit::Closed(_)) | None => WorkerLost::while_dropping(),
        };
        self.overflow.fail_all(FailureReason::WorkerLost(lost), &self.accounting);
    }
}
