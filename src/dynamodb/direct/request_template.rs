//! The template of the direct writer's requests, made from one captured request of the SDK. It signs and sends
//! them with the SDK's own parts.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::attributes::AccountId;
use aws_sdk_dynamodb::config::RuntimeComponents;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
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
use bytes::Bytes;

use super::captured_request::{CapturedRequest, RequestCapture, lambda_trace_id, was_captured};
use super::signer::{CredentialScope, SignatureHeaders, Signer};
use crate::dynamodb::chunked_body::ChunkedBodySource;
use crate::dynamodb::classify::{classify, credentials_failure, dispatch_failure};
use crate::dynamodb::client::Call;
use crate::dynamodb::signing_state::SigningInfo;
use crate::dynamodb::{response, response_body};
use crate::error::{BatchError, Certainty, FailureClass};
use crate::write_mode::WriteMode;

const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");

/// Why a template could not be made.
#[derive(Debug)]
pub(super) enum TemplateError {
    /// The SDK could not make its request. A later attempt may succeed.
    Failed(BatchError),
    /// This crate cannot repeat the SDK's requests, for this reason.
    Unsupported(String),
}

/// The parts that all requests share.
pub(super) struct RequestTemplate {
    /// Generation of the client's credentials when the request was captured.
    generation: u64,
    /// Whether the next call must capture a new request.
    is_stale: AtomicBool,
    /// Account of the credentials with which the captured request was signed. An account-based endpoint contains it.
    account: Option<AccountId>,
    /// Limit of one attempt that the SDK's configuration sets, if any.
    pub(super) attempt_timeout: Option<Duration>,
    /// The request without body and signature.
    unsigned_request: HttpRequest,
    signer: Signer,
    config: ConfigBag,
    components: RuntimeComponents,
    identities: SharedIdentityResolver,
    connector: SharedHttpConnector,
}

impl fmt::Debug for RequestTemplate {
    /// Omits the endpoint, which can contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RequestTemplate")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl RequestTemplate {
    /// Makes a template from a request that the client of `call` makes and does not send. A failure stores
    /// nothing.
    pub(super) async fn capture(
        call: &Call,
        mode: WriteMode,
        table: &str,
    ) -> Result<Self, TemplateError> {
        let capture = RequestCapture::new(mode, table);
        let (signing, capturing) = (call.signing.clone(), capture.clone());
        let captured = match mode {
            WriteMode::Put => {
                let operation = call.batch_write_item(table).customize();
                let sent = operation.interceptor(signing).interceptor(capturing).send().await;
                captured(sent, &capture, call)
            }
            WriteMode::Insert => {
                let operation = call.batch_execute_statement().customize();
                let sent = operation.interceptor(signing).interceptor(capturing).send().await;
                captured(sent, &capture, call)
            }
        }?;
        let unsupported = |reason: &str| TemplateError::Unsupported(reason.to_owned());
        let CapturedRequest { components, uri, headers, authorization, timeouts, difference } =
            captured;
        if let Some(difference) = difference {
            return Err(TemplateError::Unsupported(difference));
        }
        let scope = CredentialScope::from_authorization(&authorization)
            .ok_or_else(|| unsupported("it is signed in another way"))?;
        let http_client =
            components.http_client().ok_or_else(|| unsupported("the client has no HTTP client"))?;
        let identities = components
            .identity_resolver(SIGV4)
            .ok_or_else(|| unsupported("the client has no credentials provider"))?;
        let mut settings = HttpConnectorSettings::builder();
        settings.set_connect_timeout(timeouts.connect_timeout());
        settings.set_read_timeout(timeouts.read_timeout());
        let limits = [timeouts.operation_timeout(), timeouts.operation_attempt_timeout()];
        let attempt_timeout = limits.into_iter().flatten().min();
        // The identity cache derives from these how long credentials may take to load.
        let mut layer = Layer::new("RequestTemplate");
        layer.store_put(timeouts).store_put(RetryConfig::standard());
        let config = ConfigBag::of_layers(vec![layer]);
        let identity = identity(&components, &identities, &config, call.signing.info())
            .await
            .map_err(TemplateError::Failed)?;
        let unusable = |failure: BatchError| TemplateError::Unsupported(failure.to_string());
        let unsigned_request = unsigned_request(&uri, &headers).map_err(unusable)?;
        let signer = Signer::new(&uri, &headers, scope, &identity, client_time(&components))
            .map_err(unusable)?;
        Ok(Self {
            generation: call.generation,
            is_stale: AtomicBool::new(false),
            account: identity.property::<AccountId>().cloned(),
            attempt_timeout,
            unsigned_request,
            signer,
            config,
            connector: http_client.http_connector(&settings.build(), &components),
            components,
            identities,
        })
    }

    /// Whether `call` can use the template.
    pub(super) fn is_usable_for(&self, call: &Call) -> bool {
        self.generation >= call.generation && !self.is_stale.load(Ordering::Relaxed)
    }

    /// Makes the next call capture a new request, for which the SDK resolves the endpoint again.
    pub(super) fn invalidate(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
    }

    /// Whether requests with these credentials have the same endpoint: they are of the same account.
    pub(super) fn is_for_account_of(&self, identity: &Identity) -> bool {
        identity.property::<AccountId>() == self.account.as_ref()
    }

    /// The time of the client's clock, by default this machine's.
    pub(super) fn now(&self) -> SystemTime {
        client_time(&self.components)
    }

    /// The credentials, from the client's identity cache.
    pub(super) async fn identity(&self, signing: SigningInfo) -> Result<Identity, BatchError> {
        identity(&self.components, &self.identities, &self.config, signing).await
    }

    /// The request with this body, signed.
    pub(super) fn signed_request(
        &self,
        identity: &Identity,
        body: &Bytes,
        signed_at: SystemTime,
    ) -> Result<HttpRequest, BatchError> {
        let SignatureHeaders { date, token, authorization } =
            self.signer.sign(identity, body, signed_at)?;
        let mut request = self
            .unsigned_request
            .try_clone()
            .ok_or_else(|| fatal("the request cannot be repeated"))?;
        *request.body_mut() = SdkBody::from(body.clone());
        let headers = [
            ("content-length", Some(body.len().to_string())),
            ("x-amz-date", Some(date)),
            ("x-amz-security-token", token),
            ("authorization", Some(authorization)),
            ("x-amzn-trace-id", lambda_trace_id()),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                let inserted = request.headers_mut().try_insert(name, value);
                inserted.map_err(|_| {
                    fatal("the request's signature has characters that a header cannot have")
                })?;
            }
        }
        Ok(request)
    }

    /// Sends the request and reads its response to the end. After a 408, a 421 or a 5xx, and after a response
    /// that cannot be read, the connection is not used again.
    pub(super) async fn send(
        &self,
        mut request: HttpRequest,
        body: &ChunkedBodySource,
        signing: SigningInfo,
    ) -> Result<(HttpResponse, Bytes), BatchError> {
        if let Some(chunks) = body.chunks(request.body().bytes()) {
            *request.body_mut() = SdkBody::from_body_1_x(chunks);
        }
        let connection = CaptureSmithyConnection::new();
        request.add_extension(connection.clone());
        let response = self.connector.call(request).await;
        let mut response = response.map_err(|error| dispatch_failure(&error, signing))?;
        response_body::verify_while_reading(&mut response);
        let status = response.status().as_u16();
        if matches!(status, 408 | response_body::MISDIRECTED | 500..)
            && let Some(connection) = connection.get()
        {
            connection.poison();
        }
        let body = ByteStream::new(response.take_body()).collect().await;
        match body {
            Ok(body) => Ok((response, body.into_bytes())),
            Err(_) => {
                if let Some(connection) = connection.get() {
                    connection.poison();
                }
                Err(response::incomplete(&response))
            }
        }
    }
}

/// The request that `capture` has captured from a call with this result.
fn captured<O, E>(
    result: Result<O, SdkError<E, HttpResponse>>,
    capture: &RequestCapture,
    call: &Call,
) -> Result<CapturedRequest, TemplateError>
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let captured = capture.take();
    let error = match result {
        Err(error) if captured.is_none() || was_captured(&error) => error,
        // An interceptor answers in the service's place. Repeated requests would bypass it.
        _ => return Err(TemplateError::Unsupported("the client answers by itself".to_owned())),
    };
    captured.ok_or_else(|| {
        // The cause may be temporary: credentials or an endpoint that took too long to resolve.
        let failure = classify(&error, call.signing.info());
        TemplateError::Failed(failure.with_certainty(Certainty::NotStored))
    })
}

fn client_time(components: &RuntimeComponents) -> SystemTime {
    components.time_source().map_or(SystemTime::UNIX_EPOCH, |clock| clock.now())
}

async fn identity(
    components: &RuntimeComponents,
    identities: &SharedIdentityResolver,
    config: &ConfigBag,
    signing: SigningInfo,
) -> Result<Identity, BatchError> {
    let cache = components.identity_cache();
    let identity = cache.resolve_cached_identity(identities.clone(), components, config).await;
    identity.map_err(|error| {
        credentials_failure(&*error, signing.has_ever_signed).unwrap_or_else(|| {
            let (class, certainty) = (FailureClass::ExpiredCredentials, Certainty::NotStored);
            BatchError::new(
                class,
                certainty,
                format!("the AWS credentials could not be loaded: {error}"),
            )
        })
    })
}

fn unsigned_request(uri: &str, headers: &[(String, String)]) -> Result<HttpRequest, BatchError> {
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
