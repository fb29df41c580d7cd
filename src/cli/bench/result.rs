//! [`BenchResult`]: the figures of a run.

use dynamodb_eventstore::Stats;
use serde::Serialize;

use super::load::Load;
use super::recorder::Recording;

/// Bytes that the service counts for an item besides its body: the attribute names and the key. A write unit
/// is 1,024 bytes.
const ITEM_OVERHEAD_BYTES: u32 = 34;
const WRITE_UNIT_BYTES: u32 = 1_024;

/// The percentiles that are shown.
pub(super) const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// The figures of a run, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct BenchResult {
    pub(super) target: String,
    /// Events to put per second, if there was a rate.
    pub(super) rate: Option<u32>,
    pub(super) body_bytes: u32,
    pub(super) planned_seconds: f64,
    /// Why the run ended before its time.
    pub(super) ended_early: Option<String>,
    /// Time from the start to the last answer.
    pub(super) seconds: f64,
    pub(super) put: u64,
    pub(super) stored: u64,
    pub(super) not_stored: u64,
    pub(super) maybe_stored: u64,
    pub(super) first_error: Option<String>,
    pub(super) stored_per_second: f64,
    /// Latency of the stored events, from the moment at which each should have been put.
    pub(super) latency_milliseconds: Latency,
    /// Write units of the stored events, by the sizes of their items.
    pub(super) write_units: u64,
    /// Write units that the table throttled, over all attempts.
    pub(super) throttled_write_units: u64,
    pub(super) retries: u64,
    pub(super) calls: u64,
    pub(super) events_per_call: f64,
    /// The keys of the first and the last event that may be in the table.
    pub(super) first_key: Option<String>,
    pub(super) last_key: Option<String>,
}

/// Latency percentiles and maximum, in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) p99_99: f64,
    pub(super) max: f64,
}

impl BenchResult {
    pub(super) fn new(
        load: &Load,
        target: String,
        recording: &Recording,
        stats: &Stats,
        ended_early: Option<String>,
    ) -> Self {
        let seconds = recording.elapsed.as_secs_f64();
        let percentile =
            |percentile: f64| recording.latencies.value_at_percentile(percentile) as f64 / 1_000.0;
        let [p50, p90, p99, p99_9, p99_99] = PERCENTILES.map(percentile);
        let keys = recording.first_and_last_key;
        Self {
            target,
            rate: load.rate,
            body_bytes: load.body_bytes,
            planned_seconds: load.duration.as_secs_f64(),
            ended_early,
            seconds,
            put: stats.accepted,
            stored: recording.stored,
            not_stored: recording.not_stored,
            maybe_stored: recording.maybe_stored,
            first_error: recording.first_error.clone(),
            stored_per_second: recording.stored as f64 / seconds.max(0.001),
            latency_milliseconds: Latency {
                p50,
                p90,
                p99,
                p99_9,
                p99_99,
                max: recording.latencies.max() as f64 / 1_000.0,
            },
            write_units: recording.stored * u64::from(units_per_event(load.body_bytes)),
            throttled_write_units: stats.throttled_units,
            retries: stats.retried,
            calls: stats.batches,
            events_per_call: (stats.accepted + stats.retried) as f64 / stats.batches.max(1) as f64,
            first_key: keys.map(|(first, _)| first.to_string()),
            last_key: keys.map(|(_, last)| last.to_string()),
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.not_stored + self.maybe_stored
    }
}

/// Write units of an event with a body of this many bytes.
pub(super) fn units_per_event(body_bytes: u32) -> u32 {
    (body_bytes + ITEM_OVERHEAD_BYTES).div_ceil(WRITE_UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_of_one_kilobyte_costs_one_unit() {
        for (body_bytes, units) in [(40, 1), (990, 1), (991, 2), (409_566, 400)] {
            assert_eq!(units_per_event(body_bytes), units, "{body_bytes}");
        }
    }
}
