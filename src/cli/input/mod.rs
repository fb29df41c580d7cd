//! The lines of a file or of standard input.

mod lines;
mod reader;
mod source;

pub(crate) use lines::{Line, MAX_LINE_BYTES};
pub(crate) use reader::LineReader;
pub(crate) use source::Source;

use std::io::{self, Read};
use std::thread;

use tokio::sync::oneshot;

/// Runs work that may block for ever in a thread of its own. When the program ends, it waits
/// for tokio's blocking tasks, but not for this thread.
pub(crate) async fn run_in_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        // The receiver may have been dropped.
        let _ = sender.send(work());
    })?;
    result.await.map_err(|_| io::Error::other("a thread panicked"))
}

/// Opens the source. To open a pipe blocks until its other end is opened.
pub(crate) async fn open_in_thread(source: &Source) -> Result<Box<dyn Read + Send>, String> {
    let failed = |error: io::Error| format!("cannot read {source}: {error}");
    let opened = source.clone();
    let input = run_in_thread(move || opened.open()).await.and_then(|opened| opened);
    let (input, _bytes) = input.map_err(failed)?;
    Ok(input)
}
