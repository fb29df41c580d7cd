//! The pace of a scan: when its next page may be read, and how large it may be.
//!
//! What a page costs is known only from its answer. So a call reserves what pages cost lately, and the answer
//! corrects it.

use std::time::{Duration, Instant};

/// The most items of one page. A full page has 1 MB, which is 5,000 events of 200 bytes. Without this limit a page of
/// the smallest items would have 29,000, which take many times their bytes in the SDK's maps.
const MAX_PAGE_ITEMS: u32 = 5_000;

/// Bytes of items that one consistent read unit covers; an eventually consistent read takes half a unit for them
/// ([capacity units](https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html)).
pub(crate) const READ_UNIT_BYTES: f64 = 4_096.0;

/// Bytes of a full page, before the filter.
const PAGE_BYTES: f64 = 1_048_576.0;

/// With a limit, a page costs about the units of this time. A larger one would empty a table's bucket at once.
const PAGE_SECONDS: f64 = 1.0;

/// The longest wait that a page adds, in seconds, whatever its answer claims that it has cost.
const MAX_WAIT_SECONDS: f64 = 3_600.0;

/// When the pages of all segments may be read.
#[derive(Debug)]
pub(crate) struct ReadPace {
    /// `None` without a limit.
    units_per_second: Option<f64>,
    /// When what was reserved and consumed so far is paid for.
    free_at: Option<Instant>,
    units_per_item: f64,
    /// Units of a full page.
    units_per_page: f64,
}

/// The units that a page takes until its answer says how many they are.
#[derive(Debug, Clone, Copy)]
#[must_use = "what a page has consumed must be settled"]
pub(crate) struct Reservation {
    /// When the page may be read.
    pub(crate) at: Instant,
    /// The most items to evaluate.
    pub(crate) max_items: u32,
    units: f64,
}

/// What one answer says of a page's cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageCost {
    pub(crate) read_units: f64,
    pub(crate) scanned: u64,
}

impl PageCost {
    /// A refused call costs nothing.
    pub(crate) const NOTHING: Self = Self { read_units: 0.0, scanned: 0 };
}

impl ReadPace {
    /// `mean_item_bytes` is a first guess of the size of items.
    pub(crate) fn new(
        units_per_second: Option<u32>,
        is_consistent: bool,
        mean_item_bytes: Option<f64>,
    ) -> Self {
        let units_per_byte = units_per_byte(is_consistent);
        Self {
            units_per_second: units_per_second.map(f64::from),
            free_at: None,
            units_per_item: mean_item_bytes.map_or(1.0, |bytes| bytes * units_per_byte),
            units_per_page: PAGE_BYTES * units_per_byte,
        }
    }

    /// Reserves the units of the next page.
    pub(crate) fn reserve(&mut self, now: Instant) -> Reservation {
        let Some(rate) = self.units_per_second else {
            return Reservation { at: now, max_items: MAX_PAGE_ITEMS, units: 0.0 };
        };
        // Not a saving: what was not used before `now` is not made up for.
        let at = self.free_at.map_or(now, |free_at| free_at.max(now));
        let items = (rate * PAGE_SECONDS / self.units_per_item.max(f64::MIN_POSITIVE)).floor();
        let max_items = items.clamp(1.0, f64::from(MAX_PAGE_ITEMS)) as u32;
        let units = (f64::from(max_items) * self.units_per_item).min(self.units_per_page);
        self.free_at = Some(at + wait(units, rate));
        Reservation { at, max_items, units }
    }

    /// Replaces a reservation by what the page has consumed.
    pub(crate) fn settle(&mut self, reservation: Reservation, cost: PageCost) {
        if cost.scanned > 0 && cost.read_units > 0.0 {
            self.units_per_item = cost.read_units / cost.scanned as f64;
        }
        let (Some(rate), Some(free_at)) = (self.units_per_second, self.free_at) else { return };
        let excess = cost.read_units - reservation.units;
        self.free_at = if excess >= 0.0 {
            Some(free_at + wait(excess, rate))
        } else {
            free_at.checked_sub(wait(-excess, rate))
        };
    }
}

/// Read units for one byte of items.
pub(crate) fn units_per_byte(is_consistent: bool) -> f64 {
    let share = if is_consistent { 1.0 } else { 0.5 };
    share / READ_UNIT_BYTES
}

fn wait(units: f64, rate: f64) -> Duration {
    Duration::from_secs_f64((units / rate).clamp(0.0, MAX_WAIT_SECONDS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::tests::Items;

    #[test]
    fn page_without_a_limit_is_read_at_once() {
        let now = Items::new().start;
        let mut pace = ReadPace::new(None, false, None);
        for _ in 0..3 {
            let page = pace.reserve(now);
            assert_eq!((page.at, page.max_items), (now, MAX_PAGE_ITEMS));
            pace.settle(page, PageCost { read_units: 128.0, scanned: 5_000 });
        }
    }

    #[test]
    fn page_costs_about_one_second_of_the_limit() {
        let now = Items::new().start;
        // Items of 4 KB take half a unit each.
        let mut pace = ReadPace::new(Some(10), false, Some(4_096.0));
        let first = pace.reserve(now);
        assert_eq!((first.at, first.max_items), (now, 20));
        assert_eq!(pace.reserve(now).at, now + Duration::from_secs(1));
        // They are twice as large as they were thought to be.
        pace.settle(first, PageCost { read_units: 20.0, scanned: 20 });
        let third = pace.reserve(now);
        assert_eq!((third.at, third.max_items), (now + Duration::from_secs(3), 10));
    }

    #[test]
    fn refused_page_gives_its_units_back() {
        let now = Items::new().start;
        let mut pace = ReadPace::new(Some(10), true, Some(4_096.0));
        let refused = pace.reserve(now);
        pace.settle(refused, PageCost::NOTHING);
        assert_eq!(pace.reserve(now).at, now);
    }

    proptest! {
        /// Each page leaves when all before it are paid for at the limit.
        #[test]
        fn units_never_exceed_the_limit(
            limit in 1_u32..10_000,
            mean_item_bytes in prop::option::of(0.0..400_000.0_f64),
            pages in prop::collection::vec((0_u64..2_000, 0.0..300.0_f64, 0_u64..6_000), 1..50),
        ) {
            let mut now = Items::new().start;
            let mut pace = ReadPace::new(Some(limit), false, mean_item_bytes);
            let (mut began, mut consumed) = (None, 0.0);
            for (idle_milliseconds, read_units, scanned) in pages {
                now += Duration::from_millis(idle_milliseconds);
                let page = pace.reserve(now);
                prop_assert!(page.at >= now);
                prop_assert!((1..=MAX_PAGE_ITEMS).contains(&page.max_items));
                let began = *began.get_or_insert(page.at);
                let elapsed = (page.at - began).as_secs_f64();
                prop_assert!(consumed <= elapsed * f64::from(limit) + 1e-3, "{consumed} {elapsed}");
                pace.settle(page, PageCost { read_units, scanned });
                consumed += read_units;
                now = page.at;
            }
        }
    }
}
