//! Wraps the SDK's client for both writers: switches its retries off, and reloads credentials that the service refuses.
//! Also holds the state of one call, and says what its failure means.

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
use aws_sdk_dynamodb::operation::batch_execute_statement::builders::BatchExecuteStatementFluentBuilder;
use aws_sdk_dynamodb::operation::batch_write_item::builders::BatchWriteItemFluentBuilder;

use super::chunked_body::ChunkedBody;
use super::classify::{ACCESS_DENIED, RESOURCE_NOT_FOUND, classify};
use super::connection_pool::ConnectionPool;
use super::identity_cache::DetachedIdentityCache;
use super::signing_state::SigningState;
use crate::clock::now;
use crate::error::{BatchError, Certainty, FailureClass};

/// Shortest time between two reloads of expired credentials. Many calls fail with them at once, and a load may
/// start a process or call another service.
const MIN_RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// Shortest time between two reloads of credentials that the service refuses for other reasons. They may be
/// valid, so they are reloaded less often.
const MIN_RELOAD_INTERVAL_OF_REFUSED: Duration = Duration::from_secs(3);

/// The failure of a call whose request was not sent within `limit`, because no credentials were loaded.
pub(super) fn no_credentials_within(limit: Duration) -> BatchError {
    let (class, certainty) = (FailureClass::ExpiredCredentials, Certainty::NotStored);
    BatchError::new(class, certainty, format!("no AWS credentials were loaded within {limit:?}"))
}

/// A client without retries and without stalled-stream protection. Clones share its state.
///
/// The SDK caches credentials until their provider's expiry time, or for 15 minutes, even if the service
/// says that they are expired because they were revoked or replaced. After such a failure this client is
/// replaced by one with an empty identity cache, which asks the provider again. The new client has the same
/// configuration and the same connections.
#[derive(Clone)]
pub(super) struct RefreshableClient {
    current: Arc<RwLock<CurrentClient>>,
    /// Whether any request was signed, which shows that there were credentials.
    has_signed: Arc<AtomicBool>,
    connections: ConnectionPool,
}

/// The state of one call.
pub(super) struct Call {
    pub(super) client: Client,
    pub(super) signing: SigningState,
    /// Dropped with the call, which cancels the rest of the body.
    pub(super) body: ChunkedBody,
    /// Generation of the client's credentials: see [`CurrentClient`].
    pub(super) generation: u64,
}

impl Call {
    /// The SDK's `BatchWriteItem` call for `table`, with which both writers begin. It has no items: this
    /// crate renders the body.
    pub(super) fn batch_write_item(&self, table: &str) -> BatchWriteItemFluentBuilder {
        self.client.batch_write_item().request_items(table, Vec::new())
    }

    /// The SDK's `BatchExecuteStatement` call, with which both writers begin in [`WriteMode::Insert`]. It has no
    /// statements: this crate renders the body.
    ///
    /// [`WriteMode::Insert`]: crate::WriteMode::Insert
    pub(super) fn batch_execute_statement(&self) -> BatchExecuteStatementFluentBuilder {
        self.client.batch_execute_statement().set_statements(Some(Vec::new()))
    }
}

struct CurrentClient {
    client: Client,
    /// Increases with each reload of the credentials.
    generation: u64,
    /// When the credentials were reloaded last. `None` for the client's first ones.
    refreshed_at: Option<Instant>,
}

impl fmt::Debug for RefreshableClient {
    /// Shows no field: the endpoint in the client's configuration can contain a password.
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
            // Stalled-stream protection would measure the signed body, not the chunks that are sent instead. The
            // store's attempt time-out bounds the call.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(DetachedIdentityCache::wrapping(client.config().identity_cache()))
            .build();
        let current =
            CurrentClient { client: Client::from_conf(config), generation: 0, refreshed_at: None };
        Self {
            current: Arc::new(RwLock::new(current)),
            has_signed: Arc::default(),
            connections: ConnectionPool::default(),
        }
    }

    pub(super) fn begin_call(&self) -> Call {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let body = ChunkedBody::default();
        Call {
            client: current.client.clone(),
            signing: SigningState::new(&self.has_signed, &self.connections, body.source()),
            body,
            generation: current.generation,
        }
    }

    /// Concludes a write through the SDK that failed with `error`.
    pub(super) fn write_failure<E>(
        &self,
        error: &SdkError<E, HttpResponse>,
        call: &Call,
    ) -> BatchError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.conclude_failure(classify(error, call.signing.info()), call)
    }

    /// Concludes a write that took longer than `limit`.
    pub(super) fn write_timed_out(&self, limit: Duration, call: &Call) -> BatchError {
        let failure = if call.signing.is_sent() {
            BatchError::timed_out(limit)
        } else {
            no_credentials_within(limit)
        };
        self.conclude_failure(failure, call)
    }

    /// Ends a failed write: cancels the rest of its body, and reloads credentials that the service refused. A call
    /// whose request was not sent, or not completely, was not applied.
    pub(super) fn conclude_failure(&self, failure: BatchError, call: &Call) -> BatchError {
        self.refresh_if_refused(&failure, call);
        if call.body.cancel() || !call.signing.is_sent() {
            return failure.with_certainty(Certainty::NotStored);
        }
        failure
    }

    /// Concludes a read through the SDK that failed with `error`.
    pub(super) fn read_failure<E>(
        &self,
        error: &SdkError<E, HttpResponse>,
        call: &Call,
    ) -> BatchError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let failure = classify(error, call.signing.info());
        // A role that may write need not be allowed to read. Its credentials are valid.
        if failure.code() != Some(ACCESS_DENIED) {
            self.refresh_if_refused(&failure, call);
        }
        failure
    }

    /// Has the credentials reloaded if the service refused them. A request that was not sent was not refused.
    fn refresh_if_refused(&self, failure: &BatchError, call: &Call) {
        if !call.signing.is_sent() {
            return;
        }
        match failure.class() {
            FailureClass::ExpiredCredentials => self.refresh(call.generation, MIN_RELOAD_INTERVAL),
            // The provider may have new credentials: keys were rotated, or the role got more permissions.
            FailureClass::Refused if failure.code() != Some(RESOURCE_NOT_FOUND) => {
                self.refresh(call.generation, MIN_RELOAD_INTERVAL_OF_REFUSED);
            }
            _ => {}
        }
    }

    /// Fails a call that was acknowledged before its request was sent completely: the response belongs to
    /// another request.
    pub(super) fn reject_early_response<R>(
        result: Result<R, BatchError>,
        call: &Call,
    ) -> Result<R, BatchError> {
        match result {
            Ok(_) if call.body.is_incomplete() => {
                Err(BatchError::invalid_response("it came before the request was sent completely"))
            }
            result => result,
        }
    }

    fn refresh(&self, generation: u64, min_interval: Duration) {
        let now = now();
        let is_due = |current: &CurrentClient| {
            let is_recent =
                |refreshed_at| now.saturating_duration_since(refreshed_at) < min_interval;
            current.generation == generation && !current.refreshed_at.is_some_and(is_recent)
        };
        let config = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if !is_due(&current) {
                return;
            }
            current.client.config().to_builder()
        };
        // Built without the lock, because it takes a while: other calls continue with the current client.
        let config = config.identity_cache(DetachedIdentityCache::wrapping(None));
        let config = match self.connections.get() {
            Some(http_client) => config.http_client(http_client),
            None => config,
        };
        let client = Client::from_conf(config.build());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Another failed call may have replaced the client in the meantime.
        if is_due(&current) {
            *current =
                CurrentClient { client, generation: generation + 1, refreshed_at: Some(now) };
        }
    }
}
