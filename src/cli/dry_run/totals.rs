//! What the lines of a dry run would cost.

use dynamodb_eventstore::Event;
use serde::Serialize;

use crate::output::count;

/// Bytes of an item that one write unit covers.
const WRITE_UNIT_BYTES: usize = 1_024;

/// An event is just over a boundary if the last of its write units covers at most this many bytes: a
/// sixteenth of a unit, which a shorter field name or two can save.
const JUST_OVER_BYTES: usize = 64;

/// Counts events as they are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    events: u64,
    bytes: u64,
    write_units: u64,
    just_over: u64,
    pub(super) refused: u64,
}

/// The totals, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    is_dry_run: bool,
    events: u64,
    bytes: u64,
    write_units: u64,
    /// Events whose last write unit covers at most [`JUST_OVER_BYTES`].
    events_just_over_a_unit: u64,
    refused: u64,
    /// The last line that was checked.
    last_line: u64,
    is_complete: bool,
}

impl Totals {
    pub(super) fn accept(&mut self, event: &Event) {
        self.events += 1;
        self.bytes += event.body_bytes() as u64;
        self.write_units += event.write_units();
        self.just_over += u64::from(is_just_over(event.item_bytes()));
    }

    pub(super) fn summary(&self, last_line: u64, is_complete: bool) -> Summary {
        Summary {
            is_dry_run: true,
            events: self.events,
            bytes: self.bytes,
            write_units: self.write_units,
            events_just_over_a_unit: self.just_over,
            refused: self.refused,
            last_line,
            is_complete,
        }
    }
}

/// Whether an item costs a write unit for its last few bytes, and would not without them.
fn is_just_over(item_bytes: usize) -> bool {
    item_bytes > WRITE_UNIT_BYTES
        && (1..=JUST_OVER_BYTES).contains(&(item_bytes % WRITE_UNIT_BYTES))
}

impl Summary {
    /// The summary for a person.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "dry run: {}, {}, would use {}; nothing was stored",
            count(self.events, "event"),
            count(self.bytes, "byte"),
            count(self.write_units, "write unit"),
        )];
        let just_over = self.events_just_over_a_unit;
        if just_over > 0 {
            let verb = if just_over == 1 { "uses" } else { "use" };
            lines.push(format!(
                "{} {verb} a write unit for the last {JUST_OVER_BYTES} bytes or less: a body of up \
                 to 990 bytes uses one unit, and each 1,024 bytes more another",
                count(just_over, "event"),
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dry_run::ANY_KEY;

    fn totals(body_bytes: &[usize]) -> Totals {
        let mut totals = Totals::default();
        for &bytes in body_bytes {
            totals.accept(&Event::new(ANY_KEY.parse().unwrap(), "x".repeat(bytes)).unwrap());
        }
        totals
    }

    #[test]
    fn event_just_over_a_kilobyte_is_counted() {
        for (body_bytes, write_units, just_over) in [
            (1, 1, 0),
            (990, 1, 0),
            (991, 2, 1),
            (990 + 64, 2, 1),
            (990 + 65, 2, 0),
            (990 + 1_024, 2, 0),
            (991 + 1_024, 3, 1),
        ] {
            let totals = totals(&[body_bytes]);
            assert_eq!((totals.write_units, totals.just_over), (write_units, just_over));
        }
    }

    proptest! {
        #[test]
        fn totals_are_the_sums_over_all_events(sizes in prop::collection::vec(0_usize..5_000, 0..20)) {
            let totals = totals(&sizes);
            let units: usize = sizes.iter().map(|bytes| (34 + bytes).div_ceil(1_024)).sum();
            prop_assert_eq!(totals.events, sizes.len() as u64);
            prop_assert_eq!(totals.bytes, sizes.iter().sum::<usize>() as u64);
            prop_assert_eq!(totals.write_units, units as u64);
            // Each of these events would use one unit less with 64 bytes less.
            let saved: usize = sizes
                .iter()
                .map(|bytes| {
                    let item = 34 + bytes;
                    item.div_ceil(1_024) - item.saturating_sub(64).max(1).div_ceil(1_024)
                })
                .sum();
            prop_assert_eq!(totals.just_over, saved as u64);
        }
    }
}
