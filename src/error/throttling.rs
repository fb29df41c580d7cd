//! The limits for which the service throttles calls, as its responses name them.

use std::fmt;

/// One of the reasons for which the service throttled a call.
///
/// Since 2025 the service lists them as `ThrottlingReasons` in its exceptions. It gives no reason for
/// items that it returns in `UnprocessedItems`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ThrottlingReason {
    reason: String,
    resource: Option<String>,
}

/// The kind of limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThrottlingLimit {
    /// One range of keys gets more requests than a partition allows. Other ranges may have capacity left.
    KeyRange,
    /// The table's provisioned capacity is used up.
    Provisioned,
    /// The maximum throughput that was set for an on-demand table is reached.
    MaxOnDemand,
    /// The account's quota for one table is reached.
    Account,
    /// A limit that this crate does not know, or that the service did not name.
    Unknown,
}

impl ThrottlingReason {
    /// A reason with the service's name, for example `TableWriteKeyRangeThroughputExceeded`.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), resource: None }
    }

    /// Adds the ARN of the table or index.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// The service's name of the reason: type of resource, type of operation and type of limit.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// ARN of the table or index that was at its limit.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// The kind of limit, according to the end of the reason's name.
    #[must_use]
    pub fn limit(&self) -> ThrottlingLimit {
        [
            ("KeyRangeThroughputExceeded", ThrottlingLimit::KeyRange),
            ("ProvisionedThroughputExceeded", ThrottlingLimit::Provisioned),
            ("MaxOnDemandThroughputExceeded", ThrottlingLimit::MaxOnDemand),
            ("AccountLimitExceeded", ThrottlingLimit::Account),
        ]
        .into_iter()
        .find_map(|(ending, limit)| self.reason.ends_with(ending).then_some(limit))
        .unwrap_or(ThrottlingLimit::Unknown)
    }
}

impl fmt::Display for ThrottlingReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)?;
        match &self.resource {
            Some(resource) => write!(formatter, " of {resource}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_follows_from_the_end_of_the_reason() {
        for (reason, limit) in [
            ("TableWriteKeyRangeThroughputExceeded", ThrottlingLimit::KeyRange),
            ("IndexWriteProvisionedThroughputExceeded", ThrottlingLimit::Provisioned),
            ("TableWriteMaxOnDemandThroughputExceeded", ThrottlingLimit::MaxOnDemand),
            ("TableWriteAccountLimitExceeded", ThrottlingLimit::Account),
            ("TableWriteSomethingNew", ThrottlingLimit::Unknown),
            ("", ThrottlingLimit::Unknown),
        ] {
            assert_eq!(ThrottlingReason::new(reason).limit(), limit, "{reason}");
        }
    }
}
