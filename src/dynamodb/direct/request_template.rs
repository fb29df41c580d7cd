//! What all requests of a store share, from one captured request of the SDK's.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::attributes::AccountId;
use aws_sdk_dynamodb::config::RuntimeComponents;
use aws_sdk_dynamodb::config::http::HttpResponse;
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

use super::captured_request::{CapturedRequest, RequestCapture, has_stopped, lambda_trace};
use super::signer::{Scope, SignatureHeaders, Signer};
use crate::dynamodb::chunked_body::ChunkedBodySlot;
use crate::dynamodb::classify::{classify, credentials_failure, dispatch_failure};
use crate::dynamodb::client::Call;
use crate::dynamodb::signing_state::SigningInfo;
use crate::dynamodb::{response, response_body};
use crate::error::{BatchError, Certainty, FailureClass};

const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");

/// Why there is no template.
#[derive(Debug)]
pub(super) enum TemplateError {
    /// The attempt failed, and another may not.
    Failed(BatchError),
    /// The request is not known to be repeatable, for this reason.
    Unknown(String),
}

/// What all requests share.
pub(super) struct RequestTemplate {
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

impl fmt::Debug for RequestTemplate {
    /// Shows no address: it can hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Recording")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl RequestTemplate {
    /// Has the client make a request that is not sent. Whatever fails here, nothing was stored.
    pub(super) async fn make(call: &Call, table: &str) -> Result<Self, TemplateError> {
        let capture = RequestCapture::new(table);
        let stopped = call
            .batch_write_item(table)
            .customize()
            .interceptor(call.signing.clone())
            .interceptor(capture.clone())
            .send()
            .await;
        let captured = capture.take();
        let error = match stopped {
            Err(error) if captured.is_none() || has_stopped(&error) => error,
            // Real requests would go past whatever answers in the service's place.
            _ => return Err(TemplateError::Unknown("the client answers by itself".to_owned())),
        };
        let Some(captured) = captured else {
            // What keeps the SDK from making its request may pass: credentials or an address that are slow to come.
            let failure = classify(&error, call.signing.signed());
            return Err(TemplateError::Failed(failure.with_certainty(Certainty::NotStored)));
        };
        let CapturedRequest { components, uri, headers, authorization, timeouts, unexpected } =
            captured;
        if let Some(unexpected) = unexpected {
            return Err(TemplateError::Unknown(unexpected));
        }
        let unknown = |what: &str| TemplateError::Unknown(what.to_owned());
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
        let mut layer = Layer::new("RequestTemplate");
        layer.store_put(timeouts).store_put(RetryConfig::standard());
        let config = ConfigBag::of_layers(vec![layer]);
        let identity = identity(&components, &identities, &config, call.signing.signed())
            .await
            .map_err(TemplateError::Failed)?;
        let unusable = |failure: BatchError| TemplateError::Unknown(failure.to_string());
        let template = unsigned_request(&uri, &headers).map_err(unusable)?;
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
    pub(super) async fn identity(&self, signed: SigningInfo) -> Result<Identity, BatchError> {
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
        body: &ChunkedBodySlot,
        signed: SigningInfo,
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
                Err(response::broken_off(&response))
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
    signed: SigningInfo,
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
