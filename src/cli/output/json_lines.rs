//! The lines of `--json` on standard output.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

/// Prints one JSON object per line.
#[derive(Debug, Default)]
pub(crate) struct JsonLines {
    /// The first failed write. Nothing is written after it.
    write_error: Option<io::Error>,
}

impl JsonLines {
    pub(crate) fn print(&mut self, object: &impl Serialize) {
        if self.write_error.is_some() {
            return;
        }
        let printed = serde_json::to_string(object)
            .map_err(io::Error::from)
            .and_then(|line| writeln!(io::stdout(), "{line}"));
        self.write_error = printed.err();
    }

    /// Why a line was not printed. A closed pipe is no error: its reader wants no more lines.
    pub(crate) fn error(&self) -> Option<String> {
        let error = self.write_error.as_ref()?;
        (error.kind() != ErrorKind::BrokenPipe)
            .then(|| format!("standard output does not hold every line: {error}"))
    }
}
