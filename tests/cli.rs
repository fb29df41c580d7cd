//! The command-line tool: what it stores, and its errors.

mod support;

use std::io::Write;
use std::process::Stdio;

use dynamodb_eventstore::LocalTable;
use serde_json::Value;

use support::table::rows;
use support::tool::{
    assert_success, bodies, example_data, folder, send_signal, stderr, stdout, tool, tool_for,
    write,
};

#[tokio::test]
async fn put_twice_stores_every_line_twice_byte_for_byte() {
    let folder = folder();
    let text = example_data("wikipedia-edits.ndjson");
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
async fn put_without_a_table_stores_in_a_local_file() {
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
async fn invalid_lines_are_reported_and_the_rest_is_stored() {
    let folder = folder();
    let mut input = b"{\"a\":1}\r\nnonsense\n\n  \n{\"b\":2}\n\xff\xfe\n{} {}\n[3]\n\"".to_vec();
    input.resize(input.len() + 10_000_000, b'x');
    input.extend(b"\"\nnull");
    write(&folder, "mixed.ndjson", input);
    let mut put = tool(&folder);
    let output = put.args(["put", "mixed.ndjson", "--failed", "failed.ndjson"]).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).starts_with("stored 4 events, "), "{output:?}");
    for message in [
        "line 2: not JSON: ",
        "line 6: not UTF-8 (byte 1 of the line)",
        "line 7: not JSON: trailing characters at column 4",
        "line 9: the event is too large: its body has 10000002 bytes and DynamoDB takes 409566",
        "NOT STORED: 4 lines (4 refused, 0 not stored, 0 maybe stored); see failed.ndjson",
    ] {
        assert!(stderr(&output).contains(message), "{message}: {output:?}");
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
fn empty_input_is_a_success() {
    let folder = folder();
    write(&folder, "empty.ndjson", "");
    let output = tool(&folder).args(["put", "empty.ndjson"]).output().unwrap();
    assert_success(&output);
    assert!(stdout(&output).starts_with("stored 0 events, 0 bytes"), "{output:?}");
}

#[test]
fn impossible_settings_fail_before_anything_is_stored() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    write(&folder, "kept.ndjson", "{\"line\":1}\n");
    write(&folder, "no.sqlite", "this is no database");
    for (arguments, message) in [
        (&["put", "missing.ndjson"][..], "cannot read missing.ndjson: No such file"),
        (&["put", "."], "it is a directory"),
        (&["put", "one.ndjson", "--failed", "kept.ndjson"], "kept.ndjson exists and is not empty"),
        (&["put", "one.ndjson", "--failed", "no/where"], "cannot write no/where: No such file"),
        (&["put", "one.ndjson", "--local", "no/where.sqlite"], "cannot open `no/where.sqlite`"),
        (&["put", "one.ndjson", "--local", "no.sqlite"], "it is another kind of file"),
        (&["put", "one.ndjson", "--region", "eu-west-1"], "name the table"),
        (
            &["put", "one.ndjson", "--writer-id", "100000"],
            "--writer-id is 100000; it must be 0 to 99999",
        ),
        (&["put", "one.ndjson", "--table", "t"], "no AWS region: give --region"),
        (&["put", "one.ndjson", "--table", "t", "--region", "eu-west-1"], "AWS_ACCESS_KEY_ID"),
        (&["create-table", "--table", "t"], "no AWS region: give --region"),
    ] {
        let output = tool(&folder).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        assert!(stderr(&output).contains(message), "{arguments:?}: {output:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn put_stores_in_the_table_of_create_table() {
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

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_serves_stored_events_until_sigterm() {
    use std::io::{BufRead, BufReader};

    let folder = folder();
    write(&folder, "edits.ndjson", example_data("wikipedia-edits.ndjson"));
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
    // A client in the middle of a request does not keep the server from
    // stopping.
    let address = url.strip_prefix("http://").unwrap();
    let mut half_way = std::net::TcpStream::connect(address).unwrap();
    half_way
        .write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{")
        .unwrap();
    send_signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    assert_eq!(bodies(&folder.path().join("events.sqlite")).await.len(), 200);
}
