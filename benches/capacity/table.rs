//! The tables of the benchmark.

use std::time::Duration;

use dynamodb_eventstore::WriteCapacity;
use serde::{Deserialize, Serialize};

const LATENCY: Duration = Duration::from_millis(5);

/// When the capacity of [`Table::Changing`] changes, and to what.
const CHANGES: [(Duration, u32); 2] =
    [(Duration::from_secs(10), 4_000), (Duration::from_secs(20), 1_000)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Table {
    Hundred,
    Thousand,
    FourThousand,
    FortyThousand,
    Changing,
}

impl Table {
    pub(crate) const ALL: [Self; 5] =
        [Self::Hundred, Self::Thousand, Self::FourThousand, Self::FortyThousand, Self::Changing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hundred => "100 units/s",
            Self::Thousand => "1,000 units/s",
            Self::FourThousand => "4,000 units/s, 4 partitions",
            Self::FortyThousand => "40,000 units/s, 40 partitions",
            Self::Changing => "2,000 units/s, then 4,000, then 1,000",
        }
    }

    pub(crate) fn capacity(self) -> WriteCapacity {
        let mut capacity = WriteCapacity::provisioned(self.units());
        if self == Self::Changing {
            capacity = capacity.partitions(4);
            for (at, units) in CHANGES {
                capacity = capacity.changed_to(units, at);
            }
        }
        capacity.burst(Duration::from_secs(1)).latency(LATENCY)
    }

    /// Its write units in the second that begins at `second`.
    pub(crate) fn units_in(self, second: usize) -> u32 {
        let at = Duration::from_secs(second as u64);
        let changed = CHANGES.iter().rev().find(|(from, _)| self == Self::Changing && *from <= at);
        changed.map_or_else(|| self.units(), |(_, units)| *units)
    }

    /// Calls in flight for the clients that need a setting for it.
    pub(crate) fn in_flight(self) -> usize {
        if self == Self::FortyThousand { 16 } else { 8 }
    }

    fn units(self) -> u32 {
        match self {
            Self::Hundred => 100,
            Self::Thousand => 1_000,
            Self::FourThousand => 4_000,
            Self::FortyThousand => 40_000,
            Self::Changing => 2_000,
        }
    }
}
