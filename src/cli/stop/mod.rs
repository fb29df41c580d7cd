//! What ends a run before the end of its input.

mod reason;
pub(crate) mod request;
pub(crate) mod signals;
mod watchdog;

use tokio::sync::watch;

pub(crate) use reason::{StopReason, stall_message};
use signals::Signals;
pub(crate) use watchdog::Watchdog;

/// Everything that can end a run early.
#[derive(Debug)]
pub(crate) struct StopConditions {
    pub(crate) signals: Signals,
    pub(crate) watchdog: Watchdog,
    /// Why every later event would fail, once that is known.
    pub(crate) fatal_error: watch::Receiver<Option<String>>,
}

impl StopConditions {
    /// Waits for the next reason to stop. Cancel safe.
    pub(crate) async fn next(&mut self) -> StopReason {
        tokio::select! {
            biased;
            signal = self.signals.next() => StopReason::Signal(signal),
            Ok(cause) = self.fatal_error.wait_for(Option::is_some) => {
                StopReason::FatalError(cause.clone().unwrap_or_default())
            }
            () = self.watchdog.stalled() => StopReason::Stalled,
        }
    }

    /// Waits for the next reason to stop after the last put. A fatal error is no reason then.
    /// Cancel safe.
    pub(crate) async fn next_while_closing(&mut self) -> StopReason {
        tokio::select! {
            biased;
            signal = self.signals.next() => StopReason::Signal(signal),
            () = self.watchdog.stalled() => StopReason::Stalled,
        }
    }
}
