//! The command-line tool, run as its users run it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use dynamodb_eventstore::LocalTable;
use serde_json::Value;
use tempfile::TempDir;

use support::endpoint::{Endpoint, ReadReply, Reply, Script, Selector, TABLE};
use support::table::rows;

/// The tool, in a folder of its own, with no AWS configuration but what the test gives it.
fn tool(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dynamodb-eventstore"));
    command
        .current_dir(folder.path())
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", folder.path())
        .stdin(Stdio::null());
    command
}

/// As [`tool`], for a table behind `endpoint_url`.
fn tool_for(folder: &TempDir, endpoint_url: &str) -> Command {
    let mut command = tool(folder);
    command
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT_URL", endpoint_url);
    command
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(folder.path().join(name), content).unwrap();
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn assert_success(output: &Output) {
    assert!(output.status.success(), "{} {}", stdout(output), stderr(output));
}

/// The bodies in a file's local table, sorted.
async fn bodies(file: &Path) -> Vec<String> {
    let table = LocalTable::open(file).await.unwrap();
    let mut bodies: Vec<String> = rows(table.client(), table.name()).await.into_values().collect();
    bodies.sort();
    table.stop().await.unwrap();
    bodies
}

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn put_twice_stores_every_line_twice_byte_for_byte() {
    let folder = folder();
    let text = shipped("wikipedia-edits.ndjson");
    write(&folder, "edits.ndjson", &text);
    for _ in 0..2 {
        let output =
            tool(&folder).args(["put", "edits.ndjson", "--local", "a.sqlite"]).output().unwrap();
        assert_success(&output);
        assert!(stdout(&output).starts_with("stored 100 events, 54,474 bytes, in "), "{output:?}");
        assert!(stdout(&output).contains("events/s), 0 retries"), "{output:?}");
    }
    let mut expected: Vec<String> = text.lines().chain(text.lines()).map(str::to_owned).collect();
    expected.sort();
    assert_eq!(bodies(&folder.path().join("a.sqlite")).await, expected);
}

#[tokio::test]
async fn without_a_table_put_stores_in_the_current_directory_and_says_so() {
    let folder = folder();
    let mut child = tool(&folder)
        .arg("put")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"foo\":\"bar\"}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_success(&output);
    assert!(stderr(&output).contains("events.sqlite"), "{output:?}");
    assert_eq!(bodies(&folder.path().join("events.sqlite")).await, [r#"{"foo":"bar"}"#]);
}

#[tokio::test]
async fn lines_that_are_no_events_are_named_and_do_not_stop_the_rest() {
    let folder = folder();
    let mut input = b"{\"a\":1}\r\nnonsense\n\n  \n{\"b\":2}\n\xff\xfe\n{} {}\n[3]\n\"".to_vec();
    input.resize(input.len() + 10_000_000, b'x');
    input.extend(b"\"\nnull");
    write(&folder, "mixed.ndjson", input);
    let mut put = tool(&folder);
    let output = put.args(["put", "mixed.ndjson", "--failed", "failed.ndjson"]).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).starts_with("stored 4 events, "), "{output:?}");
    for said in [
        "line 2: not JSON: ",
        "line 6: not UTF-8 (byte 1 of the line)",
        "line 7: not JSON: trailing characters at column 4",
        "line 9: the event is too large: its body has 10000002 bytes and DynamoDB takes 409566",
        "NOT STORED: 4 lines (4 refused, 0 not stored, 0 maybe stored); see failed.ndjson",
    ] {
        assert!(stderr(&output).contains(said), "{said}: {output:?}");
    }
    let failed = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let failed: Vec<Value> =
        failed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines: Vec<&Value> = failed.iter().map(|failure| &failure["line"]).collect();
    assert_eq!(lines, [2, 6, 7, 9]);
    assert_eq!(failed[0]["text"], "nonsense");
    assert_eq!(failed[1]["hex"], "fffe");
    assert_eq!(failed[3]["text"].as_str().unwrap().len(), 10_000_002);
    assert!(failed.iter().all(|failure| failure["key"].is_null()));
    assert_eq!(
        bodies(&folder.path().join("events.sqlite")).await,
        ["[3]", "null", r#"{"a":1}"#, r#"{"b":2}"#]
    );
}

#[test]
fn an_empty_input_stores_nothing_and_that_is_success() {
    let folder = folder();
    write(&folder, "empty.ndjson", "");
    let output = tool(&folder).args(["put", "empty.ndjson"]).output().unwrap();
    assert_success(&output);
    assert!(stdout(&output).starts_with("stored 0 events, 0 bytes"), "{output:?}");
}

#[test]
fn what_cannot_work_is_said_before_anything_is_stored() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    write(&folder, "kept.ndjson", "{\"line\":1}\n");
    write(&folder, "no.sqlite", "this is no database");
    for (arguments, said) in [
        (&["put", "missing.ndjson"][..], "cannot read missing.ndjson: No such file"),
        (&["put", "."], "it is a directory"),
        (&["put", "one.ndjson", "--failed", "kept.ndjson"], "kept.ndjson exists and is not empty"),
        (&["put", "one.ndjson", "--failed", "no/where"], "cannot write no/where: No such file"),
        (&["put", "one.ndjson", "--local", "no/where.sqlite"], "cannot open `no/where.sqlite`"),
        (&["put", "one.ndjson", "--local", "no.sqlite"], "it is another kind of file"),
        (&["put", "one.ndjson", "--region", "eu-west-1"], "name the table"),
        (&["put", "one.ndjson", "--writer-id", "100000"], "`writer_id` is 100000; it must be 0 to"),
        (&["put", "one.ndjson", "--table", "t"], "no AWS region: give --region"),
        (&["put", "one.ndjson", "--table", "t", "--region", "eu-west-1"], "AWS_ACCESS_KEY_ID"),
        (&["create-table", "--table", "t"], "no AWS region: give --region"),
    ] {
        let output = tool(&folder).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(said), "{arguments:?}: {output:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn create_table_makes_a_table_that_put_stores_in() {
    let (folder, server) = (folder(), LocalTable::in_memory().await.unwrap());
    let url = server.endpoint_url();
    write(&folder, "one.ndjson", "{\"foo\":\"bar\"}\n");
    let run = |arguments: &[&str]| tool_for(&folder, &url).args(arguments).output().unwrap();

    let output = run(&["put", "one.ndjson", "--table", "all-events"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no table `all-events`"), "{output:?}");
    assert!(stderr(&output).contains("create-table --table all-events"), "{output:?}");

    let output = run(&["create-table", "--table", "all-events"]);
    assert_success(&output);
    assert_eq!(stdout(&output), "table `all-events` is ready\n");
    let output = run(&["create-table", "--table", "all-events"]);
    assert_success(&output);
    assert_eq!(stdout(&output), "table `all-events` exists already and has the right key\n");

    assert_success(&run(&["put", "one.ndjson", "--table", "all-events"]));
    let stored = rows(server.client(), "all-events").await;
    assert_eq!(stored.into_values().collect::<Vec<_>>(), [r#"{"foo":"bar"}"#]);
}

#[tokio::test]
async fn an_endpoint_for_dynamodb_alone_goes_before_one_for_all_services() {
    let (folder, server) = (folder(), LocalTable::in_memory().await.unwrap());
    write(&folder, "one.ndjson", "{\"foo\":\"bar\"}\n");
    let mut tool = tool_for(&folder, "http://nobody.invalid:1");
    tool.env("AWS_ENDPOINT_URL_DYNAMODB", server.endpoint_url());
    let output = tool.args(["put", "one.ndjson", "--table", server.name()]).output().unwrap();
    assert_success(&output);
    assert_eq!(rows(server.client(), server.name()).await.len(), 1);
}

#[cfg(unix)]
#[test]
fn a_failed_file_that_is_no_regular_file_is_as_good() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    let run = |input: &str, failed: &str| {
        tool(&folder).args(["put", input, "--failed", failed]).output().unwrap()
    };
    assert_success(&run("one.ndjson", "/dev/null"));
    write(&folder, "bad.ndjson", "nonsense\n".repeat(12));
    let output = run("bad.ndjson", "/dev/full");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/dev/full does not hold all lines"), "{output:?}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_put_that_waits_for_its_input_to_be_opened() {
    let folder = folder();
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let mut put = tool(&folder);
    let child = put.args(["put", "pipe", "-v"]).stderr(Stdio::piped()).spawn().unwrap();
    let listens = format!("/proc/{}/status", child.id());
    // SIGTERM is bit 15 of the mask of signals that the process catches.
    while !std::fs::read_to_string(&listens).unwrap().lines().any(|line| {
        line.strip_prefix("SigCgt:")
            .is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 14) != 0)
    }) {
        std::thread::yield_now();
    }
    send_signal(child.id(), "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert!(stderr(&output).contains("stopped by SIGTERM before the first line"), "{output:?}");
}

#[test]
fn verbose_tells_what_the_npm_module_told() {
    let folder = folder();
    write(&folder, "one.ndjson", "{\"secret\":\"body\"}\n");
    let run = |flag| {
        let output = tool(&folder).args(["put", "one.ndjson", flag]).output().unwrap();
        assert_success(&output);
        output
    };
    let once = run("-v");
    assert!(stderr(&once).contains("ok key=20"), "{once:?}");
    assert!(!stderr(&once).contains("secret"), "{once:?}");
    let twice = run("-vv");
    assert!(stderr(&twice).contains("put key=20"), "{twice:?}");
    assert!(stderr(&twice).contains(r#"body="{\"secret\":\"body\"}""#), "{twice:?}");
}

/// Feeds lines until the tool has ended, sends it `signal` once it is `ready`, and says how it ended.
#[cfg(unix)]
fn feed_and_stop(
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
fn send_signal(process: u32, signal: &str) {
    let sent: ExitStatus =
        Command::new("kill").args([format!("-{signal}"), process.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_in_the_middle_of_a_long_put_loses_no_accepted_event() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let (folder, server) = (folder(), LocalTable::in_memory().await.unwrap());
        let mut put = tool_for(&folder, &server.endpoint_url());
        put.args(["put", "--table", server.name(), "--failed", "failed.ndjson"]);
        let (client, table) = (server.client().clone(), server.name().to_owned());
        let runtime = tokio::runtime::Handle::current();
        let is_under_way = move || !runtime.block_on(rows(&client, &table)).is_empty();
        let output = tokio::task::spawn_blocking(move || feed_and_stop(put, signal, is_under_way))
            .await
            .unwrap();

        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = format!("stopped by SIG{signal} after line ");
        let last_line = stderr(&output).split_once(&said).expect("where it stopped").1;
        let last_line: usize = last_line.split(' ').next().unwrap().parse().unwrap();
        assert!(last_line > 0, "{output:?}");

        // The summary, the failed file and the table agree to the event.
        let mut stored: Vec<String> =
            rows(server.client(), server.name()).await.into_values().collect();
        let mut expected: Vec<String> =
            (0..last_line).map(|number| format!("{{\"number\":{number}}}")).collect();
        stored.sort();
        expected.sort();
        assert_eq!(stored, expected);
        let counted = stdout(&output).replace(',', "");
        assert!(counted.starts_with(&format!("stored {last_line} events ")), "{output:?}");
        assert_eq!(std::fs::read(folder.path().join("failed.ndjson")).unwrap(), b"");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_the_grace_period_does_not_settle_are_in_the_failed_file() {
    // The first call is answered; what comes after is applied, and no answer ever comes.
    let script = Script::of([Reply::Ok]).then(Reply::Hang.once_applied());
    let script = script.reading(ReadReply::Hang);
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "--table", TABLE, "--failed", "failed.ndjson", "--grace", "1"]);
    let endpoint = std::sync::Arc::new(endpoint);
    let seen = std::sync::Arc::clone(&endpoint);
    let all_hang = move || seen.batches().len() == 9;
    let output =
        tokio::task::spawn_blocking(move || feed_and_stop(put, "TERM", all_hang)).await.unwrap();

    assert_eq!(output.status.code(), Some(143), "{output:?}");
    let table = endpoint.table().await;
    let failed = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let failed: Vec<Value> =
        failed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stored = endpoint.batches()[0].keys.len();
    assert!(stdout(&output).starts_with(&format!("stored {stored} events, ")), "{output:?}");
    let last_line = stderr(&output).split_once("stopped by SIGTERM after line ").unwrap().1;
    let last_line: usize = last_line.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(failed.len(), last_line - stored, "{output:?}");
    for failure in &failed {
        let (key, text) = (failure["key"].as_str().unwrap(), failure["body"].as_str().unwrap());
        let number = failure["line"].as_u64().unwrap() - 1;
        assert_eq!(text, format!("{{\"number\":{number}}}"));
        match failure["certainty"].as_str().unwrap() {
            "maybe stored" => assert_eq!(table[key], text),
            certainty => assert_eq!((certainty, table.get(key)), ("not stored", None)),
        }
    }
    // The first call and the eight that hang are all there are.
    assert_eq!(table.len(), endpoint.sizes().into_iter().sum::<usize>());
}

/// Puts three events where none can be stored, and leaves them in `failed.ndjson`, behind a line that
/// was never accepted.
async fn fail_to_put(folder: &TempDir) {
    let script = Script::always(Reply::error(400, "AccessDeniedException"));
    let endpoint = Endpoint::start(script).await;
    write(folder, "events.ndjson", "nonsense\n{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
    let mut put = tool_for(folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--failed", "failed.ndjson"]);
    let output = tokio::task::spawn_blocking(move || put.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

fn lines_of(folder: &TempDir, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_stores_what_put_could_not_under_the_same_keys_however_often_it_runs() {
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
    assert!(stderr(&output).contains("it has no key, as it was never accepted"), "{output:?}");
    let left = lines_of(&folder, "left.ndjson");
    assert_eq!(left.len(), 1);

    // Once more, and without the line that is no event.
    let events = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let events: Vec<&str> = events.lines().skip(1).collect();
    write(&folder, "failed.ndjson", events.join("\n"));
    for more in [&[][..], &["--unchecked"]] {
        let output = resume(more);
        assert_success(&output);
        let said_already = stdout(&output).contains("3 events were stored already");
        assert_eq!(said_already, more.is_empty(), "{output:?}");
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
async fn resume_puts_only_what_is_an_event_and_says_of_nothing_else_that_it_is_not_stored() {
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
async fn resume_outlives_a_read_that_gets_no_answer() {
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
async fn resume_goes_on_with_what_a_read_left_out() {
    let folder = folder();
    fail_to_put(&folder).await;
    // Each read answers for one key, and leaves out the others.
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

    // The same key, another event; and two that are not stored yet, under one key.
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
async fn resume_without_the_permission_to_read_stops_before_it_stores_anything() {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_event_can_be_stored_put_stops_and_says_why() {
    let script = Script::always(Reply::error(400, "AccessDeniedException"));
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    write(&folder, "many.ndjson", "{}\n".repeat(100_000));
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "many.ndjson", "--table", TABLE, "--failed", "failed.ndjson"]);
    let output = tokio::task::spawn_blocking(move || put.output().unwrap()).await.unwrap();

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("as every event would fail: AccessDeniedException"));
    let failed = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let last_line = stderr(&output).split_once("error: stopped after line ").unwrap().1;
    let last_line: usize = last_line.split(',').next().unwrap().parse().unwrap();
    assert_eq!(failed.lines().count(), last_line);
    assert!(last_line < 100_000, "{output:?}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_serves_what_put_stored_until_it_is_told_to_stop() {
    use std::io::{BufRead, BufReader};

    let folder = folder();
    write(&folder, "edits.ndjson", shipped("wikipedia-edits.ndjson"));
    assert_success(&tool(&folder).args(["put", "edits.ndjson"]).output().unwrap());
    let mut child =
        tool(&folder).args(["local", "--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first_line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first_line).unwrap();
    let url = first_line.trim().rsplit_once(' ').unwrap().1.to_owned();

    let output = tool_for(&folder, &url)
        .args(["put", "edits.ndjson", "--table", "events"])
        .output()
        .unwrap();
    assert_success(&output);
    // A client that is half-way through a request does not keep it from stopping.
    let address = url.strip_prefix("http://").unwrap();
    let mut half_way = std::net::TcpStream::connect(address).unwrap();
    half_way
        .write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
        .unwrap();
    send_signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    assert_eq!(bodies(&folder.path().join("events.sqlite")).await.len(), 200);
}
