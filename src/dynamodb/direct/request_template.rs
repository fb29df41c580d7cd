//! One request of the SDK's, recorded just before it would be sent.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::attributes::AccountId;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_dynamodb::config::{Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::{
    Identity, ResolveCachedIdentity, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::GetIdentityResolver;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::{ConfigBag, Layer};
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;

use super::known_request::unexpected;
use super::signer::{Scope, SignatureHeaders, Signer};
use crate::dynamodb::chunked_body::Slot;
use crate::dynamodb::classify::{chain, classify, credentials_failure, dispatch_failure};
use crate::dynamodb::client::Call;
use crate::dynamodb::response_body;
use crate::dynamodb::signing_state::Signed;
use crate::error::{BatchError, Certainty, FailureClass};

/// What this crate adds to the SDK's own words on who asks.
const USER_AGENT: &str = concat!("lib/dynamodb-eventstore/", env!("CARGO_PKG_VERSION"));

const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");

/// Headers of the recorded request that each request has its own of.
const OWN_HEADERS: [&str; 7] = [
    "authorization",
    "x-amzn-trace-id",
    "x-amz-date",
    "x-amz-security-token",
    "content-length",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
];

/// Why there is no recording.
#[derive(Debug)]
pub(super) enum Unmade {
    /// The attempt failed, and another may not.
    Failed(BatchError),
    /// The request is none that is known to be repeatable, for this reason.
    Unknown(String),
}

/// What all requests share.
pub(super) struct Recording {
    /// Of the client that made it.
    generation: u64,
    /// Whether its address is not the table's any more.
    is_misdirected: AtomicBool,
    /// Of the credentials that it was signed with: part of the address, where that is account-based.
    account: Option<AccountId>,
    /// The SDK's own limit for one attempt, where the configuration sets one.
    pub(super) attempt_timeout: Option<Duration>,
    /// The request but for its body and its signature.
    template: HttpRequest,
    signer: Signer,
    config: ConfigBag,
    components: RuntimeComponents,
    identities: SharedIdentityResolver,
    connector: SharedHttpConnector,
}

impl fmt::Debug for Recording {
    /// Shows no address: it can hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Recording")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Recording {
    /// Has the client make a request that is not sent. Whatever fails here, nothing was stored.
    pub(super) async fn make(call: &Call, table: &str) -> Result<Self, Unmade> {
        let recorder = Recorder::new(table);
        let stopped = call
            .batch_write_item(table)
            .customize()
            .interceptor(call.signing.clone())
            .interceptor(recorder.clone())
            .send()
            .await;
        let recorded = recorder.take();
        let error = match stopped {
            Err(error) if recorded.is_none() || has_stopped(&error) => error,
            // Real requests would go past whatever answers in the service's place.
            _ => return Err(Unmade::Unknown("the client answers by itself".to_owned())),
        };
        let Some(recorded) = recorded else {
            // What keeps the SDK from making its request may pass: credentials or an address that are slow to come.
            let failure = classify(&error, call.signing.signed());
            return Err(Unmade::Failed(failure.with_certainty(Certainty::NotStored)));
        };
        let Recorded { components, uri, headers, authorization, timeouts, unexpected } = recorded;
        if let Some(unexpected) = unexpected {
            return Err(Unmade::Unknown(unexpected));
        }
        let unknown = |what: &str| Unmade::Unknown(what.to_owned());
        let scope =
            Scope::of(&authorization).ok_or_else(|| unknown("it is signed in another way"))?;
        let http_client =
            components.http_client().ok_or_else(|| unknown("the client has no HTTP client"))?;
        let identities = components
            .identity_resolver(SIGV4)
            .ok_or_else(|| unknown("the client has no credentials provider"))?;
        let mut settings = HttpConnectorSettings::builder();
        settings.set_connect_timeout(timeouts.connect_timeout());
        settings.set_read_timeout(timeouts.read_timeout());
        let limits = [timeouts.operation_timeout(), timeouts.operation_attempt_timeout()];
        let attempt_timeout = limits.into_iter().flatten().min();
        // The identity cache goes by these: how long credentials may take to come follows from them.
        let mut layer = Layer::new("Recording");
        layer.store_put(timeouts).store_put(RetryConfig::standard());
        let config = ConfigBag::of_layers(vec![layer]);
        let identity = identity(&components, &identities, &config, call.signing.signed())
            .await
            .map_err(Unmade::Failed)?;
        let unusable = |failure: BatchError| Unmade::Unknown(failure.to_string());
        let template = template(&uri, &headers).map_err(unusable)?;
        let signer =
            Signer::new(&uri, &headers, scope, &identity, time(&components)).map_err(unusable)?;
        Ok(Self {
            generation: call.generation,
            is_misdirected: AtomicBool::new(false),
            account: identity.property::<AccountId>().cloned(),
            attempt_timeout,
            template,
            signer,
            config,
            connector: http_client.http_connector(&settings.build(), &components),
            components,
            identities,
        })
    }

    /// Whether a call of this client can repeat the request.
    pub(super) fn is_good_for(&self, call: &Call) -> bool {
        self.generation >= call.generation && !self.is_misdirected.load(Ordering::Relaxed)
    }

    /// Has the next call make a request of its own, whose address is found anew.
    pub(super) fn give_up(&self) {
        self.is_misdirected.store(true, Ordering::Relaxed);
    }

    /// Whether requests with these credentials go where this one went.
    pub(super) fn is_for(&self, identity: &Identity) -> bool {
        identity.property::<AccountId>() == self.account.as_ref()
    }

    /// This machine's time, as the client sees it.
    pub(super) fn now(&self) -> SystemTime {
        time(&self.components)
    }

    /// The credentials, as fresh as the client's cache has them.
    pub(super) async fn identity(&self, signed: Signed) -> Result<Identity, BatchError> {
        identity(&self.components, &self.identities, &self.config, signed).await
    }

    /// The request with this body, signed.
    pub(super) fn request(
        &self,
        identity: &Identity,
        body: &Bytes,
        signed_at: SystemTime,
    ) -> Result<HttpRequest, BatchError> {
        let SignatureHeaders { date, token, authorization } =
            self.signer.sign(identity, body, signed_at)?;
        let mut request =
            self.template.try_clone().ok_or_else(|| fatal("the request cannot be repeated"))?;
        *request.body_mut() = SdkBody::from(body.clone());
        let headers = [
            ("content-length", Some(body.len().to_string())),
            ("x-amz-date", Some(date)),
            ("x-amz-security-token", token),
            ("authorization", Some(authorization)),
            ("x-amzn-trace-id", lambda_trace()),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                let inserted = request.headers_mut().try_insert(name, value);
                inserted
                    .map_err(|_| fatal("the request's signature does not belong into a header"))?;
            }
        }
        Ok(request)
    }

    /// Sends the request and reads its answer to the end. A connection to a service that is not well is
    /// not used again.
    pub(super) async fn exchange(
        &self,
        mut request: HttpRequest,
        body: &Slot,
        signed: Signed,
    ) -> Result<(HttpResponse, Bytes), BatchError> {
        if let Some(pieces) = body.pieces(request.body().bytes()) {
            *request.body_mut() = SdkBody::from_body_1_x(pieces);
        }
        let connection = CaptureSmithyConnection::new();
        request.add_extension(connection.clone());
        let answered = self.connector.call(request).await;
        let mut response = answered.map_err(|error| dispatch_failure(&error, signed))?;
        response_body::check(&mut response);
        let status = response.status().as_u16();
        if matches!(status, 408 | response_body::MISDIRECTED | 500..)
            && let Some(connection) = connection.get()
        {
            connection.poison();
        }
        let unread = ByteStream::new(response.take_body()).collect().await;
        match unread {
            Ok(read) => Ok((response, read.into_bytes())),
            Err(_) => {
                if let Some(connection) = connection.get() {
                    connection.poison();
                }
                Err(super::broken_off(&response))
            }
        }
    }
}

fn time(components: &RuntimeComponents) -> SystemTime {
    components.time_source().map_or(SystemTime::UNIX_EPOCH, |clock| clock.now())
}

async fn identity(
    components: &RuntimeComponents,
    identities: &SharedIdentityResolver,
    config: &ConfigBag,
    signed: Signed,
) -> Result<Identity, BatchError> {
    let cache = components.identity_cache();
    let identity = cache.resolve_cached_identity(identities.clone(), components, config).await;
    identity.map_err(|error| {
        credentials_failure(&*error, signed.ever).unwrap_or_else(|| {
            let (class, certainty) = (FailureClass::ExpiredCredentials, Certainty::NotStored);
            BatchError::new(class, certainty, format!("no AWS credentials could be had: {error}"))
        })
    })
}

fn template(uri: &str, headers: &[(String, String)]) -> Result<HttpRequest, BatchError> {
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_method("POST").map_err(|_| fatal("the request cannot be built"))?;
    request.set_uri(uri).map_err(|_| fatal("the request has no address"))?;
    for (name, value) in headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    Ok(request)
}

fn fatal(message: &str) -> BatchError {
    BatchError::new(FailureClass::Fatal, Certainty::NotStored, message)
}

/// Records a request in the place of its transmission.
#[derive(Debug, Clone)]
struct Recorder {
    table: String,
    recorded: Arc<Mutex<Option<Recorded>>>,
}

impl Recorder {
    fn new(table: &str) -> Self {
        Self { table: table.to_owned(), recorded: Arc::default() }
    }

    /// What was recorded is taken out: it holds the call's components, which hold this recorder, so that neither
    /// would ever be freed.
    fn take(&self) -> Option<Recorded> {
        self.slot().take()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Recorded>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
struct Recorded {
    components: RuntimeComponents,
    uri: String,
    headers: Vec<(String, String)>,
    authorization: String,
    timeouts: TimeoutConfig,
    /// What keeps the request from being repeated.
    unexpected: Option<String>,
}

/// Ends the call that is recorded.
#[derive(Debug, thiserror::Error)]
#[error("recorded, and not to be sent")]
struct Stopped;

/// Whether the recorder ended the call, and nothing after it changed that.
fn has_stopped(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| error.is::<Stopped>())
}

/// What AWS Lambda knows its invocation by, for requests to name: the SDK does the same. In Lambda it
/// changes from one invocation to the next.
fn lambda_trace() -> Option<String> {
    std::env::var_os("AWS_LAMBDA_FUNCTION_NAME")?;
    let trace = std::env::var("_X_AMZN_TRACE_ID").ok()?;
    trace.bytes().all(|byte| (b' '..=b'~').contains(&byte)).then_some(trace)
}

impl Intercept for Recorder {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let headers = request
            .headers()
            .iter()
            .filter(|(name, _)| !OWN_HEADERS.contains(name))
            .map(|(name, value)| match name {
                "user-agent" => (name.to_owned(), format!("{value} {USER_AGENT}")),
                _ => (name.to_owned(), value.to_owned()),
            })
            .collect();
        let recorded = Recorded {
            components: components.clone(),
            uri: request.uri().to_owned(),
            headers,
            authorization: request.headers().get("authorization").unwrap_or_default().to_owned(),
            timeouts: config
                .load::<TimeoutConfig>()
                .cloned()
                .unwrap_or_else(TimeoutConfig::disabled),
            unexpected: unexpected(request, &self.table, lambda_trace().as_deref()),
        };
        *self.slot() = Some(recorded);
        Err(Stopped.into())
    }
}
