//! The memory of the process that exports a large table, sorted. It is read from `/proc`.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::Stdio;

use support::clock;
use support::tool::{assert_success, folder, tool};
use tempfile::TempDir;

/// `--memory`. The events are several times as large.
const MEMORY_MIB: u64 = 16;

/// What the process takes besides: the program itself, pages on their way, and the embedded table, which a table of AWS
/// does not need.
const OTHERS_MIB: u64 = 84;

fn line(number: u64) -> String {
    let user = number * 7_919 % 100_000;
    format!(r#"{{"number":{number},"user":"user-{user:05}","text":"{}"}}"#, "x".repeat(100))
}

fn put(folder: &TempDir, file: &str, table: &str) {
    let put = ["put", file, "--local", table, "--quiet"];
    assert_success(&tool(folder).args(put).output().unwrap());
}

/// Exports the table sorted into a file, compares it with what was put, and returns the peak memory of the process.
fn export(folder: &TempDir, table: &str, file: &str, events: u64) -> u64 {
    let memory = MEMORY_MIB.to_string();
    let export = ["export", "--local", table, "--sorted", "--memory", &memory, "--quiet"];
    let mut child = tool(folder).args(export).stdout(Stdio::piped()).spawn().unwrap();
    let mut copy = BufWriter::new(File::create(folder.path().join(file)).unwrap());
    let (mut lines, mut peak) = (0, 0);
    for exported in BufReader::new(child.stdout.take().unwrap()).lines() {
        let exported = exported.unwrap();
        assert_eq!(exported, line(lines));
        writeln!(copy, "{exported}").unwrap();
        // The process waits for this reader, so that it is still there.
        if lines % 10_000 == 0 {
            peak = peak.max(peak_kib(child.id()));
        }
        lines += 1;
    }
    copy.flush().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(lines, events);
    peak
}

/// The peak of the memory that the process had in use at once.
fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    peak.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "takes many minutes: cargo test --release --all-features --test cli_export_memory -- --ignored --nocapture"]
fn million_events_are_exported_sorted_in_bounded_memory() {
    let events = std::env::var("EXPORT_EVENTS").map_or(1_000_000, |events| events.parse().unwrap());
    let folder = folder();
    let mut input = BufWriter::new(File::create(folder.path().join("events.ndjson")).unwrap());
    for number in 0..events {
        writeln!(input, "{}", line(number)).unwrap();
    }
    input.into_inner().unwrap();
    for (input, table, copy) in
        [("events.ndjson", "t.sqlite", "t.ndjson"), ("t.ndjson", "u.sqlite", "u.ndjson")]
    {
        put(&folder, input, table);
        let start = clock::now();
        let peak = export(&folder, table, copy, events);
        let seconds = (clock::now() - start).as_secs_f64();
        println!("{events} events exported, sorted, with a peak of {peak} KiB in {seconds:.0} s");
        assert!(peak <= (MEMORY_MIB + OTHERS_MIB) * 1024, "{peak} KiB");
    }
}
