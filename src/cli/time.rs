//! Durations in arguments and messages, and the clock.

use std::time::Duration;

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
}
