//! What the tests share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod clock;
pub(crate) mod endpoint;
pub(crate) mod fake;
pub(crate) mod table;
