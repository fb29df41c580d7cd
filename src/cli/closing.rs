//! The end of a run: what was accepted gets its time, and what was not put is kept.

use std::time::Duration;

use dynamodb_eventstore::{CloseError, EventStore};
use tokio::time::{Instant, sleep_until};

use crate::durations;
use crate::ending::End;
use crate::output::{Output, count};
use crate::progress::now;
use crate::reading::Reading;
use crate::resume_check::ResumeCheck;
use crate::signals::Signal;
use crate::stops::Stops;

/// The end of one run.
pub(crate) struct Closing<'a> {
    pub(crate) store: &'a EventStore,
    pub(crate) stops: &'a mut Stops,
    pub(crate) output: &'a Output,
    /// Time for what was accepted, once the run is to end early.
    pub(crate) grace: Duration,
    /// When that time is over; `None` while every event may take as long as it needs.
    pub(crate) until: Option<Instant>,
}

impl Closing<'_> {
    /// Puts what was read and cannot be read again, for as long as that leaves time to store it.
    pub(crate) async fn put_what_was_read(
        &mut self,
        reading: &mut Reading,
        check: &mut ResumeCheck,
    ) {
        reading.stop_reading();
        let half_time = now() + self.grace / 2;
        tokio::select! {
            biased;
            end = self.stops.next() => self.stop(&end),
            () = sleep_until(half_time) => {}
            _ = reading.put_all(self.store, check) => {}
        }
    }

    /// Keeps the lines that still come out of a pipe. There is a limit to it, as the writer may never
    /// close the pipe.
    pub(crate) async fn leave_rest_of_pipe(&mut self, reading: &mut Reading) {
        let half_time = now() + self.grace / 2;
        tokio::select! {
            biased;
            end = self.stops.next_for_accepted() => self.stop(&end),
            () = sleep_until(half_time) => {}
            () = reading.leave_rest() => {}
        }
    }

    /// Takes note of a reason to end, the first one or one more.
    pub(crate) fn stop(&mut self, end: &End) {
        let is_again = self.until.is_some();
        match end {
            End::Signal(signal) if is_again => {
                self.output.error(format_args!("{}: not waiting any longer", signal.name));
                self.until = Some(now());
            }
            End::Signal(signal) => {
                self.say_wait(*signal);
                self.until = Some(now() + self.grace);
            }
            End::Stalled if !is_again => self.until = Some(now() + self.grace),
            _ => {}
        }
    }

    fn say_wait(&self, signal: Signal) {
        let pending = self.store.stats().pending;
        if pending > 0 {
            self.output.note(format_args!(
                "{}: waiting up to {} for {}; a second signal ends the wait",
                signal.name,
                durations::in_words(self.grace),
                count(pending, "accepted event"),
            ));
        }
    }

    /// Closes the store, and says whether the table stalled meanwhile. Without an `until` each
    /// event has the time that it needs, as long as the table takes any.
    pub(crate) async fn close(&mut self) -> (Result<(), CloseError>, bool) {
        let mut has_stalled = false;
        loop {
            let time_left = self.until.map_or(Duration::MAX, |until| {
                until_given_up(until.saturating_duration_since(now()))
            });
            tokio::select! {
                // The earliest deadline counts, whichever call it came with.
                report = self.store.close(time_left) => return (report.map(drop), has_stalled),
                end = self.stops.next_for_accepted() => {
                    has_stalled |= matches!(end, End::Stalled);
                    self.stop(&end);
                }
            }
        }
    }
}

/// How much of the grace period there is before what is left is given up. To read it back, close
/// may take a quarter of that more.
fn until_given_up(grace: Duration) -> Duration {
    grace - grace / 5
}
