//! The command-line tool: `check`. There is a test for each line that can fail.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::process::{Command, Output};

use dynamodb_eventstore::LocalTable;
use serde_json::Value;
use tempfile::TempDir;

use support::endpoint::{
    Described, EVENT_KEY, Endpoint, KeyPart, ReadReply, Reply, Script, TABLE, Transport, tls,
};
use support::tool::{assert_success, folder, run, stderr, stdout, tool, tool_for, write};

fn check(folder: &TempDir, url: &str) -> Command {
    let mut check = tool_for(folder, url);
    check.args(["check", "--table", TABLE]);
    check
}

async fn check_with(script: Script) -> Output {
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    let output = run(check(&folder, &endpoint.url())).await;
    assert_eq!(endpoint.table().await.len(), 0, "a check has stored an item");
    output
}

/// The mark of the line with this name, and the text of that line and the next.
fn marked(output: &Output, name: &str) -> (char, String) {
    let text = stdout(output);
    let is_named = |line: &&str| line.chars().skip(2).collect::<String>().starts_with(name);
    let mut lines = text.lines().skip_while(|line| !is_named(line));
    let line = lines.next().unwrap_or_else(|| panic!("no `{name}` in {text}{}", stderr(output)));
    let next = lines.next().filter(|line| line.starts_with(' ')).unwrap_or_default();
    (line.chars().next().unwrap(), format!("{line}{next}"))
}

/// Asserts that only this line has a ✗, that it contains these words, and that the exit
/// code is 1.
fn assert_only_failure(output: &Output, name: &str, words: &[&str]) {
    let text = stdout(output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(output));
    let (mark, line) = marked(output, name);
    assert_eq!(mark, '✗', "{text}");
    assert!(line.contains("→ to do"), "{text}");
    for word in words {
        assert!(line.contains(word), "`{word}` is missing: {text}");
    }
    assert_eq!(text.matches('✗').count(), 1, "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[tokio::test]
async fn sound_table_passes_every_check() {
    let output = check_with(Script::of([])).await;
    assert_success(&output);
    assert_eq!(stdout(&output).matches('✓').count(), 13, "{}", stdout(&output));
    assert_eq!(stdout(&output).lines().count(), 13);
    assert!(marked(&output, "credentials").1.contains("environment variables"));
    assert!(marked(&output, "transport").1.contains("direct"));
}

#[tokio::test]
async fn local_table_passes_every_check() {
    let folder = folder();
    LocalTable::open(folder.path().join("own.sqlite")).await.unwrap().stop().await.unwrap();
    let mut check = tool(&folder);
    check.args(["check", "--local", "own.sqlite"]);
    assert_success(&run(check).await);
    let rows = support::tool::bodies(&folder.path().join("own.sqlite")).await;
    assert!(rows.is_empty(), "{rows:?}");
}

#[tokio::test]
async fn local_file_that_is_absent_is_not_created() {
    let folder = folder();
    let mut check = tool(&folder);
    check.args(["check", "--local", "own.sqlite"]);
    let output = run(check).await;
    assert!(!output.status.success() && stderr(&output).contains("no local table"));
    assert!(!folder.path().join("own.sqlite").exists());
}

#[tokio::test]
async fn json_has_each_check_with_its_advice() {
    let script = Script::of([]).reading(ReadReply::error(400, "AccessDeniedException"));
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    let mut check = check(&folder, &endpoint.url());
    check.arg("--json");
    let output = run(check).await;
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report["passed"], false);
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 13);
    let failed: Vec<_> = checks.iter().filter(|check| check["outcome"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{report}");
    assert_eq!(failed[0]["check"], "read permission");
    assert!(failed[0]["advice"].as_str().unwrap().contains("dynamodb:BatchGetItem"));
}

#[tokio::test]
async fn missing_region_is_reported() {
    let folder = folder();
    let mut check = check(&folder, "http://127.0.0.1:1");
    check.env_remove("AWS_REGION");
    assert_only_failure(&run(check).await, "region", &["AWS_REGION"]);
}

#[tokio::test]
async fn missing_credentials_are_reported() {
    let (folder, endpoint) = (folder(), Endpoint::start([]).await);
    let mut check = check(&folder, &endpoint.url());
    check.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    assert_only_failure(&run(check).await, "credentials", &["AWS_ACCESS_KEY_ID"]);
    assert!(endpoint.requests().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn expired_credentials_of_a_process_are_reported() {
    let folder = folder();
    std::fs::create_dir_all(folder.path().join(".aws")).unwrap();
    let expired = r#"{"Version":1,"AccessKeyId":"A","SecretAccessKey":"hush","SessionToken":"t","Expiration":"2020-01-01T00:00:00Z"}"#;
    write(&folder, "credentials.json", expired);
    let process = folder.path().join("credentials.json");
    let config = format!("[default]\ncredential_process = cat {}\n", process.display());
    write(&folder, ".aws/config", config);
    let mut check = check(&folder, "http://127.0.0.1:1");
    check.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    check.env("PATH", std::env::var_os("PATH").unwrap());
    let output = run(check).await;
    assert_only_failure(&output, "credentials", &["expired"]);
    assert!(!stdout(&output).contains("hush"));
}

#[tokio::test]
async fn credentials_that_the_service_refuses_are_reported() {
    let endpoint = Endpoint::start([]).await;
    endpoint.accept_only("another");
    let output = run(check(&folder(), &endpoint.url())).await;
    assert_only_failure(&output, "authentication", &["ExpiredTokenException", "renew"]);
}

#[tokio::test]
async fn endpoint_without_a_server_is_reported() {
    let output = run(check(&folder(), "http://127.0.0.1:1")).await;
    assert_only_failure(&output, "endpoint", &["http://127.0.0.1:1", "network"]);
}

#[tokio::test]
async fn untrusted_certificate_is_reported() {
    let endpoint = Endpoint::start_over(Transport::Https, []).await;
    let output = run(check(&folder(), &endpoint.url())).await;
    assert_only_failure(&output, "endpoint", &["certificate", "AWS_CA_BUNDLE"]);
}

#[tokio::test]
async fn certificate_of_the_bundle_is_trusted() {
    let (folder, endpoint) = (folder(), Endpoint::start_over(Transport::Https, []).await);
    write(&folder, "authority.pem", tls::certificate());
    let mut check = check(&folder, &endpoint.url());
    check.env("AWS_CA_BUNDLE", "authority.pem");
    let output = run(check).await;
    assert_success(&output);
    assert!(marked(&output, "endpoint").1.contains("with TLS"));
}

#[tokio::test]
async fn skewed_clock_is_reported() {
    let script = Script::of([]).with_clock_ahead(1, "InvalidSignatureException");
    let output = check_with(script).await;
    assert_only_failure(&output, "clock", &["behind", "NTP"]);
    assert_eq!(marked(&output, "authentication").0, '–');
}

#[tokio::test]
async fn absent_table_is_reported_with_its_region() {
    let (folder, endpoint) = (folder(), Endpoint::start([]).await);
    let mut check = tool_for(&folder, &endpoint.url());
    check.args(["check", "--table", "absent", "--region", "eu-west-3"]);
    assert_only_failure(&run(check).await, "table", &["`absent`", "eu-west-3", "create"]);
}

#[tokio::test]
async fn table_that_is_being_deleted_is_reported() {
    let deleting = Described::Table { key: vec![EVENT_KEY], status: "DELETING" };
    let output = check_with(Script::of([]).describing(deleting)).await;
    assert_only_failure(&output, "status", &["DELETING", "created anew"]);
    assert_eq!(marked(&output, "write permission").0, '–');
}

#[tokio::test]
async fn wrong_key_is_reported() {
    let id = KeyPart { name: "id", ..EVENT_KEY };
    let output = check_with(Script::of([]).describing(Described::with_key([id]))).await;
    assert_only_failure(&output, "key", &["`id`", "another table"]);
}

#[tokio::test]
async fn denied_describe_is_reported_and_the_rest_is_checked() {
    let denied = Described::Error { status: 400, code: "AccessDeniedException" };
    let output = check_with(Script::of([]).describing(denied)).await;
    assert_only_failure(&output, "describe permission", &["dynamodb:DescribeTable"]);
    assert_eq!(marked(&output, "write permission").0, '✓');
    assert_eq!(marked(&output, "table").0, '–');
}

#[tokio::test]
async fn denied_read_is_reported() {
    let script = Script::of([]).reading(ReadReply::error(400, "AccessDeniedException"));
    let output = check_with(script).await;
    assert_only_failure(&output, "read permission", &["dynamodb:BatchGetItem"]);
}

#[tokio::test]
async fn denied_write_is_reported() {
    let output = check_with(Script::always(Reply::error(400, "AccessDeniedException"))).await;
    assert_only_failure(&output, "write permission", &["dynamodb:BatchWriteItem"]);
}

async fn check_inserts_with(script: Script) -> Output {
    let (folder, endpoint) = (folder(), Endpoint::start(script).await);
    let mut check = check(&folder, &endpoint.url());
    check.arg("--insert");
    let output = run(check).await;
    assert_eq!(endpoint.table().await.len(), 0, "a check has stored an item");
    assert!(endpoint.calls("BatchWriteItem").is_empty());
    output
}

#[tokio::test]
async fn sound_table_passes_every_check_for_inserts() {
    let output = check_inserts_with(Script::of([])).await;
    assert_success(&output);
    assert_eq!(stdout(&output).matches('✓').count(), 13, "{}", stdout(&output));
    assert!(marked(&output, "write permission").1.contains("PartiQLInsert"));
    assert!(marked(&output, "transport").1.contains("direct"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_table_passes_every_check_for_inserts() {
    let folder = folder();
    LocalTable::open(folder.path().join("table.sqlite")).await.unwrap().stop().await.unwrap();
    let mut check = tool(&folder);
    check.args(["check", "--local", "table.sqlite", "--insert"]);
    assert_success(&run(check).await);
}

#[tokio::test]
async fn denied_insert_is_reported() {
    let of_the_call = Reply::error(400, "AccessDeniedException");
    let of_the_statement = Reply::Statements { places: vec![0], code: "AccessDenied" };
    for denied in [of_the_call, of_the_statement] {
        let output = check_inserts_with(Script::always(denied)).await;
        assert_only_failure(&output, "write permission", &["dynamodb:PartiQLInsert"]);
    }
}
