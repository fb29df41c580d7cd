//! One request of the SDK's, recorded just before it would be sent.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::auth::AuthSchemeId;
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
use bytes::Bytes;

use super::classify::{classify, credentials_failure, dispatch_failure};
use super::client::Call;
use super::payload::Slot;
use super::signing::Signed;
use crate::error::{BatchError, Certainty, FailureClass};

/// The SDK's default.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);

/// The service's name in a signature.
const SERVICE: &str = "dynamodb";

/// What this crate adds to the SDK's own words on who asks.
const USER_AGENT: &str = concat!("lib/dynamodb-eventstore/", env!("CARGO_PKG_VERSION"));

const SIGV4: AuthSchemeId = AuthSchemeId::new("sigv4");

/// Headers of the recorded request that each request has its own of.
const OWN_HEADERS: [&str; 6] = [
    "authorization",
    "x-amz-date",
    "x-amz-security-token",
    "content-length",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
];

/// What all requests share.
#[derive(Debug)]
pub(super) struct Recording {
    /// Of the client that made it.
    pub(super) generation: u64,
    /// The SDK's own limit for one attempt, where the configuration sets one.
    pub(super) attempt_timeout: Option<Duration>,
    uri: String,
    headers: Vec<(String, String)>,
    region: String,
    components: RuntimeComponents,
    identities: SharedIdentityResolver,
    connector: SharedHttpConnector,
}

impl Recording {
    /// Has the client make a request that is not sent.
    pub(super) async fn make(call: &Call, table: &str) -> Result<Self, BatchError> {
        let recorder = Recorder::default();
        let stopped =
            call.batch_write_item(table).customize().interceptor(recorder.clone()).send().await;
        let Some(recorded) = recorder.0.get().cloned() else {
            return Err(match stopped {
                Err(error) => classify(&error, call.signing.signed()),
                Ok(_) => fatal("the client answers by itself, without a request"),
            });
        };
        let config = call.client.config();
        let timeouts = config.timeout_config();
        let settings = HttpConnectorSettings::builder()
            .connect_timeout(
                timeouts.and_then(|timeouts| timeouts.connect_timeout()).unwrap_or(CONNECT_TIMEOUT),
            )
            .build();
        let Recorded { components, uri, headers } = recorded;
        let http_client =
            components.http_client().ok_or_else(|| fatal("the client has no HTTP client"))?;
        let identities = components
            .identity_resolver(SIGV4)
            .ok_or_else(|| fatal("the client has no credentials provider"))?;
        Ok(Self {
            generation: call.generation,
            attempt_timeout: timeouts.and_then(|timeouts| timeouts.operation_attempt_timeout()),
            uri,
            headers,
            region: config.region().map(ToString::to_string).unwrap_or_default(),
            connector: http_client.http_connector(&settings, &components),
            components,
            identities,
        })
    }

    /// This machine's time, as the client sees it.
    pub(super) fn now(&self) -> SystemTime {
        let clock = self.components.time_source();
        clock.map_or(SystemTime::UNIX_EPOCH, |clock| clock.now())
    }

    /// The credentials, as fresh as the client's cache has them.
    pub(super) async fn identity(&self, signed: Signed) -> Result<Identity, BatchError> {
        let cache = self.components.identity_cache();
        let config = ConfigBag::base();
        let identity =
            cache.resolve_cached_identity(self.identities.clone(), &self.components, &config);
        identity.await.map_err(|error| {
            credentials_failure(&*error, signed.ever).unwrap_or_else(|| {
                let (class, certainty) = (FailureClass::ExpiredCredentials, Certainty::NotStored);
                BatchError::new(
                    class,
                    certainty,
                    format!("no AWS credentials could be had: {error}"),
                )
            })
        })
    }

    /// The request with this body, signed.
    pub(super) fn request(
        &self,
        identity: &Identity,
        body: &Bytes,
        signed_at: SystemTime,
    ) -> Result<HttpRequest, BatchError> {
        let mut settings = SigningSettings::default();
        settings.session_token_mode = aws_sigv4::http_request::SessionTokenMode::Include;
        let params = v4::SigningParams::builder()
            .identity(identity)
            .region(&self.region)
            .name(SERVICE)
            .time(signed_at)
            .settings(settings)
            .build()
            .map_err(|error| fatal(&format!("the request cannot be signed: {error}")))?
            .into();
        let length = body.len().to_string();
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let signable = SignableRequest::new(
            "POST",
            self.uri.as_str(),
            headers.chain([("content-length", length.as_str())]),
            SignableBody::Bytes(body),
        );
        let signature = signable
            .and_then(|signable| sign(signable, &params))
            .map_err(|error| fatal(&format!("the request cannot be signed: {error}")))?;
        let mut request = HttpRequest::new(SdkBody::from(body.clone()));
        let unbuilt = |_| fatal("the request cannot be built");
        request.set_method("POST").map_err(unbuilt)?;
        request.set_uri(self.uri.as_str()).map_err(|_| fatal("the request has no address"))?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        request.headers_mut().insert("content-length", length);
        let (instructions, _) = signature.into_parts();
        for (name, value) in instructions.headers() {
            request.headers_mut().insert(name.to_owned(), value.to_owned());
        }
        Ok(request)
    }

    /// Sends the request and reads its answer to the end.
    pub(super) async fn exchange(
        &self,
        mut request: HttpRequest,
        body: &Slot,
        signed: Signed,
    ) -> Result<(HttpResponse, Bytes), BatchError> {
        if let Some(pieces) = body.pieces(request.body().bytes()) {
            *request.body_mut() = SdkBody::from_body_1_x(pieces);
        }
        let answered = self.connector.call(request).await;
        let mut response = answered.map_err(|error| dispatch_failure(&error, signed.ever))?;
        let unread = ByteStream::new(response.take_body()).collect().await;
        match unread {
            Ok(read) => Ok((response, read.into_bytes())),
            Err(_) => Err(super::direct::broken_off(&response)),
        }
    }
}

fn fatal(message: &str) -> BatchError {
    BatchError::new(FailureClass::Fatal, Certainty::NotStored, message)
}

/// Records a request in the place of its transmission.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<OnceLock<Recorded>>);

#[derive(Debug, Clone)]
struct Recorded {
    components: RuntimeComponents,
    uri: String,
    headers: Vec<(String, String)>,
}

impl Intercept for Recorder {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        components: &RuntimeComponents,
        _config: &mut ConfigBag,
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
        let _ = self.0.set(Recorded {
            components: components.clone(),
            uri: request.uri().to_owned(),
            headers,
        });
        Err("recorded, and not to be sent".into())
    }
}
