//! [`EventStore::flush`] and [`EventStore::close`].

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{EventStore, Shared};
use crate::clock::{MAX_DEADLINE, now};
use crate::error::{CloseError, FlushError, WorkerLost};
use crate::report::{CloseReport, FlushReport};
use crate::worker::{CloseDeadlines, Command, WorkerExit};

/// # Flush and close
impl EventStore {
    /// Waits until every event accepted before the call is settled, retries included, and returns how many were stored
    /// and how many failed.
    ///
    /// Events in the buffer are sent without waiting for the linger. Events accepted after the call are not waited for.
    /// A flush takes at most one [`event_deadline`](crate::EventStoreBuilder::event_deadline) plus one
    /// [`attempt_timeout`](crate::EventStoreBuilder::attempt_timeout). If events wait on disk, this time begins when the
    /// last of them has come into the buffer.
    ///
    /// # Errors
    ///
    /// [`FlushError`]: the store is closed or has lost its worker.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only stops the wait: the events are flushed anyway. Later flushes do not report these events
    /// again.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// // In AWS Lambda, at the end of each invocation, as the function is frozen between them:
    /// let report = store.flush().await?;
    /// if report.failed > 0 {
    ///     eprintln!("{} of {} events failed", report.failed, report.failed + report.stored);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn flush(&self) -> Result<FlushReport, FlushError> {
        #[cfg(feature = "journal")]
        if let Some(overflow) = &self.shared.overflow
            && !overflow.drained().await
        {
            // The worker cannot count the events that were left.
            return Err(self.flush_error());
        }
        let (reply, report) = oneshot::channel();
        if self.shared.commands.send(Command::Flush(reply)).is_err() {
            return Err(self.flush_error());
        }
        report.await.map_err(|_| self.flush_error())
    }

    fn flush_error(&self) -> FlushError {
        self.lost().map_or(FlushError::Closed, FlushError::WorkerLost)
    }

    /// Closes the store: accepts no more events, settles the accepted events, and returns a report. Events that are not
    /// settled `deadline` after the call fail.
    ///
    /// `Ok` means that every accepted event is settled, not that every event is stored. The [`CloseReport`] counts the
    /// events of the store's whole life. It lists those that failed since the call, except those left on disk, and the
    /// earlier ones whose tickets were dropped.
    ///
    /// Events that wait on disk, in the journal, are sent until the deadline. Those that are not sent by then fail, and
    /// the next store that opens the journal puts them; see [`left_on_disk`](CloseReport::left_on_disk).
    ///
    /// An event that fails at the deadline is maybe stored if a call with it is in flight, or if an earlier call may
    /// have stored it. It is then read back ([`read_back`](crate::EventStoreBuilder::read_back)), which takes at most one
    /// attempt timeout more, and at most a quarter of `deadline`. So a `deadline` of zero leaves no time for it.
    /// Tickets and report have the same answers. Every clone may call close: all get the same report, and the earliest
    /// deadline counts.
    ///
    /// A leased writer id is released while the last events are sent, and within the same time. If that fails, other
    /// stores can lease it one term after the end of its range.
    ///
    /// Choose a deadline that leaves this time before your platform kills the process: Kubernetes and ECS wait 30 s
    /// after `SIGTERM` by default.
    ///
    /// # Errors
    ///
    /// [`CloseError`]: the worker was lost before it could report. The tickets have the answers.
    ///
    /// # Cancel safety
    ///
    /// After the first poll the store closes. Dropping the future only stops the wait.
    ///
    /// # Example
    ///
    /// ```
    /// # use dynamodb_eventstore::EventStore;
    /// # async fn example(store: EventStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let report = store.close(std::time::Duration::from_secs(20)).await?;
    /// for error in &report.errors {
    ///     eprintln!("{error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, deadline: Duration) -> Result<CloseReport, CloseError> {
        let (start, deadline) = (now(), deadline.min(MAX_DEADLINE));
        let fail_at = start + deadline;
        let answer_by = fail_at + self.shared.config.time_to_read_back(deadline);
        let deadlines = CloseDeadlines { fail_at, answer_by };
        if let Some(lease) = &self.shared.lease {
            // No more keys are made, so the writer id is released while the last events are sent.
            lease.handle.close();
        }
        #[cfg(feature = "journal")]
        let is_waiting =
            self.shared.overflow.as_ref().is_some_and(|overflow| overflow.close(deadlines));
        #[cfg(not(feature = "journal"))]
        let is_waiting = false;
        if !is_waiting {
            self.shared.stop_worker(deadlines);
        }
        let mut exit = self.shared.exit.clone();
        let exit = exit.wait_for(Option::is_some).await.map(|exit| exit.clone());
        #[cfg(feature = "journal")]
        if let Some(journal) = &self.shared.accounting.journal {
            journal.close().await;
        }
        self.drain_hook(answer_by).await;
        let result = match exit {
            Ok(Some(WorkerExit::Closed(report))) => Ok(self.close_report(&report)),
            Ok(Some(WorkerExit::Lost(lost))) => Err(CloseError::from(lost)),
            Ok(None) | Err(_) => Err(CloseError::from(WorkerLost::Stopped)),
        };
        if let Some(lease) = &self.shared.lease {
            // If it takes longer, the id becomes free one term after the end of its range.
            drop(timeout_at(Instant::from_std(answer_by), lease.handle.closed()).await);
        }
        result
    }

    /// The worker's report, and the events that were never sent to it.
    fn close_report(&self, report: &CloseReport) -> CloseReport {
        #[cfg_attr(not(feature = "journal"), expect(unused_mut, reason = "the journal adds to it"))]
        let mut report = report.clone();
        #[cfg(feature = "journal")]
        if let Some(overflow) = &self.shared.overflow {
            let left = overflow.left();
            report.left_on_disk = left.events;
            report.errors.extend(left.errors);
        }
        report
    }
}

impl Shared {
    /// Makes the worker accept no more events, and settle those that it has by these deadlines.
    pub(super) fn stop_worker(&self, deadlines: CloseDeadlines) {
        self.accounting.flow_control.close();
        self.close_deadlines.send_if_modified(|set| {
            let earliest = set.map_or(deadlines, |set| set.earliest(deadlines));
            set.replace(earliest) != Some(earliest)
        });
    }
}
