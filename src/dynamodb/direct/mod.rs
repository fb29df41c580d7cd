//! The edge without the SDK's orchestrator, which costs more than all else on a request's way.
//!
//! The SDK makes one request, which is recorded just before it would be sent: where it goes, with which
//! headers, signed for which region, over which connections, with whose credentials. Every batch then
//! repeats that request with a body, a time and a signature of its own, out of the SDK's own parts. So
//! whatever decides over the first (endpoint variables, FIPS, dual stack, account-based endpoints, proxies,
//! the chain of credentials) decides over all.

mod canonical_request;
mod captured_request;
mod known_request;
mod request_template;
mod signer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::classify::{date, refused};
use super::client::{Call, RefreshableClient, unprepared};
use super::request::RequestSettings;
use super::response_body::MISDIRECTED;
use super::signing_state::SigningInfo;
use super::{BatchReading, BatchReceipt, BatchWriter, SdkBatchWriter, request, response};
use crate::clock::now;
use crate::error::{BatchError, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;
use request_template::{RequestTemplate, TemplateError};

/// Writes batches by repeating one recorded request; reads them back through the SDK.
#[derive(Debug)]
pub(crate) struct DirectBatchWriter {
    sdk: SdkBatchWriter,
    client: RefreshableClient,
    settings: RequestSettings,
    template: Mutex<Option<Arc<RequestTemplate>>>,
    /// The service's clock less this machine's, in seconds, as far as the service has complained.
    skew_seconds: AtomicI64,
    /// Whether signatures follow the service's clock, as the SDK's do unless its configuration says no.
    corrects_clock: bool,
    /// Whether all calls are left to the SDK.
    falls_back: AtomicBool,
}

const INVALID_ENDPOINT: &str = "InvalidEndpointException";

impl DirectBatchWriter {
    pub(crate) fn new(client: &Client, table: impl Into<String>) -> Self {
        let corrects_clock = client.config().disable_clock_skew_correction() != Some(true);
        let client = RefreshableClient::new(client);
        let settings = RequestSettings { table: table.into(), return_consumed_capacity: false };
        Self {
            sdk: SdkBatchWriter::sharing(client.clone(), settings.clone()),
            client,
            settings,
            template: Mutex::new(None),
            skew_seconds: AtomicI64::new(0),
            corrects_clock,
            falls_back: AtomicBool::new(false),
        }
    }

    /// Has each answer say how many write units the call took.
    pub(crate) fn return_consumed_capacity(mut self, return_consumed_capacity: bool) -> Self {
        self.settings.return_consumed_capacity = return_consumed_capacity;
        self.sdk = self.sdk.return_consumed_capacity(return_consumed_capacity);
        self
    }

    /// The recorded request, made anew when its credentials were thrown away.
    async fn template(&self, call: &Call) -> Result<Arc<RequestTemplate>, TemplateError> {
        let mut current = self.template.lock().await;
        match &*current {
            Some(template) if template.is_good_for(call) => Ok(Arc::clone(template)),
            before => {
                let is_first = before.is_none();
                let template = Arc::new(RequestTemplate::make(call, &self.settings.table).await?);
                if is_first {
                    tracing::debug!(
                        transport = "direct",
                        "calls go without the SDK's orchestrator"
                    );
                }
                *current = Some(Arc::clone(&template));
                Ok(template)
            }
        }
    }

    /// Leaves all calls to the SDK from now on, and says why, once.
    fn fall_back(&self, reason: &str) {
        if !self.falls_back.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                transport = "sdk",
                reason,
                "calls go through the SDK: its request is not one that this crate knows to repeat"
            );
        }
    }

    /// Sends the request with the body that `render` makes, once there are credentials for it.
    /// `None` where it is not known how to, and the call is the SDK's.
    pub(crate) async fn write(
        &self,
        render: impl FnOnce() -> Bytes,
        limit: Duration,
    ) -> Option<Result<BatchReceipt, BatchError>> {
        let begun = now();
        let call = self.client.begin();
        let result = match timeout(limit, self.prepare(&call)).await {
            Ok(Ok(prepared)) => {
                let left = || limit.saturating_sub(now().saturating_duration_since(begun));
                self.send(&call, prepared, render, left).await
            }
            Ok(Err(TemplateError::Failed(failure))) => Err(failure),
            Ok(Err(TemplateError::Unknown(reason))) => {
                self.fall_back(&reason);
                return None;
            }
            Err(_) => Err(unprepared(limit)),
        };
        let answered = RefreshableClient::answered(result, &call);
        Some(answered.map_err(|failure| self.client.note(failure, &call)))
    }

    async fn send(
        &self,
        call: &Call,
        (template, identity): (Arc<RequestTemplate>, Identity),
        render: impl FnOnce() -> Bytes,
        left: impl FnOnce() -> Duration,
    ) -> Result<BatchReceipt, BatchError> {
        let body = render();
        let machine_time = template.now();
        let signed_at = shifted(machine_time, self.skew_seconds.load(Ordering::Relaxed));
        let request = template.request(&identity, &body, signed_at)?;
        let slot = call.payload.slot();
        slot.keep(&body);
        drop(body);
        call.signing.note(unix_seconds(signed_at));
        // To render and sign a large body takes a while as well.
        let left = left();
        let left = template.attempt_timeout.map_or(left, |own| own.min(left));
        let exchange = template.exchange(request, &slot, call.signing.signed());
        let answered = timeout(left, exchange).await;
        let (response, body) = answered.map_err(|_| BatchError::timed_out(left))??;
        let receipt = self.read(&response, &body, call.signing.signed());
        let code = receipt.as_ref().err().and_then(BatchError::code);
        if response.status().as_u16() == MISDIRECTED || code == Some(INVALID_ENDPOINT) {
            // The address is not the table's any more: the SDK finds it anew.
            template.give_up();
        }
        if let Err(failure) = &receipt
            && self.corrects_clock
            && failure.class() == FailureClass::ClockSkew
            && let Some(theirs) = date(&response)
        {
            self.skew_seconds.store(theirs - unix_seconds(machine_time), Ordering::Relaxed);
        }
        match (response::request_id(&response), receipt) {
            (Some(id), Ok(receipt)) => Ok(receipt.with_request_id(id)),
            (Some(id), Err(failure)) => Err(failure.with_request_id(id)),
            // Without its request id it is not known to be the service's.
            (None, Err(failure)) => Err(failure.with_call_in_flight()),
            (None, receipt) => receipt,
        }
    }

    /// All that a request needs beside its body.
    async fn prepare(
        &self,
        call: &Call,
    ) -> Result<(Arc<RequestTemplate>, Identity), TemplateError> {
        let template = self.template(call).await?;
        let identity =
            template.identity(call.signing.signed()).await.map_err(TemplateError::Failed)?;
        if template.is_for(&identity) {
            return Ok((template, identity));
        }
        // The credentials are another account's by now, whose address may be another.
        template.give_up();
        let template = self.template(call).await?;
        Ok((template, identity))
    }

    fn read(
        &self,
        response: &HttpResponse,
        body: &[u8],
        signed: SigningInfo,
    ) -> Result<BatchReceipt, BatchError> {
        if response.status().is_success() {
            return response::receipt(&self.settings.table, body);
        }
        let (code, message) = response::error(response, body);
        Err(refused(response, body, code.as_deref(), message.as_deref(), signed))
    }
}

impl BatchWriter for DirectBatchWriter {
    fn write_batch<'a>(
        &'a self,
        events: &'a [Event],
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        self.write_batch_within(events, Duration::MAX)
    }

    fn write_batch_within<'a>(
        &'a self,
        events: &'a [Event],
        limit: Duration,
    ) -> BoxFuture<'a, Result<BatchReceipt, BatchError>> {
        async move {
            let begun = now();
            if !self.falls_back.load(Ordering::Relaxed) {
                let render = || Bytes::from(request::batch_write_item(&self.settings, events));
                if let Some(answer) = self.write(render, limit).await {
                    return answer;
                }
            }
            let left = limit.saturating_sub(now().saturating_duration_since(begun));
            self.sdk.write_batch_within(events, left).await
        }
        .boxed()
    }

    fn read_batch<'a>(
        &'a self,
        keys: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        self.sdk.read_batch(keys)
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 { time.checked_sub(distance) } else { time.checked_add(distance) };
    shifted.unwrap_or(time)
}
