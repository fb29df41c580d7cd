//! The SDK's client, with credentials that can be fetched anew.

use std::error::Error;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::StalledStreamProtectionConfig;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_write_item::builders::BatchWriteItemFluentBuilder;

use super::chunked_body::ChunkedBody;
use super::classify::classify;
use super::connection_pool::ConnectionPool;
use super::identities::PatientCache;
use super::signing_state::SigningState;
use crate::clock::now;
use crate::error::{BatchError, Certainty, FailureClass};

/// No credentials are thrown away that were fetched a moment ago: the calls that fail with them come in
/// swarms, and a fetch can be a process or a call to another service.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Refused credentials may be good all the same, so that is asked less often.
const SHORTEST_LIFE_OF_REFUSED: Duration = Duration::from_secs(3);

const NO_SUCH_TABLE: &str = "ResourceNotFoundException";
const ACCESS_DENIED: &str = "AccessDeniedException";

/// The time was up before the request could leave: credentials that do not come.
pub(super) fn unprepared(limit: Duration) -> BatchError {
    let (class, certainty) = (FailureClass::ExpiredCredentials, Certainty::NotStored);
    BatchError::new(class, certainty, format!("no credentials came within {limit:?}"))
}

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
/// provider is asked again, by a client that is otherwise the same, connections included, with a fresh identity
/// cache.
#[derive(Clone)]
pub(super) struct RefreshableClient {
    current: Arc<RwLock<Current>>,
    /// Whether there have been credentials.
    has_signed: Arc<AtomicBool>,
    connections: ConnectionPool,
}

/// One call, from its beginning to its failure.
pub(super) struct Call {
    pub(super) client: Client,
    pub(super) signing: SigningState,
    /// Dropped with the call, and the rest of its body with it.
    pub(super) payload: ChunkedBody,
    pub(super) generation: u64,
}

struct Current {
    client: Client,
    /// Tells calls with these credentials from those before.
    generation: u64,
    /// `None` for the credentials that were there from the start.
    since: Option<Instant>,
}

impl fmt::Debug for RefreshableClient {
    /// Shows nothing: a client's configuration can hold a password, in its address.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RefreshableClient").finish_non_exhaustive()
    }
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
            .identity_cache(PatientCache::around(client.config().identity_cache()))
            .build();
        let current = Current { client: Client::from_conf(config), generation: 0, since: None };
        Self {
            current: Arc::new(RwLock::new(current)),
            has_signed: Arc::default(),
            connections: ConnectionPool::default(),
        }
    }

    pub(super) fn begin(&self) -> Call {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let payload = ChunkedBody::default();
        Call {
            client: current.client.clone(),
            signing: SigningState::new(&self.has_signed, &self.connections, payload.slot()),
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

    /// The failure of a call that took longer than `limit`.
    pub(super) fn timed_out(&self, limit: Duration, call: &Call) -> BatchError {
        let failure =
            if call.signing.is_sent() { BatchError::timed_out(limit) } else { unprepared(limit) };
        self.note(failure, call)
    }

    /// What a failure means beside what it says: a call that was never signed, or of which a part never left, was
    /// not applied; and credentials that have expired are not used again.
    pub(super) fn note(&self, failure: BatchError, call: &Call) -> BatchError {
        self.judge_credentials(&failure, call);
        if call.payload.give_up() || !call.signing.is_sent() {
            return failure.with_certainty(Certainty::NotStored);
        }
        failure
    }

    /// What the failure of a read means, through the SDK.
    pub(super) fn read_failure<E>(
        &self,
        error: &SdkError<E, HttpResponse>,
        call: &Call,
    ) -> BatchError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = classify(error, call.signing.signed());
        // A role that may write need not be allowed to read. Its credentials are good.
        if failure.code() != Some(ACCESS_DENIED) {
            self.judge_credentials(&failure, call);
        }
        failure
    }

    /// Has the provider asked again where the service refuses the credentials. Those that have not come yet were not
    /// refused.
    fn judge_credentials(&self, failure: &BatchError, call: &Call) {
        if !call.signing.is_sent() {
            return;
        }
        match failure.class() {
            FailureClass::ExpiredCredentials => self.refresh(call.generation, SHORTEST_LIFE),
            // Keys that were rotated, or a role that was given more: its provider may know better by now.
            FailureClass::Refused if failure.code() != Some(NO_SUCH_TABLE) => {
                self.refresh(call.generation, SHORTEST_LIFE_OF_REFUSED);
            }
            _ => {}
        }
    }

    /// Takes an answer for what it says, unless the request had not left when it came: then it is not
    /// the answer to this one.
    pub(super) fn answered<A>(answer: Result<A, BatchError>, call: &Call) -> Result<A, BatchError> {
        match answer {
            Ok(_) if call.payload.is_incomplete() => {
                Err(BatchError::invalid_response("it came before the request had left"))
            }
            answer => answer,
        }
    }

    fn refresh(&self, generation: u64, shortest_life: Duration) {
        let now = now();
        let is_due = |current: &Current| {
            let is_young = |since| now.saturating_duration_since(since) < shortest_life;
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
        let config = config.identity_cache(PatientCache::around(None));
        let config = match self.connections.get() {
            Some(http_client) => config.http_client(http_client),
            None => config,
        };
        let client = Client::from_conf(config.build());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Others of the swarm may have been quicker.
        if is_due(&current) {
            *current = Current { client, generation: generation + 1, since: Some(now) };
        }
    }
}
