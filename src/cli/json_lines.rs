//! What `--json` says on standard output.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

/// One object a line, for another program.
#[derive(Debug, Default)]
pub(crate) struct JsonLines {
    /// Set when a line could not be written. The others are not tried.
    broken: Option<io::Error>,
}

impl JsonLines {
    pub(crate) fn print(&mut self, object: &impl Serialize) {
        if self.broken.is_some() {
            return;
        }
        let printed = serde_json::to_string(object)
            .map_err(io::Error::from)
            .and_then(|line| writeln!(io::stdout(), "{line}"));
        self.broken = printed.err();
    }

    /// Why not every line was printed. A reader who has left has not missed any.
    pub(crate) fn error(&self) -> Option<String> {
        let error = self.broken.as_ref().filter(|error| error.kind() != ErrorKind::BrokenPipe)?;
        Some(format!("standard output does not hold every line: {error}"))
    }
}
