//! What the tool says, to whoever still listens.
//!
//! `println!` and `eprintln!` panic when the other end of a pipe is gone. A report that nobody
//! reads must not end a put, so these do not.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};

/// A line on standard output: the result.
pub(crate) fn result(line: impl Display) {
    let _ = writeln!(stdout(), "{line}");
}

/// A line on standard error: everything else.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}
