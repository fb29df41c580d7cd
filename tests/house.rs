//! Rules of the house that the compiler does not know.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

use dynamodb_eventstore::{
    Attempt, BatchError, BatchReading, BatchReceipt, CloseReport, Event, EventKey, EventStore,
    EventStoreBuilder, FlushReport, PutError, PutTicket, SdkBatchWriter, StartError, Stats, Stored,
    Table, TableError, WriteError,
};

/// What a policy must not name: runtimes, networks, files, clocks and luck.
const IMPURE: [&str; 12] = [
    "tokio",
    "futures",
    "aws_",
    "hyper",
    "std::fs",
    "std::io",
    "std::net",
    "std::thread",
    "SystemTime",
    "Utc",
    "rand",
    "Instant::now",
];

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut sources = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources.extend(self::sources(path.to_str().unwrap()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            sources.push((path, source));
        }
    }
    sources
}

/// The part of a source that ships: without its tests and without its comments.
fn code(source: &str) -> impl Iterator<Item = &str> {
    let shipped = source.split_once("#[cfg(test)]").map_or(source, |(shipped, _)| shipped);
    shipped.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn is_in(path: &Path, folder: &str) -> bool {
    path.components().any(|part| part.as_os_str() == folder)
}

#[test]
fn policies_are_pure() {
    let policies = sources("src/policy");
    assert!(policies.len() >= 6, "the policies have moved");
    for (path, source) in policies {
        for line in code(&source) {
            for impure in IMPURE {
                assert!(!line.contains(impure), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn one_file_names_the_sdk_call_that_writes() {
    let naming: Vec<PathBuf> = sources("src")
        .into_iter()
        .filter(|(_, source)| code(source).any(|line| line.contains(".batch_write_item()")))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(naming.len(), 1, "{naming:?}");
    assert!(naming[0].ends_with("src/dynamodb/client.rs"), "{naming:?}");
}

#[test]
fn the_worker_does_not_know_the_sdk_and_the_edge_does_not_know_tickets() {
    let all = sources("src");
    for room in ["worker", "dynamodb", "cli"] {
        assert!(all.iter().any(|(path, _)| is_in(path, room)), "{room} has moved");
    }
    for (path, source) in all {
        let shown = path.display();
        for line in code(&source) {
            if is_in(&path, "worker") {
                assert!(!line.contains("aws_"), "{shown}: {line}");
            }
            if is_in(&path, "dynamodb") {
                assert!(!line.contains("ticket"), "{shown}: {line}");
                assert!(!line.contains("policy"), "{shown}: {line}");
            }
            if path.ends_with("store.rs") {
                assert!(!line.contains("policy"), "{shown}: {line}");
            }
            if is_in(&path, "cli") {
                assert!(!line.contains("include!") && !line.contains("#[path"), "{shown}: {line}");
            }
        }
    }
}

#[test]
fn every_row_of_the_fault_tables_names_a_test_that_is_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/failures.md");
    let page = fs::read_to_string(page).unwrap();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---");
    let rows = page.lines().filter(is_row).filter(|line| !line.starts_with("| fault |"));
    let tests: String = sources("tests").into_iter().map(|(_, source)| source).collect();
    let mut backed = 0;
    for row in rows {
        let test = row.trim_end_matches([' ', '|']).rsplit_once("| ").unwrap().1;
        let test = test.trim_matches('`');
        assert!(tests.contains(&format!("fn {test}(")), "`{test}` backs a row and is not there");
        backed += 1;
    }
    assert!(backed >= 39, "the tables are cut short");
}

#[test]
fn no_room_has_grown_too_large() {
    for (path, source) in sources("src") {
        let lines = source.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= 400, "{} has {lines} lines before its tests", path.display());
    }
}

#[test]
fn everything_public_can_be_sent_and_shared() {
    fn holds<T: Send + Sync + 'static>() {}
    holds::<EventStore>();
    holds::<EventStoreBuilder>();
    holds::<PutTicket>();
    holds::<Stored>();
    holds::<WriteError>();
    holds::<PutError>();
    holds::<StartError>();
    holds::<Event>();
    holds::<EventKey>();
    holds::<BatchError>();
    holds::<BatchReceipt>();
    holds::<BatchReading>();
    holds::<Attempt>();
    holds::<CloseReport>();
    holds::<FlushReport>();
    holds::<Stats>();
    holds::<SdkBatchWriter>();
    holds::<Table>();
    holds::<TableError>();
}

#[test]
fn futures_can_be_sent_whatever_the_event_is() {
    fn sent<T: Send>(_: &T) {}
    fn check(store: &EventStore) {
        // A `Cell` cannot be shared between threads; the future has nothing of it.
        let event = std::cell::Cell::new(1);
        sent(&store.put(&event));
        sent(&store.put_json("1"));
        sent(&store.flush());
        sent(&store.close(std::time::Duration::ZERO));
        sent(&EventStore::builder().start());
    }
    let _ = check;
}
