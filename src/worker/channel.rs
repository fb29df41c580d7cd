//! What the worker shares with the handles, and its last word to them.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::accounting::Accounting;
use crate::clock::now;
use crate::error::WorkerLost;
use crate::pending::{Accepted, Pending};
use crate::report::{CloseReport, FlushReport};

/// What a handle asks of the worker. Puts and flushes share a queue, so that a flush stands behind
/// the puts that came before it.
#[derive(Debug)]
pub(crate) enum Command {
    Put(Accepted),
    Flush(oneshot::Sender<FlushReport>),
}

/// What close asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloseDeadlines {
    /// When to give up what is left.
    pub(crate) fail_at: Instant,
    /// When to answer what is then still in doubt, read back or not.
    pub(crate) answer_by: Instant,
}

impl CloseDeadlines {
    /// The sooner of two orders, in each respect.
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
                // What is pending settles itself as it is dropped; a flush fails as its reply is.
                Ok(Command::Put(accepted)) => drop(Pending::new(accepted, &self.accounting, now())),
                Ok(Command::Flush(reply)) => drop(reply),
                Err(TryRecvError::Disconnected) => break,
                // A sender is between its two steps, a few instructions apart.
                Err(TryRecvError::Empty) => std::thread::yield_now(),
            }
        }
    }
}

/// Says how the worker ended, if the worker does not come to say so itself.
#[derive(Debug)]
pub(super) struct ExitGuard {
    pub(super) accounting: Arc<Accounting>,
    pub(super) exit: watch::Sender<Option<WorkerExit>>,
}

impl ExitGuard {
    pub(super) fn publish(&self, exit: WorkerExit) {
        // The cause first, then the door: whoever is refused finds the cause.
        self.exit.send_replace(Some(exit));
        self.accounting.flow_control.close();
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            self.publish(WorkerExit::Lost(WorkerLost::now()));
        }
    }
}
