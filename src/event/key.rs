//! Event keys, the writer id in them, and the generator that a store draws its keys from.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

/// The last millisecond whose year has four digits: 9999-12-31T23:59:59.999Z.
const LAST_MILLISECOND: u64 = 253_402_300_799_999;

/// Number of keys that one writer can make in each millisecond.
const SEQUENCES_PER_MILLISECOND: u16 = 10_000;

/// Index of the writer id in a key: after `yyyymmddTHHMMSS` and three digits of milliseconds.
const WRITER_POSITION: usize = 18;

/// Index of the sequence number in a key: after the five digits of the writer id.
const SEQUENCE_POSITION: usize = 23;

/// The hash key of an event: `20130927T005240652508858176`.
///
/// A key is a UTC time (`yyyymmddTHHMMSS` and three digits of milliseconds) and up to nine digits that
/// keep the events of one millisecond apart. Keys that this crate makes have nine of them, so they are
/// always [`EventKey::LENGTH`] characters long and sort as text in the order of their times. The npm
/// module does not pad its last part: its keys have 19 to 27 characters, and parse as well.
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
    /// ASCII text, padded at its end with zero bytes, which sort before digits.
    text: [u8; Self::LENGTH],
    length: u8,
}

impl EventKey {
    /// Length of a key that this crate makes, in characters. No key is longer.
    pub const LENGTH: usize = 27;

    /// Length of the shortest key that the npm module makes, in characters.
    pub const MIN_LENGTH: usize = 19;

    /// The key as the table stores it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The text is ASCII and `length` is at most the array's, so neither default is ever used.
        let text = self.text.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// The time in the key, to the millisecond.
    ///
    /// For a key that this crate makes it is the time of the put. It is later if the clock stepped back,
    /// or if the writer has used up the 10,000 keys of the millisecond.
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
        let error = |kind| ParseKeyError { kind };
        if !(Self::MIN_LENGTH..=Self::LENGTH).contains(&text.len()) {
            return Err(error(ParseKeyErrorKind::Length(text.len())));
        }
        let is_digit = |(index, byte): (usize, u8)| index == 8 || byte.is_ascii_digit();
        if !text.bytes().enumerate().all(is_digit) || text.as_bytes().get(8) != Some(&b'T') {
            return Err(error(ParseKeyErrorKind::Format));
        }
        if parse_timestamp(text).is_none() {
            return Err(error(ParseKeyErrorKind::Timestamp));
        }
        let mut key = Self {
            text: [0; Self::LENGTH],
            length: u8::try_from(text.len())
                .map_err(|_| error(ParseKeyErrorKind::Length(text.len())))?,
        };
        for (target, byte) in key.text.iter_mut().zip(text.bytes()) {
            *target = byte;
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

/// A text is not an event key.
///
/// The message does not repeat the text, which may be anything: a body, or a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an event key, which is yyyymmddTHHMMSS, three digits of milliseconds and one to nine more \
     digits: {kind}"
)]
pub struct ParseKeyError {
    kind: ParseKeyErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ParseKeyErrorKind {
    #[error("it has {0} bytes, and a key has 19 to 27")]
    Length(usize),
    #[error("it has a character that is neither a digit nor the T after the date")]
    Format,
    #[error("there is no such date or time")]
    Timestamp,
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

/// A number from 0 to 99,999 that keeps the keys of two writers apart. Every key has it, as five digits.
///
/// Two stores that write to one table at the same time need different ids. Assign them if something numbers your
/// processes (an instance index, a shard, a partition), or let [`EventStore::builder`](crate::EventStore::builder)
/// choose one at random. The probability that random ids collide:
///
/// | writers at the same time | at least two share an id |
/// |---|---|
/// | 2 | 1 in 100,000 |
/// | 10 | 1 in 2,200 |
/// | 50 | 1.2 % |
/// | 100 | 4.8 % |
/// | 373 | 50 % |
///
/// (1 − e^(−n(n−1)/200,000) for n writers.) Two writers with the same id overwrite each other's events
/// only in a millisecond in which both put: the first events of both then have the same key, and so on.
/// Two such writers of *r* events a second each overwrite about *r*²/1,000 events a second if *r* is well
/// below 1,000, and events of nearly every millisecond above that. With 100 writers or more, assign the
/// ids, or [lease](crate::WriterIds::leased) them.
///
/// A process that restarts with the same id makes new keys, unless the clock was set back in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriterId(u32);

impl WriterId {
    /// The largest id.
    pub const MAX: u32 = 99_999;

    /// The id with this number. `None` if it is larger than [`WriterId::MAX`].
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id <= Self::MAX { Some(Self(id)) } else { None }
    }

    /// An id from 64 random bits. All ids are equally probable, to one part in 10¹⁴.
    pub(crate) fn from_random(random: u64) -> Self {
        let id = random % (u64::from(Self::MAX) + 1);
        Self(u32::try_from(id).unwrap_or(Self::MAX))
    }

    /// The id that is larger by `offset`; the largest id at most.
    pub(crate) fn plus(self, offset: u64) -> Self {
        let id = u64::from(self.0).saturating_add(offset).min(Self::MAX.into());
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

/// Makes the keys of one writer id at a time. Each key is greater than all keys before it, also those of earlier ids.
///
/// Within a millisecond the sequence number increases. When it is used up, the keys' time moves on to
/// the next millisecond ahead of the clock. When the clock steps back (it is set, or repeats a leap
/// second), the keys' time stays until the clock has caught up.
///
/// The keys' time is within a range: what a lease of the writer id allows, else all times. The range is looked at
/// once per millisecond.
#[derive(Debug, Clone)]
pub(crate) struct KeyGenerator {
    /// The millisecond in `text`. `None` before the first key.
    millisecond: Option<u64>,
    next_sequence: u16,
    /// The first millisecond of the range.
    from: u64,
    /// The millisecond after the last one of the range.
    until: u64,
    /// The last key. Within a millisecond only its sequence number changes.
    text: [u8; EventKey::LENGTH],
}

impl KeyGenerator {
    pub(crate) fn new(writer_id: WriterId) -> Self {
        let mut text = [b'0'; EventKey::LENGTH];
        write_digits(&mut text, WRITER_POSITION, SEQUENCE_POSITION, writer_id.get().into());
        let until = LAST_MILLISECOND + 1;
        Self { millisecond: None, next_sequence: 0, from: 0, until, text }
    }

    /// The earliest time of a key that begins a millisecond at `now`.
    pub(crate) fn next_time(&self, now: u64) -> u64 {
        now.max(self.millisecond.map_or(0, |current| current + 1)).max(self.from)
    }

    /// Whether a key of this time would be after the end of the year 9999.
    pub(crate) fn is_year_over(time: u64) -> bool {
        time > LAST_MILLISECOND
    }

    /// Sets another writer id. Later keys are greater than all keys made so far. The range stays.
    pub(crate) fn set_writer_id(&mut self, writer_id: WriterId) {
        self.end_millisecond();
        write_digits(&mut self.text, WRITER_POSITION, SEQUENCE_POSITION, writer_id.get().into());
    }

    /// Whether `key` has the present writer id.
    pub(crate) fn has_writer_id_of(&self, key: &EventKey) -> bool {
        let id = WRITER_POSITION..SEQUENCE_POSITION;
        self.text.get(id.clone()) == key.text.get(id)
    }

    /// Sets the range of the keys' times. The next key begins a new millisecond.
    pub(crate) fn set_range(&mut self, from: u64, until: u64) {
        self.end_millisecond();
        self.from = from;
        self.set_range_end(until);
    }

    /// Moves the end of the range, which must not be before the last key's time.
    pub(crate) fn set_range_end(&mut self, until: u64) {
        self.until = until.min(LAST_MILLISECOND + 1);
    }

    /// Lets the next key begin a millisecond of its own.
    fn end_millisecond(&mut self) {
        self.next_sequence = SEQUENCES_PER_MILLISECOND;
    }

    /// Makes all later keys greater than `key`: their time is later, because `key` may have another writer id.
    #[cfg(feature = "journal")]
    pub(crate) fn start_after(&mut self, key: &EventKey) {
        let time = u64::try_from(key.timestamp().timestamp_millis()).unwrap_or_default();
        if self.millisecond.is_none_or(|current| current <= time) {
            self.millisecond = Some(time);
            self.end_millisecond();
        }
    }

    /// The next key, at `now` milliseconds after the Unix epoch. `None` when no key is left: at the end of
    /// the range.
    pub(crate) fn next(&mut self, now: u64) -> Option<EventKey> {
        match self.millisecond {
            Some(current) if now <= current => {
                if self.next_sequence == SEQUENCES_PER_MILLISECOND {
                    self.start_millisecond(current + 1)?;
                }
            }
            _ => self.start_millisecond(now)?,
        }
        let sequence = self.next_sequence.into();
        write_digits(&mut self.text, SEQUENCE_POSITION, EventKey::LENGTH, sequence);
        self.next_sequence += 1;
        Some(EventKey { text: self.text, length: const { EventKey::LENGTH as u8 } })
    }

    fn start_millisecond(&mut self, millisecond: u64) -> Option<()> {
        let millisecond = millisecond.max(self.from);
        if millisecond >= self.until {
            return None;
        }
        let time = DateTime::from_timestamp_millis(i64::try_from(millisecond).ok()?)?;
        let timestamp = time.format("%Y%m%dT%H%M%S%3f").to_string();
        for (target, byte) in self.text.iter_mut().take(WRITER_POSITION).zip(timestamp.bytes()) {
            *target = byte;
        }
        self.millisecond = Some(millisecond);
        self.next_sequence = 0;
        Some(())
    }
}

/// Writes `value` in decimal, zero-padded, into `text[from..to]`.
fn write_digits(text: &mut [u8; EventKey::LENGTH], from: usize, to: usize, mut value: u64) {
    for digit in text.iter_mut().take(to).skip(from).rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
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
    fn key_is_time_writer_and_sequence() {
        let mut keys = generator(50_885);
        assert_eq!(keys.next(NOW).unwrap().as_str(), "20130927T005240652508850000");
        assert_eq!(keys.next(NOW).unwrap().as_str(), "20130927T005240652508850001");
        assert_eq!(keys.next(NOW + 1).unwrap().as_str(), "20130927T005240653508850000");
    }

    #[test]
    fn used_up_sequence_moves_on_to_the_next_millisecond() {
        let mut keys = generator(7);
        let made: Vec<_> = (0..10_001).map(|_| keys.next(NOW).unwrap()).collect();
        assert_eq!(made[9_999].as_str(), "20130927T005240652000079999");
        assert_eq!(made[10_000].as_str(), "20130927T005240653000070000");
        assert!(made.is_sorted_by(|a, b| a < b));
        let caught_up = keys.next(NOW + 1).unwrap();
        assert_eq!(caught_up.as_str(), "20130927T005240653000070001");
    }

    #[test]
    fn keys_increase_when_the_clock_repeats_a_leap_second() {
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
    fn keys_end_with_the_year_9999() {
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
    fn keys_stay_within_their_range() {
        let mut keys = generator(7);
        keys.set_range(NOW + 5, NOW + 7);
        let first = keys.next(NOW).unwrap();
        assert_eq!(first.as_str(), "20130927T005240657000070000");
        assert!(keys.next(NOW + 6).unwrap() > first);
        assert_eq!(keys.next(NOW + 7), None);
        // The clock was set back. The remaining keys of the millisecond may be used.
        assert_eq!(keys.next(NOW).unwrap().as_str(), "20130927T005240658000070001");
        keys.set_range_end(NOW + 8);
        assert_eq!(keys.next(NOW + 7).unwrap().as_str(), "20130927T005240659000070000");
        keys.set_range(0, 0);
        assert_eq!(keys.next(NOW), None);
    }

    #[test]
    fn keys_increase_when_the_writer_id_changes() {
        let mut keys = generator(99_999);
        let before = keys.next(NOW).unwrap();
        keys.set_writer_id(WriterId::new(0).unwrap());
        let after = keys.next(NOW).unwrap();
        assert!(after > before);
        assert_eq!(after.as_str(), "20130927T005240653000000000");
        assert_eq!(keys.next_time(NOW), NOW + 2);
    }

    #[test]
    fn keys_of_the_npm_module_are_parsed() {
        for text in ["20130927T0052406525", "20130927T005240652508858176"] {
            let key: EventKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
            assert_eq!(key.timestamp().timestamp_millis(), i64::try_from(NOW).unwrap());
        }
    }

    #[test]
    fn text_that_is_not_a_key_is_refused() {
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
    fn parse_error_names_the_defect_and_not_the_text() {
        for (text, defect) in [
            ("20130927T005240652", "it has 18 bytes, and a key has 19 to 27"),
            (
                "20130927 005240652508858176",
                "it has a character that is neither a digit nor the T after the date",
            ),
            ("20139927T005240652508858176", "there is no such date or time"),
        ] {
            let error = text.parse::<EventKey>().unwrap_err().to_string();
            assert!(error.ends_with(defect) && !error.contains(text), "{error}");
        }
    }

    #[test]
    fn documented_collision_odds_are_right() {
        let odds = |writers: f64| 1.0 - (-writers * (writers - 1.0) / 200_000.0).exp();
        assert!((odds(2.0) - 1.0 / 100_000.0).abs() < 1e-7);
        assert!((odds(10.0) - 1.0 / 2_200.0).abs() < 1e-5);
        assert!((odds(50.0) - 0.012).abs() < 5e-4);
        assert!((odds(100.0) - 0.048).abs() < 5e-4);
        assert!((odds(373.0) - 0.5).abs() < 2e-3);
    }

    proptest! {
        #[test]
        fn keys_increase_with_any_clock(
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
