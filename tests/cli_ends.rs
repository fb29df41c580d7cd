//! The command-line tool: runs that stop before the end of the input.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use dynamodb_eventstore::LocalTable;
use serde_json::Value;

use support::endpoint::{Endpoint, ReadReply, Reply, Script, Selector, TABLE};
use support::table::rows;
use support::tool::{
    Condition, assert_success, bodies, folder, lines_of, run, run_and_signal, send_signal, shell,
    stderr, stdout, suggested, tool, tool_for, write, write_lines_and_signal,
};
use support::watchdog;

#[cfg(unix)]
#[test]
fn signal_while_opening_the_input_ends_put() {
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

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signal_during_put_loses_no_accepted_event() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let (folder, server) = (folder(), LocalTable::in_memory().await.unwrap());
        let mut put = tool_for(&folder, &server.endpoint_url());
        put.args(["put", "--table", server.name(), "--failed", "failed.ndjson"]);
        let (client, table) = (server.client().clone(), server.name().to_owned());
        let runtime = tokio::runtime::Handle::current();
        let is_under_way = move || !runtime.block_on(rows(&client, &table)).is_empty();
        let output =
            tokio::task::spawn_blocking(move || write_lines_and_signal(put, signal, is_under_way))
                .await
                .unwrap();

        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let message = format!("stopped by SIG{signal} after line ");
        let last_line = stderr(&output).split_once(&message).expect("where it stopped").1;
        let last_line: usize = last_line.split(' ').next().unwrap().parse().unwrap();
        assert!(last_line > 0, "{output:?}");

        let message =
            format!("was read up to line {last_line}, and every line up to there was put");
        assert!(stderr(&output).contains(&message), "{output:?}");

        // The summary, the failed file and the table agree about every event.
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
async fn events_unsettled_after_grace_are_in_the_failed_file() {
    // The first call is answered. Later calls are applied and never answered.
    let script = Script::of([Reply::Ok]).then(Reply::Hang.once_applied());
    let script = script.reading(ReadReply::Hang);
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "--table", TABLE, "--failed", "failed.ndjson", "--grace", "1"]);
    let endpoint = Arc::new(endpoint);
    let seen = Arc::clone(&endpoint);
    let all_hang = move || seen.batches().len() == 9;
    let output = tokio::task::spawn_blocking(move || write_lines_and_signal(put, "TERM", all_hang))
        .await
        .unwrap();

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
    // The only calls are the first and the eight that hang.
    assert_eq!(table.len(), endpoint.sizes().into_iter().sum::<usize>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fatal_error_stops_put_and_is_reported() {
    let script = Script::always(Reply::error(400, "AccessDeniedException"));
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    write(&folder, "many.ndjson", "{}\n".repeat(100_000));
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "many.ndjson", "--table", TABLE, "--failed", "failed.ndjson"]);
    let output = tokio::task::spawn_blocking(move || put.output().unwrap()).await.unwrap();

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output).contains("because every later event would fail: AccessDeniedException")
    );
    let failed = std::fs::read_to_string(folder.path().join("failed.ndjson")).unwrap();
    let last_line = stderr(&output).split_once("error: stopped after line ").unwrap().1;
    let last_line: usize = last_line.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(failed.lines().count(), last_line);
    assert!(last_line < 100_000, "{output:?}");
}

/// A script that answers this many calls, and never answers later ones.
fn hangs_after(calls: usize) -> Script {
    Script::of(vec![Reply::Ok; calls]).then(Reply::Hang)
}

fn numbered(lines: usize) -> String {
    (0..lines).map(|number| format!("{{\"number\":{number}}}\n")).collect()
}

fn sorted(table: BTreeMap<String, String>) -> Vec<String> {
    let mut bodies: Vec<String> = table.into_values().collect();
    bodies.sort();
    bodies
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suggested_commands_store_the_rest_of_the_file() {
    watchdog::start();
    let (folder, endpoint) = (folder(), Arc::new(Endpoint::start(hangs_after(3)).await));
    let name = "it's \"my\" file.ndjson";
    write(&folder, name, numbered(1_000));
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", name, "--table", TABLE, "--failed", "not stored", "--buffer=100"]);
    put.args(["--grace", "1s"]);
    let seen = Arc::clone(&endpoint);
    let hangs: Condition = Box::new(move || seen.batches().len() >= 7);
    let output = run_and_signal(put, [("TERM", hangs)]).await;
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert!(stderr(&output).contains("stopped by SIGTERM after line "), "{output:?}");
    let left = lines_of(&folder, "not stored");
    assert!((50..=100).contains(&left.len()), "{output:?}");

    endpoint.reply_from_now_on(Reply::Ok);
    let environment = tool_for(&folder, &endpoint.url());
    let rest = suggested(&output, "to put the rest");
    assert!(rest.contains(" --from-line ") && rest.contains("'not stored-2'"), "{rest}");
    let output_of_rest = run(shell(&environment, &rest)).await;
    assert_success(&output_of_rest);
    let again = suggested(&output, "to put the events of not stored again");
    assert_success(&run(shell(&environment, &again)).await);
    let mut expected: Vec<String> = numbered(1_000).lines().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(sorted(endpoint.table().await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_line_keeps_the_line_numbers_of_the_file() {
    let folder = folder();
    write(&folder, "lines.ndjson", "{\"a\":1}\n\nnonsense\n{\"b\":2}\nnonsense\n");
    let mut put = tool(&folder);
    let output = put.args(["put", "lines.ndjson", "--from-line", "4"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).starts_with("stored 1 event, 7 bytes, "), "{output:?}");
    assert!(stderr(&output).contains("line 5: not JSON"), "{output:?}");
    assert!(!stderr(&output).contains("line 3"), "{output:?}");
    assert_eq!(bodies(&folder.path().join("events.sqlite")).await, ["{\"b\":2}"]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_read_ahead_from_stdin_are_put_or_kept() {
    watchdog::start();
    // The table answers only three calls. Then a signal stops the put.
    let (folder, endpoint) = (folder(), Arc::new(Endpoint::start(hangs_after(3)).await));
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "--table", TABLE, "--failed", "failed.ndjson", "--buffer", "100"]);
    // The pipe stays open, so the run does not end because of the end of its
    // input.
    let (reader, mut input) = std::io::pipe().unwrap();
    input.write_all(numbered(1_000).as_bytes()).unwrap();
    put.args(["--grace", "1s"]).stdin(reader);
    let child = put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (seen, process) = (Arc::clone(&endpoint), child.id());
    let output = tokio::task::spawn_blocking(move || {
        while seen.batches().len() < 7 {
            std::thread::yield_now();
        }
        send_signal(process, "TERM");
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    let message = "to 1000 of standard input were read and not put: failed.ndjson has them";
    assert!(stderr(&output).contains(message), "{output:?}");
    let mut all = sorted(endpoint.table().await);
    assert!(!all.is_empty());
    let failed = lines_of(&folder, "failed.ndjson");
    let kept =
        |line: &Value| line["body"].as_str().or_else(|| line["text"].as_str()).unwrap().to_owned();
    all.extend(failed.iter().map(kept));
    all.sort();
    let mut expected: Vec<String> = numbered(1_000).lines().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(all, expected);
    assert!(failed.iter().any(|line| line["key"].is_null() && line["certainty"] == "not stored"));
    let pipe = suggested(&output, "to put the lines that were not put");
    assert!(
        pipe.starts_with("jq -r 'select(.key == null) | .text // empty' failed.ndjson | "),
        "{pipe}"
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_table_ends_put_with_a_certainty_per_event() {
    watchdog::start();
    // Two calls are acknowledged. Later ones are applied and never answered.
    let script = Script::of([Reply::Ok, Reply::Ok]).then(Reply::Hang.once_applied());
    let (folder, endpoint) = (folder(), Endpoint::start(script.reading(ReadReply::Hang)).await);
    write(&folder, "events.ndjson", numbered(1_000));
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--failed", "failed.ndjson"]);
    put.args(["--buffer", "500", "--deadline", "1s", "--grace", "1s"]);
    let output = run(put).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("error: stopped after line "), "{output:?}");
    assert!(
        stderr(&output)
            .contains("the table acknowledged none of the waiting events for 1s (--deadline)"),
        "{output:?}"
    );
    assert!(suggested(&output, "to put the rest").contains(" --from-line "), "{output:?}");
    let (table, failed) = (endpoint.table().await, lines_of(&folder, "failed.ndjson"));
    let acknowledged: usize = endpoint.sizes().into_iter().take(2).sum();
    let message = format!("stored {acknowledged} events, ");
    assert!(stdout(&output).starts_with(&message), "{output:?}");
    let maybe = failed.iter().filter(|line| line["certainty"] == "maybe stored").count();
    assert!(maybe > 0 && maybe < failed.len(), "{maybe} of {}", failed.len());
    for line in &failed {
        let is_there = table.contains_key(line["key"].as_str().unwrap());
        assert_eq!(is_there, line["certainty"] == "maybe stored", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_table_fails_no_event() {
    // Each call stores one event, and returns the others unprocessed.
    let all_but_one: Vec<usize> = (1..25).collect();
    let script = Script::always(Reply::Unprocessed(Selector::Places(all_but_one)));
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    write(&folder, "events.ndjson", numbered(30));
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--deadline", "2s", "--json"]);
    let output = run(put).await;
    assert_success(&output);
    let last: Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    let (stored, seconds) = (&last["summary"]["stored"], &last["summary"]["seconds"]);
    assert_eq!((stored, seconds.as_f64() > Some(2.0)), (&Value::from(30), true), "{last}");
    assert_eq!(endpoint.table().await.len(), 30);
}
