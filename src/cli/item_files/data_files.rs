//! The files of items that a directory holds: one that `prepare` has written, or `ExportTableToPointInTime`.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{DATA_DIRECTORY, Manifest};

/// One file of items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// Path within the directory.
    pub(crate) file: String,
    pub(crate) path: PathBuf,
    pub(crate) items: u64,
}

/// What is read of `manifest-summary.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportSummary {
    output_format: Option<String>,
    /// Exports from before there were incremental ones do not have it.
    export_type: Option<String>,
}

/// A line of `manifest-files.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExportFile {
    item_count: u64,
    data_file_s3_key: String,
}

/// The files of a directory, in the order of its manifest.
///
/// # Errors
///
/// It has no manifest: it is not such a directory, or not complete. Or its manifest cannot be read, or its files have
/// another form.
pub(crate) fn data_files(directory: &Path) -> Result<Vec<DataFile>, String> {
    if let Some(manifest) = Manifest::read(directory)? {
        let files = manifest.shards.into_iter().map(|shard| (shard.file, shard.totals.events));
        return Ok(files.map(|(file, items)| data_file(directory, file, items)).collect());
    }
    let path = directory.join("manifest-files.json");
    let Some(text) = read(&path)? else {
        return Err(format!(
            "{} has neither manifest.json nor manifest-files.json: name a directory that `prepare` has completed, or \
             the directory of one export, AWSDynamoDB/EXPORT-ID",
            directory.display()
        ));
    };
    check_form(directory)?;
    let mut files = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let line: ExportFile = serde_json::from_str(line)
            .map_err(|error| format!("{}:{number}: {error}", path.display()))?;
        // The key begins with the prefix of the export in its bucket, which a copy need not have.
        let name = line.data_file_s3_key.rsplit('/').next().unwrap_or_default();
        files.push(data_file(directory, format!("{DATA_DIRECTORY}/{name}"), line.item_count));
    }
    Ok(files)
}

fn data_file(directory: &Path, file: String, items: u64) -> DataFile {
    DataFile { path: directory.join(&file), file, items }
}

/// Refuses an export that is not a full one in DynamoDB JSON.
fn check_form(directory: &Path) -> Result<(), String> {
    let path = directory.join("manifest-summary.json");
    // It may be missing: everything else that is needed is in the other manifest.
    let Some(text) = read(&path)? else { return Ok(()) };
    let shown = path.display();
    let summary: ExportSummary =
        serde_json::from_str(&text).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let refused = |value: &str, wanted: &str| {
        format!(
            "{shown} says that the export is of the kind {value}: export the table again as {wanted}"
        )
    };
    match (summary.output_format.as_deref(), summary.export_type.as_deref()) {
        (Some(format), _) if format != "DYNAMODB_JSON" => Err(refused(format, "DYNAMODB_JSON")),
        (_, Some(kind)) if kind != "FULL_EXPORT" => Err(refused(kind, "FULL_EXPORT")),
        _ => Ok(()),
    }
}

/// The text of a file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_read(path, &error)),
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}
