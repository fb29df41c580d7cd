//! The settings of a store other than its target: their defaults, their limits, and what the worker gets of them.

use std::num::NonZeroUsize;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::{StdRng, SysRng};

use crate::error::{ConfigError, PutError};
use crate::event::key::WriterId;
use crate::event::{MAX_BATCH_EVENTS, MAX_ITEM_BYTES};
use crate::flow_control;
use crate::fresh_random::FreshRandom;
#[cfg(feature = "journal")]
use crate::journal::Journal;
use crate::key_source::IdSource;
use crate::policy::retry::{Backoff, RetryPolicy};
use crate::settled::hook::SettledHook;
use crate::stats::Stats;
use crate::store::limits::{DAY, HOUR, duration_in_range, in_range};
use crate::store::writer_ids::{Source, WriterIds};
use crate::worker::WorkerSettings;
use crate::write_mode::{OnDuplicate, WriteMode};

/// How a store writes. The worker only gets settings that [`Config::validate`] has accepted.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) worker: WorkerSettings,
    pub(crate) writer_ids: WriterIds,
    /// The seed of all randomness; `None` for the system's.
    pub(crate) seed: Option<u64>,
    pub(crate) on_settled: Option<SettledHook>,
    #[cfg(feature = "metrics")]
    pub(crate) store_name: Option<String>,
}

impl Default for Config {
    /// The methods of [`EventStoreBuilder`](super::builder::EventStoreBuilder) give the reasons.
    fn default() -> Self {
        Self {
            worker: WorkerSettings {
                max_batch_events: MAX_BATCH_EVENTS,
                linger: Duration::from_millis(5),
                max_batches_in_flight: 64,
                max_write_units_per_second: None,
                max_buffered_events: 10_000,
                max_buffered_bytes: 64 * 1024 * 1024,
                attempt_timeout: Duration::from_secs(10),
                retry: RetryPolicy {
                    backoff: Backoff::default(),
                    max_attempts: 100,
                    event_deadline: Duration::from_secs(60),
                },
                refusal_timeout: Duration::from_secs(5),
                read_back: true,
                write_mode: WriteMode::default(),
                on_duplicate: OnDuplicate::default(),
                table: None,
            },
            writer_ids: WriterIds::drawn(),
            seed: None,
            on_settled: None,
            #[cfg(feature = "metrics")]
            store_name: None,
        }
    }
}

const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Far above the capacity of any table.
const MAX_WRITE_UNITS: u32 = 100_000_000;

const MAX_BUFFERED_EVENTS: usize = 100_000_000;
const MAX_BUFFERED_BYTES: u64 = flow_control::MAX_BYTES;
const _: () = assert!(MAX_BUFFERED_EVENTS as u64 <= flow_control::MAX_EVENTS);

impl Config {
    /// Checks every setting against its limits.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let worker = &self.worker;
        in_range("max_batch_events", worker.max_batch_events, 1, MAX_BATCH_EVENTS)?;
        duration_in_range("linger", worker.linger, Duration::ZERO, HOUR)?;
        in_range("max_batches_in_flight", worker.max_batches_in_flight, 1, 1_000)?;
        if let Some(budget) = worker.max_write_units_per_second {
            in_range("max_write_units_per_second", budget, 1, MAX_WRITE_UNITS)?;
        }
        in_range("max_buffered_events", worker.max_buffered_events, 1, MAX_BUFFERED_EVENTS)?;
        // The lower limit is that of one item, so that events of any size can share the buffer.
        in_range(
            "max_buffered_bytes",
            worker.max_buffered_bytes as u64,
            MAX_ITEM_BYTES as u64,
            MAX_BUFFERED_BYTES,
        )?;
        duration_in_range("attempt_timeout", worker.attempt_timeout, MIN_TIMEOUT, HOUR)?;
        duration_in_range("event_deadline", worker.retry.event_deadline, MIN_TIMEOUT, DAY)?;
        // An event that lingers past its deadline would fail without an attempt.
        if worker.linger > worker.retry.event_deadline / 2 {
            let limit = "be at most half of `event_deadline`, which leaves time for an attempt";
            return Err(ConfigError::new("linger", format_args!("{:?}", worker.linger), limit));
        }
        duration_in_range("refusal_timeout", worker.refusal_timeout, Duration::ZERO, DAY)?;
        in_range("max_attempts", worker.retry.max_attempts, 1, 1_000_000)?;
        let Backoff { floor, base, ceiling } = worker.retry.backoff;
        duration_in_range("backoff.ceiling", ceiling, MIN_TIMEOUT, HOUR)?;
        duration_in_range("backoff.base", base, MIN_TIMEOUT, ceiling)?;
        duration_in_range("backoff.floor", floor, Duration::ZERO, base)?;
        if worker.write_mode == WriteMode::Put && worker.on_duplicate != OnDuplicate::default() {
            let limit = "not be set without `WriteMode::Insert`, as a put finds no duplicate";
            return Err(ConfigError::new("on_duplicate", "Fail", limit));
        }
        match &self.writer_ids.0 {
            Source::Drawn => Ok(()),
            Source::Assigned(writer_id) => in_range("writer_id", *writer_id, 0, WriterId::MAX),
            Source::Leased(ids) => ids.validate(),
        }
    }

    /// Checks the settings that depend on the journal, if there is one: it keeps events under their first keys.
    ///
    /// A process that ended after the insert under a new key would leave the first key in the journal. The next process
    /// would find that key taken, and store the event again under a third.
    #[cfg(feature = "journal")]
    pub(crate) fn validate_with(&self, journal: Option<&Journal>) -> Result<(), ConfigError> {
        if journal.is_some()
            && self.worker.write_mode == WriteMode::Insert
            && self.worker.on_duplicate == OnDuplicate::NewKey
        {
            let limit = "be `Fail` with a journal, which keeps events under their first keys";
            return Err(ConfigError::new("on_duplicate", "NewKey", limit));
        }
        Ok(())
    }

    /// How long events may still be read back after the deadline of a close, which comes `deadline` after its call: at
    /// most one attempt timeout, and at most a quarter of `deadline`.
    pub(crate) fn time_to_read_back(&self, deadline: Duration) -> Duration {
        if self.worker.read_back {
            self.worker.attempt_timeout.min(deadline / 4)
        } else {
            Duration::ZERO
        }
    }

    /// The source of the worker's jitter, and of the writer id if it is not set.
    ///
    /// If the system has no randomness, a writer id that was set is a good enough seed for the jitter. A writer id must
    /// not come from a fixed seed, as other stores would draw the same.
    pub(crate) fn random(&self) -> Result<StdRng, ConfigError> {
        if let Some(seed) = self.seed {
            return Ok(StdRng::seed_from_u64(seed));
        }
        match (StdRng::try_from_rng(&mut SysRng), &self.writer_ids.0) {
            (Ok(random), _) => Ok(random),
            (Err(_), Source::Assigned(writer_id)) => Ok(StdRng::seed_from_u64((*writer_id).into())),
            (Err(error), _) => {
                let limit =
                    format!("be given, as the system has no randomness to draw it from ({error})");
                Err(ConfigError::new("writer_id", "missing", limit))
            }
        }
    }

    /// Where the writer id comes from. `bits` are random.
    pub(crate) fn id_source(&self, bits: u64) -> IdSource {
        let first = WriterId::from_random(bits);
        match self.writer_ids.0 {
            Source::Assigned(id) => IdSource::Assigned(WriterId::new(id).unwrap_or(first)),
            Source::Drawn => IdSource::Drawn { first, random: Box::new(self.fresh_random(bits)) },
            Source::Leased(_) => IdSource::Leased,
        }
    }

    /// A source of random numbers that differ between copies of the process, unless a seed is set.
    pub(crate) fn fresh_random(&self, bits: u64) -> FreshRandom {
        FreshRandom::new(StdRng::seed_from_u64(bits), self.seed.is_some())
    }

    /// The maximum number of events in one call.
    pub(crate) fn max_batch_events(&self) -> NonZeroUsize {
        non_zero(self.worker.max_batch_events)
    }

    /// The error of a put that does not wait for a permit.
    pub(crate) fn full(&self, stats: &Stats, is_limit_reduced: bool) -> PutError {
        if let Some(write_units_per_second) = stats.write_units_per_second
            && is_limit_reduced
        {
            let buffered_events = stats.pending;
            return PutError::Throttled { write_units_per_second, buffered_events };
        }
        PutError::Full {
            max_buffered_events: non_zero(self.worker.max_buffered_events),
            max_buffered_bytes: non_zero(self.worker.max_buffered_bytes),
        }
    }
}

/// For a limit that has been validated to be at least 1.
fn non_zero(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty range of ids.
    #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
    const EMPTY: std::ops::RangeInclusive<u32> = 7..=6;

    /// Changes one setting of a valid configuration.
    type Change = fn(&mut Config);

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn values_at_the_limits_are_valid() {
        let changes: [Change; 8] = [
            |config| config.worker.max_batch_events = 1,
            |config| config.worker.linger = Duration::ZERO,
            |config| config.worker.max_batches_in_flight = 1_000,
            |config| config.worker.max_buffered_events = 1,
            |config| config.worker.max_buffered_bytes = 409_600,
            |config| config.worker.retry.backoff.floor = Duration::ZERO,
            |config| config.writer_ids = WriterIds::from(99_999),
            |config| {
                let second = Duration::from_secs(1);
                config.worker.retry.backoff =
                    Backoff { floor: second, base: second, ceiling: second };
            },
        ];
        for change in changes {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(config.validate(), Ok(()), "{config:?}");
        }
    }

    #[test]
    fn out_of_range_value_error_has_field_and_limit() {
        let cases: [(Change, &str); 21] = [
            (
                |c| c.worker.max_batch_events = 0,
                "setting `max_batch_events` is 0; it must be 1 to 25",
            ),
            (
                |c| c.worker.max_batch_events = 26,
                "setting `max_batch_events` is 26; it must be 1 to 25",
            ),
            (|c| c.worker.linger = HOUR * 2, "setting `linger` is 7200s; it must be 0ns to 3600s"),
            (
                |c| c.worker.max_batches_in_flight = 0,
                "setting `max_batches_in_flight` is 0; it must be 1 to 1000",
            ),
            (
                |c| c.worker.max_write_units_per_second = Some(0),
                "setting `max_write_units_per_second` is 0; it must be 1 to 100000000",
            ),
            (
                |c| c.worker.max_buffered_events = 0,
                "setting `max_buffered_events` is 0; it must be 1 to 100000000",
            ),
            (
                |c| c.worker.max_buffered_bytes = 409_599,
                "setting `max_buffered_bytes` is 409599; it must be",
            ),
            (
                |c| c.worker.attempt_timeout = Duration::ZERO,
                "setting `attempt_timeout` is 0ns; it must be",
            ),
            (
                |c| c.worker.retry.event_deadline = Duration::ZERO,
                "setting `event_deadline` is 0ns; it must be",
            ),
            (
                |c| c.worker.retry.event_deadline = DAY * 2,
                "setting `event_deadline` is 172800s; it must be",
            ),
            (
                |c| c.worker.retry.event_deadline = Duration::from_millis(9),
                "setting `linger` is 5ms; it must be at most half of `event_deadline`",
            ),
            (
                |c| c.worker.refusal_timeout = DAY * 2,
                "setting `refusal_timeout` is 172800s; it must be",
            ),
            (
                |c| c.worker.retry.max_attempts = 0,
                "setting `max_attempts` is 0; it must be 1 to 1000000",
            ),
            (
                |c| c.worker.retry.backoff.floor = HOUR,
                "setting `backoff.floor` is 3600s; it must be 0ns to 50ms",
            ),
            (
                |c| c.worker.retry.backoff.base = HOUR,
                "setting `backoff.base` is 3600s; it must be 1ms to 5s",
            ),
            (
                |c| c.worker.retry.backoff.ceiling = DAY,
                "setting `backoff.ceiling` is 86400s; it must be",
            ),
            (
                |c| c.writer_ids = WriterIds::from(100_000),
                "setting `writer_id` is 100000; it must be 0 to 99999",
            ),
            (
                |c| c.writer_ids = WriterIds::leased("").into(),
                "setting `writer_id.leased` is ``; it must be a table's name or ARN",
            ),
            (
                |c| c.writer_ids = WriterIds::leased("t").term(Duration::from_millis(999)).into(),
                "setting `writer_id.term` is 999ms; it must be 1s to 3600s",
            ),
            (
                |c| c.writer_ids = WriterIds::leased("t").ids(0..=100_000).into(),
                "setting `writer_id.ids` is 100000; it must be 0 to 99999",
            ),
            (
                |c| c.writer_ids = WriterIds::leased("t").ids(EMPTY).into(),
                "setting `writer_id.ids` is 7..=6; it must have an id or more",
            ),
        ];
        for (change, message) in cases {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
