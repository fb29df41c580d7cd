//! Event keys: their text, and the generator that never repeats or steps back.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

/// The last millisecond whose year has four digits: 9999-12-31T23:59:59.999Z.
const LAST_MILLISECOND: u64 = 253_402_300_799_999;

/// Keys that one writer has for each millisecond.
const SEQUENCES_PER_MILLISECOND: u16 = 10_000;

/// Where the writer id starts in a key: behind `yyyymmddTHHMMSS` and three digits of milliseconds.
const WRITER_POSITION: usize = 18;

/// Where the sequence starts in a key: behind the five digits of the writer id.
const SEQUENCE_POSITION: usize = 23;

/// The hash key of an event: `20130927T005240652508858176`.
///
/// A UTC time to the millisecond, `yyyymmddTHHMMSS` and three digits, and up to nine digits that
/// keep events of one millisecond apart. Keys made here have always nine, [`EventKey::LENGTH`]
/// characters in all, so their order as text is their order in time. The npm module left its
/// last part unpadded: its keys, of 19 to 27 characters, parse as well.
///
/// ```
/// use dynamodb_eventstore::EventKey;
///
/// let key: EventKey = "20130927T005240652508858176".parse()?;
/// assert_eq!(key.timestamp().to_rfc3339(), "2013-09-27T00:52:40.652+00:00");
/// # Ok::<(), dynamodb_eventstore::ParseKeyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// ASCII text, padded at its end with zero bytes, which sort before every digit.
    text: [u8; Self::LENGTH],
    length: u8,
}

impl EventKey {
    /// Length of a key made here, in characters: the longest a key can be.
    pub const LENGTH: usize = 27;

    /// Length of the shortest key that the npm module made, in characters.
    pub const MIN_LENGTH: usize = 19;

    /// The key as it stands in the table.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in, and `length` is at most the array's: neither default is ever taken.
        let text = self.text.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// The time in the key. For a key made here it is the time of the put, or a little later where
    /// the clock stood still, stepped back, or could not keep up with the writer.
    #[must_use]
    pub fn timestamp(&self) -> DateTime<Utc> {
        parse_timestamp(self.as_str()).unwrap_or_default().and_utc()
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EventKey({self})")
    }
}

impl AsRef<str> for EventKey {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for EventKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = |flaw| ParseKeyError { flaw };
        if !(Self::MIN_LENGTH..=Self::LENGTH).contains(&text.len()) {
            return Err(refused(KeyFlaw::Length(text.len())));
        }
        let is_digit = |(place, byte): (usize, u8)| place == 8 || byte.is_ascii_digit();
        if !text.bytes().enumerate().all(is_digit) || text.as_bytes().get(8) != Some(&b'T') {
            return Err(refused(KeyFlaw::Form));
        }
        if parse_timestamp(text).is_none() {
            return Err(refused(KeyFlaw::Time));
        }
        let mut key = Self {
            text: [0; Self::LENGTH],
            length: u8::try_from(text.len()).map_err(|_| refused(KeyFlaw::Length(text.len())))?,
        };
        for (place, byte) in key.text.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Ok(key)
    }
}

impl serde::Serialize for EventKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for EventKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text is not a key of an event.
///
/// The text itself is not repeated: where it came from, it may have been something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an event key, which is yyyymmddTHHMMSS, three digits of milliseconds and one to nine more \
     digits: {flaw}"
)]
pub struct ParseKeyError {
    flaw: KeyFlaw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum KeyFlaw {
    #[error("it has {0} bytes, and a key has 19 to 27")]
    Length(usize),
    #[error("something else stands where a digit or the T belongs")]
    Form,
    #[error("there is no such date or time")]
    Time,
}

fn parse_timestamp(text: &str) -> Option<NaiveDateTime> {
    let digits = |from: usize, to: usize| -> Option<u32> {
        let part = text.get(from..to)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    if text.get(8..9)? != "T" {
        return None;
    }
    let date =
        NaiveDate::from_ymd_opt(i32::try_from(digits(0, 4)?).ok()?, digits(4, 6)?, digits(6, 8)?)?;
    let time = NaiveTime::from_hms_milli_opt(
        digits(9, 11)?,
        digits(11, 13)?,
        digits(13, 15)?,
        digits(15, 18)?,
    )?;
    Some(NaiveDateTime::new(date, time))
}

/// Five digits that keep the keys of two writers apart: 0 to 99,999.
///
/// Two stores that write into one table at the same time need different ids. Give each its own
/// where something hands out small numbers (an instance index, a shard, a partition), or let
/// [`EventStore::builder`](crate::EventStore::builder) draw one at random. The odds of a drawn id:
///
/// | writers at the same time | some two share an id |
/// |---|---|
/// | 2 | 1 in 100,000 |
/// | 10 | 1 in 2,200 |
/// | 50 | 1.2 % |
/// | 100 | 4.8 % |
/// | 373 | 50 % |
///
/// (1 − e^(−n(n−1)/200,000).) Sharing an id is not yet a clash: an event is overwritten only when
/// both put in the same millisecond, and then the first in each writer's millisecond have the
/// same key. Two writers of *r* events a second each, sharing an id, overwrite about *r*²/1,000
/// events a second while *r* is well below 1,000, and nearly every millisecond above that. With
/// 100 writers or more, give out the ids.
///
/// A process that is started again under the same id makes new keys as long as the clock has not
/// been set back in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(u32);

impl WriterId {
    /// The largest id.
    pub const MAX: u32 = 99_999;

    /// The id of this number, or `None` when it is above [`WriterId::MAX`].
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id <= Self::MAX { Some(Self(id)) } else { None }
    }

    /// An id out of 64 random bits; each id is as likely as the next, to one part in 10¹⁴.
    pub(crate) fn from_random(random: u64) -> Self {
        let id = random % (u64::from(Self::MAX) + 1);
        Self(u32::try_from(id).unwrap_or(Self::MAX))
    }

    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:05}", self.0)
    }
}

/// Makes the keys of one writer, each greater than all before it.
///
/// Time is an argument. When it stands still the sequence counts on; when the sequence is used up
/// the millisecond moves ahead by itself; when the clock steps back (set by hand, or across a leap
/// second) keys go on from where they were until it has caught up.
#[derive(Debug, Clone)]
pub(crate) struct KeyGenerator {
    /// The millisecond that `text` shows, or `None` before the first key.
    millisecond: Option<u64>,
    next_sequence: u16,
    /// The current key, of which only the sequence changes within a millisecond.
    text: [u8; EventKey::LENGTH],
}

impl KeyGenerator {
    pub(crate) fn new(writer_id: WriterId) -> Self {
        let mut text = [b'0'; EventKey::LENGTH];
        write_digits(&mut text, WRITER_POSITION, SEQUENCE_POSITION, writer_id.get().into());
        Self { millisecond: None, next_sequence: 0, text }
    }

    /// The next key, at `now` milliseconds after the Unix epoch. `None` once the year 9999 has
    /// ended: there is no later key of this form.
    pub(crate) fn next(&mut self, now: u64) -> Option<EventKey> {
        match self.millisecond {
            Some(current) if now <= current => {
                if self.next_sequence == SEQUENCES_PER_MILLISECOND {
                    self.enter(current + 1)?;
                }
            }
            _ => self.enter(now)?,
        }
        let sequence = self.next_sequence.into();
        write_digits(&mut self.text, SEQUENCE_POSITION, EventKey::LENGTH, sequence);
        self.next_sequence += 1;
        Some(EventKey { text: self.text, length: const { EventKey::LENGTH as u8 } })
    }

    fn enter(&mut self, millisecond: u64) -> Option<()> {
        if millisecond > LAST_MILLISECOND {
            return None;
        }
        let time = DateTime::from_timestamp_millis(i64::try_from(millisecond).ok()?)?;
        let shown = time.format("%Y%m%dT%H%M%S%3f").to_string();
        for (place, byte) in self.text.iter_mut().take(WRITER_POSITION).zip(shown.bytes()) {
            *place = byte;
        }
        self.millisecond = Some(millisecond);
        self.next_sequence = 0;
        Some(())
    }
}

/// Writes `value` in decimal, zero-padded, into `text[from..to]`.
fn write_digits(text: &mut [u8; EventKey::LENGTH], from: usize, to: usize, mut value: u64) {
    for place in text.iter_mut().take(to).skip(from).rev() {
        *place = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2013-09-27T00:52:40.652Z, the time of the key in the npm module's README.
    const NOW: u64 = 1_380_243_160_652;

    fn generator(writer_id: u32) -> KeyGenerator {
        KeyGenerator::new(WriterId::new(writer_id).unwrap())
    }

    #[test]
    fn a_key_is_the_time_the_writer_and_the_sequence() {
        let mut keys = generator(50_885);
        assert_eq!(keys.next(NOW).unwrap().as_str(), "20130927T005240652508850000");
        assert_eq!(keys.next(NOW).unwrap().as_str(), "20130927T005240652508850001");
        assert_eq!(keys.next(NOW + 1).unwrap().as_str(), "20130927T005240653508850000");
    }

    #[test]
    fn the_millisecond_moves_ahead_when_its_sequence_is_used_up() {
        let mut keys = generator(7);
        let made: Vec<_> = (0..10_001).map(|_| keys.next(NOW).unwrap()).collect();
        assert_eq!(made[9_999].as_str(), "20130927T005240652000079999");
        assert_eq!(made[10_000].as_str(), "20130927T005240653000070000");
        assert!(made.is_sorted_by(|a, b| a < b));
        let caught_up = keys.next(NOW + 1).unwrap();
        assert_eq!(caught_up.as_str(), "20130927T005240653000070001");
    }

    #[test]
    fn keys_go_on_when_the_clock_jumps_back_across_a_leap_second() {
        // 2016-12-31T23:59:59.900Z, then the second repeats, as a stepped clock shows it.
        let before = 1_483_228_799_900;
        let mut keys = generator(1);
        let made: Vec<_> =
            [before, before + 99, before - 900, before - 1, before + 99, before + 100]
                .map(|now| keys.next(now).unwrap())
                .into();
        assert!(made.is_sorted_by(|a, b| a < b), "{made:?}");
        assert_eq!(made[2].as_str(), "20161231T235959999000010001");
        assert_eq!(made[5].as_str(), "20170101T000000000000010000");
    }

    #[test]
    fn there_are_keys_to_the_end_of_the_year_9999_and_none_after_it() {
        let mut keys = generator(0);
        let last = keys.next(LAST_MILLISECOND).unwrap();
        assert_eq!(last.as_str(), "99991231T235959999000000000");
        assert_eq!(keys.next(LAST_MILLISECOND + 1), None);
        assert_eq!(keys.next(u64::MAX), None);
        assert!(keys.next(0).unwrap() > last);
        for _ in 2..SEQUENCES_PER_MILLISECOND {
            keys.next(0).unwrap();
        }
        assert_eq!(keys.next(0), None);
    }

    #[test]
    fn keys_of_the_npm_module_are_read_whatever_their_length() {
        for text in ["20130927T0052406525", "20130927T005240652508858176"] {
            let key: EventKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
            assert_eq!(key.timestamp().timestamp_millis(), i64::try_from(NOW).unwrap());
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for text in [
            "",
            "20130927T005240652",           // no last part
            "20130927T0052406525088581760", // too long
            "20130927 005240652508858176",
            "20131327T005240652508858176", // month 13
            "20130927T005260652508858176", // second 60
            "20130927T00524065250885817x",
            "2013092٧T005240652508858",
            "+0130927T005240652508858176",
        ] {
            assert!(text.parse::<EventKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_refusal_of_a_key_says_what_is_wrong_with_it() {
        for (text, flaw) in [
            ("20130927T005240652", "it has 18 bytes, and a key has 19 to 27"),
            ("20130927 005240652508858176", "something else stands where a digit or the T belongs"),
            ("20139927T005240652508858176", "there is no such date or time"),
        ] {
            let refused = text.parse::<EventKey>().unwrap_err().to_string();
            assert!(refused.ends_with(flaw) && !refused.contains(text), "{refused}");
        }
    }

    #[test]
    fn the_documented_odds_of_drawn_ids_are_right() {
        let odds = |writers: f64| 1.0 - (-writers * (writers - 1.0) / 200_000.0).exp();
        assert!((odds(2.0) - 1.0 / 100_000.0).abs() < 1e-7);
        assert!((odds(10.0) - 1.0 / 2_200.0).abs() < 1e-5);
        assert!((odds(50.0) - 0.012).abs() < 5e-4);
        assert!((odds(100.0) - 0.048).abs() < 5e-4);
        assert!((odds(373.0) - 0.5).abs() < 2e-3);
    }

    proptest! {
        #[test]
        fn keys_increase_strictly_whatever_the_clock_does(
            writer_id in 0..=WriterId::MAX,
            clock in prop::collection::vec(0..4_102_444_800_000_u64, 1..200),
        ) {
            let mut keys = generator(writer_id);
            let mut last: Option<EventKey> = None;
            for now in clock {
                let key = keys.next(now).unwrap();
                prop_assert_eq!(key.as_str().len(), EventKey::LENGTH);
                prop_assert_eq!(key.as_str().parse::<EventKey>(), Ok(key));
                prop_assert_eq!(&key.as_str()[18..23], format!("{writer_id:05}"));
                prop_assert!(key.timestamp().timestamp_millis() >= i64::try_from(now).unwrap());
                prop_assert!(last.is_none_or(|last| last < key && last.as_str() < key.as_str()));
                last = Some(key);
            }
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = text.parse::<EventKey>();
        }
    }
}
