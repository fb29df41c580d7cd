//! Why no more lines are put.

use std::process::ExitCode;
use std::time::Duration;

use crate::durations;
use crate::signals::Signal;

/// Why a run ended.
#[derive(Debug)]
pub(crate) enum End {
    AllRead,
    Signal(Signal),
    ReadError(String),
    /// The table could not be opened. No line was put.
    NotStarted(String),
    /// Every later event would fail for this reason.
    Refused(String),
    /// Events waited, and none was settled for as long as --deadline allows.
    Stalled,
}

impl End {
    pub(crate) fn is_early(&self) -> bool {
        !matches!(self, Self::AllRead)
    }

    /// Why it ended at this place; nothing where that was the end of the input.
    pub(crate) fn in_words(&self, place: &str, deadline: Duration) -> Option<String> {
        Some(match self {
            Self::AllRead => return None,
            Self::Signal(signal) => format!("stopped by {} {place}", signal.name),
            Self::ReadError(error) => {
                format!("error: stopped {place}, as it cannot be read: {error}")
            }
            Self::NotStarted(error) => format!("error: {error}"),
            Self::Refused(cause) => {
                format!("error: stopped {place}, as every event would fail: {cause}")
            }
            Self::Stalled => format!("error: stopped {place}: {}", took_none(deadline)),
        })
    }

    /// `is_complete` says that everything went well up to the end.
    pub(crate) fn exit_code(&self, is_complete: bool) -> ExitCode {
        match self {
            Self::Signal(signal) => ExitCode::from(signal.exit_code()),
            Self::AllRead if is_complete => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// That the table has stalled.
pub(crate) fn took_none(deadline: Duration) -> String {
    let deadline = durations::in_words(deadline);
    format!("events were waiting, and for {deadline} (--deadline) the table took none")
}
