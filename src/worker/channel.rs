//! The channels between the worker and the handles, and how the worker ends.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::accounting::Accounting;
use crate::clock::now;
use crate::error::WorkerLost;
use crate::pending::PendingEvent;
use crate::policy::barrier::Epoch;
use crate::report::{CloseReport, FlushReport};

/// What a handle asks of the worker. Puts and flushes share a queue, so that a flush stands behind
/// the puts that came before it.
#[derive(Debug)]
pub(crate) enum Command {
    Put(PendingEvent),
    Flush(oneshot::Sender<FlushReport>),
}

/// What close asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloseDeadlines {
    /// When the events that are left fail.
    pub(crate) fail_at: Instant,
    /// When the events are answered that are still being read back.
    pub(crate) answer_by: Instant,
}

impl CloseDeadlines {
    /// The sooner of both deadlines.
    pub(crate) fn sooner(self, other: Self) -> Self {
        Self {
            fail_at: self.fail_at.min(other.fail_at),
            answer_by: self.answer_by.min(other.answer_by),
        }
    }
}

/// How the worker ended.
#[derive(Debug, Clone)]
pub(crate) enum WorkerExit {
    Closed(Arc<CloseReport>),
    Lost(WorkerLost),
}

/// The worker's ends of what it shares with the handles.
#[derive(Debug)]
pub(crate) struct WorkerChannels {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    /// `None` until close was called.
    pub(crate) close_deadlines: watch::Receiver<Option<CloseDeadlines>>,
    pub(crate) exit: watch::Sender<Option<WorkerExit>>,
    pub(crate) accounting: Arc<Accounting>,
}

/// The worker's end of the channel.
///
/// Dropping it answers whatever is still in it. tokio's own drop stops at a message whose sender is
/// between claiming its place and filling it, and leaves those behind it to the last sender: a
/// ticket whose holder also holds the store would wait for ever.
#[derive(Debug)]
pub(super) struct CommandReceiver {
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) accounting: Arc<Accounting>,
}

impl Drop for CommandReceiver {
    fn drop(&mut self) {
        self.commands.close();
        loop {
            match self.commands.try_recv() {
                // An admitted event answers its ticket when it is dropped.
                Ok(Command::Put(mut event)) => {
                    let now = now();
                    event.admit(&self.accounting, Epoch::default(), now, now);
                }
                Ok(Command::Flush(reply)) => drop(reply),
                Err(TryRecvError::Disconnected) => break,
                // A sender is between its two steps, a few instructions apart.
                Err(TryRecvError::Empty) => std::thread::yield_now(),
            }
        }
    }
}

/// Publishes how the worker ended, also where its task is dropped.
#[derive(Debug)]
pub(super) struct ExitGuard {
    pub(super) accounting: Arc<Accounting>,
    pub(super) exit: watch::Sender<Option<WorkerExit>>,
}

impl ExitGuard {
    pub(super) fn publish(&self, exit: WorkerExit) {
        // The cause comes first: whoever is refused finds it.
        self.exit.send_replace(Some(exit));
        self.accounting.flow_control.close();
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            self.publish(WorkerExit::Lost(WorkerLost::while_dropping()));
        }
    }
}
