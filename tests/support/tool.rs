//! Runs the command-line tool as its users do, in a folder of its own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use dynamodb_eventstore::LocalTable;
use serde_json::Value;
use tempfile::TempDir;

use super::endpoint::{Endpoint, Reply, Script, TABLE};
use super::table::rows;

/// The tool in this folder, without any AWS configuration of the user.
pub(crate) fn tool(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynamodb-eventstore"));
    command
        .current_dir(folder.path())
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", folder.path())
        .stdin(Stdio::null());
    command
}

/// Like [`tool`], for a table behind `endpoint_url`.
pub(crate) fn tool_for(folder: &TempDir, endpoint_url: &str) -> Command {
    let mut command = tool(folder);
    command
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL", endpoint_url);
    command
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(folder.path().join(name), content).unwrap();
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

pub(crate) fn assert_success(output: &Output) {
    assert!(output.status.success(), "{} {}", stdout(output), stderr(output));
}

/// The bodies in the local table of a file, sorted.
pub(crate) async fn bodies(file: &Path) -> Vec<String> {
    let table = LocalTable::open(file).await.unwrap();
    let mut bodies: Vec<String> = rows(table.client(), table.name()).await.into_values().collect();
    bodies.sort();
    table.stop().await.unwrap();
    bodies
}

pub(crate) fn example_data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Writes lines to the tool until it ends, and sends it `signal` once it is `ready`.
#[cfg(unix)]
pub(crate) fn write_lines_and_signal(
    mut command: Command,
    signal: &'static str,
    ready: impl Fn() -> bool + Send + 'static,
) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let stopper = std::thread::spawn(move || {
        while !ready() {
            std::thread::yield_now();
        }
        send_signal(process, signal);
    });
    let mut input = child.stdin.take().unwrap();
    let mut lines = (0..).map(|number| format!("{{\"number\":{number}}}\n"));
    // The pipe closes when the tool has ended.
    while input.write_all(lines.next().unwrap().as_bytes()).is_ok() {}
    stopper.join().unwrap();
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
pub(crate) fn send_signal(process: u32, signal: &str) {
    let sent: ExitStatus =
        Command::new("kill").args([format!("-{signal}"), process.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Puts three events into a table that refuses them. `failed.ndjson` then has these events, after
/// a line that has no event.
pub(crate) async fn fail_to_put(folder: &TempDir) {
    let script = Script::always(Reply::error(400, "AccessDeniedException"));
    let endpoint = Endpoint::start(script).await;
    write(folder, "events.ndjson", "nonsense\n{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
    let mut put = tool_for(folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--failed", "failed.ndjson"]);
    let output = tokio::task::spawn_blocking(move || put.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

pub(crate) fn lines_of(folder: &TempDir, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command without blocking this runtime, which serves its requests.
pub(crate) async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// A condition to wait for.
pub(crate) type Condition = Box<dyn Fn() -> bool + Send>;

/// Runs a command, and sends it these signals, each when its condition holds.
#[cfg(unix)]
pub(crate) async fn run_and_signal(
    mut command: Command,
    signals: impl IntoIterator<Item = (&'static str, Condition)> + Send + 'static,
) -> Output {
    let run = move || {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        for (signal, is_ready) in signals {
            while !is_ready() {
                std::thread::yield_now();
            }
            send_signal(child.id(), signal);
        }
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Lines of a `--failed` file. Every third event is maybe stored.
pub(crate) fn failed_lines(events: usize) -> Vec<String> {
    let line = |number: usize| {
        let certainty = if number.is_multiple_of(3) { "maybe stored" } else { "not stored" };
        format!(
            r#"{{"line":{},"key":"20260101T000000000{number:09}","certainty":"{certainty}","reason":"as scripted","body":"{{\"number\":{number}}}"}}"#,
            10 * number + 3,
        )
    };
    (0..events).map(line).collect()
}

/// The command that the tool suggests after these words.
pub(crate) fn suggested(output: &Output, words: &str) -> String {
    let (_, command) = stderr(output).split_once(words).unwrap_or_else(|| panic!("{output:?}"));
    command.trim_start_matches(":\n").lines().next().unwrap().trim().to_owned()
}

/// Runs `command` in a shell, with the folder and environment of `like`.
pub(crate) fn shell(like: &Command, command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).current_dir(like.get_current_dir().unwrap());
    for (name, value) in like.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}
