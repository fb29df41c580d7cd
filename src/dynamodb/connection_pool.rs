//! The HTTP client, and so the connections, that all SDK clients of a store share.

use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::config::SharedHttpClient;

/// Keeps the HTTP client of the first call for the SDK clients that are made later. Each of them would
/// otherwise open connections of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionPool(Arc<OnceLock<SharedHttpClient>>);

impl ConnectionPool {
    pub(super) fn set_first(&self, http_client: &SharedHttpClient) {
        self.0.get_or_init(|| http_client.clone());
    }

    pub(super) fn get(&self) -> Option<SharedHttpClient> {
        self.0.get().cloned()
    }
}
