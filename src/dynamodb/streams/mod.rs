//! A table's stream ([`TableStream`]), and the calls that read its shards and their records ([`StreamReader`]).

mod client;
mod records;

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::RequestId;
use aws_sdk_dynamodbstreams::types::{Shard, ShardIteratorType, StreamStatus};

use super::classify::RESOURCE_NOT_FOUND;
use super::table::{Table, TableError};
use crate::error::BatchError;
use client::StreamsClient;
pub(crate) use records::{Change, RecordPage, StreamRecord};

const EXPIRED_ITERATOR: &str = "ExpiredIteratorException";
const TRIMMED: &str = "TrimmedDataAccessException";

/// What `DescribeTable` says of a table's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableStream {
    pub(crate) arn: String,
    /// Which parts of an item its records contain, as the service names them, such as `NEW_IMAGE`.
    pub(crate) view_type: String,
}

impl TableStream {
    /// The stream of a table with the right key. `None` if it has none.
    pub(crate) async fn of(
        sdk_config: &SdkConfig,
        table: &str,
    ) -> Result<Option<Self>, TableError> {
        let table = Table::new(&Client::new(sdk_config), table);
        let description = table.describe().await?;
        table.check_key(&description)?;
        table.check_status(&description)?;
        let specification = description.stream_specification();
        let specification = specification.filter(|stream| stream.stream_enabled());
        let view_type = specification.and_then(|stream| stream.stream_view_type());
        let stream = description.latest_stream_arn().zip(view_type);
        Ok(stream.map(|(arn, view_type)| Self {
            arn: arn.to_owned(),
            view_type: view_type.as_str().to_owned(),
        }))
    }
}

/// A shard, as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedShard {
    pub(crate) id: String,
    /// Its parent, which may no longer be listed.
    pub(crate) parent: Option<String>,
}

/// One page of a stream's shards.
#[derive(Debug)]
pub(crate) struct ShardPage {
    pub(crate) shards: Vec<ListedShard>,
    /// Whether the stream was switched off, so that it gets no more shards.
    pub(crate) is_off: bool,
    /// The shard after which the next page begins. `None` on the last page.
    pub(crate) last_shard: Option<String>,
}

/// Where an iterator begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IteratorStart<'a> {
    /// At the oldest record that the stream keeps (`TRIM_HORIZON`).
    Oldest,
    /// After the newest record (`LATEST`).
    Latest,
    /// After this sequence number (`AFTER_SEQUENCE_NUMBER`).
    After(&'a str),
}

/// A call that failed, and its operation.
#[derive(Debug)]
pub(crate) struct StreamFailure {
    pub(crate) operation: &'static str,
    pub(crate) error: BatchError,
}

impl StreamFailure {
    pub(crate) fn is_expired_iterator(&self) -> bool {
        self.error.code() == Some(EXPIRED_ITERATOR)
    }

    /// Whether the position is older than the oldest record that the stream keeps.
    pub(crate) fn is_trimmed(&self) -> bool {
        self.error.code() == Some(TRIMMED)
    }

    /// Whether there is no such shard, or no such stream.
    pub(crate) fn is_missing(&self) -> bool {
        self.error.code() == Some(RESOURCE_NOT_FOUND)
    }
}

/// Reads one stream. Each method makes one attempt at one call.
#[derive(Debug)]
pub(crate) struct StreamReader {
    client: StreamsClient,
    stream_arn: String,
    /// Time for one attempt.
    attempt_timeout: Duration,
}

impl StreamReader {
    pub(crate) fn new(
        sdk_config: &SdkConfig,
        stream_arn: String,
        attempt_timeout: Duration,
    ) -> Self {
        Self { client: StreamsClient::new(sdk_config), stream_arn, attempt_timeout }
    }

    pub(crate) fn stream_arn(&self) -> &str {
        &self.stream_arn
    }

    /// The latest time in an answer, by the service's clock, in seconds after the Unix epoch. `None` before the first one.
    pub(crate) fn service_time(&self) -> Option<i64> {
        self.client.service_time()
    }

    /// The shards after this one, in the service's order.
    pub(crate) async fn shards(&self, after: Option<&str>) -> Result<ShardPage, StreamFailure> {
        let operation = "DescribeStream";
        let called = self.client.call(self.attempt_timeout, |client, signing| {
            let call = client.describe_stream().stream_arn(&self.stream_arn);
            let call = call.set_exclusive_start_shard_id(after.map(str::to_owned));
            call.customize().interceptor(signing).send()
        });
        let output = called.await.map_err(|error| StreamFailure { operation, error })?;
        let request_id = output.request_id().map(str::to_owned);
        let description = output.stream_description.filter(|stream| stream.shards.is_some());
        let page = description.ok_or("a 200 without Shards").and_then(|description| {
            let last_shard = description.last_evaluated_shard_id;
            if last_shard.is_some() && last_shard.as_deref() == after {
                return Err("a LastEvaluatedShardId that is the start of the page");
            }
            let shards = description.shards.unwrap_or_default();
            Ok(ShardPage {
                shards: shards.into_iter().map(listed).collect::<Result<_, _>>()?,
                is_off: description.stream_status == Some(StreamStatus::Disabled),
                last_shard,
            })
        });
        page.map_err(|what| invalid(operation, what, request_id))
    }

    /// An iterator for this shard. The service forgets it after 15 minutes.
    pub(crate) async fn iterator(
        &self,
        shard: &str,
        start: IteratorStart<'_>,
    ) -> Result<String, StreamFailure> {
        let operation = "GetShardIterator";
        let (kind, after) = match start {
            IteratorStart::Oldest => (ShardIteratorType::TrimHorizon, None),
            IteratorStart::Latest => (ShardIteratorType::Latest, None),
            IteratorStart::After(number) => {
                (ShardIteratorType::AfterSequenceNumber, Some(number.to_owned()))
            }
        };
        let called = self.client.call(self.attempt_timeout, |client, signing| {
            let call = client.get_shard_iterator().stream_arn(&self.stream_arn).shard_id(shard);
            let call = call.shard_iterator_type(kind).set_sequence_number(after);
            call.customize().interceptor(signing).send()
        });
        let output = called.await.map_err(|error| StreamFailure { operation, error })?;
        let request_id = output.request_id().map(str::to_owned);
        let iterator = output.shard_iterator;
        iterator.ok_or_else(|| invalid(operation, "a 200 without ShardIterator", request_id))
    }

    /// The records at an iterator: at most 1,000, and 1 MB.
    pub(crate) async fn records(&self, iterator: &str) -> Result<RecordPage, StreamFailure> {
        let operation = "GetRecords";
        let called = self.client.call(self.attempt_timeout, |client, signing| {
            let call = client.get_records().shard_iterator(iterator);
            call.customize().interceptor(signing).send()
        });
        let output = called.await.map_err(|error| StreamFailure { operation, error })?;
        let request_id = output.request_id().map(str::to_owned);
        records::parse(output).map_err(|what| invalid(operation, what, request_id))
    }
}

fn listed(shard: Shard) -> Result<ListedShard, &'static str> {
    let id = shard.shard_id.ok_or("a shard without ShardId")?;
    Ok(ListedShard { id, parent: shard.parent_shard_id })
}

/// The failure of a call whose 200 cannot be used.
fn invalid(operation: &'static str, what: &str, request_id: Option<String>) -> StreamFailure {
    let error = BatchError::invalid_response(what);
    let error = match request_id {
        Some(request_id) => error.with_request_id(request_id),
        None => error,
    };
    StreamFailure { operation, error }
}
