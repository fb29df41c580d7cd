//! Captures one request of the SDK just before it would be sent. The request template is made from it.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_dynamodb::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_dynamodb::config::{Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::timeout::TimeoutConfig;

use super::known_request::difference_from_known;
use crate::dynamodb::classify::error_chain;
use crate::write_mode::WriteMode;

/// This crate's part of the `user-agent` header, which follows the SDK's.
const USER_AGENT: &str = concat!("lib/dynamodb-eventstore/", env!("CARGO_PKG_VERSION"));

/// Headers whose values differ from request to request.
const PER_REQUEST_HEADERS: [&str; 7] = [
    "authorization",
    "x-amzn-trace-id",
    "x-amz-date",
    "x-amz-security-token",
    "content-length",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
];

/// An interceptor that captures the request of a call and ends the call with an error. Clones share the captured
/// request.
#[derive(Debug, Clone)]
pub(super) struct RequestCapture {
    mode: WriteMode,
    table: String,
    captured: Arc<Mutex<Option<CapturedRequest>>>,
}

impl RequestCapture {
    pub(super) fn new(mode: WriteMode, table: &str) -> Self {
        Self { mode, table: table.to_owned(), captured: Arc::default() }
    }

    /// The captured request. It must be taken out: it holds the call's components, which hold this interceptor, so
    /// the reference cycle would never be freed.
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
    /// Why the request cannot be repeated; `None` if it can.
    pub(super) difference: Option<String>,
}

/// The error with which the interceptor ends the call.
#[derive(Debug, thiserror::Error)]
#[error("the request was captured instead of being sent")]
struct Captured;

/// Whether a call failed because the interceptor ended it.
pub(super) fn was_captured(error: &(dyn Error + 'static)) -> bool {
    error_chain(error).any(|error| error.is::<Captured>())
}

/// The trace id of the current AWS Lambda invocation, which requests name as the SDK's do. `None` outside of Lambda.
/// It changes with each invocation.
pub(super) fn lambda_trace_id() -> Option<String> {
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
            .filter(|(name, _)| !PER_REQUEST_HEADERS.contains(name))
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
            difference: difference_from_known(
                request,
                self.mode,
                &self.table,
                lambda_trace_id().as_deref(),
            ),
        };
        *self.lock() = Some(captured);
        Err(Captured.into())
    }
}
