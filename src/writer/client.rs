//! The SDK's client, with credentials that can be fetched anew.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{IdentityCache, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_write_item::builders::BatchWriteItemFluentBuilder;

use super::classify::classify;
use super::payload::Payload;
use super::signing::Signing;
use crate::clock::now;
use crate::error::{BatchError, Certainty, FailureClass};

/// No credentials are thrown away that were fetched a moment ago: the calls that fail with them come in
/// swarms, and a fetch can be a process or a call to another service.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

impl Call {
    /// The SDK's call of `BatchWriteItem` for `table`, which both ways of writing begin with: without
    /// items, since the body is made here.
    pub(super) fn batch_write_item(&self, table: &str) -> BatchWriteItemFluentBuilder {
        self.client.batch_write_item().request_items(table, Vec::new())
    }
}

/// A client whose retries are switched off, and its protection against stalled streams. A clone is the
/// same.
///
/// The SDK keeps credentials until the time that their provider gave them, or for a quarter of an hour,
/// also when the service calls them expired: revoked, or replaced. After such a failure the
/// provider is asked again, by a client that is otherwise the same: with a fresh identity cache, and with
/// new connections where the configuration has no HTTP client of its own.
#[derive(Debug, Clone)]
pub(super) struct RefreshableClient {
    current: Arc<RwLock<Current>>,
    /// Whether there have been credentials.
    has_signed: Arc<AtomicBool>,
}

/// One call, from its beginning to its failure.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) client: Client,
    pub(super) signing: Signing,
    /// Dropped with the call, and the rest of its body with it.
    pub(super) payload: Payload,
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Current {
    client: Client,
    /// Tells calls with these credentials from those before.
    generation: u64,
    /// `None` for the credentials that were there from the start.
    since: Option<Instant>,
}

impl RefreshableClient {
    pub(super) fn new(client: &Client) -> Self {
        let config = client
            .config()
            .to_builder()
            .retry_config(RetryConfig::disabled())
            // It measures the body that was signed, and does not see the pieces in its place. An attempt
            // has one time-out, the store's.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let current = Current { client: Client::from_conf(config), generation: 0, since: None };
        Self { current: Arc::new(RwLock::new(current)), has_signed: Arc::default() }
    }

    pub(super) fn begin(&self) -> Call {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let payload = Payload::default();
        Call {
            client: current.client.clone(),
            signing: Signing::new(&self.has_signed, payload.slot()),
            payload,
            generation: current.generation,
        }
    }

    /// What the failure of a call through the SDK means.
    pub(super) fn failure<E>(&self, error: &SdkError<E, HttpResponse>, call: &Call) -> BatchError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.note(classify(error, call.signing.signed()), call)
    }

    /// What a failure means beside what it says: a call of which a part never left was not applied, and
    /// credentials that have expired are not used again.
    pub(super) fn note(&self, failure: BatchError, call: &Call) -> BatchError {
        if failure.class() == FailureClass::ExpiredCredentials {
            self.refresh(call.generation);
        }
        if call.payload.give_up() {
            return failure.with_certainty(Certainty::NotStored);
        }
        failure
    }

    /// Takes an answer for what it says, unless the request had not left when it came: then it is not
    /// the answer to this one.
    pub(super) fn answered<A>(answer: Result<A, BatchError>, call: &Call) -> Result<A, BatchError> {
        match answer {
            Ok(_) if call.payload.is_incomplete() => {
                Err(BatchError::unreadable("it came before the request had left"))
            }
            answer => answer,
        }
    }

    fn refresh(&self, generation: u64) {
        let now = now();
        let is_due = |current: &Current| {
            let is_young = |since| now.saturating_duration_since(since) < SHORTEST_LIFE;
            current.generation == generation && !current.since.is_some_and(is_young)
        };
        let config = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if !is_due(&current) {
                return;
            }
            current.client.config().to_builder()
        };
        // To make a client takes a while, in which the others go on with the one there is.
        let config = config.identity_cache(IdentityCache::lazy().build()).build();
        let client = Client::from_conf(config);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Others of the swarm may have been quicker.
        if is_due(&current) {
            *current = Current { client, generation: generation + 1, since: Some(now) };
        }
    }
}
