//! One request between its signing and its sending: the time in its signature says why the service
//! refuses one, and its body is put in the place of the one that was signed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::config::interceptors::{
    BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_types::body::SdkBody;
use chrono::NaiveDateTime;

use super::payload::Slot;

/// Watches one request being signed. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct Signing {
    /// The request's `X-Amz-Date`: this machine's time, corrected by what the SDK knows of the service's.
    /// It is what the service judges.
    date: Arc<OnceLock<i64>>,
    has_signed: Arc<AtomicBool>,
    body: Slot,
}

impl Signing {
    /// `has_signed` is set when the request is signed, and shared with the requests before and after.
    pub(super) fn new(has_signed: &Arc<AtomicBool>, body: Slot) -> Self {
        Self { date: Arc::default(), has_signed: Arc::clone(has_signed), body }
    }

    pub(super) fn signed(&self) -> Signed {
        Signed { at: self.date.get().copied(), ever: self.has_signed.load(Ordering::Relaxed) }
    }

    /// Notes that the request was signed by this time, in seconds after the Unix epoch.
    pub(super) fn note(&self, signed_at: i64) {
        // The retries are switched off: there is one transmission.
        let _ = self.date.set(signed_at);
        self.has_signed.store(true, Ordering::Relaxed);
    }
}

/// What a failed call was signed with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signed {
    /// The time in the signature, in seconds after the Unix epoch; `None` where it is not known.
    pub(crate) at: Option<i64>,
    /// Whether this client has signed any request: there have been credentials.
    pub(crate) ever: bool,
}

/// The form of `X-Amz-Date`.
const DATE: &str = "%Y%m%dT%H%M%SZ";

impl Intercept for Signing {
    fn name(&self) -> &'static str {
        "Signing"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
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
