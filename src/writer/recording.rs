//! One request of the SDK's, recorded just before it would be sent.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_credential_types::attributes::AccountId;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_dynamodb::config::{Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
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

use super::classify::{classify, credentials_failure, dispatch_failure};
use super::client::Call;
use super::payload::Slot;
use super::signing::Signed;
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

/// What all requests share.
#[derive(Debug)]
pub(super) struct Recording {
    /// Of the client that made it.
    pub(super) generation: u64,
    /// Of the credentials that it was signed with: part of the address, where that is account-based.
    account: Option<AccountId>,
    /// The SDK's own limit for one attempt, where the configuration sets one.
    pub(super) attempt_timeout: Option<Duration>,
    uri: String,
    headers: Vec<(String, String)>,
    scope: Scope,
    config: ConfigBag,
    components: RuntimeComponents,
    identities: SharedIdentityResolver,
    connector: SharedHttpConnector,
}

impl Recording {
    /// Has the client make a request that is not sent. Whatever fails here, nothing was stored.
    pub(super) async fn make(call: &Call, table: &str) -> Result<Self, BatchError> {
        let recorder = Recorder::default();
        let stopped =
            call.batch_write_item(table).customize().interceptor(recorder.clone()).send().await;
        let Some(recorded) = recorder.0.get().cloned() else {
            return Err(match stopped {
                Err(error) => {
                    classify(&error, call.signing.signed()).with_certainty(Certainty::NotStored)
                }
                Ok(_) => fatal("the client answers by itself, without a request"),
            });
        };
        let Recorded { components, uri, headers, authorization, timeouts, retries } = recorded;
        let scope = Scope::of(&authorization)
            .ok_or_else(|| fatal("the client signs in a way that this crate does not know"))?;
        let http_client =
            components.http_client().ok_or_else(|| fatal("the client has no HTTP client"))?;
        let identities = components
            .identity_resolver(SIGV4)
            .ok_or_else(|| fatal("the client has no credentials provider"))?;
        let mut settings = HttpConnectorSettings::builder();
        settings.set_connect_timeout(timeouts.connect_timeout());
        settings.set_read_timeout(timeouts.read_timeout());
        let limits = [timeouts.operation_timeout(), timeouts.operation_attempt_timeout()];
        let attempt_timeout = limits.into_iter().flatten().min();
        // What the client's own calls would find there: the identity cache goes by it.
        let mut layer = Layer::new("Recording");
        layer.store_put(timeouts).store_put(retries);
        let mut recording = Self {
            generation: call.generation,
            account: None,
            attempt_timeout,
            uri,
            headers,
            scope,
            config: ConfigBag::of_layers(vec![layer]),
            connector: http_client.http_connector(&settings.build(), &components),
            components,
            identities,
        };
        let identity = recording.identity(call.signing.signed()).await?;
        recording.account = identity.property::<AccountId>().cloned();
        Ok(recording)
    }

    /// Whether requests with these credentials go where this one went.
    pub(super) fn is_for(&self, identity: &Identity) -> bool {
        identity.property::<AccountId>() == self.account.as_ref()
    }

    /// This machine's time, as the client sees it.
    pub(super) fn now(&self) -> SystemTime {
        let clock = self.components.time_source();
        clock.map_or(SystemTime::UNIX_EPOCH, |clock| clock.now())
    }

    /// The credentials, as fresh as the client's cache has them.
    pub(super) async fn identity(&self, signed: Signed) -> Result<Identity, BatchError> {
        let cache = self.components.identity_cache();
        let identity =
            cache.resolve_cached_identity(self.identities.clone(), &self.components, &self.config);
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
            .region(&self.scope.region)
            .name(&self.scope.service)
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
            request.headers_mut().append(name.clone(), value.clone());
        }
        if let Some(trace) = lambda_trace() {
            request.headers_mut().insert("x-amzn-trace-id", trace);
        }
        request.headers_mut().insert("content-length", length);
        let (instructions, _) = signature.into_parts();
        for (name, value) in instructions.headers() {
            request.headers_mut().insert(name.to_owned(), value.to_owned());
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
        let mut response = answered.map_err(|error| dispatch_failure(&error, signed.ever))?;
        let status = response.status().as_u16();
        if matches!(status, 408 | 500..)
            && let Some(connection) = connection.get()
        {
            connection.poison();
        }
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
    authorization: String,
    timeouts: TimeoutConfig,
    retries: RetryConfig,
}

/// For what a signature is good, as the endpoint's rules have it.
#[derive(Debug)]
struct Scope {
    region: String,
    service: String,
}

impl Scope {
    /// Out of `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …`.
    fn of(authorization: &str) -> Option<Self> {
        let (_, credential) = authorization.strip_prefix("AWS4-HMAC-SHA256 ")?.split_once('=')?;
        let (credential, _) = credential.split_once(',')?;
        let mut parts = credential.rsplit('/');
        let ("aws4_request", service, region) = (parts.next()?, parts.next()?, parts.next()?)
        else {
            return None;
        };
        Some(Self { region: region.to_owned(), service: service.to_owned() })
    }
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
        let _ = self.0.set(Recorded {
            components: components.clone(),
            uri: request.uri().to_owned(),
            headers,
            authorization: request.headers().get("authorization").unwrap_or_default().to_owned(),
            timeouts: config
                .load::<TimeoutConfig>()
                .cloned()
                .unwrap_or_else(TimeoutConfig::disabled),
            retries: config.load::<RetryConfig>().cloned().unwrap_or_else(RetryConfig::disabled),
        });
        Err("recorded, and not to be sent".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_the_region_and_the_service_that_it_names() {
        let scope = Scope::of(
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=host, Signature=5d",
        );
        let scope = scope.unwrap();
        assert_eq!((scope.region.as_str(), scope.service.as_str()), ("us-east-1", "dynamodb"));
    }

    #[test]
    fn other_ways_to_sign_are_not_taken_for_this_one() {
        for authorization in [
            "",
            "Basic QWxhZGRpbg==",
            "AWS4-ECDSA-P256-SHA256 Credential=AKID/20150830/dynamodb/aws4_request, Signature=3",
            "AWS4-HMAC-SHA256 Credential=AKID, SignedHeaders=host, Signature=5d",
        ] {
            assert!(Scope::of(authorization).is_none(), "{authorization}");
        }
    }
}
