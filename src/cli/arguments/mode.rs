//! What a run does with the lines of its input.

/// The mode of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// Each line from `first_line` on is a new event, and gets a key.
    Put { first_line: u64 },
    /// Each line is a failed event that has its key. `reads_keys` skips what is already stored.
    Resume { reads_keys: bool },
}

impl Mode {
    pub(crate) fn is_resume(self) -> bool {
        matches!(self, Self::Resume { .. })
    }

    /// The first line to put.
    pub(crate) fn first_line(self) -> u64 {
        match self {
            Self::Put { first_line } => first_line,
            Self::Resume { .. } => 1,
        }
    }
}
