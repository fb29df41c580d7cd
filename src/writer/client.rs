//! The SDK's client, with credentials that can be fetched anew.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::IdentityCache;
use aws_sdk_dynamodb::config::retry::RetryConfig;

use crate::clock::now;

/// No credentials are thrown away that were fetched a moment ago: the calls that fail with them come in
/// swarms, and a fetch can be a process or a call to another service.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// A client whose retries are switched off. A clone is the same.
///
/// The SDK keeps credentials until the time that their provider gave them, or for a quarter of an hour,
/// also when the service calls them expired: revoked, or replaced on disk. [`refresh`](Self::refresh)
/// makes it ask the provider again.
#[derive(Debug, Clone)]
pub(super) struct RefreshableClient(Arc<RwLock<Current>>);

#[derive(Debug)]
struct Current {
    client: Client,
    /// Tells the swarm that failed with the same credentials from those that came later.
    generation: u64,
    since: Instant,
}

impl RefreshableClient {
    pub(super) fn new(client: &Client) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        let (client, since) = (Client::from_conf(config), now());
        Self(Arc::new(RwLock::new(Current { client, generation: 0, since })))
    }

    /// The client as it is now, and the generation of its credentials.
    pub(super) fn current(&self) -> (Client, u64) {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (current.client.clone(), current.generation)
    }

    /// Has the credentials fetched again, as a call with those of `generation` was told that they have
    /// expired.
    pub(super) fn refresh(&self, generation: u64) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        let is_young = now.saturating_duration_since(current.since) < SHORTEST_LIFE;
        if current.generation != generation || is_young {
            return;
        }
        let config = current.client.config().to_builder();
        let config = config.identity_cache(IdentityCache::lazy().build()).build();
        *current =
            Current { client: Client::from_conf(config), generation: generation + 1, since: now };
    }
}
