//! The batch writer that calls DynamoDB without the SDK's orchestrator, which costs more than the rest of a call.
//! It is the default of a store that is built from configuration.
//!
//! The SDK makes one request, which is captured just before it would be sent: its endpoint, headers, region,
//! connections and credentials provider. Every batch repeats that request with its own body, time and
//! signature. So the settings that apply to the first request (endpoint variables, FIPS, dual stack,
//! account-based endpoints, proxies, the chain of credentials providers) apply to all.

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

use super::classify::{error_response, service_time};
use super::client::{Call, RefreshableClient, no_credentials_within};
use super::request::RequestSettings;
use super::response_body::MISDIRECTED;
use super::signing_state::SigningInfo;
use super::{BatchReading, BatchReceipt, BatchWriter, SdkBatchWriter, insert_response, response};
use crate::clock::now;
use crate::error::{BatchError, FailureClass};
use crate::event::Event;
use crate::event::key::EventKey;
use crate::write_mode::WriteMode;
use request_template::{RequestTemplate, TemplateError};

/// Writes batches by repeating one captured request. Reads them back through the SDK.
#[derive(Debug)]
pub(crate) struct DirectBatchWriter {
    sdk: SdkBatchWriter,
    client: RefreshableClient,
    settings: RequestSettings,
    template: Mutex<Option<Arc<RequestTemplate>>>,
    /// The service's time minus the client's, in seconds. Measured when the service refuses a signature because of its
    /// time; 0 before.
    skew_seconds: AtomicI64,
    /// Whether signatures follow the service's clock, as the SDK's do by default.
    corrects_clock: bool,
    /// Whether all calls go through the SDK, because its request cannot be repeated.
    uses_sdk: AtomicBool,
}

const INVALID_ENDPOINT: &str = "InvalidEndpointException";

impl DirectBatchWriter {
    pub(crate) fn new(client: &Client, table: impl Into<String>) -> Self {
        let corrects_clock = client.config().disable_clock_skew_correction() != Some(true);
        let client = RefreshableClient::new(client);
        let settings = RequestSettings::new(table);
        Self {
            sdk: SdkBatchWriter::with_client(client.clone(), settings.clone()),
            client,
            settings,
            template: Mutex::new(None),
            skew_seconds: AtomicI64::new(0),
            corrects_clock,
            uses_sdk: AtomicBool::new(false),
        }
    }

    /// Whether each receipt says how many write units its call consumed.
    pub(super) fn return_consumed_capacity(mut self, return_consumed_capacity: bool) -> Self {
        self.settings.return_consumed_capacity = return_consumed_capacity;
        self.sdk = self.sdk.return_consumed_capacity(return_consumed_capacity);
        self
    }

    /// How events are written. Default: [`WriteMode::Put`].
    pub(super) fn write_mode(mut self, mode: WriteMode) -> Self {
        self.settings.mode = mode;
        self.sdk = self.sdk.write_mode(mode);
        self
    }

    /// The template, which is made again when the credentials were reloaded or the endpoint is no longer valid.
    async fn template(&self, call: &Call) -> Result<Arc<RequestTemplate>, TemplateError> {
        let mut current = self.template.lock().await;
        match &*current {
            Some(template) if template.is_usable_for(call) => Ok(Arc::clone(template)),
            last => {
                let is_first = last.is_none();
                let template =
                    RequestTemplate::capture(call, self.settings.mode, &self.settings.table)
                        .await?;
                let template = Arc::new(template);
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

    /// Sends all further calls through the SDK, and logs the reason once.
    fn fall_back(&self, reason: &str) {
        if !self.uses_sdk.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                transport = "sdk",
                reason,
                "calls go through the SDK, because its captured request differs from the known form; no action is \
                 needed"
            );
        }
    }

    /// Makes one attempt to put with the body that `render` returns, which is called as soon as there are credentials.
    /// `None` if the SDK's request cannot be repeated, so that the call has to go through the SDK.
    pub(crate) async fn write(
        &self,
        render: impl FnOnce() -> Bytes,
        limit: Duration,
    ) -> Option<Result<BatchReceipt, BatchError>> {
        let parse = |body: &[u8]| response::parse_receipt(&self.settings.table, body);
        self.attempt(render, parse, limit).await
    }

    /// Sends a request with one item that the service rejects. Also returns whether it was sent directly.
    pub(super) async fn probe(
        &self,
        body: Bytes,
        limit: Duration,
    ) -> (Result<BatchReceipt, BatchError>, bool) {
        let render = || body.clone();
        let direct = match self.settings.mode {
            WriteMode::Put => self.write(render, limit).await,
            WriteMode::Insert => self.attempt(render, insert_response::parse_probe, limit).await,
        };
        match direct {
            Some(result) => (result, true),
            None => (self.sdk.probe(body, limit).await, false),
        }
    }

    /// Makes one attempt. `parse` reads the body of a 200.
    async fn attempt(
        &self,
        render: impl FnOnce() -> Bytes,
        parse: impl FnOnce(&[u8]) -> Result<BatchReceipt, BatchError>,
        limit: Duration,
    ) -> Option<Result<BatchReceipt, BatchError>> {
        let began = now();
        let call = self.client.begin_call();
        let result = match timeout(limit, self.prepare(&call)).await {
            Ok(Ok(prepared)) => {
                let time_left = || limit.saturating_sub(now().saturating_duration_since(began));
                self.send(&call, prepared, render, parse, time_left).await
            }
            Ok(Err(TemplateError::Failed(failure))) => Err(failure),
            Ok(Err(TemplateError::Unsupported(reason))) => {
                self.fall_back(&reason);
                return None;
            }
            Err(_) => Err(no_credentials_within(limit)),
        };
        let result = RefreshableClient::reject_early_response(result, &call);
        Some(result.map_err(|failure| self.client.conclude_failure(failure, &call)))
    }

    async fn send(
        &self,
        call: &Call,
        (template, identity): (Arc<RequestTemplate>, Identity),
        render: impl FnOnce() -> Bytes,
        parse: impl FnOnce(&[u8]) -> Result<BatchReceipt, BatchError>,
        time_left: impl FnOnce() -> Duration,
    ) -> Result<BatchReceipt, BatchError> {
        let body = render();
        let client_time = template.now();
        let signed_at = shifted(client_time, self.skew_seconds.load(Ordering::Relaxed));
        let request = template.signed_request(&identity, &body, signed_at)?;
        let source = call.body.source();
        source.set(&body);
        drop(body);
        call.signing.set_signed(unix_seconds(signed_at));
        // Measured here, because rendering and signing a large body takes time as well.
        let time_left = time_left();
        let limit = template.attempt_timeout.map_or(time_left, |own| own.min(time_left));
        let response = timeout(limit, template.send(request, &source, call.signing.info())).await;
        let (response, body) = response.map_err(|_| BatchError::timed_out(limit))??;
        let receipt = if response.status().is_success() {
            parse(&body)
        } else {
            Err(failure(&response, &body, call.signing.info()))
        };
        let code = receipt.as_ref().err().and_then(BatchError::code);
        if response.status().as_u16() == MISDIRECTED || code == Some(INVALID_ENDPOINT) {
            // The table has moved to another endpoint, which the SDK has to resolve.
            template.invalidate();
        }
        if let Err(failure) = &receipt
            && self.corrects_clock
            && failure.class() == FailureClass::ClockSkew
            && let Some(service_time) = service_time(&response)
        {
            self.skew_seconds.store(service_time - unix_seconds(client_time), Ordering::Relaxed);
        }
        match (response::request_id(&response), receipt) {
            (Some(id), Ok(receipt)) => Ok(receipt.with_request_id(id)),
            (Some(id), Err(failure)) => Err(failure.with_request_id(id)),
            // Without a request id the response may not be the service's, so the call may still be in flight.
            (None, Err(failure)) => Err(failure.with_call_in_flight()),
            (None, receipt) => receipt,
        }
    }

    /// The template and the credentials for a request.
    async fn prepare(
        &self,
        call: &Call,
    ) -> Result<(Arc<RequestTemplate>, Identity), TemplateError> {
        let template = self.template(call).await?;
        let identity =
            template.identity(call.signing.info()).await.map_err(TemplateError::Failed)?;
        if template.is_for_account_of(&identity) {
            return Ok((template, identity));
        }
        // The credentials are now of another account, which may have another endpoint.
        template.invalidate();
        let template = self.template(call).await?;
        Ok((template, identity))
    }
}

/// The failure that a response other than a 200 means.
fn failure(response: &HttpResponse, body: &[u8], signing: SigningInfo) -> BatchError {
    let (code, message) = response::error_code_and_message(response, body);
    error_response(response, body, code.as_deref(), message.as_deref(), signing)
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
            let began = now();
            if !self.uses_sdk.load(Ordering::Relaxed) {
                let render = || Bytes::from(self.settings.body(events));
                let result = match self.settings.mode {
                    WriteMode::Put => self.write(render, limit).await,
                    WriteMode::Insert => {
                        let parse = |body: &[u8]| {
                            insert_response::parse_receipt(&insert_response::keys(events), body)
                        };
                        self.attempt(render, parse, limit).await
                    }
                };
                if let Some(result) = result {
                    return result;
                }
            }
            let time_left = limit.saturating_sub(now().saturating_duration_since(began));
            self.sdk.write_batch_within(events, time_left).await
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
