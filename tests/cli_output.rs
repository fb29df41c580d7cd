//! The command-line tool: its log, progress, help and JSON.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use support::endpoint::{Endpoint, Reply, Script, Selector, TABLE};
use support::tool::{
    assert_success, folder, run, send_signal, stderr, stdout, tool, tool_for, write,
};

#[test]
fn verbose_logs_the_same_events_as_the_npm_module() {
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

#[test]
fn verbose_logs_the_key_of_each_line() {
    let folder = folder();
    write(&folder, "lines.ndjson", "{\"a\":1}\n\n{\"b\":2}\n");
    let output = tool(&folder).args(["put", "lines.ndjson", "-v", "--json"]).output().unwrap();
    assert_success(&output);
    for object in objects(&output).iter().take(2) {
        let key = object["key"].as_str().unwrap();
        let message = format!("accepted line={} key={key}", object["line"]);
        assert!(stderr(&output).contains(&message), "{message}: {output:?}");
    }
}

fn objects(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_reports_each_line_and_a_summary() {
    let script = Script::of([]).poison(["{\"b\":2}".to_owned()]);
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    write(&folder, "lines.ndjson", "{\"a\":1}\nnonsense\n{\"b\":2}\n");
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "lines.ndjson", "--table", TABLE, "--json", "--failed", "failed.ndjson"]);
    let output = run(put).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let mut objects = objects(&output);
    let last = objects.pop().unwrap();
    objects.sort_by_key(|object| object["line"].as_u64());
    let reported: Vec<(u64, bool, &str, bool)> = objects
        .iter()
        .map(|object| {
            let line = object["line"].as_u64().unwrap();
            let certainty = object["certainty"].as_str().unwrap();
            (line, object["key"].is_string(), certainty, object.get("reason").is_some())
        })
        .collect();
    let expected =
        [(1, true, "stored", false), (2, false, "not stored", true), (3, true, "not stored", true)];
    assert_eq!(reported, expected);
    let table = endpoint.table().await;
    assert!(table.contains_key(objects[0]["key"].as_str().unwrap()));
    let summary = &last["summary"];
    for (field, value) in [
        ("stored", 1),
        ("stored_already", 0),
        ("refused", 1),
        ("not_stored", 1),
        ("maybe_stored", 0),
        ("not_put", 0),
        ("stored_bytes", 7),
        ("last_line", 3),
    ] {
        assert_eq!(summary[field], value, "{field}: {summary}");
    }
    assert_eq!(summary["is_complete"], false);

    // A resume also reports how many events were stored already.
    let failed = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let (key, body) = table.first_key_value().unwrap();
    let there = format!("{}\n", serde_json::json!({ "line": 1, "key": key, "body": body }));
    write(&folder, "again.ndjson", there + &failed);
    let mut resume = tool_for(&folder, &endpoint.url());
    resume.args(["resume", "again.ndjson", "--table", TABLE, "--json"]);
    let output = run(resume).await;
    let summary = &self::objects(&output).pop().unwrap()["summary"];
    assert_eq!((&summary["stored"], &summary["stored_already"]), (&0.into(), &1.into()));
}

#[cfg(unix)]
#[test]
fn json_fails_on_full_disk_and_succeeds_on_closed_pipe() {
    let folder = folder();
    write(&folder, "lines.ndjson", "{}\n".repeat(20));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut put = tool(&folder);
    let output = put.args(["put", "lines.ndjson", "--json"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("standard output does not hold every line"), "{output:?}");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut put = tool(&folder);
    let output = put.args(["put", "lines.ndjson", "--json"]).stdout(writer).output().unwrap();
    assert_success(&output);
}

#[test]
fn quiet_prints_errors_only() {
    let folder = folder();
    write(&folder, "good.ndjson", "{}\n");
    write(&folder, "bad.ndjson", "nonsense\n");
    let output = tool(&folder).args(["put", "good.ndjson", "--quiet"]).output().unwrap();
    assert_success(&output);
    assert_eq!((stdout(&output), stderr(&output)), ("", ""));
    let output = tool(&folder).args(["put", "bad.ndjson", "-q"]).output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).starts_with("line 1: not JSON"), "{output:?}");
    assert!(stderr(&output).contains("NOT STORED: 1 line (1 refused"), "{output:?}");
}

#[test]
fn json_over_several_lines_gets_one_hint() {
    let folder = folder();
    let array = "[\n  {\n    \"a\": 1\n  },\n  {\n    \"b\": 2\n  }\n]\n";
    let objects = "{\n  \"a\": 1\n}\n{\n  \"b\": 2\n}\n";
    let torn = "{\"a\": 1, \"b\n";
    for (input, hint) in [(array, Some("jq -c '.[]'")), (objects, Some("jq -c '.'")), (torn, None)]
    {
        write(&folder, "input", input);
        let output = tool(&folder).args(["put", "input"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(stderr(&output).matches("hint: ").count(), hint.iter().count(), "{output:?}");
        assert!(stderr(&output).contains(hint.unwrap_or("")), "{output:?}");
    }
}

#[test]
fn help_names_the_bytes_that_are_dropped() {
    let folder = folder();
    let output = tool(&folder).args(["put", "--help"]).output().unwrap();
    assert_success(&output);
    for message in [r"without its line break: \n or \r\n", "a byte order mark", "500ms, 20s, 2m"] {
        assert!(stdout(&output).contains(message), "{message}: {output:?}");
    }
}

#[test]
fn option_out_of_range_reports_its_limits() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    let put = |arguments: &[&str]| {
        let output = tool(&folder).args(["put", "one.ndjson"]).args(arguments).output().unwrap();
        (output.status.code(), stderr(&output).to_owned())
    };
    for (option, value, message) in [
        ("--attempt-timeout", "2h", "--attempt-timeout is 7200s; it must be 1ms to 3600s"),
        ("--linger", "2h", "--linger is 7200s; it must be 0ns to 3600s"),
        ("--buffer", "0", "--buffer is 0; it must be 1 to "),
        ("--write-units", "0", "--write-units is 0; it must be 1 to "),
        ("--batches-in-flight", "0", "--batches-in-flight is 0; it must be 1 to 1000"),
    ] {
        let (code, error) = put(&[option, value]);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains(message), "{error}");
    }
    for option in ["--deadline", "--grace", "--linger", "--attempt-timeout"] {
        let (code, error) = put(&[option, "soon"]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("write a duration like 500ms, 20s or 2m"), "{error}");
    }
    let (code, error) = put(&["--table", ""]);
    assert_eq!(code, Some(2), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_call_is_retried_after_the_attempt_timeout() {
    let (folder, endpoint) = (folder(), Endpoint::start([Reply::Hang]).await);
    write(&folder, "one.ndjson", "{}\n");
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "one.ndjson", "--table", TABLE, "--attempt-timeout", "200ms", "--json"]);
    let output = run(put).await;
    assert_success(&output);
    let summary = &objects(&output).pop().unwrap()["summary"];
    assert_eq!(summary["retries"], 1, "{summary}");
    // The default is 10 s.
    assert!(summary["seconds"].as_f64().unwrap() < 9.0, "{summary}");
}

/// The first line of progress that a put prints. Two signals end the put.
#[cfg(unix)]
fn first_progress(mut put: Command) -> String {
    let mut child = put.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr_lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let progress =
        stderr_lines.find(|line| line.as_ref().unwrap().contains(" waiting")).unwrap().unwrap();
    send_signal(child.id(), "TERM");
    send_signal(child.id(), "INT");
    // The child must not block on a full pipe.
    for line in stderr_lines {
        line.unwrap();
    }
    child.wait().unwrap();
    progress
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_names_what_limits_it() {
    let folder = folder();
    write(&folder, "many.ndjson", "{}\n".repeat(20_000));
    let all_but_one: Vec<usize> = (1..25).collect();
    let script = Script::always(Reply::Unprocessed(Selector::Places(all_but_one)));
    let endpoint = Endpoint::start(script).await;
    let put = |more: &[&str]| {
        let mut put = tool_for(&folder, &endpoint.url());
        put.args(["put", "many.ndjson", "--table", TABLE, "--grace", "1s"]).args(more);
        tokio::task::spawn_blocking(move || first_progress(put))
    };
    let (throttled, with_budget) = (put(&[]), put(&["--write-units", "1"]));
    let throttled = throttled.await.unwrap();
    assert!(throttled.contains(", the table takes "), "{throttled}");
    assert!(throttled.contains(" write units/s"), "{throttled}");
    let with_budget = with_budget.await.unwrap();
    assert!(with_budget.ends_with(", --write-units allows 1 write unit/s"), "{with_budget}");
}
