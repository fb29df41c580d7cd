//! Rules of the architecture that the compiler does not check.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use dynamodb_eventstore::{
    Attempt, BatchError, BatchReading, BatchReceipt, CloseReport, Event, EventKey,
    EventKeyGenerator, EventStore, EventStoreBuilder, FlushReport, LeaseError, LeasedWriterIds,
    PutAllReport, PutAllTicket, PutError, PutTicket, SdkBatchWriter, SinkError, StartError, Stats,
    Stored, Table, TableError, WriteError, WriterIds,
};
#[cfg(feature = "reader")]
use dynamodb_eventstore::{
    EventReader, EventReaderBuilder, ItemLineError, ItemSorter, ReadError, ReadPosition,
    ReadProgress, ScannedItem,
};
#[cfg(feature = "tail")]
use dynamodb_eventstore::{
    EventTail, EventTailBuilder, RecordLoss, TailError, TailPosition, TailRecord,
};

/// Words that must not occur in a policy: runtimes, networks, files, clocks and randomness.
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

/// The code of a source, without its tests and comments.
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
fn batch_write_item_is_called_in_one_file() {
    let naming: Vec<PathBuf> = sources("src")
        .into_iter()
        .filter(|(_, source)| code(source).any(|line| line.contains(".batch_write_item()")))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(naming.len(), 1, "{naming:?}");
    assert!(naming[0].ends_with("src/dynamodb/client.rs"), "{naming:?}");
}

#[test]
fn worker_imports_no_sdk_and_dynamodb_no_tickets() {
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
            if path.ends_with("store/mod.rs") {
                assert!(!line.contains("policy"), "{shown}: {line}");
            }
            if is_in(&path, "cli") {
                assert!(!line.contains("include!") && !line.contains("#[path"), "{shown}: {line}");
            }
        }
    }
}

/// The modules at the top of `src`, in the order in which an event passes them, and those that each may use.
const MODULES: [(&str, &[&str]); 27] = [
    ("clock", &[]),
    ("sync", &[]),
    ("write_capacity", &[]),
    ("write_mode", &[]),
    ("event", &[]),
    ("error", &["event"]),
    ("report", &["error"]),
    ("stats", &["error"]),
    ("settled", &["error", "event"]),
    ("fresh_random", &[]),
    ("key_source", &["clock", "event", "fresh_random"]),
    ("lease", &["event"]),
    ("flow_control", &["sync"]),
    ("journal", &["clock", "error", "event"]),
    ("metrics", &["error", "stats"]),
    ("accounting", &["error", "flow_control", "journal", "metrics", "settled", "stats"]),
    ("policy", &["error", "event", "lease", "report", "write_mode"]),
    ("pending", &["accounting", "error", "event", "flow_control", "journal", "policy", "settled"]),
    ("dynamodb", &["clock", "error", "event", "lease", "write_mode"]),
    // `event` is for the simulation.
    (
        "lease_keeper",
        &["clock", "dynamodb", "error", "event", "fresh_random", "key_source", "lease", "policy"],
    ),
    (
        "worker",
        &[
            "accounting",
            "clock",
            "dynamodb",
            "error",
            "event",
            "key_source",
            "pending",
            "policy",
            "report",
            "stats",
            "write_mode",
        ],
    ),
    (
        "store",
        &[
            "accounting",
            "clock",
            "dynamodb",
            "error",
            "event",
            "flow_control",
            "fresh_random",
            "journal",
            "key_source",
            "lease_keeper",
            "metrics",
            "pending",
            "policy",
            "report",
            "settled",
            "stats",
            "worker",
            "write_mode",
        ],
    ),
    ("reader", &["clock", "dynamodb", "error", "event", "policy"]),
    ("tail", &["clock", "dynamodb", "error", "event", "policy"]),
    ("local", &["clock", "dynamodb", "event", "store", "write_capacity"]),
    (
        "test_util",
        &["clock", "dynamodb", "error", "event", "store", "write_capacity", "write_mode"],
    ),
    ("bench_internals", &["dynamodb", "error", "event", "policy", "write_mode"]),
];

/// The path of a source's module: `["dynamodb", "direct", "signer"]`.
fn module(path: &Path, root: &Path) -> Vec<String> {
    let path = path.strip_prefix(root).unwrap().with_extension("");
    let mut parts: Vec<String> =
        path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    parts.retain(|part| part != "mod" && part != "lib" && part != "main");
    parts
}

/// Those of `modules` that a source names in `use` items or paths.
fn used(source: &str, module: &[String], modules: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
    let shipped: String = code(source).map(|line| format!("{line}\n")).collect();
    let mut paths = Vec::new();
    for item in shipped.split(';') {
        if let Some((_, tree)) = item.split_once("use ") {
            expand(&tree.split_whitespace().collect::<String>(), &mut paths);
        }
    }
    let words = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    paths
        .extend(shipped.split(words).filter(|word| word.starts_with("crate::")).map(str::to_owned));
    let mut used = BTreeSet::new();
    for path in paths {
        let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
        let mut base = Vec::new();
        match parts.first().map(String::as_str) {
            Some("crate") => drop(parts.remove(0)),
            Some("super") => {
                base = module.to_vec();
                while parts.first().is_some_and(|part| part == "super") {
                    parts.remove(0);
                    base.pop();
                }
            }
            _ => base = module.to_vec(),
        }
        base.extend(parts);
        while !base.is_empty() && !modules.contains(&base) {
            base.pop();
        }
        if !base.is_empty() && base != module && !module.starts_with(&base) {
            used.insert(base);
        }
    }
    used
}

/// Writes `a::{b, c::{d, e}}` out as `a::b`, `a::c::d` and `a::c::e`.
fn expand(tree: &str, paths: &mut Vec<String>) {
    let Some((before, inner)) = tree.split_once('{') else {
        return paths.push(tree.to_owned());
    };
    let (mut depth, mut start) = (0, 0);
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    for (place, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if start < place {
                    expand(&format!("{before}{}", &inner[start..place]), paths);
                }
                start = place + 1;
            }
            _ => {}
        }
    }
}

/// The other modules of the crate that each module uses.
fn imports(root: &str, leaves_out: Option<&str>) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut sources = sources(root);
    sources.retain(|(path, _)| leaves_out.is_none_or(|folder| !is_in(path, folder)));
    let modules = sources.iter().map(|(path, _)| module(path, &folder)).collect();
    let imports = sources.iter().map(|(path, source)| {
        let module = module(path, &folder);
        let used = used(source, &module, &modules);
        (module, used)
    });
    imports.collect()
}

#[test]
fn module_imports_only_what_the_architecture_allows() {
    let allowed = BTreeMap::from(MODULES);
    let mut seen = BTreeSet::new();
    for (module, used) in imports("src", Some("cli")) {
        let Some(top) = module.first() else { continue };
        if top == "guide" {
            continue;
        }
        let may_use = allowed.get(top.as_str()).unwrap_or_else(|| panic!("`{top}` is not listed"));
        for used in used.iter().map(|used| used[0].as_str()).filter(|used| used != top) {
            assert!(may_use.contains(&used), "{} uses `{used}`", module.join("/"));
            seen.insert((top.clone(), used.to_owned()));
        }
    }
    for (module, may_use) in MODULES {
        for used in may_use {
            let pair = (module.to_owned(), (*used).to_owned());
            assert!(
                seen.contains(&pair),
                "`{module}` no longer uses `{used}`: remove it from the list"
            );
        }
    }
}

#[test]
fn modules_of_one_folder_have_no_import_cycle() {
    for (root, leaves_out) in [("src", Some("cli")), ("src/cli", None)] {
        let imports = imports(root, leaves_out);
        let folders: BTreeSet<&[String]> =
            imports.keys().filter(|module| !module.is_empty()).map(|m| &m[..m.len() - 1]).collect();
        for folder in folders {
            // For each module of the folder: the modules of the same folder that it or its submodules use.
            let mut siblings: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            let place = |module: &'_ Vec<String>| {
                (module.len() > folder.len() && module.starts_with(folder)).then_some(folder.len())
            };
            for (module, used) in &imports {
                let Some(at) = place(module) else { continue };
                let used = used.iter().filter_map(|used| Some(used[place(used)?].as_str()));
                let own = module[at].as_str();
                siblings.entry(own).or_default().extend(used.filter(|used| *used != own));
            }
            // Repeatedly removes modules that use none of those that are left.
            loop {
                let free: Vec<&str> = siblings
                    .iter()
                    .filter(|(_, used)| used.iter().all(|used| !siblings.contains_key(used)))
                    .map(|(module, _)| *module)
                    .collect();
                if free.is_empty() {
                    break;
                }
                for module in free {
                    siblings.remove(module);
                }
            }
            assert!(
                siblings.is_empty(),
                "an import cycle in {root}/{}: {siblings:?}",
                folder.join("/")
            );
        }
    }
}

#[test]
fn fault_table_rows_name_existing_tests() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/failures.md");
    let page = fs::read_to_string(page).unwrap();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---");
    let rows = page.lines().filter(is_row).filter(|line| !line.starts_with("| fault |"));
    let all = sources("tests").into_iter().chain(sources("src"));
    let tests: String = all.map(|(_, source)| source).collect();
    let mut backed = 0;
    for row in rows {
        let test = row.trim_end_matches([' ', '|']).rsplit_once("| ").unwrap().1;
        let test = test.trim_matches('`');
        assert!(
            tests.contains(&format!("fn {test}(")),
            "a row names the test `{test}`, which does not exist"
        );
        backed += 1;
    }
    assert!(backed >= 104, "the tables have lost rows");
}

#[test]
fn no_file_is_longer_than_four_hundred_lines() {
    for (path, source) in sources("src") {
        let lines = source.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= 400, "{} has {lines} lines before its tests", path.display());
    }
}

#[test]
fn public_types_are_send_and_sync() {
    fn holds<T: Send + Sync + 'static>() {}
    holds::<EventStore>();
    holds::<EventStoreBuilder>();
    holds::<PutTicket>();
    holds::<PutAllTicket<u8>>();
    holds::<PutAllReport<u8>>();
    holds::<SinkError>();
    holds::<Stored>();
    holds::<WriteError>();
    holds::<PutError>();
    holds::<StartError>();
    holds::<Event>();
    holds::<EventKey>();
    holds::<EventKeyGenerator>();
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
    holds::<WriterIds>();
    holds::<LeasedWriterIds>();
    holds::<LeaseError>();
    #[cfg(feature = "reader")]
    {
        holds::<EventReader>();
        holds::<EventReaderBuilder>();
        holds::<ItemLineError>();
        holds::<ItemSorter>();
        holds::<ReadError>();
        holds::<ReadPosition>();
        holds::<ReadProgress>();
        holds::<ScannedItem>();
    }
    #[cfg(feature = "tail")]
    {
        holds::<EventTail>();
        holds::<EventTailBuilder>();
        holds::<RecordLoss>();
        holds::<TailError>();
        holds::<TailPosition>();
        holds::<TailRecord>();
    }
}

#[test]
fn futures_are_send_for_every_event_type() {
    fn sent<T: Send>(_: &T) {}
    fn check(store: &EventStore) {
        // A `Cell` cannot be shared between threads. The future must not hold it.
        let event = std::cell::Cell::new(1);
        sent(&store.put(&event));
        sent(&store.put_json("1"));
        sent(&store.put_all([std::cell::Cell::new(1)]));
        sent(&store.sink::<std::cell::Cell<u8>>());
        sent(&store.flush());
        sent(&store.change_writer_id());
        sent(&store.close(std::time::Duration::ZERO));
        sent(&EventStore::builder().start());
    }
    let _ = check;
}
