//! The tasks that read the pages of the segments.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::batch::{Batch, BatchSender, Batches, SegmentPage};
use super::error::ReadError;
use super::position::{ReadPosition, SegmentPosition};
use super::progress::SharedProgress;
use crate::clock::now;
use crate::dynamodb::scan::{PageRequest, ScanPage, Scanner};
use crate::error::{BatchError, FailureClass};
use crate::policy::read_pace::{PageCost, ReadPace, Reservation};
use crate::policy::retry::Backoff;

/// Pages that wait for the reader, besides one that each segment holds.
const WAITING_PAGES: usize = 1;

/// How often and how long one page is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageRetries {
    pub(super) attempt_timeout: Duration,
    /// Attempts that fail in another way than by throttling.
    pub(super) max_attempts: u32,
    /// Time for a page with all of its attempts.
    pub(super) page_deadline: Duration,
    pub(super) backoff: Backoff,
}

impl PageRetries {
    /// The wait before the next attempt at a page that was begun `elapsed` ago. `None` if there is none.
    fn delay(
        &self,
        failed: FailedAttempts,
        elapsed: Duration,
        class: FailureClass,
        jitter: f64,
    ) -> Option<Duration> {
        // A refusal lasts: unlike a store, a reader is started by somebody who can start it again.
        if !class.is_retryable() || class == FailureClass::Refused {
            return None;
        }
        if failed.others >= self.max_attempts {
            return None;
        }
        let delay = self.backoff.delay(failed.all(), jitter);
        (elapsed.saturating_add(delay) < self.page_deadline).then_some(delay)
    }
}

/// Failed attempts at one page.
#[derive(Debug, Clone, Copy, Default)]
struct FailedAttempts {
    throttled: u32,
    others: u32,
}

impl FailedAttempts {
    fn all(self) -> u32 {
        self.throttled.saturating_add(self.others)
    }
}

/// All segments of one scan.
#[derive(Debug)]
pub(super) struct Segments {
    pub(super) scanner: Scanner,
    pub(super) pace: ReadPace,
    pub(super) retries: PageRetries,
    pub(super) progress: SharedProgress,
    pub(super) start: ReadPosition,
}

/// What the tasks share.
struct Shared {
    scanner: Scanner,
    pace: Mutex<ReadPace>,
    retries: PageRetries,
    progress: SharedProgress,
}

impl Segments {
    pub(super) fn scanner_mut(&mut self) -> &mut Scanner {
        &mut self.scanner
    }

    /// Starts a task for each segment that is not read to its end.
    pub(super) fn spawn(self, tasks: &mut JoinSet<()>) -> Batches {
        let Self { scanner, pace, retries, progress, start } = self;
        let shared = Arc::new(Shared { scanner, pace: Mutex::new(pace), retries, progress });
        let (sender, receiver) = mpsc::channel(WAITING_PAGES);
        for (segment, position) in start.segments.into_iter().enumerate() {
            let after = match position {
                SegmentPosition::Start => None,
                SegmentPosition::After(key) => Some(key),
                SegmentPosition::End => continue,
            };
            tasks.spawn(read_segment(Arc::clone(&shared), segment, after, sender.clone()));
        }
        receiver
    }
}

/// Sends the pages of a segment, until its end or its first error. A receiver that is dropped ends it.
async fn read_segment(
    shared: Arc<Shared>,
    segment: usize,
    mut after: Option<String>,
    batches: BatchSender,
) {
    let number = u32::try_from(segment).unwrap_or(u32::MAX);
    let mut random = StdRng::try_from_rng(&mut SysRng).unwrap_or_else(|_| StdRng::seed_from_u64(0));
    loop {
        let page = match read_page(&shared, number, after.as_deref(), &mut random).await {
            Ok(page) => page,
            Err(error) => {
                let _ = batches.send(Err(error)).await;
                return;
            }
        };
        after.clone_from(&page.last_key);
        let next = match page.last_key {
            Some(key) => SegmentPosition::After(key),
            None => SegmentPosition::End,
        };
        let (items, matching) = (page.items, page.matching);
        let page = Batch::Page(SegmentPage { items, matching, next: (segment, next) });
        if batches.send(Ok(page)).await.is_err() || after.is_none() {
            return;
        }
    }
}

async fn read_page(
    shared: &Shared,
    segment: u32,
    after: Option<&str>,
    random: &mut StdRng,
) -> Result<ScanPage, ReadError> {
    // Counted from the first attempt: a low limit of read units may delay that for long.
    let mut began: Option<Instant> = None;
    let mut failed = FailedAttempts::default();
    loop {
        let reservation = lock(&shared.pace).reserve(now());
        sleep_until(reservation.at.into()).await;
        let began = *began.get_or_insert_with(now);
        let max_items = reservation.max_items;
        let request = PageRequest { segment, after, max_items };
        let error = match shared.scanner.page(request, shared.retries.attempt_timeout).await {
            Ok(page) => {
                let cost = PageCost { read_units: page.read_units, scanned: page.scanned };
                lock(&shared.pace).settle(reservation, cost);
                shared.progress.add_page(&page);
                return Ok(page);
            }
            Err(error) => error,
        };
        let class = error.class();
        tracing::debug!(segment, after, %error, "a page of the scan was not read");
        shared.progress.add_failure(&error);
        shared.settle_failure(reservation, &error);
        match class.is_throttled() {
            true => failed.throttled = failed.throttled.saturating_add(1),
            false => failed.others = failed.others.saturating_add(1),
        }
        let elapsed = now().saturating_duration_since(began);
        let jitter = random.next_u64() as f64 / u64::MAX as f64;
        let Some(delay) = shared.retries.delay(failed, elapsed, class, jitter) else {
            return Err(ReadError::Page {
                table: shared.scanner.table.clone(),
                segment,
                after_key: after.map(str::to_owned),
                attempts: failed.all(),
                cause: Box::new(error),
            });
        };
        sleep_until((now() + delay).into()).await;
    }
}

impl Shared {
    /// A call whose answer was lost may have cost what it reserved; a call that was refused has not.
    fn settle_failure(&self, reservation: Reservation, error: &BatchError) {
        if error.class() != FailureClass::Transient {
            lock(&self.pace).settle(reservation, PageCost::NOTHING);
        }
    }
}

fn lock(pace: &Mutex<ReadPace>) -> std::sync::MutexGuard<'_, ReadPace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRIES: PageRetries = PageRetries {
        attempt_timeout: Duration::from_secs(30),
        max_attempts: 3,
        page_deadline: Duration::from_secs(60),
        backoff: Backoff {
            floor: Duration::from_millis(50),
            base: Duration::from_millis(50),
            ceiling: Duration::from_secs(5),
        },
    };

    fn delay(throttled: u32, others: u32, elapsed: u64, class: FailureClass) -> Option<Duration> {
        let failed = FailedAttempts { throttled, others };
        RETRIES.delay(failed, Duration::from_secs(elapsed), class, 1.0)
    }

    #[test]
    fn throttled_page_is_retried_until_its_deadline() {
        let class = FailureClass::Throttled;
        assert_eq!(delay(1, 0, 0, class), Some(Duration::from_millis(50)));
        assert_eq!(delay(100, 0, 54, class), Some(Duration::from_secs(5)));
        assert_eq!(delay(100, 0, 55, class), None);
    }

    #[test]
    fn broken_page_is_retried_until_its_last_attempt() {
        let class = FailureClass::Transient;
        assert_eq!(delay(7, 2, 0, class), Some(Duration::from_secs(5)));
        assert_eq!(delay(0, 3, 0, class), None);
    }

    #[test]
    fn refused_page_is_not_retried() {
        for class in [FailureClass::Refused, FailureClass::Invalid, FailureClass::Fatal] {
            assert_eq!(delay(0, 1, 0, class), None);
        }
    }
}
