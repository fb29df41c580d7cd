//! `prepare --check`: reads back what `prepare` has written.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use dynamodb_eventstore::{Event, EventKey, ScannedItem};
use serde::Serialize;

use crate::input::Line;
use crate::item_files::{DATA_DIRECTORY, Manifest, Shard, Totals, item_lines, sha256_of};
use crate::output::json_lines::JsonLines;
use crate::output::{Output, count};

/// Defects that are printed to standard error. All are counted.
const MAX_PRINTED: u64 = 20;

/// The object that `--json` prints for a defect.
#[derive(Serialize)]
struct Defect<'a> {
    file: &'a str,
    line: Option<u64>,
    defect: &'a str,
}

/// The last object of `--json`.
#[derive(Serialize)]
struct SummaryObject {
    summary: Summary,
}

#[derive(Serialize)]
struct Summary {
    /// What was found.
    #[serde(flatten)]
    totals: Totals,
    shards: u64,
    defects: u64,
    is_complete: bool,
}

/// One run.
struct Check<'a> {
    directory: &'a Path,
    /// The greatest key so far. Keys increase from line to line and from file to file, so no key occurs twice.
    last_key: Option<EventKey>,
    defects: u64,
    json_lines: Option<JsonLines>,
    output: Output,
}

/// What was found in one file.
#[derive(Default)]
struct Found {
    totals: Totals,
    first_key: Option<EventKey>,
    last_key: Option<EventKey>,
    has_defects: bool,
}

/// Reads the directory, and names its defects.
pub(super) async fn run(
    directory: &Path,
    as_json: bool,
    output: Output,
) -> Result<ExitCode, String> {
    let shown = directory.display();
    let Some(manifest) = Manifest::read(directory)? else {
        return Err(format!(
            "{shown} has no manifest.json, so the run that wrote it has not ended: delete the directory, and prepare \
             all lines again"
        ));
    };
    let json_lines = as_json.then(JsonLines::default);
    let mut check = Check { directory, last_key: None, defects: 0, json_lines, output };
    if manifest.totals != manifest.sum_of_shards() {
        check.defect("manifest.json", None, "its totals are not the sums over its files");
    }
    check.look_for_other_files(&manifest);
    let mut totals = Totals::default();
    for shard in &manifest.shards {
        totals.add(&check.check_shard(shard).await);
    }
    Ok(check.report(&manifest, totals))
}

impl Check<'_> {
    /// An import reads every file in the data directory.
    fn look_for_other_files(&mut self, manifest: &Manifest) {
        let known: BTreeSet<&str> =
            manifest.shards.iter().map(|shard| shard.file.as_str()).collect();
        let entries = fs::read_dir(self.directory.join(DATA_DIRECTORY));
        let names = entries.and_then(|entries| {
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect::<std::io::Result<BTreeSet<String>>>()
        });
        match names {
            Ok(names) => {
                for file in names.iter().map(|name| format!("{DATA_DIRECTORY}/{name}")) {
                    if !known.contains(file.as_str()) {
                        let defect = "it is not in the manifest, but an import would read it";
                        self.defect(&file, None, defect);
                    }
                }
            }
            Err(error) => {
                self.defect(DATA_DIRECTORY, None, format_args!("it cannot be read: {error}"));
            }
        }
    }

    /// Checks one file, and returns what was found in it.
    async fn check_shard(&mut self, shard: &Shard) -> Totals {
        let file = shard.file.as_str();
        let path = self.directory.join(file);
        let hashed = sha256_of(&path).and_then(|hashed| Ok((hashed, item_lines(&path)?)));
        let ((sha256, bytes), mut lines) = match hashed {
            Ok(opened) => opened,
            Err(error) => {
                self.defect(file, None, format_args!("it cannot be read: {error}"));
                return Totals::default();
            }
        };
        if sha256 != shard.sha256 {
            self.defect(file, None, "its SHA-256 is not that of the manifest, so it was changed");
        }
        let mut found = Found::default();
        found.totals.bytes = bytes;
        let mut last_line = 0;
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) => {
                    last_line = line.number;
                    found.totals.uncompressed_bytes = line.end;
                    match self.check_line(&line) {
                        Ok(event) => found.add(&event),
                        Err(defect) => {
                            found.has_defects = true;
                            self.defect(file, Some(line.number), defect);
                        }
                    }
                }
                Err(error) => {
                    let defect = format!("the file cannot be read after this line: {error}");
                    self.defect(file, Some(last_line), defect);
                    return found.totals;
                }
            }
        }
        // Each line with a defect is named already, and is the reason of other totals.
        if !found.has_defects {
            self.compare(shard, &found);
        }
        found.totals
    }

    /// The event of the line, or its defect.
    fn check_line(&mut self, line: &Line) -> Result<Event, String> {
        if !line.is_whole() {
            return Err(format!("the line has {}, far too many", count(line.length, "byte")));
        }
        let item =
            ScannedItem::from_dynamodb_json(&line.text).map_err(|error| error.to_string())?;
        let stored = match item {
            ScannedItem::Event(stored) => stored,
            ScannedItem::Unexpected(item) => {
                return Err(format!("key {}: {}", item.key, item.defect));
            }
        };
        let key = stored.key;
        let event = Event::try_from(stored).map_err(|error| format!("key {key}: {error}"))?;
        let last_key = self.last_key.replace(key.max(self.last_key.unwrap_or(key)));
        match last_key {
            Some(last) if last == key => Err(format!("key {key}: it occurs twice")),
            Some(last) if last > key => Err(format!(
                "key {key}: it is not greater than all keys before it, which {last} is"
            )),
            _ => Ok(event),
        }
    }

    fn compare(&mut self, shard: &Shard, found: &Found) {
        let (first_key, last_key) = (Some(shard.first_key), Some(shard.last_key));
        if (found.first_key, found.last_key) != (first_key, last_key) {
            self.defect(&shard.file, None, "its first or last key is not that of the manifest");
        }
        let (said, is) = (&shard.totals, &found.totals);
        for (noun, said, is) in [
            ("event", said.events, is.events),
            ("byte", said.bytes, is.bytes),
            ("uncompressed byte", said.uncompressed_bytes, is.uncompressed_bytes),
            ("byte of items", said.item_bytes, is.item_bytes),
            ("write unit", said.write_units, is.write_units),
        ] {
            if said != is {
                let defect = format!("it has {}, and the manifest says {said}", count(is, noun));
                self.defect(&shard.file, None, defect);
            }
        }
    }

    fn defect(&mut self, file: &str, line: Option<u64>, defect: impl Display) {
        self.defects += 1;
        let defect = defect.to_string();
        if let Some(json_lines) = &mut self.json_lines {
            json_lines.print(&Defect { file, line, defect: &defect });
        }
        let path = self.directory.join(file);
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        match self.defects {
            ..=MAX_PRINTED => self.output.error(format_args!("{}{line}: {defect}", path.display())),
            defects if defects == MAX_PRINTED + 1 => {
                self.output.error("… and more: --json names all of them");
            }
            _ => {}
        }
    }

    /// Prints the report, and returns the exit code.
    fn report(mut self, manifest: &Manifest, totals: Totals) -> ExitCode {
        let shards = manifest.shards.len() as u64;
        let shown = self.directory.display();
        let is_complete = self.defects == 0;
        if let Some(json_lines) = &mut self.json_lines {
            let summary = Summary { totals, shards, defects: self.defects, is_complete };
            json_lines.print(&SummaryObject { summary });
        } else if is_complete {
            self.output.result(format_args!(
                "checked {} in {} in {shown}: checksums, counts, keys and sizes are as the manifest says",
                count(totals.events, "event"),
                count(shards, "file"),
            ));
        }
        if !is_complete {
            let defects = count(self.defects, "defect");
            self.output.error(format_args!(
                "FAILED: {defects} in {shown}: do not import it; delete the directory, and prepare all lines again"
            ));
        }
        let print_error = self.json_lines.as_ref().and_then(JsonLines::error);
        if let Some(error) = &print_error {
            self.output.error(format_args!("error: {error}"));
        }
        if is_complete && print_error.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Found {
    fn add(&mut self, event: &Event) {
        self.totals.add_event(event);
        self.first_key.get_or_insert_with(|| *event.key());
        self.last_key = Some(*event.key());
    }
}
