//! [`Attempts`]: how often and for how long one call is tried.

use std::time::{Duration, Instant};

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};
use tokio::time::sleep_until;

use super::error::TailError;
use crate::clock::now;
use crate::dynamodb::streams::StreamFailure;
use crate::error::FailureClass;
use crate::policy::retry::Backoff;

/// How calls are retried.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallRetries {
    /// Time for a call with all of its attempts.
    pub(super) deadline: Duration,
    pub(super) backoff: Backoff,
}

/// The attempts at a call. A shard's task uses one for all of its calls, which follow one another.
#[derive(Debug)]
pub(super) struct Attempts {
    retries: CallRetries,
    random: StdRng,
    /// When the first attempt since the last success failed.
    failing_since: Option<Instant>,
    /// Failed attempts since the last success.
    failed: u32,
}

impl Attempts {
    pub(super) fn new(retries: CallRetries) -> Self {
        let random = StdRng::try_from_rng(&mut SysRng).unwrap_or_else(|_| StdRng::seed_from_u64(0));
        Self { retries, random, failing_since: None, failed: 0 }
    }

    pub(super) fn succeed(&mut self) {
        (self.failing_since, self.failed) = (None, 0);
    }

    /// When to try again after this failure.
    ///
    /// # Errors
    ///
    /// The failure is final.
    pub(super) fn retry_at(
        &mut self,
        failure: StreamFailure,
        table: &str,
        shard: Option<&str>,
    ) -> Result<Instant, TailError> {
        let now = now();
        let since = *self.failing_since.get_or_insert(now);
        self.failed = self.failed.saturating_add(1);
        let jitter = self.random.next_u64() as f64 / u64::MAX as f64;
        let delay = self.retries.backoff.delay(self.failed, jitter);
        let elapsed = now.saturating_duration_since(since);
        let is_in_time = elapsed.saturating_add(delay) < self.retries.deadline;
        let StreamFailure { operation, ref error } = failure;
        tracing::debug!(operation, shard, %error, "a call of the tail failed");
        if is_in_time && is_retryable(&failure) {
            return Ok(now + delay);
        }
        Err(TailError::Call {
            table: table.to_owned(),
            operation,
            shard: shard.map(str::to_owned),
            attempts: self.failed,
            cause: Box::new(failure.error),
        })
    }
}

/// Whether the next attempt may succeed. A refusal is final: a tail that ends loses nothing, unlike a store, and can be
/// started again from its position.
fn is_retryable(failure: &StreamFailure) -> bool {
    let class = failure.error.class();
    failure.is_expired_iterator()
        || failure.is_trimmed()
        || (class.is_retryable() && class != FailureClass::Refused)
}

/// Tries a call until it succeeds or its failure is final.
pub(super) async fn with_retries<T, F>(
    retries: CallRetries,
    table: &str,
    shard: Option<&str>,
    mut call: impl FnMut() -> F,
) -> Result<T, TailError>
where
    F: Future<Output = Result<T, StreamFailure>>,
{
    let mut attempts = Attempts::new(retries);
    loop {
        let failure = match call().await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        sleep_until(attempts.retry_at(failure, table, shard)?.into()).await;
    }
}
