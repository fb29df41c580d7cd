//! The connections that all clients of a store share.

use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::config::SharedHttpClient;

/// The connections of the first call, for the clients that follow: each would make a pool of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionPool(Arc<OnceLock<SharedHttpClient>>);

impl ConnectionPool {
    pub(super) fn keep(&self, http_client: &SharedHttpClient) {
        self.0.get_or_init(|| http_client.clone());
    }

    pub(super) fn get(&self) -> Option<SharedHttpClient> {
        self.0.get().cloned()
    }
}
