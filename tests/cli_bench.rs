//! The command-line tool: `bench`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::process::Output;

use serde_json::Value;

use support::endpoint::{Endpoint, Reply, Script, Selector, TABLE};
use support::tool::{assert_success, bodies, folder, run, stderr, stdout, tool, tool_for, write};

fn result(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_given_rate_and_size_are_in_the_table() {
    let folder = folder();
    let mut bench = tool(&folder);
    bench
        .args(["bench", "--local", "b.sqlite", "--rate", "500", "--size", "991", "--for", "600ms"]);
    let output = run(bench).await;
    assert_success(&output);
    assert!(stdout(&output).contains("stored:     300 of 300 events"), "{output:?}");
    assert!(stdout(&output).contains("accepted 600 write units, throttled 0"), "{output:?}");
    assert!(stderr(&output).contains("left:       300 events"), "{output:?}");
    let bodies = bodies(&folder.path().join("b.sqlite")).await;
    assert_eq!(bodies.len(), 300);
    assert!(bodies.iter().all(|body| body.len() == 991));
}

#[tokio::test(flavor = "multi_thread")]
async fn result_counts_what_the_endpoint_saw() {
    let (folder, script) = (folder(), Script::of([Reply::Unprocessed(Selector::All)]));
    let endpoint = Endpoint::start(script).await;
    let mut bench = tool_for(&folder, &endpoint.url());
    bench.args(["bench", "--table", TABLE, "--rate", "200", "--for", "500ms", "--json"]);
    let output = run(bench).await;
    assert_success(&output);
    let (result, table) = (result(&output), endpoint.table().await);
    assert_eq!((&result["put"], &result["stored"]), (&100.into(), &100.into()));
    assert_eq!(table.len(), 100);
    assert_eq!(result["first_key"], table.first_key_value().unwrap().0.as_str());
    assert_eq!(result["last_key"], table.last_key_value().unwrap().0.as_str());
    let refused = endpoint.sizes()[0];
    assert_eq!(result["throttled_write_units"], refused);
    assert_eq!(result["retries"], refused);
    assert_eq!(result["calls"], endpoint.batches().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_includes_the_pause_that_delayed_the_put() {
    // The first call times out, and the buffer has room for 25 events: later puts wait.
    let (folder, endpoint) = (folder(), Endpoint::start(Script::of([Reply::Hang])).await);
    let mut bench = tool_for(&folder, &endpoint.url());
    bench.args(["bench", "--table", TABLE, "--rate", "1000", "--for", "400ms", "--json"]);
    bench.args(["--buffer", "25", "--batches-in-flight", "1", "--attempt-timeout", "1s"]);
    let output = run(bench).await;
    assert_success(&output);
    let result = result(&output);
    // Every event was due in the first 400 ms, and none was stored in the first second, which is the attempt
    // timeout.
    assert_eq!(result["stored"], 400);
    let median = result["latency_milliseconds"]["p50"].as_f64().unwrap();
    assert!(median > 100.0, "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn report_is_one_page_with_four_charts() {
    let folder = folder();
    write(&folder, "report.html", "x".repeat(1_000_000));
    let mut bench = tool(&folder);
    bench.args(["bench", "--rate", "300", "--for", "1s", "--report", "report.html"]);
    let output = run(bench).await;
    assert_success(&output);
    assert!(stdout(&output).contains("report:     report.html"), "{output:?}");
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    assert_eq!(page.matches("<svg").count(), 4);
    assert!(page.contains("300 events into a local table in memory"), "{page}");
    // The page loads nothing: its only addresses are the XML namespaces of the SVG charts.
    let addresses = page.matches("http").count();
    assert_eq!(addresses, page.matches("http://www.w3.org/2000/svg").count());
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_leaves_the_table_as_it_was() {
    let folder = folder();
    write(&folder, "one.ndjson", "{\"a\":1}\n");
    assert_success(&run_with(&folder, &["put", "one.ndjson", "--local", "b.sqlite"]).await);
    let arguments = ["bench", "--local", "b.sqlite", "--rate", "300", "--for", "300ms", "--delete"];
    let output = run_with(&folder, &arguments).await;
    assert_success(&output);
    assert!(stderr(&output).contains("deleted:    90 events"), "{output:?}");
    assert_eq!(bodies(&folder.path().join("b.sqlite")).await, ["{\"a\":1}"]);
}

async fn run_with(folder: &tempfile::TempDir, arguments: &[&str]) -> Output {
    let mut command = tool(folder);
    command.args(arguments);
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_fail_the_bench_with_the_first_error() {
    let script = Script::always(Reply::error(400, "AccessDeniedException"));
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    let mut bench = tool_for(&folder, &endpoint.url());
    bench.args(["bench", "--table", TABLE, "--rate", "50", "--for", "100ms", "--report", "r.html"]);
    let output = run(bench).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout(&output).contains("failed:     5 not stored, 0 maybe stored"), "{output:?}");
    assert!(stdout(&output).contains("AccessDeniedException"), "{output:?}");
    let page = std::fs::read_to_string(folder.path().join("r.html")).unwrap();
    assert!(page.contains("No event was stored"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unwritable_report_ends_bench_before_the_first_event() {
    let (folder, endpoint) = (folder(), Endpoint::start(Script::of([])).await);
    let mut bench = tool_for(&folder, &endpoint.url());
    bench.args(["bench", "--table", TABLE, "--for", "100ms", "--report", "no/such/folder.html"]);
    let output = run(bench).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("cannot write the report to no/such"), "{output:?}");
    assert!(endpoint.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_out_of_range_are_refused() {
    let folder = folder();
    for (arguments, message) in [
        (["--rate", "0"], "0 is not in 1.."),
        (["--size", "39"], "39 is not in 40..=409566"),
        (["--for", "soon"], "like 500ms"),
        (["--region", "us-east-1"], "need --table"),
        (["--buffer", "0"], "--buffer is 0; it must"),
    ] {
        let output = run_with(&folder, &["bench", arguments[0], arguments[1]]).await;
        assert!(!output.status.success(), "{output:?}");
        assert!(stderr(&output).contains(message), "{message}: {output:?}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_bench_reports_what_it_has_measured() {
    use support::tool::{Condition, run_and_signal};

    let folder = folder();
    let endpoint = std::sync::Arc::new(Endpoint::start(Script::of([])).await);
    let mut bench = tool_for(&folder, &endpoint.url());
    bench.args(["bench", "--table", TABLE, "--rate", "200", "--for", "1h", "--json"]);
    let seen = std::sync::Arc::clone(&endpoint);
    let ready: Condition = Box::new(move || seen.batches().len() > 3);
    let output = run_and_signal(bench, [("INT", ready)]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let result = result(&output);
    assert_eq!(result["ended_early"], "ended by SIGINT");
    assert_eq!(result["stored"], result["put"]);
    assert_eq!(result["stored"], endpoint.table().await.len());
}
