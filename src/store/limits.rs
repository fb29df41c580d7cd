//! Checks of settings against their limits.

use std::fmt;
use std::time::Duration;

use crate::error::ConfigError;

pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn in_range<T: PartialOrd + fmt::Display>(
    field: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        return Err(ConfigError::new(field, value, format!("be {min} to {max}")));
    }
    Ok(())
}

pub(super) fn duration_in_range(
    field: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if value < min || value > max {
        let limit = format!("be {min:?} to {max:?}");
        return Err(ConfigError::new(field, format_args!("{value:?}"), limit));
    }
    Ok(())
}
