//! The command-line tool's `put --dry-run`: what it says, and that it does nothing.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::Value;

use support::endpoint::{Endpoint, Script, TABLE};
use support::tool::{
    assert_success, example_data, folder, lines_of, run, stderr, stdout, tool, tool_for, write,
};

fn objects(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn dry_run_counts_events_bytes_and_write_units() {
    let folder = folder();
    write(&folder, "edits.ndjson", example_data("wikipedia-edits.ndjson"));
    let output = tool(&folder).args(["put", "edits.ndjson", "--dry-run"]).output().unwrap();
    assert_success(&output);
    let expected =
        "dry run: 100 events, 54,474 bytes, would use 100 write units; nothing was stored\n";
    assert_eq!((stdout(&output), stderr(&output)), (expected, ""));
}

#[test]
fn dry_run_counts_events_just_over_a_kilobyte() {
    let folder = folder();
    // Two quotes and the text.
    let body = |bytes: usize| format!("\"{}\"\r\n", "x".repeat(bytes - 2));
    write(&folder, "bodies.ndjson", body(990) + &body(991) + &body(1_054) + &body(1_055));
    let mut put = tool(&folder);
    let output = put.args(["put", "bodies.ndjson", "--dry-run"]).output().unwrap();
    assert_success(&output);
    let expected = "dry run: 4 events, 4,090 bytes, would use 7 write units; nothing was stored\n\
        2 events use a write unit for the last 64 bytes or less: a body of up to 990 bytes uses one \
        unit, and each 1,024 bytes more another\n";
    assert_eq!(stdout(&output), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_run_makes_no_call_and_no_file() {
    let (folder, endpoint) = (folder(), Endpoint::start(Script::of([])).await);
    write(&folder, "lines.ndjson", "{\"a\":1}\nnonsense\n");
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "lines.ndjson", "--dry-run", "--table", TABLE, "--failed", "failed.ndjson"])
        .args(["--journal", "journal", "--lease-writer-id", "writers"]);
    let output = run(put).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("line 2: not JSON: "), "{output:?}");
    assert!(stderr(&output).ends_with("WOULD BE REFUSED: 1 line\n"), "{output:?}");
    assert_eq!(endpoint.connections(), 0);
    let mut put = tool(&folder);
    put.args(["put", "lines.ndjson", "--dry-run", "--local", "a.sqlite"]);
    run(put).await;
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[test]
fn dry_run_refuses_the_lines_that_put_refuses() {
    let folder = folder();
    let mut input =
        b"\xef\xbb\xbf{\"a\":1}\r\nnonsense\n\n  \n{\"b\":2}\n\xff\xfe\n{} {}\n[\n[3]\n".to_vec();
    for bytes in [409_566, 409_567, 17_000_000] {
        // Beyond its limit an event is too large, whether it is JSON or not.
        input.extend(
            format!("\"{}\"\n\"{}\n", "x".repeat(bytes - 2), "x".repeat(bytes - 1)).bytes(),
        );
    }
    input.extend(b"null");
    write(&folder, "mixed.ndjson", input);
    let put = |more: &[&str]| {
        let mut put = tool(&folder);
        let output = put.args(["put", "mixed.ndjson"]).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        output
    };
    let dry = put(&["--dry-run", "--json"]);
    put(&["--failed", "failed.ndjson"]);
    let refused = |objects: Vec<Value>| -> BTreeMap<u64, String> {
        let reason = |object: &Value| {
            Some((object["line"].as_u64()?, object["reason"].as_str()?.to_owned()))
        };
        objects.iter().filter_map(reason).collect()
    };
    let expected = refused(lines_of(&folder, "failed.ndjson"));
    assert_eq!(expected.len(), 9, "{expected:?}");
    assert_eq!(refused(objects(&dry)), expected);
    let hint = |output: &Output| stderr(output).matches("hint: ").count();
    assert_eq!(hint(&dry), 1);
}

#[test]
fn dry_run_json_has_each_line_and_a_summary() {
    let folder = folder();
    write(&folder, "lines.ndjson", "{\"a\":1}\nnonsense\n{\"b\":22}\n");
    let mut put = tool(&folder);
    put.args(["put", "lines.ndjson", "--dry-run", "--json", "--from-line", "2", "--quiet"]);
    let output = put.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let objects = objects(&output);
    assert_eq!(objects[0]["line"], 2);
    assert!(objects[0]["reason"].as_str().unwrap().starts_with("not JSON: "));
    assert_eq!(objects[1], serde_json::json!({ "line": 3, "bytes": 8, "write_units": 1 }));
    let summary = serde_json::json!({
        "is_dry_run": true, "events": 1, "bytes": 8, "write_units": 1, "events_just_over_a_unit": 0,
        "refused": 1, "last_line": 3, "is_complete": false,
    });
    assert_eq!(objects[2]["summary"], summary);
}

#[test]
fn dry_run_names_ten_lines_and_counts_all() {
    let folder = folder();
    write(&folder, "bad.ndjson", "nonsense\n".repeat(12));
    let output = tool(&folder).args(["put", "bad.ndjson", "--dry-run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).matches(": not JSON").count(), 10, "{output:?}");
    assert_eq!(stderr(&output).matches("--json names all of them").count(), 1, "{output:?}");
    assert!(stderr(&output).ends_with("WOULD BE REFUSED: 12 lines\n"), "{output:?}");
}

#[test]
fn dry_run_of_a_missing_file_fails() {
    let folder = folder();
    for (file, message) in [("missing.ndjson", "cannot read missing.ndjson"), (".", "a directory")]
    {
        let output = tool(&folder).args(["put", file, "--dry-run"]).output().unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
        assert!(stderr(&output).contains(message), "{output:?}");
    }
}

#[cfg(unix)]
#[test]
fn dry_run_stopped_by_a_signal_reports_its_lines() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::Stdio;

    let folder = folder();
    let mut put = tool(&folder);
    put.args(["put", "--dry-run", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = put.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{}\n").unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    // The pipe stays open: the end of the input is not what ends the run.
    support::tool::send_signal(child.id(), "INT");
    let (mut rest, mut errors) = (String::new(), String::new());
    lines.read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(errors, "stopped by SIGINT after line 1 of standard input\n");
    let summary: Value = serde_json::from_str(&rest).unwrap();
    assert_eq!(
        (&summary["summary"]["events"], &summary["summary"]["is_complete"]),
        (&1.into(), &false.into())
    );
    drop(input);
}
