//! The replies of a fake table: scripted, or drawn at random.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::error::{Certainty, FailureClass};

/// How a [`FakeTable`](super::FakeTable) handles one batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reply {
    /// Every event is applied and acknowledged.
    Store,
    /// The events at these indexes of the batch, from 0, are unprocessed, in this order; the others are applied.
    Unprocessed(Vec<usize>),
    /// All events are applied, but the answer lists an unprocessed key that was never sent.
    UnprocessedUnknownKey,
    /// Nothing is applied, and the call fails.
    Fail(FailureClass, Certainty),
    /// All events are applied, and the call fails with [`Certainty::MaybeStored`].
    StoreThenFail,
    /// Nothing is applied. The answer is cut short, so the call has ended without a result.
    LoseAnswer,
    /// All events are applied. The answer is cut short, so the call has ended without a result.
    StoreThenLoseAnswer,
    /// Nothing is applied, and no answer ever comes.
    Hang,
    /// All events are applied, and no answer ever comes.
    StoreThenHang,
    /// No answer ever comes. All events are applied after this time, even if the call was dropped.
    HangThenStore(Duration),
    /// The writer panics.
    Panic,
    /// The inner reply, after this time. The batch is applied at the end of the wait.
    After(Duration, Box<Self>),
}

impl Reply {
    /// The call is throttled.
    #[must_use]
    pub const fn throttle() -> Self {
        Self::Fail(FailureClass::Throttled, Certainty::NotStored)
    }

    /// The service fails with a 5xx, and applies nothing.
    #[must_use]
    pub const fn server_error() -> Self {
        Self::Fail(FailureClass::Transient, Certainty::MaybeStored)
    }

    /// The same reply after this time.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }
}

/// How a [`FakeTable`](super::FakeTable) answers one read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ReadReply {
    /// Every key is read.
    Read,
    /// The keys at these indexes are left unread.
    LeaveOut(Vec<usize>),
    /// The read fails.
    Fail(FailureClass),
    /// The read is denied with `AccessDeniedException`.
    Deny,
    /// The answer names a key that was not requested.
    NameUnknownKey,
    /// No answer ever comes.
    Hang,
    /// The writer panics.
    Panic,
    /// The inner reply, after this time.
    After(Duration, Box<Self>),
}

/// The probabilities with which a [`FakeTable`](super::FakeTable) fails, from 0.0 (never) to 1.0 (always).
///
/// For each call the faults are drawn in the order of the fields, and the first that is drawn happens. A call
/// without a fault is stored and acknowledged. The default has some of each fault.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRates {
    /// The whole call is throttled.
    pub throttled: f64,
    /// Some or all events of the batch are unprocessed.
    pub unprocessed: f64,
    /// The call fails, and nothing of it was applied.
    pub failed_before: f64,
    /// The call fails, and all of it was applied.
    pub failed_after: f64,
    /// The answer is cut short. The call has ended, and was applied or not.
    pub answer_lost: f64,
    /// No answer comes, and nothing is applied.
    pub hanging_before: f64,
    /// No answer comes, and all events are applied, at once or within ten seconds.
    pub hanging_after: f64,
    /// A read fails, hangs, or leaves keys unread.
    pub read_failed: f64,
    /// The time until an answer.
    pub latency: Range<Duration>,
}

impl Default for FaultRates {
    fn default() -> Self {
        Self {
            throttled: 0.1,
            unprocessed: 0.1,
            failed_before: 0.05,
            failed_after: 0.05,
            answer_lost: 0.05,
            hanging_before: 0.03,
            hanging_after: 0.03,
            read_failed: 0.2,
            latency: Duration::from_millis(2)..Duration::from_millis(50),
        }
    }
}

impl FaultRates {
    pub(super) fn draw(&self, random: &mut StdRng, events: usize) -> Reply {
        let latency = self.draw_latency(random);
        let rates = [
            self.throttled,
            self.unprocessed,
            self.failed_before,
            self.failed_after,
            self.answer_lost,
            self.hanging_before,
            self.hanging_after,
        ];
        let hit = rates.iter().position(|&rate| random.random_bool(rate.clamp(0.0, 1.0)));
        let reply = match hit {
            Some(0) => Reply::throttle(),
            Some(1) => Reply::Unprocessed(places(random, events)),
            Some(2) => Reply::server_error(),
            Some(3) => Reply::StoreThenFail,
            Some(4) if random.random_bool(0.5) => Reply::LoseAnswer,
            Some(4) => Reply::StoreThenLoseAnswer,
            Some(5) => return Reply::Hang,
            Some(6) if random.random_bool(0.5) => Reply::StoreThenHang,
            Some(6) => Reply::HangThenStore(Duration::from_millis(random.random_range(0..10_000))),
            _ => Reply::Store,
        };
        reply.after(latency)
    }

    pub(super) fn draw_read(&self, random: &mut StdRng, keys: usize) -> ReadReply {
        let latency = self.draw_latency(random);
        let reply = if random.random_bool(self.read_failed.clamp(0.0, 1.0)) {
            match random.random_range(0..4) {
                0 => ReadReply::Fail(FailureClass::Throttled),
                1 => ReadReply::Fail(FailureClass::Transient),
                2 => ReadReply::LeaveOut(places(random, keys)),
                _ => return ReadReply::Hang,
            }
        } else {
            ReadReply::Read
        };
        ReadReply::After(latency, Box::new(reply))
    }

    fn draw_latency(&self, random: &mut StdRng) -> Duration {
        let Range { start, end } = self.latency;
        start + end.saturating_sub(start).mul_f64(random.random::<f64>())
    }
}

/// The replies after the end of a script.
#[derive(Debug)]
pub(super) enum Then<R> {
    Always(R),
    Draw(Box<StdRng>, FaultRates, fn(&FaultRates, &mut StdRng, usize) -> R),
}

impl<R: Clone> Then<R> {
    /// The reply to a call with this many events.
    pub(super) fn next(&mut self, events: usize) -> R {
        match self {
            Self::Always(reply) => reply.clone(),
            Self::Draw(random, rates, draw) => draw(rates, random, events),
        }
    }
}

/// At least one index of a batch of this many events, in random order.
fn places(random: &mut (impl Rng + ?Sized), events: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..events).collect();
    places.shuffle(random);
    places.truncate(random.random_range(1..=events.max(1)));
    places
}
