//! The clock of the runtime. On a paused clock waiting takes no real time.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the tests read the clock, mostly a paused one"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits for `duration`, while all other tasks run.
pub(crate) async fn wait(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// [`wait`] in milliseconds.
pub(crate) async fn wait_milliseconds(milliseconds: u64) {
    wait(Duration::from_millis(milliseconds)).await;
}
