//! The one line that every peer prints.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::measure::Sample;

/// The result of one run of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    events: usize,
    wall_seconds: f64,
    /// User and system time of the peer's process alone.
    cpu_seconds: f64,
    pub(crate) versions: BTreeMap<String, String>,
}

impl Outcome {
    pub(crate) fn new(sample: Sample, events: usize, versions: [(&str, &str); 1]) -> Self {
        Self {
            events,
            wall_seconds: sample.wall.as_secs_f64(),
            cpu_seconds: sample.cpu.as_secs_f64(),
            versions: versions.map(|(what, version)| (what.to_owned(), version.to_owned())).into(),
        }
    }

    pub(crate) fn events(&self) -> usize {
        self.events
    }

    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.wall_seconds
    }

    pub(crate) fn cpu_microseconds_per_event(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.events as f64
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} events in {:.2} s, {:.0} events/s, {:.2} µs of CPU each",
            self.events,
            self.wall_seconds,
            self.events_per_second(),
            self.cpu_microseconds_per_event()
        )
    }
}
