//! One request of the SDK's, captured just before it would be sent.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_dynamodb::config::{Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::timeout::TimeoutConfig;

use super::known_request::unexpected;
use crate::dynamodb::classify::chain;

/// What this crate adds to the SDK's own words on who asks.
const USER_AGENT: &str = concat!("lib/dynamodb-eventstore/", env!("CARGO_PKG_VERSION"));

/// Headers of which each request has its own.
const OWN_HEADERS: [&str; 7] = [
    "authorization",
    "x-amzn-trace-id",
    "x-amz-date",
    "x-amz-security-token",
    "content-length",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
];

/// Captures a request in the place of its transmission.
#[derive(Debug, Clone)]
pub(super) struct RequestCapture {
    table: String,
    captured: Arc<Mutex<Option<CapturedRequest>>>,
}

impl RequestCapture {
    pub(super) fn new(table: &str) -> Self {
        Self { table: table.to_owned(), captured: Arc::default() }
    }

    /// Takes the captured request out: it holds the call's components, which hold this interceptor, so that neither
    /// would ever be freed.
    pub(super) fn take(&self) -> Option<CapturedRequest> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<CapturedRequest>> {
        self.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
pub(super) struct CapturedRequest {
    pub(super) components: RuntimeComponents,
    pub(super) uri: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) authorization: String,
    pub(super) timeouts: TimeoutConfig,
    /// What keeps the request from being repeated.
    pub(super) unexpected: Option<String>,
}

/// Ends the call that is recorded.
#[derive(Debug, thiserror::Error)]
#[error("recorded, and not to be sent")]
struct Stopped;

/// Whether the recorder ended the call, and nothing after it changed that.
pub(super) fn has_stopped(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| error.is::<Stopped>())
}

/// What AWS Lambda knows its invocation by, for requests to name: the SDK does the same. In Lambda it
/// changes from one invocation to the next.
pub(super) fn lambda_trace() -> Option<String> {
    std::env::var_os("AWS_LAMBDA_FUNCTION_NAME")?;
    let trace = std::env::var("_X_AMZN_TRACE_ID").ok()?;
    trace.bytes().all(|byte| (b' '..=b'~').contains(&byte)).then_some(trace)
}

impl Intercept for RequestCapture {
    fn name(&self) -> &'static str {
        "RequestCapture"
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
        let captured = CapturedRequest {
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
        *self.lock() = Some(captured);
        Err(Stopped.into())
    }
}
