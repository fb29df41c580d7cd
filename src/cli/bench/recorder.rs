//! [`Recorder`]: receives the answers, and samples the store.

use std::time::Duration;

use dynamodb_eventstore::{Certainty, EventKey, EventStore, Stats, Stored, WriteError};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

use super::load::{Load, Put};
use crate::output::Output;
use crate::output::progress::{Measure, Progress};
use crate::time::now;

/// Samples of a run. A chart has room for about this many.
const SAMPLES: u32 = 100;

/// The shortest time between two samples.
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_millis(200);

/// The longest latency, in microseconds: an hour. Longer ones count as an hour.
const MAX_LATENCY_MICROSECONDS: u64 = 60 * 60 * 1_000_000;

/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Most tickets taken from the channel at once.
const MAX_TICKETS: usize = 256;

/// Latencies of stored events, in microseconds.
pub(super) type Latencies = Histogram<u64>;

/// What happened since the previous sample.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The end of the sample, in seconds since the start.
    pub(super) at: f64,
    pub(super) seconds: f64,
    /// Events that were put.
    pub(super) put: u64,
    pub(super) stored: u64,
    /// Write units that the table throttled.
    pub(super) throttled_units: u64,
    /// Median, 99th percentile and maximum of the latency, in milliseconds, if an event was stored.
    pub(super) latency: Option<[f64; 3]>,
}

/// Everything that was recorded of a run.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) samples: Vec<Sample>,
    pub(super) latencies: Latencies,
    pub(super) stored: u64,
    pub(super) not_stored: u64,
    pub(super) maybe_stored: u64,
    /// The first error of an event.
    pub(super) first_error: Option<String>,
    /// The keys of the first and the last event that may be in the table.
    pub(super) first_and_last_key: Option<(EventKey, EventKey)>,
    /// The keys of all events that may be in the table, if they are to be deleted.
    pub(super) keys: Vec<EventKey>,
    /// Time from the start to the last answer.
    pub(super) elapsed: Duration,
}

/// Receives the answers of one run.
pub(super) struct Recorder {
    store: EventStore,
    start: Instant,
    interval: Duration,
    keeps_keys: bool,
    progress: Progress,
    /// The latencies since the last sample.
    recent: Latencies,
    /// The counters at the last sample.
    last: Stats,
    last_at: Instant,
    recording: Recording,
}

impl Recorder {
    pub(super) fn new(store: &EventStore, load: &Load, keeps_keys: bool, output: &Output) -> Self {
        let measure =
            Measure { input_bytes: None, position: Default::default(), max_write_units: None };
        let start = now();
        Self {
            store: store.clone(),
            start,
            interval: (load.duration / SAMPLES).max(MIN_SAMPLE_INTERVAL),
            keeps_keys,
            progress: Progress::shown(store, measure, output),
            recent: latencies(),
            last: store.stats(),
            last_at: start,
            recording: Recording {
                samples: Vec::new(),
                latencies: latencies(),
                stored: 0,
                not_stored: 0,
                maybe_stored: 0,
                first_error: None,
                first_and_last_key: None,
                keys: Vec::new(),
                elapsed: Duration::ZERO,
            },
        }
    }

    /// Records until `puts` is closed and every ticket is answered.
    pub(super) async fn record(mut self, mut puts: mpsc::UnboundedReceiver<Put>) -> Recording {
        let mut tickets = FuturesUnordered::new();
        let mut received = Vec::with_capacity(MAX_TICKETS);
        let mut ticks = interval_at(self.start + self.interval, self.interval);
        let mut is_open = true;
        while is_open || !tickets.is_empty() {
            // Answers come before new tickets, because their latency ends when they are received.
            tokio::select! {
                biased;
                Some((due, answer)) = tickets.next(), if !tickets.is_empty() => self.answer(due, answer),
                at = ticks.tick() => self.sample(at),
                count = puts.recv_many(&mut received, MAX_TICKETS), if is_open => {
                    is_open = count > 0;
                    tickets.extend(received.drain(..).map(async |Put { due, ticket }| (due, ticket.await)));
                }
            }
        }
        self.sample(now());
        self.recording.elapsed = now() - self.start;
        self.progress.finish();
        self.recording
    }

    fn answer(&mut self, due: Instant, answer: Result<Stored, WriteError>) {
        let recording = &mut self.recording;
        let key = match answer {
            Ok(stored) => {
                let latency = (now() - due).as_micros().try_into().unwrap_or(u64::MAX);
                self.recent.saturating_record(latency);
                recording.stored += 1;
                stored.key
            }
            Err(error) => {
                recording.first_error.get_or_insert_with(|| error.to_string());
                if error.certainty() == Certainty::NotStored {
                    recording.not_stored += 1;
                    return;
                }
                recording.maybe_stored += 1;
                *error.key()
            }
        };
        let (first, last) = recording.first_and_last_key.get_or_insert((key, key));
        (*first, *last) = (key.min(*first), key.max(*last));
        if self.keeps_keys {
            recording.keys.push(key);
        }
    }

    fn sample(&mut self, at: Instant) {
        let stats = self.store.stats();
        let milliseconds = |microseconds: u64| microseconds as f64 / 1_000.0;
        let latency = (!self.recent.is_empty()).then(|| {
            [
                milliseconds(self.recent.value_at_quantile(0.5)),
                milliseconds(self.recent.value_at_quantile(0.99)),
                milliseconds(self.recent.max()),
            ]
        });
        self.recording.samples.push(Sample {
            at: (at - self.start).as_secs_f64(),
            seconds: (at - self.last_at).as_secs_f64(),
            put: stats.accepted - self.last.accepted,
            stored: stats.stored - self.last.stored,
            throttled_units: stats.throttled_units - self.last.throttled_units,
            latency,
        });
        // Both histograms have the same bounds, so the sum does not fail.
        let _ = self.recording.latencies.add(&self.recent);
        self.recent.reset();
        (self.last, self.last_at) = (stats, at);
    }
}

#[expect(
    clippy::expect_used,
    reason = "the bounds are constants, and a test makes a histogram of them"
)]
fn latencies() -> Latencies {
    Histogram::new_with_max(MAX_LATENCY_MICROSECONDS, LATENCY_DIGITS).expect("the bounds are valid")
}
