//! The state of one request while it is signed and sent: whether it may have been sent, and the time in
//! its signature. Both writers use it.
//!
//! For calls through the SDK it is an interceptor, which also puts the chunked body in the place of the
//! signed one, and limits and verifies the response's body.

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

use super::chunked_body::ChunkedBodySource;
use super::connection_pool::ConnectionPool;
use super::response_body;

/// Records how far a request has come. Clones share the state.
///
/// The SDK derives the time that credentials may take to load from the call's retry settings: 6 s without retries,
/// about 21 s with the standard ones. The store's calls have no retries, so the interceptor sets the standard retry
/// settings until the attempt has ended.
#[derive(Debug, Clone)]
pub(super) struct SigningState {
    /// The request's `X-Amz-Date` in seconds after the Unix epoch: this machine's time, corrected by what the
    /// SDK knows of the service's clock. The service checks it.
    signed_at: Arc<OnceLock<i64>>,
    has_signed: Arc<AtomicBool>,
    /// Whether this request has been passed to the connection.
    is_sent: Arc<AtomicBool>,
    connections: ConnectionPool,
    body: ChunkedBodySource,
}

impl SigningState {
    /// All requests of a client share `has_signed`, which is set when one of them is signed.
    pub(super) fn new(
        has_signed: &Arc<AtomicBool>,
        connections: &ConnectionPool,
        body: ChunkedBodySource,
    ) -> Self {
        Self {
            signed_at: Arc::default(),
            has_signed: Arc::clone(has_signed),
            is_sent: Arc::default(),
            connections: connections.clone(),
            body,
        }
    }

    /// Whether any part of the request may have been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    pub(super) fn info(&self) -> SigningInfo {
        SigningInfo {
            signed_at: self.signed_at.get().copied(),
            has_ever_signed: self.has_signed.load(Ordering::Relaxed),
            may_have_been_sent: self.is_sent(),
        }
    }

    /// Records that the request was signed with this time, in seconds after the Unix epoch, and is sent.
    pub(super) fn set_signed(&self, signed_at: i64) {
        // Retries are off, so a request is signed once.
        let _ = self.signed_at.set(signed_at);
        self.is_sent.store(true, Ordering::Relaxed);
        self.has_signed.store(true, Ordering::Relaxed);
    }
}

/// What is known of a request's signing and sending, to classify its failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct SigningInfo {
    /// The time in the signature, in seconds after the Unix epoch; `None` if it is not known.
    pub(super) signed_at: Option<i64>,
    /// Whether this client has signed any request, so that there have been credentials.
    pub(super) has_ever_signed: bool,
    /// Whether any part of the request may have been sent.
    pub(super) may_have_been_sent: bool,
}

impl SigningInfo {
    /// For a call without a [`SigningState`].
    pub(super) const UNKNOWN: Self =
        Self { signed_at: None, has_ever_signed: false, may_have_been_sent: true };
}

/// Format of the `X-Amz-Date` header.
const DATE_FORMAT: &str = "%Y%m%dT%H%M%SZ";

impl Intercept for SigningState {
    fn name(&self) -> &'static str {
        "SigningState"
    }

    fn read_before_attempt(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        runtime_components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(http_client) = runtime_components.http_client() {
            self.connections.set_first(&http_client);
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
        // After a 5xx the SDK does not reuse the connection. After a 421 it would.
        if response.status().as_u16() == response_body::MISDIRECTED
            && let Some(connection) =
                config.load::<CaptureSmithyConnection>().and_then(|capture| capture.get())
        {
            connection.poison();
        }
        response_body::verify_while_reading(response);
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
        if let Some(Ok(date)) = date.map(|date| NaiveDateTime::parse_from_str(date, DATE_FORMAT)) {
            self.set_signed(date.and_utc().timestamp());
        }
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _runtime_components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(chunks) = self.body.chunks(context.request().body().bytes()) {
            *context.request_mut().body_mut() = SdkBody::from_body_1_x(chunks);
        }
        Ok(())
    }
}
