//! The hook of [`on_settled`](crate::EventStoreBuilder::on_settled): a bounded channel, and the task that calls it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use super::Settled;
use crate::event::Event;

/// The hook that a program has set.
#[derive(Clone)]
pub(crate) struct SettledHook(Arc<dyn Fn(&Settled) + Send + Sync>);

/// Sends what events are settled as to the task of the hook. It never waits.
#[derive(Debug)]
pub(crate) struct SettledSender {
    messages: mpsc::Sender<Message>,
    backlog: Arc<Backlog>,
    /// Most bytes of failed events in the channel.
    max_bytes: u64,
}

#[derive(Debug)]
enum Message {
    Settled(Settled),
    /// Is answered when the hook has learned of everything before it.
    Drain(oneshot::Sender<()>),
}

/// What the channel holds, and what it could not take.
#[derive(Debug, Default)]
struct Backlog {
    /// Bytes of failed events, which their errors keep.
    bytes: AtomicU64,
    missed: AtomicU64,
}

impl SettledHook {
    pub(crate) fn new(hook: impl Fn(&Settled) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    /// Starts the task that calls the hook. It ends when the sender is dropped.
    pub(crate) fn spawn(
        &self,
        runtime: &Handle,
        max_events: usize,
        max_bytes: usize,
    ) -> SettledSender {
        let (messages, receiver) = mpsc::channel(max_events);
        let backlog = Arc::new(Backlog::default());
        runtime.spawn(self.clone().run(receiver, Arc::clone(&backlog)));
        SettledSender { messages, backlog, max_bytes: max_bytes as u64 }
    }

    async fn run(self, mut messages: mpsc::Receiver<Message>, backlog: Arc<Backlog>) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Settled(settled) => {
                    self.call(&settled);
                    backlog.bytes.fetch_sub(failed_bytes(&settled), Ordering::Relaxed);
                    self.call_for_missed(&backlog);
                }
                Message::Drain(reply) => {
                    self.call_for_missed(&backlog);
                    // Whoever closes may have given up.
                    let _ = reply.send(());
                }
            }
        }
        self.call_for_missed(&backlog);
    }

    fn call_for_missed(&self, backlog: &Backlog) {
        let events = backlog.missed.swap(0, Ordering::Relaxed);
        if events > 0 {
            tracing::warn!(events, "the on_settled hook is too slow, and has missed events");
            self.call(&Settled::Missed { events });
        }
    }

    /// Calls the hook. What it was about to change when it panicked is its own affair.
    fn call(&self, settled: &Settled) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(settled))).is_err() {
            tracing::error!("the on_settled hook has panicked; the store goes on");
        }
    }
}

impl SettledSender {
    /// Sends it to the hook, or counts it as missed if too much waits already.
    pub(crate) fn send(&self, settled: Settled) {
        let bytes = failed_bytes(&settled);
        let before = self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single event may be larger than the limit.
        let fits = before == 0 || before + bytes <= self.max_bytes;
        if !fits || self.messages.try_send(Message::Settled(settled)).is_err() {
            self.backlog.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.backlog.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the hook has learned of everything that was sent before, but not beyond `until`.
    pub(crate) async fn drain(&self, until: Instant) {
        let drained = async {
            let (reply, drained) = oneshot::channel();
            if self.messages.send(Message::Drain(reply)).await.is_ok() {
                // The task is gone if its runtime was shut down.
                let _ = drained.await;
            }
        };
        let _ = timeout_at(until.into(), drained).await;
    }
}

/// Bytes of memory that only the error of a failed event keeps.
fn failed_bytes(settled: &Settled) -> u64 {
    match settled {
        Settled::Failed(error) => error.event().map_or(0, Event::buffered_bytes).into(),
        Settled::Stored(_) | Settled::Missed { .. } => 0,
    }
}

impl fmt::Debug for SettledHook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SettledHook").finish_non_exhaustive()
    }
}
