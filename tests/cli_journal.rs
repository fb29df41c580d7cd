//! The command-line tool: `put --journal`, and `journal`.

mod support;

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use support::endpoint::{Endpoint, Reply, Script, TABLE};
use support::tool::{assert_success, folder, run, stderr, stdout, tool, tool_for, write};

async fn journal(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = tool(folder);
    command.arg("journal").args(arguments);
    run(command).await
}

/// Puts two events into a table that does not answer. The put
/// ends and leaves them in its journal.
async fn leave_two_events(folder: &TempDir) -> Output {
    let endpoint = Endpoint::start(Script::always(Reply::Hang)).await;
    write(folder, "events.ndjson", "{\"a\":1}\n{\"b\":\"\\\"2\\\"\"}\n");
    let mut put = tool_for(folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--journal", "journal"]);
    put.args(["--deadline", "500ms", "--grace", "500ms"]);
    run(put).await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_left_by_a_put_are_stored_by_the_next() {
    let (folder, endpoint) = (folder(), Endpoint::start(Script::of([])).await);
    let output = leave_two_events(&folder).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("the journal keeps it"), "{output:?}");
    let listed = journal(&folder, &["list", "journal"]).await;
    assert_success(&listed);
    assert!(stdout(&listed).starts_with("2 events not known to be stored, 20"), "{listed:?}");

    write(&folder, "more.ndjson", "{\"c\":3}\n");
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "more.ndjson", "--table", TABLE, "--journal", "journal"]);
    let output = run(put).await;
    assert_success(&output);
    assert!(stderr(&output).contains("2 events of an earlier run"), "{output:?}");
    assert!(
        stderr(&output).contains("2 events stored now, 0 were already in the table"),
        "{output:?}"
    );
    let bodies: Vec<String> = endpoint.table().await.into_values().collect();
    assert_eq!(bodies, ["{\"a\":1}", "{\"b\":\"\\\"2\\\"\"}", "{\"c\":3}"]);
    let listed = journal(&folder, &["list", "journal"]).await;
    assert_eq!(stdout(&listed), "every event is stored\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_read_while_the_table_is_away() {
    const LINES: usize = 60_000; // the buffer has room for 10,000
    let (folder, endpoint) = (folder(), Endpoint::start(Script::of([])).await);
    endpoint.reply_from_now_on(Reply::error(503, "ServiceUnavailable"));
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "--table", TABLE, "--journal", "journal", "--quiet"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    // More than a pipe holds. So the write ends only if the tool has read most of the lines.
    let written = spawn_blocking(move || input.write_all(lines.as_bytes()).map(|()| input));
    let input = written.await.unwrap().unwrap();
    assert_eq!(endpoint.table().await.len(), 0);
    endpoint.reply_from_now_on(Reply::Ok);
    drop(input);
    let output = spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    assert_success(&output);
    let bodies: Vec<String> = endpoint.table().await.into_values().collect();
    let expected: Vec<String> = (0..LINES).map(|number| number.to_string()).collect();
    assert_eq!(bodies, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_events_are_resumed_and_then_dropped() {
    let (folder, endpoint) = (folder(), Endpoint::start(Script::of([])).await);
    leave_two_events(&folder).await;
    let exported = journal(&folder, &["export", "journal"]).await;
    assert_success(&exported);
    write(&folder, "exported.ndjson", stdout(&exported));
    let mut resume = tool_for(&folder, &endpoint.url());
    resume.args(["resume", "exported.ndjson", "--table", TABLE]);
    assert_success(&run(resume).await);
    let table = endpoint.table().await;
    for line in stdout(&exported).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(table[line["key"].as_str().unwrap()], line["body"].as_str().unwrap());
    }

    let refused = journal(&folder, &["drop", "journal", "--events", "3"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("has 2 events, not 3: nothing is dropped"), "{refused:?}");
    let dropped = journal(&folder, &["drop", "journal", "--events", "2"]).await;
    assert_eq!(stdout(&dropped), "dropped 2 events\n");
    let listed = journal(&folder, &["list", "journal"]).await;
    assert_eq!(stdout(&listed), "every event is stored\n");
}

#[tokio::test]
async fn journal_that_does_not_exist_is_not_created() {
    let folder = folder();
    let listed = journal(&folder, &["list", "nowhere"]).await;
    assert_eq!(listed.status.code(), Some(1));
    assert!(stderr(&listed).contains("there is no journal in nowhere"), "{listed:?}");
    assert!(!folder.path().join("nowhere").exists());
}
