//! The command-line tool: `put --insert` and `resume --insert`.
mod support;

use serde_json::Value;

use support::endpoint::{Endpoint, OTHER_BODY, Reply, Script, TABLE};
use support::tool::{
    assert_success, bodies, folder, lines_of, run, stderr, stdout, tool, tool_for, write,
};

const EVENTS: &str = "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n";

#[tokio::test(flavor = "multi_thread")]
async fn events_with_taken_keys_get_new_keys_and_are_counted() {
    let taken = Reply::Taken(vec![1], Box::new(Reply::Ok));
    let (folder, endpoint) = (folder(), Endpoint::start([taken]).await);
    write(&folder, "events.ndjson", EVENTS);
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--insert", "--json"]);
    let output = run(put).await;
    assert_success(&output);
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = &lines.last().unwrap()["summary"];
    assert_eq!((&summary["stored"], &summary["replaced_keys"]), (&3.into(), &1.into()));
    let mut table = endpoint.table().await;
    assert_eq!(table.extract_if(.., |_, body| body == OTHER_BODY).count(), 1);
    assert_eq!(table.len(), 3);
    for line in &lines[..3] {
        let (key, number) = (line["key"].as_str().unwrap(), line["line"].as_u64().unwrap());
        assert_eq!(table[key], EVENTS.lines().nth(number as usize - 1).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_fails_and_says_how_to_store_it() {
    let taken = Reply::Taken(vec![1], Box::new(Reply::Ok));
    let (folder, endpoint) = (folder(), Endpoint::start([taken]).await);
    write(&folder, "events.ndjson", EVENTS);
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--insert", "--on-duplicate", "fail"]);
    put.args(["--failed", "failed.ndjson"]);
    let output = run(put).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("another item has its key"), "{output:?}");
    assert_eq!(lines_of(&folder, "failed.ndjson")[0]["failure_reason"], "duplicate_key");
    assert_eq!(lines_of(&folder, "failed.ndjson").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn person_is_told_of_replaced_keys() {
    let taken = Reply::Taken(vec![0], Box::new(Reply::Ok));
    let (folder, endpoint) = (folder(), Endpoint::start([taken]).await);
    write(&folder, "events.ndjson", EVENTS);
    let mut put = tool_for(&folder, &endpoint.url());
    put.args(["put", "events.ndjson", "--table", TABLE, "--insert"]);
    let output = run(put).await;
    assert_success(&output);
    assert!(stdout(&output).contains("1 event got a new key, because"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_is_resumed_twice_stores_each_event_once() {
    for more in [&[][..], &["--unchecked"]] {
        let (folder, endpoint) = (
            folder(),
            Endpoint::start(Script::always(Reply::error(400, "ThrottlingException"))).await,
        );
        write(&folder, "events.ndjson", EVENTS);
        let mut put = tool_for(&folder, &endpoint.url());
        put.args(["put", "events.ndjson", "--table", TABLE, "--insert", "--deadline", "300ms"]);
        put.args(["--grace", "100ms", "--failed", "failed.ndjson"]);
        assert_eq!(run(put).await.status.code(), Some(1));
        let failed = lines_of(&folder, "failed.ndjson");
        assert!(!failed.is_empty());
        assert!(failed.iter().all(|line| line["certainty"] == "not stored"), "{failed:?}");
        endpoint.reply_from_now_on(Reply::Ok);
        for _ in 0..2 {
            let mut resume = tool_for(&folder, &endpoint.url());
            resume.args(["resume", "failed.ndjson", "--table", TABLE, "--insert"]).args(more);
            assert_success(&run(resume).await);
        }
        assert_eq!(endpoint.table().await.len(), failed.len(), "{more:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_table_takes_inserts() {
    let folder = folder();
    write(&folder, "events.ndjson", EVENTS);
    let mut put = tool(&folder);
    put.args(["put", "events.ndjson", "--local", "table.sqlite", "--insert"]);
    assert_success(&run(put).await);
    assert_eq!(bodies(&folder.path().join("table.sqlite")).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_need_each_other_are_refused_alone() {
    let folder = folder();
    for (arguments, message) in [
        (&["put", "--on-duplicate", "fail"][..], "--insert"),
        (&["put", "--insert", "--table", "arn:aws:dynamodb:eu-west-1:1:table/t"], "--table is"),
    ] {
        let mut put = tool_for(&folder, "http://127.0.0.1:9");
        put.args(arguments);
        let output = run(put).await;
        assert!(!output.status.success());
        assert!(stderr(&output).contains(message), "{output:?}");
    }
}
