//! Files of items in DynamoDB JSON: what `ImportTable` and `StartBulkPutItems` read, and `ExportTableToPointInTime` writes.
//!
//! A directory of them has the shards in `data/`, and `manifest.json` beside it. An import takes every object below a
//! prefix as items, so the manifest must not be among them.

mod data_files;
mod hashed;
mod item_lines;
mod manifest;
mod shard_writer;

pub(crate) use data_files::{DataFile, data_files};
pub(crate) use hashed::sha256_of;
pub(crate) use item_lines::item_lines;
pub(crate) use manifest::{Manifest, Shard, Totals};
pub(crate) use shard_writer::ShardWriter;

/// Name of the directory with the shards.
pub(crate) const DATA_DIRECTORY: &str = "data";
