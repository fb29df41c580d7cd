//! The values that are put.

use serde::Serialize;

/// The bytes of one remark in JSON, including its quotes and comma.
const REMARK_BYTES: usize = 25;

/// A value like a line of an application's log. One byte in ten is a quote, which is escaped in the
/// encoded body; in the real events of `examples/data` it is one in seven to fourteen.
#[derive(Debug, Serialize)]
pub(crate) struct Value {
    number: u64,
    kind: &'static str,
    visitor: &'static str,
    milliseconds: f64,
    returning: bool,
    remarks: Vec<String>,
}

impl Value {
    /// A value whose JSON text has `body_bytes` bytes.
    pub(crate) fn new(number: usize, body_bytes: usize) -> Self {
        let mut value = Self {
            number: 100_000 + number as u64,
            kind: "page.visited",
            visitor: "198.51.100.7",
            milliseconds: 12.5,
            returning: number.is_multiple_of(2),
            remarks: Vec::new(),
        };
        let empty = serde_json::to_string(&value).unwrap().len();
        // The first remark has no comma before it.
        let mut left = body_bytes - empty + 1;
        let mut words = "the quick brown fox jumps over the lazy dog; ".chars().cycle();
        while left > 0 {
            let taken = if left < 2 * REMARK_BYTES { left } else { REMARK_BYTES };
            value.remarks.push(words.by_ref().take(taken - 3).collect());
            left -= taken;
        }
        debug_assert_eq!(serde_json::to_string(&value).unwrap().len(), body_bytes);
        value
    }
}
