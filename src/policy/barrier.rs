//! The barrier of flushes: finds out when every event that was accepted before a flush is settled. The worker updates
//! it when it settles events.

use std::collections::VecDeque;

use crate::report::FlushReport;

/// The time between two flushes. Events that are accepted in that time share the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// Finds the flushes whose events are all settled.
///
/// Each flush ends an epoch, and waits until no event of that epoch or an earlier one is pending. There is a counter
/// per epoch, and a total for the epochs that are over. So the cost of settling an event and of answering a flush does
/// not depend on how many flushes wait. `R` is the channel through which a flush is answered.
#[derive(Debug)]
pub(crate) struct Barrier<R> {
    /// The counters from the first epoch that is not over to the current one. Never empty.
    epochs: VecDeque<Tally>,
    /// Number of the first epoch in `epochs`.
    first: u64,
    /// Settled events of all epochs before `first`.
    over: FlushReport,
    /// The part of `over` that the answered flushes have reported.
    reported: FlushReport,
    /// In the order of their epochs. They are answered in this order.
    flushes: VecDeque<Flush<R>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    pending: u64,
    settled: FlushReport,
}

#[derive(Debug)]
struct Flush<R> {
    /// The last epoch that the flush waits for.
    epoch: u64,
    /// The value of [`Barrier::reported`] when flush was called.
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

    /// Counts an accepted event as pending, and returns its epoch.
    pub(crate) fn accept(&mut self) -> Epoch {
        if let Some(current) = self.epochs.back_mut() {
            current.pending += 1;
        }
        Epoch(self.current())
    }

    /// Counts an event of `epoch` as settled.
    pub(crate) fn settle(&mut self, epoch: Epoch, stored: bool) {
        let index = epoch.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(tally) = index.and_then(|index| self.epochs.get_mut(index)) else {
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

    /// Begins a flush, which waits for every event accepted until now.
    pub(crate) fn flush(&mut self, reply: R) {
        let (epoch, reported) = (self.current(), self.reported);
        self.flushes.push_back(Flush { epoch, reported, reply });
        self.epochs.push_back(Tally::default());
    }

    /// Removes the first flush, if its events are all settled, with its report.
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
    fn flush_without_events_is_done_at_once() {
        let mut barrier = Barrier::new();
        barrier.flush(());
        assert_eq!(done(&mut barrier), Some((0, 0)));
        assert_eq!(done(&mut barrier), None);
    }

    #[test]
    fn flush_waits_only_for_events_accepted_before_it() {
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
    fn failure_before_a_flush_is_reported_once() {
        let mut barrier = Barrier::new();
        let event = barrier.accept();
        barrier.settle(event, false);
        barrier.flush(());
        assert_eq!(done(&mut barrier), Some((0, 1)));
        barrier.flush(());
        assert_eq!(done(&mut barrier), Some((0, 0)));
    }

    #[test]
    fn concurrent_flushes_each_count_shared_events() {
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
    fn answered_epochs_are_removed() {
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
