//! A server in a process of its own, so that neither its work nor its memory is counted as ours. It is
//! this program once more, told by a variable to serve.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Set in the process that is to serve, to what it has to know.
const ROLE: &str = "EVENTSTORE_BENCH_SERVER";

/// The running server. It ends when this is dropped, and at the latest with this process, which holds
/// the other end of its standard input.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    /// The first line that the server has printed: where it listens.
    pub(crate) greeting: String,
}

impl Server {
    /// Starts this program as a server that is told `order`, and waits for its greeting.
    pub(crate) fn start(order: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut greeting = String::new();
        let output = process.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut greeting).unwrap();
        Self { process, greeting }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only where the process has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What this process is to serve, if it is to serve at all.
pub(crate) fn order() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Ends this process when the one that has started it is done, or is no more.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
}
