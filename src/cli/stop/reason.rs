//! Why a run puts no more lines.

use std::process::ExitCode;
use std::time::Duration;

use super::signals::Signal;
use crate::time;

/// Why a run stopped.
#[derive(Debug)]
pub(crate) enum StopReason {
    EndOfInput,
    Signal(Signal),
    ReadError(String),
    /// The table could not be opened. No line was put.
    StartError(String),
    /// Every later event would fail for this reason.
    FatalError(String),
    /// Events were waiting, and none was settled within `--deadline`.
    Stalled,
}

impl StopReason {
    /// Whether the run stopped before the end of its input.
    pub(crate) fn is_early(&self) -> bool {
        !matches!(self, Self::EndOfInput)
    }

    /// The message about a run that stopped at `place`; `None` at the end of the input.
    pub(crate) fn message(&self, place: &str, deadline: Duration) -> Option<String> {
        Some(match self {
            Self::EndOfInput => return None,
            Self::Signal(signal) => format!("stopped by {} {place}", signal.name),
            Self::ReadError(error) => {
                format!("error: stopped {place}, because the input cannot be read: {error}")
            }
            Self::StartError(error) => format!("error: {error}"),
            Self::FatalError(cause) => {
                format!("error: stopped {place}, because every later event would fail: {cause}")
            }
            Self::Stalled => format!("error: stopped {place}: {}", stall_message(deadline)),
        })
    }

    /// The exit code of the process. `is_complete` means that nothing failed up to the stop.
    pub(crate) fn exit_code(&self, is_complete: bool) -> ExitCode {
        match self {
            Self::Signal(signal) => ExitCode::from(signal.exit_code()),
            Self::EndOfInput if is_complete => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// The message about a table that has stalled.
pub(crate) fn stall_message(deadline: Duration) -> String {
    let deadline = time::format(deadline);
    format!("the table acknowledged none of the waiting events for {deadline} (--deadline)")
}
