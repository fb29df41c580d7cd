//! Helpers that the tests share.
#![allow(dead_code, unused_imports, reason = "each test binary uses some of them")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed set-up fails the test"
)]

pub(crate) mod clock;
pub(crate) mod credentials;
pub(crate) mod dynamodb_local;
#[cfg(feature = "local")]
pub(crate) mod endpoint;
pub(crate) mod environment;
pub(crate) mod http_client;
pub(crate) mod lease_proxy;
pub(crate) mod proxy;
#[cfg(feature = "local")]
pub(crate) mod puts;
pub(crate) mod resets;
#[cfg(feature = "tail")]
pub(crate) mod stream;
pub(crate) mod table;
#[cfg(feature = "cli")]
pub(crate) mod tool;
pub(crate) mod watchdog;
