//! Which flush waits for which events, and with what outcome.

use std::collections::VecDeque;

use crate::report::FlushReport;

/// The events accepted between two flushes share an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// Tells when everything accepted before a flush is settled.
///
/// Each flush ends an epoch and waits until no event of it, or of an earlier one, is pending. There is
/// a counter per epoch and a running total of the epochs that are over, so that settling an event and
/// answering a flush cost the same however many flushes wait. `R` is what the answer is given to.
#[derive(Debug)]
pub(crate) struct Barrier<R> {
    /// From the first epoch that is not over to the current one, which is always there.
    epochs: VecDeque<Tally>,
    /// Number of the first in `epochs`.
    first: u64,
    /// What became of the events of all epochs before `first`.
    over: FlushReport,
    /// What of `over` the flushes have reported that were answered.
    reported: FlushReport,
    /// In the order of their epochs, which is the order in which they can be answered.
    flushes: VecDeque<Flush<R>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    pending: u64,
    settled: FlushReport,
}

#[derive(Debug)]
struct Flush<R> {
    /// The last epoch that it waits for.
    epoch: u64,
    /// What had been reported when it was called.
    reported: FlushReport,
    reply: R,
}

impl<R> Barrier<R> {
    pub(crate) fn new() -> Self {
        Self {
            epochs: VecDeque::from([Tally::default()]),
            first: 0,
            over: FlushReport::default(),
            reported: FlushReport::default(),
            flushes: VecDeque::new(),
        }
    }

    /// Counts an accepted event in, and says which epoch it is of.
    pub(crate) fn accept(&mut self) -> Epoch {
        if let Some(current) = self.epochs.back_mut() {
            current.pending += 1;
        }
        Epoch(self.current())
    }

    /// Counts out an event that was accepted in `epoch`.
    pub(crate) fn settle(&mut self, epoch: Epoch, stored: bool) {
        let place = epoch.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let Some(tally) = place.and_then(|place| self.epochs.get_mut(place)) else {
            debug_assert!(false, "an event was settled after its epoch was over");
            return;
        };
        tally.pending -= 1;
        if stored {
            tally.settled.stored += 1;
        } else {
            tally.settled.failed += 1;
        }
    }

    /// Begins a flush: it waits for all that was accepted until now.
    pub(crate) fn flush(&mut self, reply: R) {
        let (epoch, reported) = (self.current(), self.reported);
        self.flushes.push_back(Flush { epoch, reported, reply });
        self.epochs.push_back(Tally::default());
    }

    /// The first flush that waits for nothing any more, with its report.
    pub(crate) fn pop_done(&mut self) -> Option<(R, FlushReport)> {
        let epoch = self.flushes.front()?.epoch;
        while self.first <= epoch {
            let tally = self.epochs.front().filter(|tally| tally.pending == 0)?;
            self.over.stored += tally.settled.stored;
            self.over.failed += tally.settled.failed;
            self.epochs.pop_front();
            self.first += 1;
        }
        let flush = self.flushes.pop_front()?;
        self.reported = self.over;
        let report = FlushReport {
            stored: self.over.stored - flush.reported.stored,
            failed: self.over.failed - flush.reported.failed,
        };
        Some((flush.reply, report))
    }

    fn current(&self) -> u64 {
        self.first + self.epochs.len() as u64 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done<R>(barrier: &mut Barrier<R>) -> Option<(u64, u64)> {
        barrier.pop_done().map(|(_, report)| (report.stored, report.failed))
    }

    #[test]
    fn a_flush_of_nothing_is_done_at_once() {
        let mut barrier = Barrier::new();
        barrier.flush(());
        assert_eq!(done(&mut barrier), Some((0, 0)));
        assert_eq!(done(&mut barrier), None);
    }

    #[test]
    fn a_flush_waits_for_what_was_accepted_before_it_and_for_nothing_else() {
        let mut barrier = Barrier::new();
        let (first, second) = (barrier.accept(), barrier.accept());
        barrier.flush(());
        let later = barrier.accept();
        barrier.settle(second, true);
        barrier.settle(later, true);
        assert_eq!(done(&mut barrier), None);
        barrier.settle(first, false);
        assert_eq!(done(&mut barrier), Some((1, 1)));
    }

    #[test]
    fn a_failure_before_the_call_is_told_to_the_next_flush_and_only_to_it() {
        let mut barrier = Barrier::new();
        let event = barrier.accept();
        barrier.settle(event, false);
        barrier.flush(());
        assert_eq!(done(&mut barrier), Some((0, 1)));
        barrier.flush(());
        assert_eq!(done(&mut barrier), Some((0, 0)));
    }

    #[test]
    fn flushes_at_the_same_time_each_count_the_events_they_share() {
        let mut barrier = Barrier::new();
        let first = barrier.accept();
        barrier.flush("one");
        let second = barrier.accept();
        barrier.flush("two");
        barrier.settle(second, true);
        assert!(barrier.pop_done().is_none());
        barrier.settle(first, true);
        let (reply, report) = barrier.pop_done().unwrap();
        assert_eq!((reply, report.stored), ("one", 1));
        let (reply, report) = barrier.pop_done().unwrap();
        assert_eq!((reply, report.stored), ("two", 2));
    }

    #[test]
    fn answered_epochs_are_forgotten() {
        let mut barrier = Barrier::new();
        for _ in 0..1_000 {
            let event = barrier.accept();
            barrier.flush(());
            barrier.settle(event, true);
            assert_eq!(done(&mut barrier), Some((1, 0)));
        }
        assert_eq!(barrier.epochs.len(), 1);
    }
}
