//! The channels between the worker and the handles of [`EventStore`](crate::EventStore), and how the worker ends.

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

/// What a handle sends to the worker. Puts and flushes share a channel, so a flush comes after the puts that were
/// called before it.
#[derive(Debug)]
pub(crate) enum Command {
    /// An accepted event.
    Put(PendingEvent),
    /// Answers when every event before it is settled.
    Flush(oneshot::Sender<FlushReport>),
    /// An event that waited on disk has failed, as its record cannot be read. The worker only reports it.
    #[cfg(feature = "journal")]
    Unreadable { was_received: bool },
}

/// The deadlines of close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CloseDeadlines {
    /// When the events that are not settled fail.
    pub(crate) fail_at: Instant,
    /// When the read-backs of failed events end, and their tickets are answered.
    pub(crate) answer_by: Instant,
}

impl CloseDeadlines {
    /// The earlier of both, deadline by deadline.
    pub(crate) fn earliest(self, other: Self) -> Self {
        Self {
            fail_at: self.fail_at.min(other.fail_at),
            answer_by: self.answer_by.min(other.answer_by),
        }
    }
}

/// How the worker ended.
#[derive(Debug, Clone)]
pub(crate) enum WorkerExit {
    /// After close, or after the last handle was dropped: every event is settled.
    Closed(Arc<CloseReport>),
    /// It was dropped or has panicked before that.
    Lost(WorkerLost),
}

/// The worker's ends of the channels that it shares with the handles.
#[derive(Debug)]
pub(crate) struct WorkerChannels {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    /// `None` until close was called.
    pub(crate) close_deadlines: watch::Receiver<Option<CloseDeadlines>>,
    pub(crate) exit: watch::Sender<Option<WorkerExit>>,
    pub(crate) accounting: Arc<Accounting>,
}

/// The receiver of commands. Dropping it answers every command that is still in the channel.
///
/// tokio's own receiver stops at a slot that a sender has claimed but not filled. The messages after it are dropped
/// only with the last sender. A caller that awaits a ticket while it holds the store would then wait for ever.
#[derive(Debug)]
pub(super) struct CommandReceiver {
    pub(super) receiver: mpsc::UnboundedReceiver<Command>,
    pub(super) accounting: Arc<Accounting>,
}

impl Drop for CommandReceiver {
    fn drop(&mut self) {
        self.receiver.close();
        loop {
            match self.receiver.try_recv() {
                // An admitted event answers its ticket when dropped.
                Ok(Command::Put(mut event)) => {
                    event.admit(&self.accounting, Epoch::default(), now());
                    #[cfg(feature = "metrics")]
                    self.accounting.metrics.accept(1, event.usage(&self.accounting).bytes);
                }
                Ok(Command::Flush(reply)) => drop(reply),
                #[cfg(feature = "journal")]
                Ok(Command::Unreadable { .. }) => {}
                Err(TryRecvError::Disconnected) => break,
                // A sender has claimed a slot and fills it within a few instructions.
                Err(TryRecvError::Empty) => std::thread::yield_now(),
            }
        }
    }
}

/// Publishes how the worker ended, also when its task panics or is dropped.
#[derive(Debug)]
pub(super) struct ExitGuard {
    pub(super) accounting: Arc<Accounting>,
    pub(super) exit: watch::Sender<Option<WorkerExit>>,
}

impl ExitGuard {
    pub(super) fn publish(&self, exit: WorkerExit) {
        // The cause is published first, because a put that finds flow control closed reads it.
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
