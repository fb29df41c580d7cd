//! How much of this process is in memory, as Linux tells; elsewhere nothing is known, and nothing of
//! it checked.

use std::fs;

/// Beyond one and a half times the buffer. It is for
///
/// - the program itself, 20 MiB before the first put in a build for tests, 11 in an optimised one;
/// - the one call that passes the mark of what may be under way, up to 16 MB: the others, a quarter of
///   the buffer, are in the half;
/// - what the allocator keeps between events of very different sizes, and those that failed: room is
///   given back when the ticket is answered, and the answer holds the event until the listener has
///   seen it.
const CONSTANT: u64 = 64 * 1024 * 1024;

/// What was measured, in bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    baseline: u64,
    samples: Vec<u64>,
}

impl Memory {
    pub(crate) fn before_the_first_put() -> Self {
        Self { baseline: resident("VmRSS"), samples: Vec::new() }
    }

    pub(crate) fn baseline(&self) -> u64 {
        self.baseline
    }

    pub(crate) fn sample(&mut self) {
        self.samples.push(resident("VmRSS"));
    }

    /// At the last sample.
    pub(crate) fn now(&self) -> u64 {
        self.samples.last().copied().unwrap_or(self.baseline)
    }

    /// Since the process began, as the kernel noted it, so also between samples.
    pub(crate) fn peak(&self) -> u64 {
        resident("VmHWM")
    }

    /// What was to hold, whether it does, and the figures.
    pub(crate) fn verdict(&self, max_buffered_bytes: usize) -> [(&'static str, bool, String); 2] {
        let third = self.samples.len() / 3;
        let mut thirds = self.samples.rchunks(third.max(1)).map(median);
        let (last, middle) = (thirds.next().unwrap_or(0), thirds.next().unwrap_or(0));
        let bound = max_buffered_bytes as u64 * 3 / 2 + CONSTANT;
        [
            (
                "memory is flat: the last third's median is at most 1.1 of the middle third's",
                last * 10 <= middle * 11,
                format!(": {} and {} MiB", mebibytes(last), mebibytes(middle)),
            ),
            (
                "memory is within its bound",
                self.peak() <= bound,
                format!(": at most {} of {} MiB", mebibytes(self.peak()), mebibytes(bound)),
            ),
        ]
    }
}

pub(crate) fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// A line of the process's status, which is in units of 1,024 bytes.
fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}
