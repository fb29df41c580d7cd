//! One request between its signing and its sending: the time in its signature says why the service
//! refuses one, and its body is put in the place of the one that was signed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextMut,
};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_types::body::SdkBody;
use chrono::NaiveDateTime;

use super::chunked_body::ChunkedBodySlot;
use super::connection_pool::ConnectionPool;
use super::response_body;

/// Watches one request being signed, and gives its credentials the time they need. A clone is the same.
///
/// How long credentials may take to come follows from the retry settings of the call: 6 s without retries, some 21 s
/// with standard ones. The store's calls are without; so they have standard settings until they are signed.
#[derive(Debug, Clone)]
pub(super) struct SigningState {
    /// The request's `X-Amz-Date`: this machine's time, corrected by what the SDK knows of the service's.
    /// It is what the service judges.
    date: Arc<OnceLock<i64>>,
    has_signed: Arc<AtomicBool>,
    /// Whether this request has been handed to the connection.
    is_sent: Arc<AtomicBool>,
    connections: ConnectionPool,
    body: ChunkedBodySlot,
}

impl SigningState {
    /// `has_signed` is set when the request is signed, and shared with the requests before and after.
    pub(super) fn new(
        has_signed: &Arc<AtomicBool>,
        connections: &ConnectionPool,
        body: ChunkedBodySlot,
    ) -> Self {
        Self {
            date: Arc::default(),
            has_signed: Arc::clone(has_signed),
            is_sent: Arc::default(),
            connections: connections.clone(),
            body,
        }
    }

    /// Whether the request may have left this machine. Without a signature it has not.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    pub(super) fn signed(&self) -> SigningInfo {
        SigningInfo {
            at: self.date.get().copied(),
            ever: self.has_signed.load(Ordering::Relaxed),
            may_have_left: self.is_sent(),
        }
    }

    /// Notes that the request was signed by this time, in seconds after the Unix epoch.
    pub(super) fn note(&self, signed_at: i64) {
        // The retries are switched off: there is one transmission.
        let _ = self.date.set(signed_at);
        self.is_sent.store(true, Ordering::Relaxed);
        self.has_signed.store(true, Ordering::Relaxed);
    }
}

/// What a failed call was signed with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SigningInfo {
    /// The time in the signature, in seconds after the Unix epoch; `None` where it is not known.
    pub(crate) at: Option<i64>,
    /// Whether this client has signed any request: there have been credentials.
    pub(crate) ever: bool,
    /// Whether the request may have left this machine.
    pub(crate) may_have_left: bool,
}

impl SigningInfo {
    /// Of a call that nobody watched.
    pub(crate) const UNKNOWN: Self = Self { at: None, ever: false, may_have_left: true };
}

/// The form of `X-Amz-Date`.
const DATE: &str = "%Y%m%dT%H%M%SZ";

impl Intercept for SigningState {
    fn name(&self) -> &'static str {
        "Signing"
    }

    fn read_before_attempt(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        runtime_components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(http_client) = runtime_components.http_client() {
            self.connections.keep(&http_client);
        }
        config.interceptor_state().store_put(RetryConfig::standard());
        Ok(())
    }

    fn modify_before_attempt_completion(
        &self,
        _context: &mut FinalizerInterceptorContextMut<'_>,
        _runtime_components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(RetryConfig::disabled());
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _runtime_components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        // The SDK does as much for other failures of a server.
        if response.status().as_u16() == response_body::MISDIRECTED
            && let Some(connection) =
                config.load::<CaptureSmithyConnection>().and_then(|it| it.get())
        {
            connection.poison();
        }
        response_body::check(response);
        Ok(())
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.is_sent.store(true, Ordering::Relaxed);
        let date = context.request().headers().get("x-amz-date");
        if let Some(Ok(date)) = date.map(|date| NaiveDateTime::parse_from_str(date, DATE)) {
            self.note(date.and_utc().timestamp());
        }
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _runtime_components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(pieces) = self.body.pieces(context.request().body().bytes()) {
            *context.request_mut().body_mut() = SdkBody::from_body_1_x(pieces);
        }
        Ok(())
    }
}
