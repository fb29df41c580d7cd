//! `export --position`: exports that are stopped or killed, and go on.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::{Value, json};
use support::endpoint::{Endpoint, ScanReply, Script, TABLE};
use support::tool::{
    Condition, assert_success, folder, run, run_and_signal, send_signal, stderr, stdout, tool,
    tool_for, write,
};
use tempfile::TempDir;

const EXPORT: [&str; 5] = ["export", "--local", "t.sqlite", "--position", "position.json"];

/// So few that an export takes seconds, and that its pages are small.
const SLOWLY: [&str; 2] = ["--read-units", "300"];

/// A folder whose local table has this many events, and their sorted bodies.
fn table(events: usize, text_bytes: usize) -> (TempDir, Vec<String>) {
    let folder = folder();
    let text = "x".repeat(text_bytes);
    let mut lines: Vec<String> =
        (0..events).map(|number| format!(r#"{{"number":{number},"text":"{text}"}}"#)).collect();
    write(&folder, "events.ndjson", lines.join("\n"));
    let put = tool(&folder).args(["put", "events.ndjson", "--local", "t.sqlite"]).output().unwrap();
    assert_success(&put);
    lines.sort_unstable();
    (folder, lines)
}

fn export(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = tool(folder);
    command.args(EXPORT).args(arguments);
    command
}

fn exported(folder: &TempDir, arguments: &[&str]) -> Output {
    export(folder, arguments).output().unwrap()
}

fn path(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

fn length(folder: &TempDir, name: &str) -> u64 {
    fs::metadata(path(folder, name)).map_or(0, |metadata| metadata.len())
}

fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// The file `out.ndjson` has each event once, and nothing else is left.
fn assert_complete(folder: &TempDir, events: &[String]) {
    let exported = sorted_lines(&fs::read_to_string(path(folder, "out.ndjson")).unwrap());
    assert_eq!(exported.len(), events.len());
    assert!(exported == events, "the events are others");
    for name in ["out.ndjson.partial", "position.json", "position.json.new"] {
        assert!(!path(folder, name).exists(), "{name} is left");
    }
}

/// Stops an export into `out.ndjson` when some events are in it.
async fn stop_half_way(folder: &TempDir) -> Output {
    let command = export(folder, &[&SLOWLY[..], &["-o", "out.ndjson"]].concat());
    let partial = path(folder, "out.ndjson.partial");
    let has_events: Condition =
        Box::new(move || fs::metadata(&partial).is_ok_and(|metadata| metadata.len() > 100_000));
    let stopped = run_and_signal(command, [("INT", has_events)]).await;
    assert_eq!(stopped.status.code(), Some(130), "{stopped:?}");
    stopped
}

#[test]
fn killed_export_has_each_event_once_at_its_end() {
    let (folder, events) = table(20_000, 1_000);
    let to_file = ["-o", "out.ndjson"];
    let mut resumed = 0;
    for kill in 0..8 {
        let more = SysRng.try_next_u64().unwrap() % 4_000_000;
        println!("kill {kill} after {more} bytes");
        let start = length(&folder, "out.ndjson.partial");
        let position = || fs::read(path(&folder, "position.json")).unwrap_or_default();
        let before = position();
        let mut command = export(&folder, &to_file);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Every other process is killed at any moment. The others come to a new position before.
        let is_due = || {
            length(&folder, "out.ndjson.partial") >= start + more
                && (kill % 2 == 0 || position() != before)
        };
        while !is_due() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        let killed = child.wait_with_output().unwrap();
        resumed += usize::from(stderr(&killed).contains("going on after "));
        if killed.status.success() {
            break;
        }
    }
    assert!(resumed >= 3, "{resumed}");
    if !path(&folder, "out.ndjson").exists() {
        let last = exported(&folder, &to_file);
        assert_success(&last);
        assert!(stderr(&last).contains("exported 20,000 events, "), "{last:?}");
    }
    assert_complete(&folder, &events);
}

#[tokio::test]
async fn stopped_export_goes_on_after_its_last_event() {
    let (folder, events) = table(3_000, 2_000);
    let stopped = stop_half_way(&folder).await;
    let partial = fs::read_to_string(path(&folder, "out.ndjson.partial")).unwrap();
    let written = partial.lines().count();
    assert!((1..3_000).contains(&written), "{written}");
    let message = "; the same command goes on there";
    assert!(stderr(&stopped).contains("stopped by SIGINT after "), "{stopped:?}");
    assert!(stderr(&stopped).contains(message), "{stopped:?}");

    let last = exported(&folder, &["-o", "out.ndjson"]);
    assert_success(&last);
    assert!(stderr(&last).contains("going on after "), "{last:?}");
    let whole = fs::read_to_string(path(&folder, "out.ndjson")).unwrap();
    assert!(whole.starts_with(&partial), "the end of a page was read again");
    assert_complete(&folder, &events);
}

#[tokio::test]
async fn stopped_pipe_has_each_event_once_over_all_runs() {
    let (folder, events) = table(3_000, 2_000);
    let position = path(&folder, "position.json");
    let begun: Condition = Box::new(move || position.exists());
    let stopped = run_and_signal(export(&folder, &SLOWLY), [("TERM", begun)]).await;
    assert_eq!(stopped.status.code(), Some(143), "{stopped:?}");
    assert!(stdout(&stopped).lines().count() < 3_000);
    let last = exported(&folder, &[]);
    assert_success(&last);
    assert_eq!(sorted_lines(&[stdout(&stopped), stdout(&last)].concat()), events);
    assert!(!path(&folder, "position.json").exists());
}

#[test]
fn second_signal_ends_an_export_that_waits_for_a_pipe() {
    let (folder, _) = table(3_000, 2_000);
    let mut child =
        export(&folder, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A page is several times what a pipe holds, and no more of it is read.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let status = loop {
        send_signal(child.id(), "INT");
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(130));
    assert!(!stderr(&child.wait_with_output().unwrap()).contains("stopped by"));
}

#[tokio::test]
async fn position_of_another_export_is_refused() {
    let (folder, events) = table(3_000, 2_000);
    stop_half_way(&folder).await;
    fs::copy(path(&folder, "t.sqlite"), path(&folder, "u.sqlite")).unwrap();
    let saved = fs::read(path(&folder, "position.json")).unwrap();
    let partial = fs::read(path(&folder, "out.ndjson.partial")).unwrap();
    let refused = |arguments: &[&str], message: &str| {
        let refused = tool(&folder).args(arguments).output().unwrap();
        assert!(!refused.status.success(), "{refused:?}");
        assert!(stderr(&refused).contains(message), "{message}: {refused:?}");
        assert_eq!(fs::read(path(&folder, "position.json")).unwrap(), saved);
        assert_eq!(fs::read(path(&folder, "out.ndjson.partial")).unwrap(), partial);
    };
    let resume = [&EXPORT[..], &["-o", "out.ndjson"]].concat();
    let with = |arguments: &[&'static str]| [&resume[..], arguments].concat();
    refused(&with(&["--from", "2026-01-01"]), "an export from any time on: repeat its command");
    refused(&with(&["--to", "2026-01-01"]), "an export up to any time");
    refused(&with(&["--with-keys"]), "an export without --with-keys");
    refused(&with(&["--segments", "3"]), "--position is a position of other segments");
    refused(&with(&["--sorted"]), "cannot be used with '--sorted'");
    refused(&EXPORT, "an export to a file (--output)");
    let other = [&["export", "--local", "u.sqlite"], &resume[3..]].concat();
    refused(&other, "t.sqlite, not of the local table in ");
    let files = ["export", "--from-export", "out", "--position", "position.json"];
    refused(&files, "cannot be used with '--position");
    for name in ["out.ndjson", "out.ndjson.partial"] {
        let same = ["export", "--local", "t.sqlite", "-o", "out.ndjson", "--position", name];
        refused(&same, "--position is the file of --output");
    }
    let last = tool(&folder).args(resume).output().unwrap();
    assert_success(&last);
    assert_complete(&folder, &events);
}

#[tokio::test]
async fn output_that_does_not_fit_its_position_is_kept() {
    let (folder, events) = table(3_000, 2_000);
    stop_half_way(&folder).await;
    let partial = fs::read(path(&folder, "out.ndjson.partial")).unwrap();
    let refused = |message: &str| {
        let refused = exported(&folder, &["-o", "out.ndjson"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(message), "{refused:?}");
        assert!(stderr(&refused).contains("position.json says how far"), "{refused:?}");
    };
    fs::remove_file(path(&folder, "out.ndjson.partial")).unwrap();
    refused("out.ndjson.partial is missing");
    assert!(!path(&folder, "out.ndjson.partial").exists());
    let mut other = partial.clone();
    *other.iter_mut().rev().nth(10_000).unwrap() ^= 1;
    for other in [&other, &partial[..partial.len() - 1]] {
        write(&folder, "out.ndjson.partial", other);
        refused("out.ndjson.partial does not begin with the ");
        assert_eq!(fs::read(path(&folder, "out.ndjson.partial")).unwrap(), other);
    }
    // What a killed process wrote after its last position.
    write(&folder, "out.ndjson.partial", [&partial, &b"{\"number\":"[..]].concat());
    assert_success(&exported(&folder, &["-o", "out.ndjson"]));
    assert_complete(&folder, &events);

    write(&folder, "out.ndjson.partial", "precious");
    fs::remove_file(path(&folder, "out.ndjson")).unwrap();
    let refused = exported(&folder, &["-o", "out.ndjson"]);
    assert!(stderr(&refused).contains("out.ndjson.partial exists"), "{refused:?}");
    assert!(!path(&folder, "position.json").exists());
    assert_eq!(fs::read(path(&folder, "out.ndjson.partial")).unwrap(), b"precious");
}

#[test]
fn file_that_is_no_position_is_kept() {
    let (folder, _) = table(1, 1);
    for (text, message) in [
        ("", "position.json is not the position of an export"),
        ("{\"precious\":1}", "position.json is not the position of an export"),
        (r#"{"kind":"the position of an export","version":2}"#, "is of version 2"),
        (r#"{"kind":"the position of an export","version":1}"#, "is damaged: missing field"),
    ] {
        write(&folder, "position.json", text);
        let refused = exported(&folder, &["-o", "out.ndjson"]);
        assert_eq!((refused.status.code(), stdout(&refused)), (Some(1), ""));
        assert!(stderr(&refused).contains(message), "{refused:?}");
        assert_eq!(fs::read_to_string(path(&folder, "position.json")).unwrap(), text);
    }
}

#[test]
fn position_that_cannot_be_saved_ends_the_export() {
    let (folder, events) = table(1, 1);
    let export = ["export", "--local", "t.sqlite", "-o", "out.ndjson", "--position"];
    let refused = tool(&folder).args(export).arg("nowhere/position.json").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let errors = stderr(&refused);
    assert!(errors.contains("cannot save the position in nowhere/position.json: "), "{errors}");
    assert!(!errors.contains("goes on"), "{errors}");
    // The empty file that it has left is in nobody's way.
    assert_success(&exported(&folder, &["-o", "out.ndjson"]));
    assert_complete(&folder, &events);
}

#[tokio::test]
async fn export_that_was_killed_at_its_end_is_completed() {
    let (folder, events) = table(3_000, 2_000);
    stop_half_way(&folder).await;
    let mut position: Value =
        serde_json::from_slice(&fs::read(path(&folder, "position.json")).unwrap()).unwrap();
    assert_success(&exported(&folder, &["-o", "out.ndjson"]));
    let whole = fs::read(path(&folder, "out.ndjson")).unwrap();
    let crc32 = crc32fast::hash(&whole[whole.len() - 64 * 1024..]);
    position["checkpoint"] = json!({ "bytes": whole.len(), "crc32": crc32 });
    position["exported"] = json!({ "events": 3_000, "bytes": whole.len(), "left_out": 0 });
    position["read"]["segments"] = Value::from(vec!["end"; 8]);
    // With and without the complete file's name.
    for name in ["out.ndjson", "out.ndjson.partial"] {
        fs::rename(path(&folder, "out.ndjson"), path(&folder, "whole")).unwrap();
        fs::rename(path(&folder, "whole"), path(&folder, name)).unwrap();
        write(&folder, "position.json", position.to_string());
        let completed = exported(&folder, &["-o", "out.ndjson"]);
        assert_success(&completed);
        assert!(stderr(&completed).contains("exported 3,000 events, "), "{completed:?}");
        assert_complete(&folder, &events);
    }
}

#[tokio::test]
async fn export_goes_on_after_a_page_that_was_refused() {
    let folder = folder();
    let refusal = ScanReply::Error { status: 400, code: "AccessDeniedException" };
    let endpoint = Endpoint::start(Script::of([]).scanning(refusal)).await;
    let export = || {
        let mut export = tool_for(&folder, &endpoint.url());
        export.args(["export", "--table", TABLE, "--position", "position.json"]);
        export.args(["-o", "out.ndjson"]);
        run(export)
    };
    let failed = export().await;
    assert_eq!(failed.status.code(), Some(1));
    let message = "0 events were exported before; the same command goes on there";
    assert!(stderr(&failed).contains("grant dynamodb:Scan"), "{failed:?}");
    assert!(stderr(&failed).contains(message), "{failed:?}");
    endpoint.scan_from_now_on(ScanReply::Ok);
    assert_success(&export().await);
    assert_complete(&folder, &[]);
}
