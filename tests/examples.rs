//! Runs each example as its users do, in a process of its own, and checks that it does what its text says.
//!
//! Instead of AWS these processes use a local table in the test's process.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dynamodb_eventstore::{EventKey, LocalTable, WriteCapacity};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use support::table::rows;

const TABLE: &str = "all-events";

/// Longer than any example runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where cargo leaves the examples. It builds them the first time that a test asks, if it has not done so already.
static EXAMPLES: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let built = cargo(&["build", "--examples"]).status().unwrap();
    assert!(built.success(), "the examples do not build");
    target.join("debug/examples")
});

fn cargo(arguments: &[&str]) -> std::process::Command {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(arguments).args(["--quiet", "--locked", "--all-features", "--target-dir"]);
    cargo.arg(target);
    cargo
}

/// An example, whose environment has no AWS settings except those that lead to `table`.
fn example(name: &str, table: Option<&LocalTable>) -> Command {
    let mut command = Command::new(EXAMPLES.join(name));
    command
        .env_clear()
        .env("TABLE", TABLE)
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .envs(table.map(|table| ("AWS_ENDPOINT_URL", table.endpoint_url())))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(command: &mut Command) -> Output {
    timeout(PATIENCE, command.output()).await.expect("the example does not end").unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A table that needs some seconds to store the events of a test. A process that does not wait for it loses
/// events.
async fn slow_table() -> LocalTable {
    let capacity = WriteCapacity::provisioned(20);
    LocalTable::builder().table(TABLE).write_capacity(capacity).start().await.unwrap()
}

async fn events(table: &LocalTable) -> BTreeMap<String, String> {
    rows(table.client(), TABLE).await
}

/// Posts one event, and returns the status and the body of the answer.
async fn post_event(address: &str, event: &str) -> (u16, Value) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /events HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{event}",
        event.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn terminate(process: &Child) {
    let id = process.id().unwrap().to_string();
    let sent = std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
    assert!(sent.success());
}

#[tokio::test]
async fn axum_service_stores_every_accepted_event_at_shutdown() {
    let table = slow_table().await;
    let mut service =
        example("axum_service", Some(&table)).env("LISTEN", "127.0.0.1:0").spawn().unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap().to_owned();

    let mut accepted = BTreeMap::new();
    for order in 0..60 {
        let event = json!({ "order": order }).to_string();
        let (status, answer) = post_event(&address, &event).await;
        assert_eq!(status, 202, "{answer}");
        accepted.insert(answer["key"].as_str().unwrap().to_owned(), event);
    }
    terminate(&service);
    assert!(events(&table).await.len() < accepted.len(), "all were stored before the signal");

    let summary = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(summary.as_deref(), Some("60 events stored, 0 failed"));
    assert!(service.wait().await.unwrap().success());
    assert_eq!(events(&table).await, accepted);
}

#[tokio::test]
async fn axum_service_refuses_an_event_that_is_too_large() {
    let table = slow_table().await;
    let mut service =
        example("axum_service", Some(&table)).env("LISTEN", "127.0.0.1:0").spawn().unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap();
    let (status, answer) = post_event(address, &format!("\"{}\"", "x".repeat(409_600))).await;
    assert_eq!(status, 413);
    assert!(answer["error"].as_str().unwrap().contains("too large"), "{answer}");
    terminate(&service);
    assert!(service.wait().await.unwrap().success());
}

/// The state of a Lambda runtime API that serves one invocation.
struct Lambda {
    invocations: tokio::sync::Mutex<mpsc::Receiver<Value>>,
    /// The function's response, and the content of the table when it arrived.
    responses: mpsc::Sender<(Value, BTreeMap<String, String>)>,
    table: LocalTable,
}

type Shared = std::sync::Arc<Lambda>;

async fn next_invocation(State(lambda): State<Shared>) -> Response {
    match lambda.invocations.lock().await.recv().await {
        Some(payload) => {
            let headers = [
                ("lambda-runtime-aws-request-id", "one"),
                ("lambda-runtime-deadline-ms", "9999999999999"),
                ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:1:function:f"),
            ];
            (headers, Json(payload)).into_response()
        }
        None => std::future::pending().await,
    }
}

async fn response(State(lambda): State<Shared>, response: String) -> StatusCode {
    let response = serde_json::from_str(&response).unwrap();
    let stored = events(&lambda.table).await;
    lambda.responses.send((response, stored)).await.unwrap();
    StatusCode::ACCEPTED
}

#[tokio::test]
async fn lambda_answers_when_its_events_are_stored() {
    let (invoke, invocations) = mpsc::channel(1);
    let (responses, mut responded) = mpsc::channel(1);
    let table = slow_table().await;
    let mut function = example("lambda", Some(&table));
    let invocations = tokio::sync::Mutex::new(invocations);
    let lambda = Shared::new(Lambda { invocations, responses, table });
    let api = axum::Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next_invocation))
        .route("/2018-06-01/runtime/invocation/one/response", post(response))
        .with_state(lambda);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async { axum::serve(listener, api).await });

    let mut function = function
        .env("AWS_LAMBDA_RUNTIME_API", address)
        .env("AWS_LAMBDA_FUNCTION_NAME", "f")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .spawn()
        .unwrap();
    let records: Vec<Value> = (0..30).map(|number| json!({ "record": number })).collect();
    invoke.send(Value::from(records.clone())).await.unwrap();
    let (response, stored) = timeout(PATIENCE, responded.recv()).await.unwrap().unwrap();

    let keys: Vec<&str> =
        response["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    assert_eq!(keys.len(), records.len());
    for (key, record) in keys.into_iter().zip(&records) {
        assert_eq!(stored.get(key), Some(&record.to_string()), "answered before it was stored");
    }
    function.kill().await.unwrap();
}

#[tokio::test]
async fn many_producers_wait_for_the_table_and_lose_nothing() {
    let output = run(&mut example("many_producers", None)).await;
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = stdout(&output).lines().collect();
    assert_eq!(lines[0], "2000 events stored, 0 failed");
    let most: u64 = lines[1].split(' ').nth(2).unwrap().parse().unwrap();
    assert!((100..=200).contains(&most), "{lines:?}");
    let throttled: u64 = lines[2].split(' ').next().unwrap().parse().unwrap();
    assert!(throttled > 0, "the table never was the limit: {lines:?}");
}

#[tokio::test]
async fn own_sdk_config_writes_where_the_configuration_says() {
    let table = LocalTable::in_memory().await.unwrap();
    let output = run(&mut example("own_sdk_config", Some(&table))).await;
    assert!(output.status.success(), "{output:?}");
    let stored: Vec<String> = events(&table).await.into_values().collect();
    assert_eq!(stored, [r#"{"order":7}"#]);
    assert!(stdout(&output).contains(r#"{\"order\":7}"#), "{output:?}");
}

#[tokio::test]
async fn tracing_shows_outcomes_and_links_and_no_bodies() {
    let output = run(&mut example("tracing", None)).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), "1 event stored, 1 failed\n");
    let logged = |level: &str, name: &str| {
        let is_it = |line: &&str| line.contains(level) && line.contains(&format!(": {name} key="));
        stderr(&output).lines().find(is_it).map(|line| {
            let key = line.split_once("key=").unwrap().1;
            key[..EventKey::LENGTH].parse::<EventKey>().unwrap()
        })
    };
    assert!(logged("DEBUG", "ok").is_some() && logged("ERROR", "error").is_some(), "{output:?}");
    assert!(!stderr(&output).contains("order"), "a body is in the log: {output:?}");
    assert!(stderr(&output).contains("write_batch follows from checkout\n"), "{output:?}");
}

/// The value of a metric of the local table in the text that Prometheus scrapes.
fn metric(text: &str, name: &str) -> f64 {
    let series = |line: &&str| line.starts_with(&format!("dynamodb_eventstore_{name}{{"));
    let values = text.lines().filter(series).map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

async fn scrape(address: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

#[tokio::test]
async fn prometheus_scrapes_what_was_put() {
    let mut service = example("prometheus", None).env("LISTEN", "127.0.0.1:0").spawn().unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap();
    for order in 0..60 {
        assert_eq!(post_event(address, &json!({ "order": order }).to_string()).await.0, 202);
    }
    let settled = async {
        loop {
            let text = scrape(address).await;
            assert_eq!(metric(&text, "events_failed_total"), 0.0);
            let latencies = metric(&text, "put_to_stored_seconds_count");
            if latencies == 60.0 && metric(&text, "batches_in_flight") == 0.0 {
                break text;
            }
        }
    };
    let text = timeout(PATIENCE, settled).await.expect("the events are not stored");
    assert_eq!(metric(&text, "events_accepted_total"), 60.0);
    assert_eq!(metric(&text, "events_stored_total"), 60.0);
    assert_eq!(metric(&text, "pending_events"), 0.0);
    assert_eq!(metric(&text, "batch_events_sum"), 60.0);
    assert!(text.contains("# TYPE dynamodb_eventstore_put_to_stored_seconds histogram"), "{text}");
    assert!(text.contains(r#"dynamodb_eventstore_pending_events{table=""#), "{text}");
    service.kill().await.unwrap();
}

#[tokio::test]
async fn testing_has_tests_that_pass() {
    let tested = cargo(&["test", "--example", "testing"]).output().unwrap();
    assert!(tested.status.success() && stdout(&tested).contains("2 passed"), "{tested:?}");
}

#[tokio::test]
async fn insert_stores_the_same_item_as_the_npm_check() {
    let table = LocalTable::builder().table(TABLE).start().await.unwrap();
    let output = run(example("insert", Some(&table))
        .env("DYNAMODB_ES_TEST_ACCESS_KEY_ID", "id")
        .env("DYNAMODB_ES_TEST_SECRET_ACCESS_KEY", "secret"))
    .await;
    assert_eq!(stdout(&output), "done\n", "{output:?}");
    let stored: Vec<String> = events(&table).await.into_values().collect();
    assert_eq!(stored, [r#"{"foo":"bar"}"#]);
}
