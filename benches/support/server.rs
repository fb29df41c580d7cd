//! A server in its own process, so that neither its CPU time nor its memory is measured. The process
//! runs this program with an environment variable that makes it serve.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The variable that makes a process serve. Its value is the server's role.
const ROLE: &str = "EVENTSTORE_BENCH_SERVER";

/// The running server. It ends when this is dropped, and at the latest with this process, because then
/// its standard input closes.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    /// The first line that the server has printed, for example its port.
    pub(crate) greeting: String,
}

impl Server {
    /// Starts this program as a server with this role, and waits for its greeting.
    pub(crate) fn start(role: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, role)
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
        // Either call fails only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The role of this process, if it is a server.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Ends this process when its parent process has ended.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
}
