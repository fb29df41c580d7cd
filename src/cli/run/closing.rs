//! The end of a run: waits for the accepted events, and keeps the lines that were not put.

use std::time::Duration;

use dynamodb_eventstore::{CloseError, EventStore};
use tokio::time::{Instant, sleep_until};

use crate::output::{Output, count};
use crate::producer::{Producer, ResumeCheck};
use crate::stop::signals::Signal;
use crate::stop::{StopConditions, StopReason};
use crate::time::{self, now};

/// The end of one run.
pub(super) struct Closing<'a> {
    pub(super) store: &'a EventStore,
    pub(super) stop_conditions: &'a mut StopConditions,
    pub(super) output: &'a Output,
    /// How long to wait for accepted events when the run ends early.
    pub(super) grace: Duration,
    /// When that time ends; `None` while every event may take as long as it needs.
    pub(super) deadline: Option<Instant>,
}

impl Closing<'_> {
    /// Puts the lines that were already read, if the input cannot be read again. It uses half of
    /// the grace period, which leaves the other half to store them.
    pub(super) async fn put_lines_already_read(
        &mut self,
        producer: &mut Producer,
        check: &mut ResumeCheck,
    ) {
        producer.stop_reading();
        let half_time = now() + self.grace / 2;
        tokio::select! {
            biased;
            reason = self.stop_conditions.next() => self.shorten(&reason),
            () = sleep_until(half_time) => {}
            _ = producer.put_all(self.store, check) => {}
        }
    }

    /// Keeps the lines that still arrive from a pipe. It reads for half of the grace period,
    /// because the writer of the pipe may never close it.
    pub(super) async fn record_rest_of_pipe(&mut self, producer: &mut Producer) {
        let half_time = now() + self.grace / 2;
        tokio::select! {
            biased;
            reason = self.stop_conditions.next_while_closing() => self.shorten(&reason),
            () = sleep_until(half_time) => {}
            () = producer.record_rest() => {}
        }
    }

    /// Starts the grace period at the first reason to stop early, and ends it at a second signal.
    pub(super) fn shorten(&mut self, reason: &StopReason) {
        let is_in_grace = self.deadline.is_some();
        match reason {
            StopReason::Signal(signal) if is_in_grace => {
                self.output.error(format_args!("{}: not waiting any longer", signal.name));
                self.deadline = Some(now());
            }
            StopReason::Signal(signal) => {
                self.print_wait(*signal);
                self.deadline = Some(now() + self.grace);
            }
            StopReason::Stalled if !is_in_grace => self.deadline = Some(now() + self.grace),
            _ => {}
        }
    }

    fn print_wait(&self, signal: Signal) {
        let pending = self.store.stats().pending;
        if pending > 0 {
            self.output.note(format_args!(
                "{}: waiting up to {} for {}; a second signal ends the wait",
                signal.name,
                time::format(self.grace),
                count(pending, "accepted event"),
            ));
        }
    }

    /// Closes the store, and returns whether the table stalled meanwhile. Without a deadline each
    /// event may take as long as it needs, as long as the table acknowledges events.
    pub(super) async fn close(&mut self) -> (Result<(), CloseError>, bool) {
        let mut has_stalled = false;
        loop {
            let close_deadline = self.deadline.map_or(Duration::MAX, |deadline| {
                without_read_back(deadline.saturating_duration_since(now()))
            });
            tokio::select! {
                // The store keeps the earliest deadline of all calls.
                report = self.store.close(close_deadline) => {
                    return (report.map(drop), has_stalled);
                }
                reason = self.stop_conditions.next_while_closing() => {
                    has_stalled |= matches!(reason, StopReason::Stalled);
                    self.shorten(&reason);
                }
            }
        }
    }
}

/// The part of `time_left` after which the store fails its events. `close` may take another quarter
/// of that part to read them back.
fn without_read_back(time_left: Duration) -> Duration {
    time_left - time_left / 5
}
