//! `prepare`, as its users run it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step fails the test")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Output;

use dynamodb_eventstore::EventKey;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use support::tool::{assert_success, example_data, folder, lines_of, stderr, stdout, tool, write};

fn tool_with(folder: &TempDir, arguments: &[&str]) -> Output {
    tool(folder).args(arguments).output().unwrap()
}

fn manifest(directory: &Path) -> Value {
    serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

fn unzipped(file: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// The lines of all shards, in the order of the manifest.
fn items(directory: &Path) -> Vec<Value> {
    let manifest = manifest(directory);
    let shards = manifest["shards"].as_array().unwrap();
    let text: String = shards
        .iter()
        .map(|shard| unzipped(&directory.join(shard["file"].as_str().unwrap())))
        .collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bodies(items: &[Value]) -> Vec<&str> {
    items.iter().map(|item| item["Item"]["body"]["S"].as_str().unwrap()).collect()
}

fn keys(items: &[Value]) -> Vec<EventKey> {
    items.iter().map(|item| item["Item"]["key"]["S"].as_str().unwrap().parse().unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn prepared_files_have_each_line_under_its_own_key() {
    let folder = folder();
    let data = ["wikipedia-edits.ndjson", "github-events.ndjson"].map(example_data);
    write(&folder, "edits.ndjson", &data[0]);
    write(&folder, "events.ndjson", &data[1]);
    let prepare = ["prepare", "edits.ndjson", "events.ndjson", "-o", "out", "--writer-id", "7"];
    let output = tool_with(&folder, &prepare);
    assert_success(&output);
    assert_eq!(stderr(&output), "");
    assert!(stdout(&output).starts_with("prepared 130 events, "), "{output:?}");

    let directory = folder.path().join("out");
    let items = items(&directory);
    let lines: Vec<&str> = data.iter().flat_map(|text| text.lines()).collect();
    assert_eq!(bodies(&items), lines);
    let keys = keys(&items);
    assert!(keys.is_sorted_by(|earlier, later| earlier < later));
    assert!(keys.iter().all(|key| &key.as_str()[18..23] == "00007"));
    for item in &items {
        let attributes = item["Item"].as_object().unwrap();
        assert_eq!((item.as_object().unwrap().len(), attributes.len()), (1, 2), "{item}");
    }
    let units: usize = lines.iter().map(|line| (34 + line.len()).div_ceil(1_024)).sum();
    let bytes: usize = lines.iter().map(|line| 34 + line.len()).sum();
    let totals = &manifest(&directory)["totals"];
    assert_eq!((&totals["events"], &totals["write_units"]), (&130.into(), &units.into()));
    assert_eq!(totals["item_bytes"], bytes);
}

#[test]
fn manifest_describes_each_shard() {
    let folder = folder();
    // Two of these lines fit into 1 MiB, and three do not.
    let lines: String =
        (0..5).map(|number| format!("\"{number}{}\"\n", "x".repeat(400_000))).collect();
    write(&folder, "large.ndjson", &lines);
    let prepare = ["prepare", "large.ndjson", "-o", "out", "--shard-size", "1"];
    assert_success(&tool_with(&folder, &prepare));
    let directory = folder.path().join("out");
    let manifest = manifest(&directory);
    assert_eq!(
        (&manifest["input_format"], &manifest["version"]),
        (&"DYNAMODB_JSON".into(), &1.into())
    );
    assert_eq!(manifest["input_compression_type"], "GZIP");
    let shards = manifest["shards"].as_array().unwrap();
    let events: Vec<u64> = shards.iter().map(|shard| shard["events"].as_u64().unwrap()).collect();
    assert_eq!(events, [2, 2, 1]);
    for shard in shards {
        let file = directory.join(shard["file"].as_str().unwrap());
        let bytes = fs::read(&file).unwrap();
        assert_eq!(shard["bytes"], bytes.len());
        assert_eq!(shard["sha256"], hex(&Sha256::digest(&bytes)));
        let text = unzipped(&file);
        assert_eq!(shard["uncompressed_bytes"], text.len());
        assert!(text.len() <= 1024 * 1024);
        let items: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(shard["first_key"], items[0]["Item"]["key"]["S"]);
        assert_eq!(shard["last_key"], items[items.len() - 1]["Item"]["key"]["S"]);
        assert_eq!(shard["write_units"], 391 * items.len());
    }
    // Nothing else is in the directory that is uploaded.
    assert_eq!(files_in(&directory.join("data")).len(), 3);
}

#[cfg(unix)]
#[test]
fn prepared_files_are_for_their_user_only() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    assert_success(&tool_with(&folder, &["prepare", "one.ndjson", "-o", "new/out"]));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = folder.path().join("new/out");
    assert_eq!((mode(&directory), mode(&directory.join("data"))), (0o700, 0o700));
    assert_eq!(mode(&directory.join("manifest.json")), 0o600);
    assert_eq!(mode(&directory.join("data/000001.json.gz")), 0o600);
}

#[test]
fn directory_that_is_not_empty_is_left_unchanged() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    fs::create_dir(folder.path().join("out")).unwrap();
    let prepare = ["prepare", "one.ndjson", "-o", "out"];
    assert_success(&tool_with(&folder, &prepare));
    let before = fs::read(folder.path().join("out/data/000001.json.gz")).unwrap();
    let refused = tool_with(&folder, &prepare);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("out is not empty: name a new"), "{refused:?}");
    assert_eq!(fs::read(folder.path().join("out/data/000001.json.gz")).unwrap(), before);
}

#[test]
fn lines_that_put_refuses_are_refused_with_the_same_reasons() {
    let folder = folder();
    let mut input =
        b"\xef\xbb\xbf{\"a\":1}\r\nnonsense\n\n  \n{\"b\":2}\n\xff\xfe\n{} {}\n[\n".to_vec();
    for bytes in [409_566, 409_567, 17_000_000] {
        input.extend(format!("\"{}\"\n", "x".repeat(bytes - 2)).bytes());
    }
    input.extend(b"null");
    write(&folder, "mixed.ndjson", input);
    let prepare = ["prepare", "mixed.ndjson", "-o", "out", "--failed", "refused.ndjson", "--json"];
    let prepared = tool_with(&folder, &prepare);
    assert_eq!(prepared.status.code(), Some(1));
    assert!(stderr(&prepared).contains("line 2: not JSON: "), "{prepared:?}");
    assert!(
        stderr(&prepared).contains("NOT PREPARED: 6 lines; see refused.ndjson"),
        "{prepared:?}"
    );
    let put = tool_with(&folder, &["put", "mixed.ndjson", "--failed", "failed.ndjson"]);
    assert_eq!(put.status.code(), Some(1));
    assert_eq!(lines_of(&folder, "refused.ndjson"), lines_of(&folder, "failed.ndjson"));

    let objects: Vec<Value> =
        stdout(&prepared).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((objects.len(), &objects[0]["line"]), (7, &2.into()));
    let summary = &objects[6]["summary"];
    assert_eq!((&summary["events"], &summary["refused"]), (&4.into(), &6.into()));
    assert_eq!((&summary["shards"], &summary["is_complete"]), (&1.into(), &false.into()));
    // The other lines are prepared, and the manifest says how many.
    let items = items(&folder.path().join("out"));
    let large = format!("\"{}\"", "x".repeat(409_564));
    assert_eq!(bodies(&items), ["{\"a\":1}", "{\"b\":2}", large.as_str(), "null"]);
}

#[test]
fn refused_line_of_one_of_several_files_names_its_file() {
    let folder = folder();
    write(&folder, "a.ndjson", "{}\n");
    write(&folder, "b.ndjson", "{}\nnonsense\n");
    let output = tool_with(&folder, &["prepare", "a.ndjson", "b.ndjson", "-o", "out"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = stderr(&output);
    assert!(errors.starts_with("line 2: not JSON: "), "{errors}");
    assert!(errors.contains("(in b.ndjson)\n"), "{errors}");
}

#[test]
fn run_that_cannot_read_all_files_leaves_no_manifest() {
    let folder = folder();
    write(&folder, "one.ndjson", "{}\n");
    let output = tool_with(&folder, &["prepare", "one.ndjson", "missing.ndjson", "-o", "out"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    let errors = stderr(&output);
    assert!(errors.contains("error: cannot read missing.ndjson: "), "{errors}");
    assert!(errors.contains("out is not complete, and has no manifest: delete it"), "{errors}");
    // What was written does not look like a complete shard.
    let directory = folder.path().join("out");
    assert_eq!(files_in(&directory), [directory.join("data")]);
    let partial = directory.join("data/000001.json.gz.partial");
    assert_eq!(files_in(&directory.join("data")), [partial]);
}

#[cfg(unix)]
#[test]
fn run_that_is_stopped_by_a_signal_leaves_no_manifest() {
    use std::process::Stdio;

    let folder = folder();
    let mut prepare = tool(&folder);
    prepare.args(["prepare", "-", "-o", "out", "--json"]).stdin(Stdio::piped());
    let mut child = prepare.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{}\n").unwrap();
    let partial = folder.path().join("out/data/000001.json.gz.partial");
    while !partial.exists() {
        std::thread::yield_now();
    }
    // The pipe stays open: the end of the input is not what ends the run.
    support::tool::send_signal(child.id(), "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    assert!(stderr(&output).starts_with("stopped by SIGTERM after line 1 of standard input\n"));
    assert!(!folder.path().join("out/manifest.json").exists());
    let summary: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(summary["summary"]["is_complete"], false);
    drop(input);
}

#[cfg(unix)]
#[test]
fn unwritable_file_ends_the_run_and_names_the_line() {
    use std::process::Stdio;

    let folder = folder();
    let mut prepare = tool(&folder);
    prepare.args(["prepare", "-o", "out"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = prepare.stdout(Stdio::piped()).spawn().unwrap();
    let data = folder.path().join("out/data");
    while !data.exists() {
        std::thread::yield_now();
    }
    // The directory goes away before the first line.
    fs::remove_dir(&data).unwrap();
    child.stdin.take().unwrap().write_all(b"{}\n{}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    let errors = stderr(&output);
    assert!(
        errors.starts_with("error: stopped after line 1 of standard input, because"),
        "{errors}"
    );
    assert!(errors.contains("cannot write out/data/000001.json.gz.partial: "), "{errors}");
    assert!(errors.contains("out is not complete, and has no manifest"), "{errors}");
}

#[test]
fn out_of_range_writer_id_is_refused_before_any_write() {
    let folder = folder();
    let output = tool_with(&folder, &["prepare", "-", "-o", "out", "--writer-id", "100000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--writer-id is 100000; it must be 0 to 99999"), "{output:?}");
    assert!(!folder.path().join("out").exists());
}

/// A directory `out` with two shards, of two events and of one.
fn prepared() -> TempDir {
    let folder = folder();
    let line = |letter: &str| format!("\"{}\"\n", letter.repeat(400_000));
    write(&folder, "large.ndjson", line("a") + &line("b") + &line("c"));
    assert_success(&tool_with(
        &folder,
        &["prepare", "large.ndjson", "-o", "out", "--shard-size", "1"],
    ));
    folder
}

const SHARD: &str = "data/000001.json.gz";

/// Replaces the lines of the first shard by what `change` makes of them, and its checksum and sizes in the manifest.
fn rewrite_shard(folder: &TempDir, change: impl FnOnce(&mut Vec<String>)) {
    let directory = folder.path().join("out");
    let mut lines: Vec<String> =
        unzipped(&directory.join(SHARD)).lines().map(str::to_owned).collect();
    change(&mut lines);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    encoder.write_all(text.as_bytes()).unwrap();
    let bytes = encoder.finish().unwrap();
    let mut manifest = manifest(&directory);
    manifest["shards"][0]["sha256"] = hex(&Sha256::digest(&bytes)).into();
    for (name, value) in [("bytes", bytes.len()), ("uncompressed_bytes", text.len())] {
        let old = manifest["shards"][0][name].as_u64().unwrap();
        let total = manifest["totals"][name].as_u64().unwrap();
        manifest["shards"][0][name] = value.into();
        manifest["totals"][name] = (total - old + value as u64).into();
    }
    fs::write(directory.join(SHARD), bytes).unwrap();
    fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
}

/// What `prepare --check` says of a directory that has defects.
fn defects(folder: &TempDir) -> String {
    let checked = tool_with(folder, &["prepare", "--check", "out"]);
    assert_eq!((checked.status.code(), stdout(&checked)), (Some(1), ""));
    assert!(stderr(&checked).contains("in out: do not import it"), "{checked:?}");
    stderr(&checked).to_owned()
}

#[test]
fn check_of_prepared_files_finds_no_defect() {
    let folder = prepared();
    let checked = tool_with(&folder, &["prepare", "--check", "out"]);
    assert_success(&checked);
    let expected = "checked 3 events in 2 files in out: checksums, counts, keys and sizes are as the manifest says\n";
    assert_eq!((stdout(&checked), stderr(&checked)), (expected, ""));
    rewrite_shard(&folder, |_| {});
    assert_success(&tool_with(&folder, &["prepare", "--check", "out"]));
    let checked = tool_with(&folder, &["prepare", "--check", "out", "--json"]);
    assert_success(&checked);
    let summary: Value = serde_json::from_str(stdout(&checked)).unwrap();
    let summary = &summary["summary"];
    assert_eq!((&summary["write_units"], &summary["defects"]), (&1_173.into(), &0.into()));
    // A directory without events is complete as well.
    write(&folder, "none.ndjson", "");
    assert_success(&tool_with(&folder, &["prepare", "none.ndjson", "-o", "none"]));
    assert_success(&tool_with(&folder, &["prepare", "--check", "none"]));
}

#[test]
fn check_names_a_file_that_was_changed() {
    let folder = prepared();
    let path = folder.path().join("out").join(SHARD);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let named = defects(&folder);
    assert!(named.contains("out/data/000001.json.gz: its SHA-256 is not that"), "{named}");
    assert!(named.contains("out/data/000001.json.gz:1: the file cannot be read after"), "{named}");
    fs::remove_file(&path).unwrap();
    let named = defects(&folder);
    assert!(named.contains("out/data/000001.json.gz: it cannot be read: "), "{named}");
    fs::write(&path, whole).unwrap();
    fs::write(path.with_extension("partial"), "").unwrap();
    let named = defects(&folder);
    assert!(named.contains("out/data/000001.json.partial: it is not in the manifest"), "{named}");
    assert!(named.contains("FAILED: 1 defect in out"), "{named}");
}

#[test]
fn check_names_the_line_of_each_defect() {
    let large = "x".repeat(409_567);
    let key = "20260101T000000000000000001";
    let item = |body: &str| format!(r#"{{"Item":{{"key":{{"S":"{key}"}},"body":{body}}}}}"#);
    let late = |body: &str| item(body).replace("2026", "2999");
    for (line, defect) in [
        ("nonsense".to_owned(), "not an item in DynamoDB JSON"),
        (r#"{"Item":{"body":{"S":"1"}}}"#.to_owned(), "it has no attribute `key` of type String"),
        (late(r#"{"S":"{"}"#), "its body is not JSON"),
        (late(r#"{"N":"1"}"#), "its attribute `body` is not a String"),
        (
            late(r#"{"S":"1"},"more":{"BOOL":true}"#),
            "it has other attributes than `key` and `body`: more",
        ),
        (
            late(&format!(r#"{{"S":"\"{large}\""}}"#)),
            "the event is too large: its body has 409569 bytes",
        ),
        (item(r#"{"S":"1"}"#), "it is not greater than all keys before it"),
    ] {
        let folder = prepared();
        rewrite_shard(&folder, |lines| lines[1] = line.clone());
        let named = defects(&folder);
        let prefix = "out/data/000001.json.gz:2: ";
        let found = named.lines().find_map(|line| line.strip_prefix(prefix));
        assert!(found.is_some_and(|found| found.contains(defect)), "{defect}: {named}");
    }
}

#[test]
fn check_finds_repeated_keys_and_missing_lines() {
    let folder = prepared();
    rewrite_shard(&folder, |lines| lines[1] = lines[0].clone());
    assert!(defects(&folder).contains("000001.json.gz:2: key "), "{}", defects(&folder));
    assert!(defects(&folder).contains(": it occurs twice"), "{}", defects(&folder));

    let folder = prepared();
    rewrite_shard(&folder, |lines| drop(lines.pop()));
    let named = defects(&folder);
    assert!(named.contains("its first or last key is not that of the manifest"), "{named}");
    assert!(named.contains("it has 1 event, and the manifest says 2"), "{named}");

    // The same key in two files.
    let folder = prepared();
    let directory = folder.path().join("out");
    fs::copy(directory.join(SHARD), directory.join("data/000002.json.gz")).unwrap();
    let mut manifest = manifest(&directory);
    let shard = &mut manifest["shards"][0].clone();
    shard["file"] = "data/000002.json.gz".into();
    manifest["shards"][1] = shard.clone();
    fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    let named = defects(&folder);
    assert!(named.contains("000002.json.gz:1: key "), "{named}");
    assert!(named.contains("manifest.json: its totals are not the sums over its files"), "{named}");
}

#[test]
fn check_refuses_a_directory_without_a_manifest() {
    let folder = prepared();
    fs::remove_file(folder.path().join("out/manifest.json")).unwrap();
    let checked = tool_with(&folder, &["prepare", "--check", "out"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(stderr(&checked).contains("out has no manifest.json, so the run"), "{checked:?}");
    let both = tool_with(&folder, &["prepare", "--check", "out", "-o", "other"]);
    assert_eq!(both.status.code(), Some(2));
    let neither = tool_with(&folder, &["prepare", "large.ndjson"]);
    assert_eq!(neither.status.code(), Some(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any text is stored as it is: quotes, control characters and characters of four bytes.
    #[test]
    fn bodies_come_back_byte_for_byte(texts in prop::collection::vec(any::<String>(), 0..20)) {
        let folder = folder();
        let lines: Vec<String> =
            texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
        write(&folder, "texts.ndjson", lines.join("\n"));
        assert_success(&tool_with(&folder, &["prepare", "texts.ndjson", "-o", "out"]));
        assert_success(&tool_with(&folder, &["prepare", "--check", "out"]));
        let items = items(&folder.path().join("out"));
        prop_assert_eq!(bodies(&items), lines);
        prop_assert!(keys(&items).is_sorted_by(|earlier, later| earlier < later));
    }
}
