//! The runtime's clock. Tests that wait by it run with the clock paused: waiting takes no time.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[expect(
    clippy::disallowed_methods,
    reason = "the tests' one look at the clock, mostly a virtual one"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets everything else run, and so much virtual time pass.
pub(crate) async fn wait(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// [`wait`] in milliseconds.
pub(crate) async fn wait_milliseconds(milliseconds: u64) {
    wait(Duration::from_millis(milliseconds)).await;
}
