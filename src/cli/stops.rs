//! What ends a run before its input does.

use tokio::sync::watch;

use crate::ending::End;
use crate::signals::Signals;
use crate::watchdog::Watchdog;

/// Everything that can say stop.
#[derive(Debug)]
pub(crate) struct Stops {
    pub(crate) signals: Signals,
    pub(crate) watchdog: Watchdog,
    /// Why every later event would fail, once that is known.
    pub(crate) refused: watch::Receiver<Option<String>>,
}

impl Stops {
    /// The next reason to stop. Cancel safe.
    pub(crate) async fn next(&mut self) -> End {
        tokio::select! {
            biased;
            signal = self.signals.next() => End::Signal(signal),
            Ok(cause) = self.refused.wait_for(Option::is_some) => {
                End::Refused(cause.clone().unwrap_or_default())
            }
            () = self.watchdog.stalled() => End::Stalled,
        }
    }

    /// The next reason to stop while nothing more is put: a refusal is none then. Cancel safe.
    pub(crate) async fn next_for_accepted(&mut self) -> End {
        tokio::select! {
            biased;
            signal = self.signals.next() => End::Signal(signal),
            () = self.watchdog.stalled() => End::Stalled,
        }
    }
}
