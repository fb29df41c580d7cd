//! Durations in arguments and messages, and the clock.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc};
use tokio::time::Instant;

/// Far longer than any useful wait. An [`Instant`] plus this duration does not overflow.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `500ms`, `20s`, `2m`, `1h 30m`; a bare number is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let duration = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text.trim())
            .map_err(|error| format!("{error}; write a duration like 500ms, 20s or 2m"))?,
    };
    if duration > MAX_DURATION {
        return Err("it is longer than 365 days".to_owned());
    }
    Ok(duration)
}

/// The duration in the form that [`parse`] reads.
pub(crate) fn format(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// `2026-01-31`, `2026-01-31T12:00:00`, or that with fractions and a UTC offset. Without an offset it is UTC.
pub(crate) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(time) = text.parse::<NaiveDateTime>() {
        return Ok(time.and_utc());
    }
    match text.parse::<NaiveDate>() {
        Ok(date) => Ok(date.and_time(NaiveTime::MIN).and_utc()),
        Err(_) => Err("write a time like 2026-01-31, or 2026-01-31T12:00:00Z".to_owned()),
    }
}

/// The time as it is written in the output: UTC, with milliseconds.
pub(crate) fn format_time(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[expect(clippy::disallowed_methods, reason = "the tool's waits and its report follow the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_a_unit_or_is_in_seconds() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("20s", 20_000),
            ("2m", 120_000),
            ("1h 30m", 5_400_000),
            ("20", 20_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert!(parse("366 days").unwrap_err().contains("365 days"));
        for text in ["", "soon", "-1s", "5 parsecs"] {
            assert!(parse(text).unwrap_err().contains("like 500ms"), "{text}");
        }
    }

    #[test]
    fn time_is_utc_unless_it_has_an_offset() {
        for (text, time) in [
            ("2026-01-31", "2026-01-31T00:00:00.000Z"),
            ("2026-01-31T12:00:00", "2026-01-31T12:00:00.000Z"),
            ("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500Z"),
            ("2026-01-31T12:00:00+01:00", "2026-01-31T11:00:00.000Z"),
        ] {
            assert_eq!(format_time(&parse_time(text).unwrap()), time, "{text}");
        }
        for text in ["", "yesterday", "2026-02-30", "12:00"] {
            assert!(parse_time(text).unwrap_err().contains("like 2026-01-31"), "{text}");
        }
    }
}
