//! [`StreamsClient`]: the SDK's client for streams, without its retries. If the service says that the credentials have
//! expired, they are reloaded. The time in each answer is recorded.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{
    ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_dynamodb::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::Builder;
use tokio::time::timeout;

use crate::clock::now;
use crate::dynamodb::chunked_body::ChunkedBody;
use crate::dynamodb::classify::{classify, service_time};
use crate::dynamodb::client::no_credentials_within;
use crate::dynamodb::connection_pool::ConnectionPool;
use crate::dynamodb::identity_cache::DetachedIdentityCache;
use crate::dynamodb::signing_state::SigningState;
use crate::error::{BatchError, FailureClass};

/// Shortest time between two reloads of credentials. Many shards are read at once, and each would reload them.
const MIN_RELOAD_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct StreamsClient {
    current: RwLock<CurrentClient>,
    has_signed: Arc<AtomicBool>,
    connections: ConnectionPool,
    clock: ServiceClock,
}

struct CurrentClient {
    client: Client,
    /// When the credentials were last reloaded. `None` if never.
    refreshed_at: Option<Instant>,
}

impl fmt::Debug for StreamsClient {
    /// Shows no field: the endpoint in the client's configuration can contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StreamsClient").finish_non_exhaustive()
    }
}

impl StreamsClient {
    pub(super) fn new(sdk_config: &SdkConfig) -> Self {
        let clock = ServiceClock::default();
        let config = Builder::from(sdk_config)
            .retry_config(RetryConfig::disabled())
            // The attempt time-out bounds each call.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(DetachedIdentityCache::wrapping(sdk_config.identity_cache()))
            .interceptor(clock.clone())
            .build();
        let current = CurrentClient { client: Client::from_conf(config), refreshed_at: None };
        Self {
            current: RwLock::new(current),
            has_signed: Arc::default(),
            connections: ConnectionPool::default(),
            clock,
        }
    }

    pub(super) fn service_time(&self) -> Option<i64> {
        Some(self.clock.0.load(Ordering::Relaxed)).filter(|time| *time > 0)
    }

    /// Makes one attempt at a call, which takes at most `attempt_timeout`.
    pub(super) async fn call<O, E, F>(
        &self,
        attempt_timeout: Duration,
        send: impl FnOnce(Client, SigningState) -> F,
    ) -> Result<O, BatchError>
    where
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let client = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            current.client.clone()
        };
        let began = now();
        // The body of a read is small, and is sent whole.
        let body = ChunkedBody::default();
        let signing = SigningState::new(&self.has_signed, &self.connections, body.source());
        let failure = match timeout(attempt_timeout, send(client, signing.clone())).await {
            Ok(Ok(output)) => return Ok(output),
            Ok(Err(error)) => classify(&error, signing.info()),
            Err(_) if signing.is_sent() => BatchError::timed_out(attempt_timeout),
            Err(_) => no_credentials_within(attempt_timeout),
        };
        if failure.class() == FailureClass::ExpiredCredentials && signing.is_sent() {
            self.refresh(began);
        }
        Err(failure)
    }

    /// Replaces the client by one with an empty identity cache, so that the provider is asked again. Nothing is done if the
    /// failed call began before the last reload, because it had older credentials.
    fn refresh(&self, call_began: Instant) {
        let now = now();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |refreshed_at: Instant| {
            call_began < refreshed_at
                || now.saturating_duration_since(refreshed_at) < MIN_RELOAD_INTERVAL
        };
        if current.refreshed_at.is_some_and(is_recent) {
            return;
        }
        let config = current.client.config().to_builder();
        let config = config.identity_cache(DetachedIdentityCache::wrapping(None));
        let config = match self.connections.get() {
            Some(http_client) => config.http_client(http_client),
            None => config,
        };
        let client = Client::from_conf(config.build());
        *current = CurrentClient { client, refreshed_at: Some(now) };
    }
}

/// The latest time in an answer of the service, in seconds after the Unix epoch; 0 before the first one.
#[derive(Debug, Clone, Default)]
struct ServiceClock(Arc<AtomicI64>);

impl Intercept for ServiceClock {
    fn name(&self) -> &'static str {
        "ServiceClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(time) = service_time(context.response()) {
            self.0.fetch_max(time, Ordering::Relaxed);
        }
        Ok(())
    }
}
