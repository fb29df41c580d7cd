//! The error of a setting with which a store cannot be built.

use std::fmt;

/// A setting is out of range, missing, or contradicts another. Nothing is clamped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{field}` is {value}; it must {limit}")]
#[non_exhaustive]
pub struct ConfigError {
    /// Name of the setting, which is the name of the builder's method.
    pub field: &'static str,
    /// The value that was set; `hidden` if it is a secret.
    pub value: String,
    /// What the value must be, as the end of a sentence: "it must …".
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
