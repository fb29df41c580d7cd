//! [`KeyBounds`]: a range of times as a range of keys.

use std::ops::{Bound, RangeBounds};

use chrono::{DateTime, Utc};

/// A text that is less than every key, and not empty, as DynamoDB compares a key with no empty text.
const BEFORE_ALL_KEYS: &str = "0";

/// A text that is greater than every key.
const AFTER_ALL_KEYS: &str = "~";

/// A range of keys as text: from `from`, and before `to`. It holds exactly the keys whose time is in a range of times.
///
/// A key begins with its time to the millisecond, in 18 characters, and at least one character follows. So a key is
/// greater than the 18 characters of its own millisecond, whatever its length.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct KeyBounds {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

impl KeyBounds {
    /// The keys whose times are in this range.
    pub(crate) fn of(range: &impl RangeBounds<DateTime<Utc>>) -> Self {
        let from = match range.start_bound() {
            Bound::Unbounded => None,
            Bound::Included(time) => Some(ceiling(time)),
            Bound::Excluded(time) => Some(floor(time).saturating_add(1)),
        };
        let to = match range.end_bound() {
            Bound::Unbounded => None,
            Bound::Excluded(time) => Some(ceiling(time)),
            Bound::Included(time) => Some(floor(time).saturating_add(1)),
        };
        Self { from: from.map(text), to: to.map(text) }
    }

    /// Whether no key can be within them.
    pub(crate) fn is_empty(&self) -> bool {
        matches!((&self.from, &self.to), (Some(from), Some(to)) if from >= to)
    }
}

/// Milliseconds since the Unix epoch, rounded down.
fn floor(time: &DateTime<Utc>) -> i64 {
    time.timestamp_millis()
}

/// Milliseconds since the Unix epoch, rounded up: keys have whole milliseconds.
fn ceiling(time: &DateTime<Utc>) -> i64 {
    let is_whole = time.timestamp_subsec_nanos().is_multiple_of(1_000_000);
    floor(time).saturating_add(i64::from(!is_whole))
}

/// How the keys of this millisecond begin.
fn text(millisecond: i64) -> String {
    use chrono::Datelike;

    match DateTime::from_timestamp_millis(millisecond) {
        Some(time) if time.year() < 0 => BEFORE_ALL_KEYS.to_owned(),
        Some(time) if time.year() <= 9_999 => time.format("%Y%m%dT%H%M%S%3f").to_string(),
        None if millisecond < 0 => BEFORE_ALL_KEYS.to_owned(),
        _ => AFTER_ALL_KEYS.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::key::EventKey;

    fn time(milliseconds: i64, nanoseconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_nanos(milliseconds * 1_000_000 + nanoseconds)
    }

    #[test]
    fn bounds_are_the_beginnings_of_keys() {
        let from = "2013-09-27T00:52:40.652Z".parse::<DateTime<Utc>>().unwrap();
        let bounds = KeyBounds::of(&(from..));
        assert_eq!(bounds.from.as_deref(), Some("20130927T005240652"));
        assert_eq!(bounds.to, None);
        let bounds = KeyBounds::of(&(..=from));
        assert_eq!(bounds.to.as_deref(), Some("20130927T005240653"));
    }

    #[test]
    fn times_outside_the_key_calendar_bound_nothing_or_everything() {
        let bounds = KeyBounds::of(&(DateTime::<Utc>::MIN_UTC..DateTime::<Utc>::MAX_UTC));
        for key in ["00000101T0000000000", "99991231T235959999999999999"] {
            let key = key.parse::<EventKey>().unwrap();
            assert!(bounds.from.as_deref() <= Some(key.as_str()));
            assert!(bounds.to.as_deref() > Some(key.as_str()));
        }
    }

    #[test]
    fn reversed_range_is_empty() {
        assert!(KeyBounds::of(&(time(5, 0)..time(5, 0))).is_empty());
        assert!(KeyBounds::of(&(time(5, 0)..time(4, 0))).is_empty());
        assert!(!KeyBounds::of(&(time(5, 0)..=time(5, 0))).is_empty());
        assert!(!KeyBounds::of(&(..)).is_empty());
    }

    proptest! {
        #[test]
        fn key_is_within_bounds_exactly_if_its_time_is(
            from in (1_400_000_000_000_i64..1_400_000_000_020, 0..1_000_000_i64),
            to in (1_400_000_000_000_i64..1_400_000_000_020, 0..1_000_000_i64),
            at in 1_400_000_000_000_i64..1_400_000_000_020,
            last_part in "[0-9]{1,9}",
            inclusive in any::<bool>(),
        ) {
            let (from, to) = (time(from.0, from.1), time(to.0, to.1));
            let key = format!("{}{last_part}", time(at, 0).format("%Y%m%dT%H%M%S%3f"));
            let stated = key.parse::<EventKey>().unwrap().timestamp();
            let (bounds, is_in_range) = if inclusive {
                (KeyBounds::of(&(from..=to)), (from..=to).contains(&stated))
            } else {
                (KeyBounds::of(&(from..to)), (from..to).contains(&stated))
            };
            let is_in_bounds = bounds.from.as_deref() <= Some(key.as_str())
                && bounds.to.as_deref() > Some(key.as_str());
            prop_assert_eq!(is_in_bounds, is_in_range);
        }
    }
}
