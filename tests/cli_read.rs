//! `export`, `get` and `count`, as their users run them.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::io::Write;
use std::process::Output;
#[cfg(target_os = "linux")]
use std::{
    fs::File,
    io::Read,
    process::{Command, Stdio},
};

use aws_sdk_dynamodb::types::AttributeValue;
use dynamodb_eventstore::LocalTable;
use flate2::Compression;
use flate2::write::GzEncoder;
#[cfg(target_os = "linux")]
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use serde_json::Value;
use support::endpoint::{Described, Endpoint, ScanReply, Script, TABLE};
use support::table::rows;
use support::tool::{assert_success, folder, lines_of, run, stderr, stdout, tool, tool_for, write};
use tempfile::TempDir;

/// Keys as the npm module makes them, whose last part is not padded, in the order of their text.
const NPM_EVENTS: [(&str, &str); 4] = [
    ("20130927T0052406525", r#"{"foo" : 1}"#),
    ("20130927T005240652508858176", r#" {"foo":"bar"}"#),
    ("20130927T00524065312345678", "null"),
    ("20130927T0052406539", "\"é\\n\u{2028}\" "),
];

/// Puts items into the local table of a file.
async fn put_items(folder: &TempDir, file: &str, items: &[(&str, Option<&str>)]) {
    let table = LocalTable::open(folder.path().join(file)).await.unwrap();
    for (key, body) in items {
        let put = table.client().put_item().table_name(table.name());
        let put = put.item("key", AttributeValue::S((*key).to_owned()));
        let body = body.map(|body| AttributeValue::S(body.to_owned()));
        let put = match body {
            Some(body) => put.item("body", body),
            None => put,
        };
        put.send().await.unwrap();
    }
    table.stop().await.unwrap();
}

async fn put_npm_events(folder: &TempDir, file: &str) {
    let items: Vec<_> = NPM_EVENTS.iter().map(|(key, body)| (*key, Some(*body))).collect();
    put_items(folder, file, &items).await;
}

async fn tool_with(folder: &TempDir, arguments: &[&str]) -> Output {
    let mut command = tool(folder);
    command.args(arguments);
    run(command).await
}

#[tokio::test]
async fn export_of_both_writers_is_byte_exact_in_time_order() {
    let folder = folder();
    put_npm_events(&folder, "t.sqlite").await;
    let lines: String = (0..300).map(|number| format!("{{ \"number\": {number} }}\n")).collect();
    write(&folder, "events.ndjson", &lines);
    assert_success(&tool_with(&folder, &["put", "events.ndjson", "--local", "t.sqlite"]).await);

    let export = ["export", "--local", "t.sqlite", "--sorted"];
    let exported = tool_with(&folder, &export).await;
    assert_success(&exported);
    let npm: String = NPM_EVENTS.iter().map(|(_, body)| format!("{body}\n")).collect();
    assert_eq!(stdout(&exported), format!("{npm}{lines}"));
    assert!(stderr(&exported).contains("304 items"), "{}", stderr(&exported));

    // Another table with this export has the same bodies in the same order.
    write(&folder, "export.ndjson", stdout(&exported));
    assert_success(&tool_with(&folder, &["put", "export.ndjson", "--local", "u.sqlite"]).await);
    let again = tool_with(&folder, &["export", "--local", "u.sqlite", "--sorted", "-q"]).await;
    assert_success(&again);
    assert_eq!(stdout(&again), stdout(&exported));
    assert_eq!(stderr(&again), "");

    let day = [&export[..], &["--to", "2013-09-27T00:52:40.653Z"]].concat();
    let exported = tool_with(&folder, &day).await;
    assert_eq!(stdout(&exported).lines().count(), 2);
    let day = [&export[..], &["--from", "2013-09-28"]].concat();
    assert_eq!(stdout(&tool_with(&folder, &day).await), lines);
}

#[tokio::test]
async fn exported_keys_are_resumed_under_the_same_keys() {
    let folder = folder();
    put_npm_events(&folder, "t.sqlite").await;
    put_items(&folder, "t.sqlite", &[("20260101T000000000000000001", Some("[1,\n2]"))]).await;

    let bodies = tool_with(&folder, &["export", "--local", "t.sqlite", "-q"]).await;
    assert_eq!(bodies.status.code(), Some(1));
    assert_eq!(stdout(&bodies).lines().count(), 4);
    let named = "key 20260101T000000000000000001: not exported, because its body has a line break";
    assert!(stderr(&bodies).contains(named), "{}", stderr(&bodies));
    assert!(stderr(&bodies).contains("1 item was not exported"), "{}", stderr(&bodies));

    let export = ["export", "--local", "t.sqlite", "--sorted", "--with-keys", "-o", "keys.ndjson"];
    assert_success(&tool_with(&folder, &export).await);
    let lines = lines_of(&folder, "keys.ndjson");
    assert_eq!(lines[0]["key"], NPM_EVENTS[0].0);
    assert_eq!(lines[0]["time"], "2013-09-27T00:52:40.652Z");
    assert_eq!(lines[4]["body"], "[1,\n2]");
    let resume = ["resume", "keys.ndjson", "--local", "u.sqlite"];
    assert_success(&tool_with(&folder, &resume).await);
    let mut tables = Vec::new();
    for file in ["t.sqlite", "u.sqlite"] {
        let table = LocalTable::open(folder.path().join(file)).await.unwrap();
        tables.push(rows(table.client(), table.name()).await);
        table.stop().await.unwrap();
    }
    assert_eq!(tables[0], tables[1]);
}

#[tokio::test]
async fn items_that_are_no_events_are_named() {
    let folder = folder();
    put_npm_events(&folder, "t.sqlite").await;
    let key = "20260101T000000000000000001";
    let items = [("settings", Some("{}")), (key, Some("{foo}")), (&key[..26], None)];
    put_items(&folder, "t.sqlite", &items).await;
    for arguments in [&["--sorted"][..], &["--with-keys"]] {
        let arguments = [&["export", "--local", "t.sqlite"], arguments].concat();
        let exported = tool_with(&folder, &arguments).await;
        assert_eq!(exported.status.code(), Some(1));
        assert_eq!(stdout(&exported).lines().count(), 4);
        let errors = stderr(&exported);
        for named in [
            "key settings: not exported, because its key is not an event key",
            "key 20260101T000000000000000001: not exported, because its body is not JSON",
            "key 20260101T00000000000000000: not exported, because it has no attribute `body`",
            "3 items were not exported",
        ] {
            assert!(errors.contains(named), "{errors}");
        }
        assert!(!errors.contains("{foo}"), "{errors}");
    }
}

#[tokio::test]
async fn existing_file_is_not_overwritten() {
    let folder = folder();
    put_npm_events(&folder, "t.sqlite").await;
    let export = ["export", "--local", "t.sqlite", "-o", "out.ndjson"];
    assert_success(&tool_with(&folder, &export).await);
    let written = std::fs::read_to_string(folder.path().join("out.ndjson")).unwrap();
    assert_eq!(written.lines().count(), 4);
    write(&folder, "out.ndjson", "precious");
    let refused = tool_with(&folder, &export).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("out.ndjson exists"), "{}", stderr(&refused));
    let kept = std::fs::read_to_string(folder.path().join("out.ndjson")).unwrap();
    assert_eq!(kept, "precious");
}

#[cfg(unix)]
#[tokio::test]
async fn closed_pipe_ends_an_export_quietly() {
    let folder = folder();
    // Several times what a pipe and the tool hold.
    let text = "x".repeat(2_000);
    let lines: String = (0..500).map(|_| format!("\"{text}\"\n")).collect();
    write(&folder, "events.ndjson", &lines);
    assert_success(&tool_with(&folder, &["put", "events.ndjson", "--local", "t.sqlite"]).await);
    let like = tool(&folder);
    let export = format!(
        "({} export --local t.sqlite -q; echo $? >status) | head -n 1",
        like.get_program().to_str().unwrap()
    );
    let mut shell = support::tool::shell(&like, &export);
    shell.env("PATH", "/usr/bin:/bin");
    let exported = run(shell).await;
    assert_eq!(stdout(&exported).lines().count(), 1);
    assert_eq!(stderr(&exported), "");
    assert_eq!(std::fs::read_to_string(folder.path().join("status")).unwrap(), "0\n");
}

#[tokio::test]
async fn scan_that_fails_leaves_the_partial_file() {
    let folder = folder();
    let refusal = ScanReply::Error { status: 400, code: "AccessDeniedException" };
    let endpoint = Endpoint::start(Script::of([]).scanning(refusal)).await;
    let mut export = tool_for(&folder, &endpoint.url());
    export.args(["export", "--table", TABLE, "-o", "out.ndjson"]);
    let failed = run(export).await;
    assert_eq!(failed.status.code(), Some(1));
    let errors = stderr(&failed);
    assert!(errors.contains("grant dynamodb:Scan"), "{errors}");
    assert!(errors.contains("out.ndjson.partial has the 0 events"), "{errors}");
    assert!(!folder.path().join("out.ndjson").exists());
}

#[tokio::test]
async fn cost_of_a_large_scan_is_said_before_it() {
    let folder = folder();
    let large = Described::Sized { items: 50_000_000, bytes: 10_000_000_000 };
    let endpoint = Endpoint::start(Script::of([]).describing(large)).await;
    for (command, quiet) in [("export", false), ("count", false), ("count", true)] {
        let mut command_line = tool_for(&folder, &endpoint.url());
        command_line.args([command, "--table", TABLE]);
        if quiet {
            command_line.arg("--quiet");
        }
        let output = run(command_line).await;
        assert_success(&output);
        let notes = stderr(&output);
        let said = notes.contains("50,000,000 items, 9.31 GiB, 1,220,704 read units")
            && notes.contains("ExportTableToPointInTime");
        assert_eq!(said, !quiet, "{notes}");
    }
}

/// Runs a command on a terminal, at which this is typed. Returns its exit code, and what the terminal shows.
#[cfg(target_os = "linux")]
fn run_on_terminal(mut command: Command, typed: &[u8]) -> (Option<i32>, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let inside = File::options().read(true).write(true).open(name).unwrap();
    let mut terminal = File::from(terminal);
    terminal.write_all(typed).unwrap();
    command.stdin(inside.try_clone().unwrap()).stderr(inside).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    // It has the last handles of the terminal in this process, and until they are closed nothing ends.
    drop(command);
    let mut shown = Vec::new();
    // The kernel ends it with an error.
    let _ = terminal.read_to_end(&mut shown);
    (child.wait().unwrap().code(), String::from_utf8_lossy(&shown).into_owned())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn large_scan_on_a_terminal_waits_for_a_yes() {
    let folder = folder();
    let large = Described::Sized { items: 50_000_000, bytes: 10_000_000_000 };
    let endpoint = Endpoint::start(Script::of([]).describing(large)).await;
    // Byte 4 is Ctrl-D, the end of the input.
    for (command, typed, code) in [
        ("export", &b"y\n"[..], 0),
        ("export", b"n\n", 1),
        ("export", b"\n", 1),
        ("export", b"\x04", 1),
        ("count", b"yes\n", 0),
        ("count", b"\x04", 1),
    ] {
        let mut command_line = tool_for(&folder, &endpoint.url());
        command_line.args([command, "--table", TABLE]);
        let run = move || run_on_terminal(command_line, typed);
        let (exit_code, shown) = tokio::task::spawn_blocking(run).await.unwrap();
        assert_eq!(exit_code, Some(code), "{command} {typed:?}: {shown}");
        let question = "this takes 1,220,704 read units: read it? [y/N]";
        assert!(shown.contains(question), "{command} {typed:?}: {shown}");
    }
}

#[tokio::test]
async fn get_prints_bodies_and_names_missing_keys() {
    let folder = folder();
    put_npm_events(&folder, "t.sqlite").await;
    let (key, body) = NPM_EVENTS[1];
    let got = tool_with(&folder, &["get", key, NPM_EVENTS[3].0, "--local", "t.sqlite"]).await;
    assert_success(&got);
    assert_eq!(stdout(&got), format!("{body}\n{}\n", NPM_EVENTS[3].1));

    let missing = "20990101T000000000000000001";
    let got = tool_with(&folder, &["get", missing, key, "--local", "t.sqlite"]).await;
    assert_eq!(got.status.code(), Some(1));
    assert_eq!(stdout(&got), format!("{body}\n"));
    let named = format!("key {missing}: there is no event in the local table in t.sqlite");
    assert!(stderr(&got).contains(&named), "{}", stderr(&got));

    let got = tool_with(&folder, &["get", missing, key, "--local", "t.sqlite", "--json"]).await;
    assert_eq!(got.status.code(), Some(1));
    let lines: Vec<Value> =
        stdout(&got).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["body"], &lines[1]["body"]), (&Value::Null, &Value::from(body)));

    let got = tool_with(&folder, &["get", "yesterday", "--local", "t.sqlite"]).await;
    assert_eq!(got.status.code(), Some(2));
    let got = tool_with(&folder, &["get", key, "--local", "gone.sqlite"]).await;
    assert!(stderr(&got).contains("there is no local table in gone.sqlite"), "{}", stderr(&got));
    assert!(!folder.path().join("gone.sqlite").exists());
}

#[tokio::test]
async fn count_prints_the_number_of_items() {
    let folder = folder();
    put_npm_events(&folder, "t.sqlite").await;
    let counted = tool_with(&folder, &["count", "--local", "t.sqlite", "--quiet"]).await;
    assert_success(&counted);
    assert_eq!((stdout(&counted), stderr(&counted)), ("4\n", ""));
    let from = "2013-09-27T00:52:40.653Z";
    let counted =
        tool_with(&folder, &["count", "--local", "t.sqlite", "--json", "--from", from]).await;
    assert_success(&counted);
    assert_eq!(stdout(&counted), "{\"items\":2}\n");
}

/// A directory as ExportTableToPointInTime writes it, with these lines in two files and an empty one.
fn write_export(folder: &TempDir, lines: [&[String]; 2]) {
    let data = folder.path().join("export/data");
    std::fs::create_dir_all(&data).unwrap();
    let mut manifest = String::new();
    for (name, lines) in [("aaaa", lines[0]), ("bbbb", lines[1]), ("empty", &[])] {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        for line in lines {
            writeln!(encoder, "{line}").unwrap();
        }
        let name = format!("{name}.json.gz");
        std::fs::write(data.join(&name), encoder.finish().unwrap()).unwrap();
        // The line of the service's documentation.
        manifest += &format!(
            r#"{{"itemCount":{},"md5Checksum":"sQMSpEILNgoQmarvDFonGQ==","etag":"af83d6f217c19b8b0fff8023d8ca4716-1","dataFileS3Key":"2020-Nov/AWSDynamoDB/01693685827463-2d8752fd/data/{name}"}}"#,
            lines.len()
        );
        manifest.push('\n');
    }
    std::fs::write(data.join("none.json.gz"), "").unwrap();
    manifest += r#"{"itemCount":0,"md5Checksum":"1B2M2Y8AsgTpgAmY7PhCfg==","etag":"","dataFileS3Key":"AWSDynamoDB/01693685827463-2d8752fd/data/none.json.gz"}"#;
    write(folder, "export/manifest-files.json", manifest);
    write(
        folder,
        "export/manifest-summary.json",
        r#"{"version":"2020-06-30","exportType":"FULL_EXPORT","outputFormat":"DYNAMODB_JSON","itemCount":4}"#,
    );
}

fn exported_item(key: &str, body: &str) -> String {
    serde_json::json!({ "Item": { "body": { "S": body }, "key": { "S": key } } }).to_string()
}

#[test]
fn files_of_a_table_export_are_exported() {
    let folder = folder();
    let items = NPM_EVENTS.map(|(key, body)| exported_item(key, body));
    write_export(&folder, [&items[2..], &items[..2]]);
    let export = ["export", "--from-export", "export"];
    let exported = tool(&folder).args(export).output().unwrap();
    assert_success(&exported);
    let bodies = [2, 3, 0, 1].map(|number| format!("{}\n", NPM_EVENTS[number].1)).concat();
    assert_eq!(stdout(&exported), bodies);
    assert!(stderr(&exported).starts_with("reading export: 4 items in 4 files\n"), "{exported:?}");
    let to = "2013-09-27T00:52:40.653Z";
    let exported = tool(&folder).args(export).args(["--to", to, "-q"]).output().unwrap();
    assert_success(&exported);
    let bodies = [0, 1].map(|number| format!("{}\n", NPM_EVENTS[number].1)).concat();
    assert_eq!((stdout(&exported), stderr(&exported)), (bodies.as_str(), ""));
    let exported = tool(&folder)
        .args(export)
        .args(["--from", to, "--with-keys", "-o", "keys.ndjson"])
        .output()
        .unwrap();
    assert_success(&exported);
    let lines = lines_of(&folder, "keys.ndjson");
    assert_eq!(
        (lines.len(), &lines[0]["key"], &lines[0]["body"]),
        (2, &NPM_EVENTS[2].0.into(), &"null".into())
    );
}

#[test]
fn items_of_an_export_that_are_no_events_are_named() {
    let folder = folder();
    let key = "20260101T000000000000000001";
    let others = [
        r#"{"Item":{"key":{"S":"settings"},"body":{"M":{"a":{"N":"1"}}}}}"#.to_owned(),
        exported_item(key, "{foo}"),
        format!(r#"{{"Item":{{"key":{{"S":"{key}"}},"body":{{"S":"1"}},"expires":{{"N":"1"}}}}}}"#),
    ];
    write_export(&folder, [&others, &[exported_item(key, "[1]")]]);
    let exported = tool(&folder).args(["export", "--from-export", "export"]).output().unwrap();
    assert_eq!((exported.status.code(), stdout(&exported)), (Some(1), "[1]\n"));
    for named in [
        "key settings: not exported, because its key is not an event key",
        "key 20260101T000000000000000001: not exported, because its body is not JSON",
        "it has other attributes than `key` and `body`: expires",
        "3 items were not exported",
    ] {
        assert!(stderr(&exported).contains(named), "{named}: {exported:?}");
    }
}

#[test]
fn prepared_files_are_exported_in_the_order_of_their_keys() {
    let folder = folder();
    let lines: String = (0..2_000)
        .map(|number| format!("{{\"number\":{number},\"text\":\"{}\"}}\n", "é".repeat(400)))
        .collect();
    write(&folder, "events.ndjson", &lines);
    let prepare = ["prepare", "events.ndjson", "-o", "out", "--shard-size", "1"];
    assert_success(&tool(&folder).args(prepare).output().unwrap());
    let exported = tool(&folder).args(["export", "--from-export", "out"]).output().unwrap();
    assert_success(&exported);
    assert_eq!(stdout(&exported), lines);
    assert!(stderr(&exported).starts_with("reading out: 2,000 items in 2 files\n"), "{exported:?}");
}

#[test]
fn export_that_is_not_complete_is_an_error() {
    let export = |folder: &TempDir| {
        let export = ["export", "--from-export", "export", "-o", "out.ndjson"];
        let exported = tool(folder).args(export).output().unwrap();
        assert_eq!(exported.status.code(), Some(1), "{exported:?}");
        assert!(!folder.path().join("out.ndjson").exists());
        stderr(&exported).to_owned()
    };
    let item = exported_item(NPM_EVENTS[0].0, "1");
    let path = |folder: &TempDir| folder.path().join("export/data/bbbb.json.gz");
    let fresh = || {
        let folder = folder();
        write_export(&folder, [std::slice::from_ref(&item), std::slice::from_ref(&item)]);
        folder
    };
    let folder = fresh();
    std::fs::remove_file(path(&folder)).unwrap();
    let errors = export(&folder);
    assert!(errors.contains("cannot read export/data/bbbb.json.gz: "), "{errors}");
    assert!(errors.contains("out.ndjson.partial has the 1 events"), "{errors}");

    let folder = fresh();
    let whole = std::fs::read(path(&folder)).unwrap();
    std::fs::write(path(&folder), &whole[..whole.len() - 12]).unwrap();
    assert!(export(&folder).contains("cannot read export/data/bbbb.json.gz after line "));

    let folder = fresh();
    std::fs::write(path(&folder), "").unwrap();
    assert!(
        export(&folder).contains("bbbb.json.gz has 0 items, and the manifest says 1: copy the")
    );

    let folder = self::folder();
    write_export(&folder, [&[item.clone(), "{}".to_owned()], &[]]);
    assert!(export(&folder).contains("export/data/aaaa.json.gz:2: not an item in DynamoDB JSON"));

    for (name, text, message) in [
        (
            "manifest-summary.json",
            r#"{"outputFormat":"ION"}"#,
            "of the kind ION: export the table again as DYNAMODB_JSON",
        ),
        ("manifest-summary.json", r#"{"exportType":"INCREMENTAL_EXPORT"}"#, "again as FULL_EXPORT"),
        ("manifest-files.json", "{}", "export/manifest-files.json:1: missing field"),
        ("manifest.json", "{}", "is not a manifest that `prepare` has written"),
    ] {
        let folder = fresh();
        write(&folder, &format!("export/{name}"), text);
        let errors = export(&folder);
        assert!(errors.contains(message), "{errors}");
    }
    let folder = fresh();
    std::fs::remove_file(folder.path().join("export/manifest-files.json")).unwrap();
    assert!(export(&folder).contains("export has neither manifest.json nor manifest-files.json"));
    let range = ["--from", "2026-02-01", "--to", "2026-02-01"];
    let empty =
        tool(&folder).args(["export", "--from-export", "export"]).args(range).output().unwrap();
    assert!(stderr(&empty).contains("--from must be before --to"), "{empty:?}");
}

#[test]
fn files_of_a_table_export_are_sorted_in_little_memory() {
    let folder = folder();
    // Several times what fits into the memory, in the order of a hash.
    let events = 30_000_u64;
    let line = |place: u64| {
        let number = place * 7_919 % events;
        let body = format!(r#"{{"number":{number},"text":"{}"}}"#, "x".repeat(500));
        exported_item(&format!("20260101T000000{:03}{number:09}", number / 100), &body)
    };
    let items: Vec<String> = (0..events).map(line).collect();
    write_export(&folder, [&items[..20_000], &items[20_000..]]);
    let export = ["export", "--from-export", "export", "--sorted", "--memory", "4"];
    let export = [&export[..], &["--temp-dir", "temporary"]].concat();
    let missing = tool(&folder).args(&export).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("in temporary could not be created"), "{missing:?}");
    std::fs::create_dir(folder.path().join("temporary")).unwrap();
    let range = ["--from", "2026-01-01T00:00:00.010Z", "--to", "2026-01-01T00:00:00.200Z"];
    for (arguments, expected) in [(&[][..], 0..events), (&range[..], 1_000..20_000)] {
        let exported = tool(&folder).args(&export).args(arguments).output().unwrap();
        assert_success(&exported);
        let numbers = stdout(&exported).lines().map(|line| {
            let body: Value = serde_json::from_str(line).unwrap();
            body["number"].as_u64().unwrap()
        });
        assert!(numbers.eq(expected), "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("temporary")).unwrap().count(), 0);
}
