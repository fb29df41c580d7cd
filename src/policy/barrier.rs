//! Which flush waits for which events, and with what outcome.

use std::collections::VecDeque;

use crate::report::FlushReport;

/// The events accepted between two flushes share an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch(u64);

/// Tells when everything accepted before a flush is settled.
///
/// Each flush ends an epoch and waits until no event of it, or of an earlier one, is pending: a
/// counter per epoch, so that settling costs the same however many flushes wait. `R` is what the
/// answer is given to.
#[derive(Debug)]
pub(crate) struct Barrier<R> {
    /// The last one is the current epoch; there is always one.
    epochs: VecDeque<Tally>,
    /// Number of the first in `epochs`.
    first: u64,
    /// In the order of their epochs, which is the order in which they can be answered.
    flushes: VecDeque<Flush<R>>,
    /// Epochs below this one were counted by a flush that was answered.
    reported: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    pending: u64,
    settled: FlushReport,
}

#[derive(Debug)]
struct Flush<R> {
    from: u64,
    to: u64,
    reply: R,
}

impl<R> Barrier<R> {
    pub(crate) fn new() -> Self {
        Self {
            epochs: VecDeque::from([Tally::default()]),
            first: 0,
            flushes: VecDeque::new(),
            reported: 0,
        }
    }

    /// Counts an accepted event in, and says which epoch it is of.
    pub(crate) fn accept(&mut self) -> Epoch {
        if let Some(current) = self.epochs.back_mut() {
            current.pending += 1;
        }
        Epoch(self.first + self.epochs.len() as u64 - 1)
    }

    /// Counts out an event that was accepted in `epoch`.
    pub(crate) fn settle(&mut self, epoch: Epoch, stored: bool) {
        let place = epoch.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let Some(tally) = place.and_then(|place| self.epochs.get_mut(place)) else {
            debug_assert!(false, "an event was settled after its epoch had ended");
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
        let to = self.first + self.epochs.len() as u64 - 1;
        self.flushes.push_back(Flush { from: self.reported, to, reply });
        self.epochs.push_back(Tally::default());
    }

    /// The first flush that waits for nothing any more, with its report.
    pub(crate) fn pop_done(&mut self) -> Option<(R, FlushReport)> {
        let to = self.flushes.front()?.to;
        let through = |epoch: u64| usize::try_from(epoch + 1 - self.first).unwrap_or(usize::MAX);
        if self.epochs.iter().take(through(to)).any(|tally| tally.pending > 0) {
            return None;
        }
        let Flush { from, to, reply } = self.flushes.pop_front()?;
        let mut report = FlushReport::default();
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for tally in self.epochs.iter().take(through(to)).skip(skipped) {
            report.stored += tally.settled.stored;
            report.failed += tally.settled.failed;
        }
        self.reported = to + 1;
        self.forget_reported();
        Some((reply, report))
    }

    /// Drops the epochs that no flush, waiting or to come, will count.
    fn forget_reported(&mut self) {
        let needed = self.flushes.front().map_or(self.reported, |flush| flush.from);
        while self.first < needed && self.epochs.len() > 1 {
            self.epochs.pop_front();
            self.first += 1;
        }
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
