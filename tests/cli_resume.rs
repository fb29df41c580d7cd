//! The command-line tool: `resume` of failed events.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what is not there fails the test"
)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::process::{Command, Output};
use std::sync::Arc;

use dynamodb_eventstore::LocalTable;
use serde_json::Value;
use tempfile::TempDir;

use support::endpoint::{Described, Endpoint, ReadReply, Reply, Script, Selector, TABLE};
use support::table::rows;
use support::tool::{
    Condition, assert_success, bodies, fail_to_put, failed_lines, folder, lines_of, run,
    run_and_signal, shell, stderr, stdout, suggested, tool, tool_for, write,
};
use support::watchdog;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_stores_failed_events_once_under_their_keys() {
    let folder = folder();
    fail_to_put(&folder).await;
    let failed = lines_of(&folder, "failed.ndjson");
    assert_eq!(failed.len(), 4);
    let resume = |more: &[&str]| {
        let arguments = ["resume", "failed.ndjson", "--local", "table.sqlite"];
        tool(&folder).args(arguments).args(more).output().unwrap()
    };

    let output = tool(&folder).args(["resume", "failed.ndjson"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("name the table"), "{output:?}");

    let output = resume(&["--failed", "left.ndjson"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).starts_with("stored 3 events, "), "{output:?}");
    assert!(stderr(&output).contains("it has no key, because it was never accepted"), "{output:?}");
    let left = lines_of(&folder, "left.ndjson");
    assert_eq!(left.len(), 1);

    // Resume once more, without the line that has no event.
    let events = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let events: Vec<&str> = events.lines().skip(1).collect();
    write(&folder, "failed.ndjson", events.join("\n"));
    for more in [&[][..], &["--unchecked"]] {
        let output = resume(more);
        assert_success(&output);
        let is_skipped = stdout(&output).contains("3 events were stored already");
        assert_eq!(is_skipped, more.is_empty(), "{output:?}");
    }

    let table = LocalTable::open(folder.path().join("table.sqlite")).await.unwrap();
    let stored = rows(table.client(), table.name()).await;
    table.stop().await.unwrap();
    let expected: Vec<(String, String)> = failed
        .iter()
        .filter_map(|line| {
            let text = |field: &str| line[field].as_str().map(str::to_owned);
            Some((text("key")?, text("body")?))
        })
        .collect();
    assert_eq!(expected.len(), 3);
    assert_eq!(stored.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_keeps_invalid_lines_as_maybe_stored() {
    let folder = folder();
    let key = "20130927T005240652508858176";
    let lines = [
        format!(r#"{{"key":"{key}","certainty":"maybe stored","body":null}}"#),
        format!(r#"{{"key":"{key}","body":"no json at all"}}"#),
        r#"{"key":"yesterday","body":"{}"}"#.to_owned(),
        r#"{"key":7}"#.to_owned(),
    ];
    write(&folder, "failed.ndjson", lines.join("\n"));
    let arguments =
        ["resume", "failed.ndjson", "--local", "table.sqlite", "--failed", "left.ndjson"];
    let output = tool(&folder).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let left = lines_of(&folder, "left.ndjson");
    let keys: Vec<&Value> = left.iter().map(|line| &line["key"]).collect();
    assert_eq!(keys, [&Value::from(key), &key.into(), &"yesterday".into(), &Value::Null]);
    assert!(left.iter().all(|line| line["certainty"] == "maybe stored"), "{left:?}");
    let texts: Vec<&str> = left.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts, lines);
    assert!(bodies(&folder.path().join("table.sqlite")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_retries_a_read_that_times_out() {
    let folder = folder();
    fail_to_put(&folder).await;
    let endpoint = Endpoint::start(Script::of([]).first_reading([ReadReply::Hang])).await;
    let mut resume = tool_for(&folder, &endpoint.url());
    resume.args(["resume", "failed.ndjson", "--table", TABLE]);
    let output = tokio::task::spawn_blocking(move || resume.output().unwrap()).await.unwrap();
    assert!(stdout(&output).starts_with("stored 3 events, "), "{output:?}");
    assert_eq!(endpoint.calls("BatchGetItem").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_reads_unprocessed_keys_again() {
    let folder = folder();
    fail_to_put(&folder).await;
    // Each read returns one key, and leaves the others unprocessed.
    let script = Script::of([]).reading(ReadReply::Unprocessed(Selector::Places(vec![1, 2])));
    let endpoint = Endpoint::start(script).await;
    let mut resume = tool_for(&folder, &endpoint.url());
    resume.args(["resume", "failed.ndjson", "--table", TABLE]);
    let output = tokio::task::spawn_blocking(move || resume.output().unwrap()).await.unwrap();
    assert!(stdout(&output).starts_with("stored 3 events, "), "{output:?}");
    assert_eq!(endpoint.calls("BatchGetItem").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_overwrites_no_other_event() {
    let folder = folder();
    fail_to_put(&folder).await;
    let resume = || {
        let arguments = ["resume", "failed.ndjson", "--local", "table.sqlite"];
        tool(&folder).args(arguments).args(["--failed", "left.ndjson"]).output().unwrap()
    };
    let events = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    write(&folder, "failed.ndjson", events.lines().nth(1).unwrap());
    assert_success(&resume());

    // One line has a stored key and another event. Two lines have different events under a key
    // that is not stored yet.
    let changed = events.lines().nth(1).unwrap().replace("{\\\"a\\\":1}", "{\\\"a\\\":2}");
    assert_ne!(changed, events.lines().nth(1).unwrap());
    let twice = events.lines().nth(2).unwrap();
    let differs = twice.replace("{\\\"b\\\":2}", "{\\\"b\\\":3}");
    assert_ne!(differs, twice);
    write(&folder, "failed.ndjson", [&changed, twice, &differs].join("\n"));
    let output = resume();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("another event is stored under the key"), "{output:?}");
    let left: Vec<Value> =
        lines_of(&folder, "left.ndjson").into_iter().map(|line| line["body"].clone()).collect();
    assert_eq!(left, ["{\"a\":2}", "{\"b\":3}"]);
    let stored = bodies(&folder.path().join("table.sqlite")).await;
    assert_eq!(stored, ["{\"a\":1}", "{\"b\":2}"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_without_read_permission_stores_nothing() {
    let folder = folder();
    fail_to_put(&folder).await;
    let script = Script::of([]).reading(ReadReply::error(400, "AccessDeniedException"));
    let endpoint = Endpoint::start(script).await;
    let mut resume = tool_for(&folder, &endpoint.url());
    resume.args(["resume", "failed.ndjson", "--table", TABLE]);
    let output = tokio::task::spawn_blocking(move || resume.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("grant dynamodb:BatchGetItem"), "{output:?}");
    assert!(endpoint.batches().is_empty());
}

/// Asserts that each event of `all` is in the table, or in `left` with its line number, key and
/// body. The line of an event that was not put is unchanged.
fn assert_nothing_is_lost(
    all: &[String],
    table: &BTreeMap<String, String>,
    left: &[String],
    output: &Output,
) {
    let left: HashMap<String, &String> = left.iter().map(|line| (key_of(line), line)).collect();
    for line in all {
        let before: Value = serde_json::from_str(line).unwrap();
        let key = before["key"].as_str().unwrap();
        let Some(&after) = left.get(key) else {
            assert_eq!(table.get(key).map(String::as_str), before["body"].as_str(), "{output:?}");
            continue;
        };
        let is_changed = after != line;
        let after: Value = serde_json::from_str(after).unwrap();
        for field in ["line", "key", "body"] {
            assert_eq!(after[field], before[field], "{output:?}");
        }
        if is_changed {
            assert_ne!(after["attempts"], Value::Null, "{after}");
        }
        if after["certainty"] == "not stored" {
            assert_eq!((before["certainty"].as_str(), table.get(key)), (Some("not stored"), None));
        }
        // The certainty of an event that was not sent is unchanged.
        if after["attempts"] == 0 {
            assert_eq!(after["certainty"], before["certainty"], "{after}");
        }
    }
}

/// Asserts that a resume has stored some events, not all, and lost none. Returns the number of
/// stored events.
fn assert_more_is_stored(
    before: usize,
    all: &[String],
    table: &BTreeMap<String, String>,
    left: &[String],
    output: &Output,
) -> usize {
    assert!(table.len() > before, "{output:?}");
    assert_eq!(table.len() + left.len(), all.len(), "{output:?}");
    let not_put = left.iter().filter(|line| all.contains(line)).count();
    assert!(not_put > 100, "{not_put} were not tried: {output:?}");
    assert_nothing_is_lost(all, table, left, output);
    table.len()
}

/// Whether a line has the same certainty as the line of its event in the first file.
fn is_as_certain(all: &[String], line: &str) -> bool {
    let certainty = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["certainty"].as_str().unwrap().to_owned()
    };
    let first = all.iter().find(|first| key_of(first) == key_of(line)).unwrap();
    certainty(first) == certainty(line)
}

fn key_of(line: &str) -> String {
    serde_json::from_str::<Value>(line).unwrap()["key"].as_str().unwrap().to_owned()
}

fn text_lines(folder: &TempDir, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn resume(folder: &TempDir, url: &str, from: &str, to: &str) -> Command {
    let mut resume = tool_for(folder, url);
    resume.args(["resume", from, "--table", TABLE, "--failed", to]);
    // A small buffer, so that most lines are not put when it ends.
    resume.args(["--buffer", "100"]);
    resume
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chain_of_interrupted_resumes_loses_no_line() {
    watchdog::start();
    let folder = folder();
    let all = failed_lines(1_000);
    write(&folder, "f0", all.join("\n"));
    let script = Script::of([])
        .first_describing([Described::Error { status: 400, code: "ResourceNotFoundException" }]);
    let endpoint = Arc::new(Endpoint::start(script).await);
    let url = endpoint.url();
    let calls = |more: usize| -> Condition {
        let (endpoint, begun) = (Arc::clone(&endpoint), endpoint.batches().len());
        Box::new(move || endpoint.batches().len() >= begun + more)
    };

    // There is no table.
    let output = run(resume(&folder, &url, "f0", "f1")).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("there is no table `events`"), "{output:?}");
    assert!(stderr(&output).contains("NOT STORED: 1,000 lines"), "{output:?}");
    assert_eq!(text_lines(&folder, "f1"), all);

    // Some events are stored. Then every event is refused.
    let mut stored = 0;
    endpoint.reply_to_next([Reply::Ok, Reply::Ok, Reply::Ok]);
    endpoint.reply_from_now_on(Reply::error(400, "AccessDeniedException"));
    let output = run(resume(&folder, &url, "f1", "f2")).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output).contains("because every later event would fail: AccessDenied"),
        "{output:?}"
    );
    let (table, left) = (endpoint.table().await, text_lines(&folder, "f2"));
    stored = assert_more_is_stored(stored, &all, &table, &left, &output);

    // A refused call stores nothing, so the certainty of no event changes.
    assert!(left.iter().all(|line| is_as_certain(&all, line)), "{left:?}");

    // Then a signal comes while calls hang.
    endpoint.reply_to_next([Reply::Ok, Reply::Ok]);
    endpoint.reply_from_now_on(Reply::Hang);
    let signals = [("TERM", calls(6))];
    let mut hurried = resume(&folder, &url, "f2", "f3");
    hurried.args(["--grace", "1s"]);
    let output = run_and_signal(hurried, signals).await;
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    let (table, left) = (endpoint.table().await, text_lines(&folder, "f3"));
    stored = assert_more_is_stored(stored, &all, &table, &left, &output);

    // Then two signals come at once. Either may be received first.
    endpoint.reply_to_next([Reply::Ok, Reply::Ok]);
    let mut patient = resume(&folder, &url, "f3", "f4");
    patient.args(["--grace", "1h"]);
    let signals = [("INT", calls(6)), ("TERM", calls(6))];
    let output = run_and_signal(patient, signals).await;
    assert!([Some(130), Some(143)].contains(&output.status.code()), "{output:?}");
    assert!(stderr(&output).contains(": not waiting any longer"), "{output:?}");
    let (table, left) = (endpoint.table().await, text_lines(&folder, "f4"));
    stored = assert_more_is_stored(stored, &all, &table, &left, &output);

    // Then the table stops acknowledging events.
    endpoint.reply_to_next([Reply::Ok, Reply::Ok]);
    let mut impatient = resume(&folder, &url, "f4", "f5");
    impatient.args(["--deadline", "1s", "--grace", "1s"]);
    let output = run(impatient).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output)
            .contains("the table acknowledged none of the waiting events for 1s (--deadline)"),
        "{output:?}"
    );
    let (table, left) = (endpoint.table().await, text_lines(&folder, "f5"));
    assert_more_is_stored(stored, &all, &table, &left, &output);

    // The command that the tool suggests stores the rest.
    endpoint.reply_from_now_on(Reply::Ok);
    let next = suggested(&output, "to put the events of f5 again");
    let output = run(shell(&tool_for(&folder, &url), &next)).await;
    assert_success(&output);
    let table = endpoint.table().await;
    assert_eq!(table.len(), all.len());
    assert_nothing_is_lost(&all, &table, &[], &output);
    assert_eq!(std::fs::read(folder.path().join("f5-2")).unwrap(), b"");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signal_before_the_first_line_keeps_every_line() {
    watchdog::start();
    let folder = folder();
    let all = failed_lines(300);
    write(&folder, "f1", all.join("\n"));
    // A client can connect, but gets no answer.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let is_connected: Condition = Box::new(move || listener.accept().is_ok());
    let output = run_and_signal(resume(&folder, &url, "f1", "f2"), [("TERM", is_connected)]).await;
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert_eq!(text_lines(&folder, "f2"), all, "{output:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_after_a_read_error_loses_no_line() {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    let (folder, endpoint) = (folder(), Endpoint::start([]).await);
    let all = failed_lines(60);
    // A socket that is closed with unread bytes resets the other end.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut far_end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut input, _) = listener.accept().unwrap();
    input.write_all(b"unread").unwrap();
    far_end.peek(&mut [0]).unwrap();
    far_end.write_all((all.join("\n") + "\n").as_bytes()).unwrap();
    drop(far_end);

    let mut resume = resume(&folder, &endpoint.url(), "-", "f2");
    resume.stdin(OwnedFd::from(input));
    let output = run(resume).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output)
            .contains("after line 60 of standard input, because the input cannot be read")
    );
    assert_nothing_is_lost(&all, &endpoint.table().await, &text_lines(&folder, "f2"), &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_line_is_unchanged_in_the_next_file() {
    let (folder, endpoint) = (folder(), Endpoint::start([]).await);
    let never_accepted =
        r#"{"line":7,"key":null,"certainty":"not stored","reason":"not JSON","text":"nonsense"}"#;
    let no_month = r#"{"line":9,"key":"20269901T000000000000000000","body":"{}"}"#;
    write(&folder, "f1", [never_accepted, no_month].join("\n"));
    let output = run(resume(&folder, &endpoint.url(), "f1", "f2")).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("line 9: not an event key"), "{output:?}");
    assert!(stderr(&output).contains("there is no such date or time"), "{output:?}");
    // An event that is maybe stored does not count as refused.
    assert!(stderr(&output).contains("(1 refused, 0 not stored, 1 maybe stored)"), "{output:?}");
    let left = text_lines(&folder, "f2");
    assert_eq!(left[0], never_accepted);
    let second: Value = serde_json::from_str(&left[1]).unwrap();
    assert_eq!((&second["line"], second["text"].as_str()), (&Value::from(9), Some(no_month)));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_resume_keeps_the_rest_of_its_pipe() {
    watchdog::start();
    let script = Script::of([Reply::Ok, Reply::Ok]).then(Reply::Hang);
    let (folder, endpoint) = (folder(), Arc::new(Endpoint::start(script).await));
    // These are far more lines than fit into a pipe and the tool's buffer.
    let all = failed_lines(10_000);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let text = all.join("\n") + "\n";
    let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
    let mut resume = resume(&folder, &endpoint.url(), "-", "f2");
    resume.args(["--grace", "2s"]).stdin(reader);
    let seen = Arc::clone(&endpoint);
    let hangs: Condition = Box::new(move || seen.batches().len() >= 6);
    let output = run_and_signal(resume, [("TERM", hangs)]).await;
    writing.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    let (table, left) = (endpoint.table().await, text_lines(&folder, "f2"));
    assert_more_is_stored(0, &all, &table, &left, &output);
}
