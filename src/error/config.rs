//! Why a store is not built with such settings.

use std::fmt;

/// A setting is out of range, missing, or contradicts another. Nothing is clamped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{field}` is {value}; it must {limit}")]
#[non_exhaustive]
pub struct ConfigError {
    /// Name of the setting: that of the builder's method.
    pub field: &'static str,
    /// What it was set to; `hidden` where it is a secret.
    pub value: String,
    /// What it must be.
    pub limit: String,
}

impl ConfigError {
    pub(crate) fn new(
        field: &'static str,
        value: impl fmt::Display,
        limit: impl Into<String>,
    ) -> Self {
        Self { field, value: value.to_string(), limit: limit.into() }
    }
}
