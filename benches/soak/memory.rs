//! The resident memory of this process, as Linux reports it. On other systems it is 0, and nothing is
//! checked.

use std::fs;

/// The memory allowed beyond one and a half times the buffer. It covers
///
/// - the program itself: 20 MiB before the first put in a debug build, 11 in an optimised one;
/// - the one call that exceeds the limit of bytes in flight, up to 16 MB. The other calls in flight
///   take a quarter of the buffer, which is part of the half;
/// - the fragmentation of the allocator with events of very different sizes, and failed events: permits
///   are released when a ticket settles, but the answer keeps the event until it is recorded.
const CONSTANT: u64 = 64 * 1024 * 1024;

/// The samples, in bytes.
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

    /// The last sample.
    pub(crate) fn now(&self) -> u64 {
        self.samples.last().copied().unwrap_or(self.baseline)
    }

    /// The peak since the start of the process, as the kernel recorded it, also between samples.
    pub(crate) fn peak(&self) -> u64 {
        resident("VmHWM")
    }

    /// Each check with its result and its figures.
    pub(crate) fn checks(&self, max_buffered_bytes: usize) -> [(&'static str, bool, String); 2] {
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

/// A line of the process's status, in bytes. The kernel reports it in units of 1,024 bytes.
fn resident(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}
