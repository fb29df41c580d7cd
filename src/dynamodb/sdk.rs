//! The batch writer that calls DynamoDB through the AWS SDK.
//!
//! It is the default of a store that is given a client. The direct writer uses it to read back, and to write if
//! it cannot repeat the SDK's request.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput;
use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemOutput;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::chunked_body::ChunkedBodySource;
use super::client::{Call, RefreshableClient};
use super::request::RequestSettings;
use super::{BatchReading, BatchReceipt, BatchWriter, insert_response};
use crate::error::{BatchError, Certainty, FailureClass};
use crate::event::key::EventKey;
use crate::event::{BODY_ATTRIBUTE, Event, KEY_ATTRIBUTE};
use crate::write_mode::WriteMode;

/// Writes batches with the AWS SDK's `BatchWriteItem`, or in [`WriteMode::Insert`] with its `BatchExecuteStatement`.
/// Reads them back with its `BatchGetItem`.
///
/// It uses the client's configuration, interceptors included, with these differences:
///
/// - Retries and stalled-stream protection are off. The store's retry loop and its attempt time-out replace
///   them, so that the store sees every attempt.
/// - Credentials are loaded in a task of their own, through the client's identity cache, so that loading may
///   take longer than an attempt.
/// - Credentials that the service refuses are loaded again from their provider, through a new identity cache
///   that replaces the client's.
///
/// The items are put into the request's body just before it is signed. Interceptors find them there, not
/// in the operation's input. A body of more than 64 KiB is sent as a stream.
#[derive(Debug, Clone)]
pub struct SdkBatchWriter {
    client: RefreshableClient,
    settings: RequestSettings,
}

impl SdkBatchWriter {
    /// A writer to `table`: a table's name or its ARN. In [`WriteMode::Insert`] it must be a name.
    #[must_use]
    pub fn new(client: &Client, table: impl Into<String>) -> Self {
        Self::with_client(RefreshableClient::new(client), RequestSettings::new(table))
    }

    /// Whether each [`BatchReceipt`] says how many write units its call consumed. Default: `false`.
    #[must_use]
    pub fn return_consumed_capacity(mut self, return_consumed_capacity: bool) -> Self {
        self.settings.return_consumed_capacity = return_consumed_capacity;
        self
    }

    /// How events are written. Default: [`WriteMode::Put`].
    #[must_use]
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.settings.mode = mode;
        self
    }

    pub(super) fn with_client(client: RefreshableClient, settings: RequestSettings) -> Self {
        Self { client, settings }
    }

    fn parse_receipt(&self, output: &BatchWriteItemOutput) -> Result<BatchReceipt, BatchError> {
        // DynamoDB always sends the map, even if it is empty. An empty 200 of a proxy does not have it.
        let Some(unprocessed) = &output.unprocessed_items else {
            return Err(invalid_response(output, "a 200 without UnprocessedItems"));
        };
        let mut keys = Vec::new();
        for (table, requests) in unprocessed {
            if *table != self.settings.table && !requests.is_empty() {
                return Err(invalid_response(
                    output,
                    "unprocessed items of a table not written to",
                ));
            }
            for request in requests {
                let key = request
                    .put_request()
                    .and_then(|put| put.item().get(KEY_ATTRIBUTE))
                    .and_then(|key| key.as_s().ok());
                match key {
                    Some(key) => keys.push(key.as_str()),
                    None => {
                        return Err(invalid_response(output, "an unprocessed item without a key"));
                    }
                }
            }
        }
        let receipt = BatchReceipt::with_unprocessed(keys);
        let receipt = match &output.consumed_capacity {
            Some(consumed) => receipt.with_consumed_write_units(
                consumed.iter().filter_map(|consumed| consumed.capacity_units).sum(),
            ),
            None => receipt,
        };
        Ok(match output.request_id() {
            Some(request_id) => receipt.with_request_id(request_id),
            None => receipt,
        })
    }

    fn parse_reading(
        &self,
        keys: &[EventKey],
        output: BatchGetItemOutput,
    ) -> Result<BatchReading, BatchError> {
        // DynamoDB always sends both. Without them, keys that are not named would count as missing from the
        // table.
        let (Some(found), Some(unread)) = (&output.responses, &output.unprocessed_keys) else {
            return Err(invalid_response(&output, "a 200 without Responses or UnprocessedKeys"));
        };
        let unread =
            unread.get(&self.settings.table).map(KeysAndAttributes::keys).unwrap_or_default();
        let items = match found.get(&self.settings.table) {
            Some(items) => items.as_slice(),
            None if unread.is_empty() => {
                return Err(invalid_response(&output, "a 200 without the requested table"));
            }
            None => &[],
        };
        let mut reading = BatchReading::nothing_found();
        for item in items {
            let Some(key) = text(item, KEY_ATTRIBUTE) else {
                return Err(invalid_response(&output, "an item without a key"));
            };
            reading = reading.with_item(key, text(item, BODY_ATTRIBUTE).map(str::to_owned));
        }
        for key in unread {
            let Some(key) = text(key, KEY_ATTRIBUTE) else {
                return Err(invalid_response(&output, "an unprocessed key that is none"));
            };
            reading = reading.with_unread(key);
        }
        if !reading.is_about(keys) {
            return Err(invalid_response(&output, "items that were not requested"));
        }
        Ok(reading)
    }

    /// Makes one attempt to put with the body that `render` returns, which is called just before the request is signed.
    async fn write(
        &self,
        render: impl Fn() -> Bytes + Send + Sync + 'static,
        limit: Duration,
    ) -> Result<BatchReceipt, BatchError> {
        let call = self.client.begin_call();
        let response = call
            .batch_write_item(&self.settings.table)
            .customize()
            .mutate_request(replace_body(call.body.source(), render))
            .interceptor(call.signing.clone())
            .send();
        self.conclude(timeout(limit, response).await, limit, &call, |output| {
            self.parse_receipt(output)
        })
    }

    /// Makes one attempt to insert with the body that `render` returns. `keys` are those of the statements.
    async fn insert(
        &self,
        render: impl Fn() -> Bytes + Send + Sync + 'static,
        keys: &[&str],
        limit: Duration,
    ) -> Result<BatchReceipt, BatchError> {
        let call = self.client.begin_call();
        let response = call
            .batch_execute_statement()
            .customize()
            .mutate_request(replace_body(call.body.source(), render))
            .interceptor(call.signing.clone())
            .send();
        self.conclude(timeout(limit, response).await, limit, &call, |output| {
            let receipt = insert_response::receipt(keys, output);
            match output.request_id() {
                Some(id) => receipt
                    .map(|receipt| receipt.with_request_id(id))
                    .map_err(|failure| failure.with_request_id(id)),
                None => receipt,
            }
        })
    }

    /// Sends a request with one item that the service rejects.
    pub(super) async fn probe(
        &self,
        body: Bytes,
        limit: Duration,
    ) -> Result<BatchReceipt, BatchError> {
        let render = move || body.clone();
        match self.settings.mode {
            WriteMode::Put => self.write(render, limit).await,
            WriteMode::Insert => self.insert(render, &[insert_response::PROBE], limit).await,
        }
    }

    fn conclude<O, E>(
        &self,
        response: Result<Result<O, SdkError<E, HttpResponse>>, Elapsed>,
        limit: Duration,
        call: &Call,
        parse: impl FnOnce(&O) -> Result<BatchReceipt, BatchError>,
    ) -> Result<BatchReceipt, BatchError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match response {
            Err(_) => Err(self.client.write_timed_out(limit, call)),
            Ok(Ok(output)) => RefreshableClient::reject_early_response(parse(&output), call)
                .map_err(|failure| self.client.conclude_failure(failure, call)),
            Ok(Err(error)) => Err(self.client.write_failure(&error, call)),
        }
    }
}

/// Replaces the body of a request by the one with the items, just before it is signed. The SDK builds a call without
/// items.
fn replace_body(
    source: ChunkedBodySource,
    render: impl Fn() -> Bytes + Send + Sync + 'static,
) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    move |request| {
        let body = render();
        source.set(&body);
        request.headers_mut().insert("content-length", body.len().to_string());
        *request.body_mut() = body.into();
    }
}

fn text<'a>(item: &'a HashMap<String, AttributeValue>, attribute: &str) -> Option<&'a str> {
    item.get(attribute)?.as_s().ok().map(String::as_str)
}

impl BatchWriter for SdkBatchWriter {
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
            let (settings, written) = (self.settings.clone(), events.to_vec());
            let render = move || Bytes::from(settings.body(&written));
            match self.settings.mode {
                WriteMode::Put => self.write(render, limit).await,
                WriteMode::Insert => {
                    self.insert(render, &insert_response::keys(events), limit).await
                }
            }
        }
        .boxed()
    }

    fn read_batch<'a>(
        &'a self,
        keys: &'a [EventKey],
    ) -> BoxFuture<'a, Result<BatchReading, BatchError>> {
        async move {
            let items = keys.iter().map(|key| {
                HashMap::from([(KEY_ATTRIBUTE.to_owned(), AttributeValue::S(key.to_string()))])
            });
            let requested = KeysAndAttributes::builder()
                .set_keys(Some(items.collect()))
                .consistent_read(true)
                .build()
                .map_err(|error| {
                    let message = format!("the read could not be built: {error}");
                    BatchError::new(FailureClass::Fatal, Certainty::NotStored, message)
                })?;
            let call = self.client.begin_call();
            let response = call
                .client
                .batch_get_item()
                .request_items(&self.settings.table, requested)
                .customize()
                .interceptor(call.signing.clone())
                .send();
            match response.await {
                Ok(output) => self.parse_reading(keys, output),
                Err(error) => Err(self.client.read_failure(&error, &call)),
            }
        }
        .boxed()
    }
}

/// The failure of a call that got a 200 which does not answer it. The call may still be in flight, as the
/// response may belong to another one.
fn invalid_response(output: &impl RequestId, what: &str) -> BatchError {
    let error = BatchError::invalid_response(what);
    match output.request_id() {
        Some(request_id) => error.with_request_id(request_id),
        None => error,
    }
}
