//! The JSON texts that every peer puts repeatedly.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::value::Value;

const BODIES: usize = 1_000;
const BODY_BYTES: usize = 200;

/// Writes the texts to a file, one a line.
pub(crate) fn write(file: &Path) {
    let lines = (0..BODIES).map(|number| {
        let value = Value::new(number, BODY_BYTES);
        serde_json::to_string(&value).unwrap() + "\n"
    });
    fs::write(file, lines.collect::<String>()).unwrap();
}

pub(crate) fn read(file: &Path) -> Arc<[String]> {
    fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}
