//! `tail`, as its users run it, and `#[ignore]`d against DynamoDB Local.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, StreamSpecification, StreamViewType};
use dynamodb_eventstore::{EventStore, LocalTable};
use serde_json::Value;
use support::tool::{
    assert_success, folder, run, send_signal, stderr, stdout, tool, tool_for, write,
};
use support::{clock, dynamodb_local};
use tempfile::TempDir;

async fn switch_stream_on(client: &Client, table: &str, view_type: StreamViewType) {
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(view_type);
    let update = client.update_table().table_name(table);
    update.stream_specification(stream.build().unwrap()).send().await.unwrap();
}

async fn table_with_stream() -> LocalTable {
    let table = LocalTable::in_memory().await.unwrap();
    switch_stream_on(table.client(), table.name(), StreamViewType::NewImage).await;
    table
}

async fn put(store: &EventStore, numbers: Range<u64>) {
    for number in numbers {
        drop(store.put_json(&format!("{{ \"number\": {number} }}")).await.unwrap());
    }
    store.flush().await.unwrap();
}

fn lines(numbers: Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("{{ \"number\": {number} }}")).collect()
}

fn tail(folder: &TempDir, table: &LocalTable, arguments: &[&str]) -> Command {
    let mut command = tool_for(folder, &table.endpoint_url());
    command.args(["tail", "--table", table.name()]).args(arguments);
    command
}

async fn run_tail(folder: &TempDir, table: &LocalTable, arguments: &[&str]) -> Output {
    run(tail(folder, table, arguments)).await
}

fn printed(output: &Output) -> Vec<String> {
    stdout(output).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_printed_once_from_run_to_run() {
    let (folder, table) = (folder(), table_with_stream().await);
    let store = table.store_builder().start().await.unwrap();
    put(&store, 0..10).await;
    let resumable = ["--from", "beginning", "--position", "p.json"];
    let with = |more: &[&'static str]| [&resumable[..], more].concat();
    let first = run_tail(&folder, &table, &with(&["--max", "7"])).await;
    assert_success(&first);
    assert_eq!(printed(&first), lines(0..7));
    let shown = stderr(&first);
    assert!(shown.contains("from the beginning of its stream\nprinted 7 events\n"), "{shown}");
    let second = run_tail(&folder, &table, &with(&["--max", "3", "--with-keys"])).await;
    assert_success(&second);
    assert!(stderr(&second).contains("from the position in p.json"), "{}", stderr(&second));
    let bodies: Vec<String> = printed(&second)
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["key"].as_str().unwrap().len(), 27);
            line["body"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(bodies, lines(7..10));
    let third = run_tail(&folder, &table, &with(&["--for", "1s", "-q"])).await;
    assert_success(&third);
    assert_eq!((stdout(&third), stderr(&third)), ("", ""));
    // Nothing but the file itself is left of the saves.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_are_no_events_are_named_and_deletions_counted() {
    let (folder, table) = (folder(), table_with_stream().await);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    for (key, body) in [
        ("settings", "{}"),
        ("20260101T000000000000000001", "[1,\n2]"),
        ("20260101T000000000000000002", "3"),
    ] {
        let put = table.client().put_item().table_name(table.name());
        put.item("key", text(key)).item("body", text(body)).send().await.unwrap();
    }
    let delete = table.client().delete_item().table_name(table.name());
    delete.key("key", text("settings")).send().await.unwrap();
    let output = run_tail(&folder, &table, &["--from", "beginning", "--for", "2s"]).await;
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), "3\n"), "{output:?}");
    for message in [
        "key settings: not printed, because its key is not an event key",
        "key 20260101T000000000000000001: not printed, because its body has a line break",
        "printed 1 event; 1 item was deleted",
        "2 items were not printed",
    ] {
        assert!(stderr(&output).contains(message), "{message}: {}", stderr(&output));
    }
}

/// A tail whose lines are read one by one.
fn spawn(mut command: Command) -> (Child, impl Iterator<Item = String> + Send + 'static) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map_while(Result::ok))
}

/// Waits until a file is there: the tail has opened.
async fn wait_for(file: &Path) {
    while !file.exists() {
        clock::wait_milliseconds(10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_flushed_while_no_other_event_comes() {
    let (folder, table) = (folder(), table_with_stream().await);
    let (mut child, mut printed) = spawn(tail(&folder, &table, &[]));
    let mut messages = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = tokio::task::spawn_blocking(move || messages.next().unwrap().unwrap()).await;
    assert_eq!(begun.unwrap(), "following table `events` from now");
    put(&table.store_builder().start().await.unwrap(), 0..1).await;
    let first = tokio::task::spawn_blocking(move || printed.next());
    let first = tokio::time::timeout(Duration::from_secs(20), first).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(first.unwrap().unwrap(), Some(lines(0..1).remove(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn signal_ends_the_tail_and_saves_the_position() {
    let (folder, table) = (folder(), table_with_stream().await);
    let store = table.store_builder().start().await.unwrap();
    put(&store, 0..3).await;
    for (signal, code, numbers) in [("INT", 130, 3..6), ("TERM", 143, 6..9)] {
        let (mut child, mut printed) = spawn(tail(&folder, &table, &["--position", "p.json"]));
        wait_for(&folder.path().join("p.json")).await;
        put(&store, numbers.clone()).await;
        let process = child.id();
        let ended = tokio::task::spawn_blocking(move || {
            // The lines come while the tail runs.
            let first: Vec<String> = printed.by_ref().take(3).collect();
            send_signal(process, signal);
            assert_eq!(printed.next(), None);
            (first, child.wait().unwrap())
        });
        let (first, status) = ended.await.unwrap();
        assert_eq!((first, status.code()), (lines(numbers), Some(code)));
    }
    let rest = run_tail(&folder, &table, &["--position", "p.json", "--for", "1s"]).await;
    assert_eq!(stdout(&rest), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn position_is_saved_while_the_tail_runs() {
    let (folder, table) = (folder(), table_with_stream().await);
    let store = table.store_builder().start().await.unwrap();
    let file = folder.path().join("p.json");
    let (mut child, _printed) = spawn(tail(&folder, &table, &["--position", "p.json"]));
    wait_for(&file).await;
    put(&store, 0..1).await;
    while !std::fs::read_to_string(&file).unwrap().contains(r#"{"after":""#) {
        clock::wait_milliseconds(10).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    put(&store, 1..3).await;
    let rest = run_tail(&folder, &table, &["--position", "p.json", "--max", "2"]).await;
    assert_success(&rest);
    assert_eq!(printed(&rest), lines(1..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_may_be_lost_are_reported() {
    let (folder, table) = (folder(), table_with_stream().await);
    assert_success(&run_tail(&folder, &table, &["--position", "p.json", "--for", "0s"]).await);
    let off = StreamSpecification::builder().stream_enabled(false).build().unwrap();
    let update = table.client().update_table().table_name(table.name());
    update.stream_specification(off).send().await.unwrap();
    switch_stream_on(table.client(), table.name(), StreamViewType::NewImage).await;
    put(&table.store_builder().start().await.unwrap(), 0..2).await;
    let output = run_tail(&folder, &table, &["--position", "p.json", "--max", "2"]).await;
    assert_eq!((output.status.code(), printed(&output)), (Some(1), lines(0..2)), "{output:?}");
    let loss = "records may be lost: the table's stream was switched off and on";
    assert!(stderr(&output).contains(loss), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_pipe_ends_the_tail_quietly() {
    let (folder, table) = (folder(), table_with_stream().await);
    let store = table.store_builder().start().await.unwrap();
    let command = tail(&folder, &table, &["--position", "p.json", "-q"]);
    let (mut child, mut printed) = spawn(command);
    wait_for(&folder.path().join("p.json")).await;
    put(&store, 0..1).await;
    let printed = tokio::task::spawn_blocking(move || printed.next()).await.unwrap();
    assert_eq!(printed, Some(lines(0..1).remove(0)));
    // The pipe is closed now. What the tail could not print is there for the next run.
    put(&store, 1..3).await;
    let output = tokio::task::spawn_blocking(move || {
        let status = child.wait().unwrap();
        (status, std::io::read_to_string(child.stderr.take().unwrap()).unwrap())
    });
    let (status, messages) = output.await.unwrap();
    assert_eq!((status.code(), messages.as_str()), (Some(0), ""));
    let rest = run_tail(&folder, &table, &["--position", "p.json", "--for", "2s"]).await;
    let rest = printed_set(&rest);
    assert!(rest.is_superset(&lines(1..3).into_iter().collect()), "{rest:?}");
}

fn printed_set(output: &Output) -> BTreeSet<String> {
    printed(output).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn table_without_a_usable_stream_names_the_command() {
    let folder = folder();
    let table = LocalTable::in_memory().await.unwrap();
    let output = run_tail(&folder, &table, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let command = "aws dynamodb update-table --table-name events --stream-specification \
                   StreamEnabled=true,StreamViewType=NEW_IMAGE --region us-east-1";
    let shown = stderr(&output);
    assert!(
        shown.contains("cannot follow table `events`: table `events` has no stream"),
        "{shown}"
    );
    assert!(shown.contains(command) && shown.contains("Add --endpoint-url"), "{shown}");
    switch_stream_on(table.client(), table.name(), StreamViewType::KeysOnly).await;
    let output = run_tail(&folder, &table, &["--position", "p.json"]).await;
    let shown = stderr(&output);
    assert!(shown.contains("has the view type KEYS_ONLY") && shown.contains(command), "{shown}");
    // A position that was never taken is not saved.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let mut put = tool(&folder);
    put.args(["put", "--local", "t.sqlite"]);
    assert_success(&run(put).await);
    let mut local = tool(&folder);
    local.args(["tail", "--local", "t.sqlite"]);
    let output = run(local).await;
    assert_eq!(output.status.code(), Some(1));
    let shown = stderr(&output);
    assert!(
        shown.contains("has no stream") && shown.contains("dynamodb-eventstore local"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_is_no_position_is_refused() {
    let (folder, table) = (folder(), table_with_stream().await);
    for (saved, message) in [
        ("{}", "p.json is not the position of a tail"),
        (r#"{"kind":"the position of an export","version":1}"#, "is not the position of a tail"),
        (r#"{"kind":"the position of a tail","version":2}"#, "p.json is of version 2"),
        (r#"{"kind":"the position of a tail","version":1}"#, "p.json is damaged: missing field"),
    ] {
        write(&folder, "p.json", saved);
        let output = run_tail(&folder, &table, &["--position", "p.json"]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
        assert_eq!(std::fs::read_to_string(folder.path().join("p.json")).unwrap(), saved);
    }

    std::fs::remove_file(folder.path().join("p.json")).unwrap();
    let position = ["--position", "p.json", "--for", "0s"];
    assert_success(&run_tail(&folder, &table, &position).await);
    let other = LocalTable::builder().table("other").start().await.unwrap();
    switch_stream_on(other.client(), other.name(), StreamViewType::NewImage).await;
    let output = run_tail(&folder, &other, &position).await;
    assert!(stderr(&output).contains("--position is a position in another table"), "{output:?}");

    let output = run_tail(&folder, &table, &["--position", "no/such/folder/p.json"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot save the position in no/such"), "{output:?}");
}

const EVENTS: u64 = 1_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs DynamoDB Local: .ci/dynamodb-local CMD"]
async fn killed_tail_goes_on_without_a_gap() {
    let folder = folder();
    let client = dynamodb_local::client();
    let name = dynamodb_local::create_table(&client, "tail").await;
    switch_stream_on(&client, &name, StreamViewType::NewImage).await;
    let store = EventStore::builder().client(&client).table(&name).start().await.unwrap();
    put(&store, 0..5).await;
    let start = || {
        let mut command = tool_for(&folder, &dynamodb_local::url());
        command.env("AWS_ACCESS_KEY_ID", dynamodb_local::ACCESS_KEY_ID);
        command.args(["tail", "--table", &name, "--position", "p.json"]);
        spawn(command)
    };
    let (mut child, mut lines_of_child) = start();
    wait_for(&folder.path().join("p.json")).await;
    let writer = tokio::spawn(async move {
        for number in 5..EVENTS {
            put(&store, number..number + 1).await;
            if number % 20 == 0 {
                clock::wait_milliseconds(100).await;
            }
        }
    });
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let killed = tokio::task::spawn_blocking(move || {
            let mut read: Vec<String> = lines_of_child.by_ref().take(150).collect();
            child.kill().unwrap();
            child.wait().unwrap();
            // What it had printed is still in the pipe.
            read.extend(lines_of_child);
            read
        });
        seen.extend(killed.await.unwrap());
        (child, lines_of_child) = start();
    }
    let last = tokio::task::spawn_blocking(move || {
        let expected: BTreeSet<String> = lines(5..EVENTS).into_iter().collect();
        while !seen.is_superset(&expected) {
            seen.insert(lines_of_child.next().unwrap());
        }
        send_signal(child.id(), "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130));
        // A position from which nothing was read yet repeats up to a minute before the start.
        let others: Vec<&String> = seen.difference(&expected).collect();
        let before: BTreeSet<String> = lines(0..5).into_iter().collect();
        assert!(others.iter().all(|line| before.contains(*line)), "{others:?}");
    });
    tokio::time::timeout(Duration::from_secs(60), last).await.unwrap().unwrap();
    writer.await.unwrap();
    client.delete_table().table_name(&name).send().await.unwrap();
}
