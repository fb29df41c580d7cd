//! [`StopRequest`]: the signal that asks a command to end.

use std::io;

use tokio::sync::watch;

use super::signals::{Signal, Signals};

/// Whether the process has received SIGINT or SIGTERM. The first one is for the command, which ends as soon as it can.
/// A second one ends the process at once: the command may wait for a pipe that nobody reads.
#[derive(Debug)]
pub(crate) struct StopRequest(watch::Receiver<Option<Signal>>);

impl StopRequest {
    /// Starts to listen. Must be called in a runtime of several threads: the task for the second signal must run while the
    /// command blocks.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut signals = Signals::listen()?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            sender.send_replace(Some(signals.next().await));
            let second = signals.next().await;
            std::process::exit(second.exit_code().into());
        });
        Ok(Self(receiver))
    }

    /// Waits for the first signal. Cancel safe.
    pub(crate) async fn received(&mut self) -> Signal {
        if let Ok(received) = self.0.wait_for(Option::is_some).await
            && let Some(signal) = *received
        {
            return signal;
        }
        std::future::pending().await
    }
}
