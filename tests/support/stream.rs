//! A table's stream, behind an HTTP client for the SDK that answers without a network: shards that split, expire and are
//! trimmed, on the runtime's clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::{Credentials, RuntimeComponents, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::clock::now;

pub(crate) const STREAM_TABLE: &str = "followed";

const ITERATOR_LIFE: Duration = Duration::from_secs(15 * 60);

/// The service's clock at the start, in seconds after the Unix epoch.
const EPOCH: i64 = 1_767_225_600;

/// The shards that one `DescribeStream` answer has.
const SHARDS_OF_A_PAGE: usize = 2;

/// How one call is answered instead.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StreamReply {
    Error { status: u16, code: &'static str },
    Raw { status: u16, body: &'static str },
    Hang,
}

#[derive(Debug, Default)]
struct Shard {
    parent: Option<String>,
    records: Vec<Value>,
    /// Records that are removed.
    trimmed: usize,
    is_closed: bool,
    /// Whether a reader was told that it is at the end.
    is_ended: bool,
}

#[derive(Debug)]
struct State {
    started: Instant,
    view_type: Option<&'static str>,
    label: u32,
    is_off: bool,
    shards: BTreeMap<String, Shard>,
    next_number: u64,
    replies: BTreeMap<&'static str, VecDeque<StreamReply>>,
    calls: Vec<(String, String, Instant)>,
}

/// The stream. Clones share it.
#[derive(Clone)]
pub(crate) struct FakeStream(Arc<Mutex<State>>);

impl fmt::Debug for FakeStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FakeStream")
    }
}

impl FakeStream {
    /// A stream with these open shards.
    pub(crate) fn with_shards<const N: usize>(shards: [&str; N]) -> Self {
        let shards = shards.map(|id| (id.to_owned(), Shard::default()));
        Self(Arc::new(Mutex::new(State {
            started: now(),
            view_type: Some("NEW_IMAGE"),
            label: 1,
            is_off: false,
            shards: shards.into(),
            next_number: 1,
            replies: BTreeMap::new(),
            calls: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn sdk_config(&self) -> SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "tests");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(self.clone())
            .time_source(self.clone())
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .build()
    }

    /// `None` switches the stream off in `DescribeTable`.
    pub(crate) fn set_view_type(&self, view_type: Option<&'static str>) {
        self.lock().view_type = view_type;
    }

    /// Replaces the stream by a new one with this open shard.
    pub(crate) fn replace(&self, shard: &str) {
        let mut state = self.lock();
        state.label += 1;
        state.shards = BTreeMap::from([(shard.to_owned(), Shard::default())]);
    }

    /// Closes all shards, for good.
    pub(crate) fn switch_off(&self) {
        let mut state = self.lock();
        state.is_off = true;
        state.shards.values_mut().for_each(|shard| shard.is_closed = true);
    }

    /// An item is stored: with this key, and these attributes in DynamoDB's JSON.
    pub(crate) fn store(&self, shard: &str, event_name: &str, key: &str, attributes: &Value) {
        let mut image = attributes.clone();
        image["key"] = json!({ "S": key });
        self.record(shard, event_name, key, Some(image));
    }

    pub(crate) fn remove(&self, shard: &str, key: &str) {
        self.record(shard, "REMOVE", key, None);
    }

    /// Events with these numbers are stored.
    pub(crate) fn put(&self, shard: &str, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let body = json!({ "body": { "S": format!("{{\"number\":{number}}}") } });
            self.store(shard, "INSERT", &key(number), &body);
        }
    }

    fn record(&self, shard: &str, event_name: &str, key: &str, image: Option<Value>) {
        let mut state = self.lock();
        let number = state.next_number;
        state.next_number += 1;
        let mut record = json!({
            "eventName": event_name,
            "dynamodb": {
                "ApproximateCreationDateTime": state.time(),
                "Keys": { "key": { "S": key } },
                "SequenceNumber": sequence_number(number),
            },
        });
        if let Some(image) = image {
            record["dynamodb"]["NewImage"] = image;
        }
        let shard = state.shards.get_mut(shard).unwrap();
        assert!(!shard.is_closed, "a record of a closed shard");
        shard.records.push(record);
    }

    /// Closes a shard, which others follow.
    pub(crate) fn split<const N: usize>(&self, shard: &str, children: [&str; N]) {
        let mut state = self.lock();
        state.shards.get_mut(shard).unwrap().is_closed = true;
        for child in children {
            let parent = Some(shard.to_owned());
            state.shards.insert(child.to_owned(), Shard { parent, ..Shard::default() });
        }
    }

    /// Removes the oldest records of a shard.
    pub(crate) fn trim(&self, shard: &str, records: usize) {
        self.lock().shards.get_mut(shard).unwrap().trimmed = records;
    }

    pub(crate) fn remove_shard(&self, shard: &str) {
        self.lock().shards.remove(shard).unwrap();
    }

    /// Answers the next calls of an operation in this way, one each.
    pub(crate) fn reply<const N: usize>(&self, operation: &'static str, replies: [StreamReply; N]) {
        self.lock().replies.entry(operation).or_default().extend(replies);
    }

    /// Answers as usual from now on.
    pub(crate) fn stop_replying(&self) {
        self.lock().replies.clear();
    }

    /// When an operation was called, with the shard that it was called for.
    pub(crate) fn calls(&self, operation: &str) -> Vec<(String, Instant)> {
        let state = self.lock();
        let calls = state.calls.iter().filter(|(called, ..)| called == operation);
        calls.map(|(_, shard, at)| (shard.clone(), *at)).collect()
    }

    fn answer(&self, request: &HttpRequest) -> Result<(u16, String), StreamReply> {
        let target = request.headers().get("x-amz-target").unwrap();
        let operation = target.rsplit('.').next().unwrap();
        let asked: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let mut state = self.lock();
        let shard = match asked["ShardIterator"].as_str() {
            Some(iterator) => iterator.split('|').next(),
            None => asked["ShardId"].as_str(),
        };
        let shard = shard.unwrap_or_default().to_owned();
        state.calls.push((operation.to_owned(), shard.clone(), now()));
        if let Some(reply) = state.replies.get_mut(operation).and_then(VecDeque::pop_front) {
            return Err(reply);
        }
        let answer = match operation {
            "DescribeTable" => Ok(state.describe_table()),
            "DescribeStream" => Ok(state.describe_stream(asked["ExclusiveStartShardId"].as_str())),
            "GetShardIterator" => state.iterator(&shard, &asked),
            "GetRecords" => state.records(&shard, asked["ShardIterator"].as_str().unwrap()),
            other => panic!("a call of {other}"),
        };
        match answer {
            Ok(answer) => Ok((200, answer.to_string())),
            Err(code) => Err(StreamReply::Error { status: 400, code }),
        }
    }
}

impl State {
    /// The service's clock, in seconds after the Unix epoch.
    fn time(&self) -> i64 {
        EPOCH + i64::try_from((now() - self.started).as_secs()).unwrap()
    }

    fn arn(&self) -> String {
        format!("arn:aws:dynamodb:eu-west-1:1:table/{STREAM_TABLE}/stream/{}", self.label)
    }

    fn describe_table(&self) -> Value {
        let mut table = json!({
            "TableName": STREAM_TABLE,
            "TableStatus": "ACTIVE",
            "KeySchema": [{ "AttributeName": "key", "KeyType": "HASH" }],
            "AttributeDefinitions": [{ "AttributeName": "key", "AttributeType": "S" }],
        });
        if let Some(view_type) = self.view_type {
            table["LatestStreamArn"] = json!(self.arn());
            table["StreamSpecification"] =
                json!({ "StreamEnabled": true, "StreamViewType": view_type });
        }
        json!({ "Table": table })
    }

    fn describe_stream(&self, after: Option<&str>) -> Value {
        let after = after.unwrap_or_default();
        let mut later = self.shards.iter().filter(|(id, _)| id.as_str() > after);
        let page: Vec<_> = later.by_ref().take(SHARDS_OF_A_PAGE).collect();
        let shards: Vec<Value> = page
            .iter()
            .map(|(id, shard)| json!({ "ShardId": id, "ParentShardId": shard.parent }))
            .collect();
        let status = if self.is_off { "DISABLED" } else { "ENABLED" };
        let mut description =
            json!({ "StreamArn": self.arn(), "StreamStatus": status, "Shards": shards });
        if later.next().is_some() {
            description["LastEvaluatedShardId"] = json!(page.last().unwrap().0);
        }
        json!({ "StreamDescription": description })
    }

    fn iterator(&self, id: &str, asked: &Value) -> Result<Value, &'static str> {
        let shard = self.shards.get(id).ok_or("ResourceNotFoundException")?;
        let parent = shard.parent.as_ref().and_then(|parent| self.shards.get(parent));
        let place = match asked["ShardIteratorType"].as_str().unwrap() {
            "TRIM_HORIZON" => {
                let waits = parent.is_some_and(|parent| !parent.is_ended && parent.trimmed == 0);
                assert!(!waits, "{id} is read before the end of its parent");
                shard.trimmed
            }
            "LATEST" => shard.records.len(),
            "AFTER_SEQUENCE_NUMBER" => {
                let number = &asked["SequenceNumber"];
                let is_it = |record: &Value| record["dynamodb"]["SequenceNumber"] == *number;
                let place = shard.records.iter().position(is_it).unwrap() + 1;
                if place < shard.trimmed + usize::from(shard.trimmed > 0) {
                    return Err("TrimmedDataAccessException");
                }
                place
            }
            other => panic!("an iterator of type {other}"),
        };
        Ok(json!({ "ShardIterator": self.render_iterator(id, place) }))
    }

    fn render_iterator(&self, shard: &str, place: usize) -> String {
        format!("{shard}|{place}|{}", (now() - self.started).as_secs())
    }

    fn records(&mut self, id: &str, iterator: &str) -> Result<Value, &'static str> {
        let parts: Vec<&str> = iterator.split('|').collect();
        let (place, issued): (usize, u64) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
        if now() - self.started > Duration::from_secs(issued) + ITERATOR_LIFE {
            return Err("ExpiredIteratorException");
        }
        let shard = self.shards.get(id).ok_or("ResourceNotFoundException")?;
        if place < shard.trimmed {
            return Err("TrimmedDataAccessException");
        }
        // Small pages, so that a shard takes several calls.
        let end = shard.records.len().min(place + 5);
        let mut answer = json!({ "Records": &shard.records[place..end] });
        if end < shard.records.len() || !shard.is_closed {
            answer["NextShardIterator"] = json!(self.render_iterator(id, end));
        } else {
            self.shards.get_mut(id).unwrap().is_ended = true;
        }
        Ok(answer)
    }
}

/// The key of event `number`.
pub(crate) fn key(number: u64) -> String {
    format!("20260101T000000000{number:09}")
}

fn sequence_number(number: u64) -> String {
    format!("1{number:020}")
}

impl HttpConnector for FakeStream {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let date = {
            let seconds = self.lock().time();
            DateTime::<Utc>::from_timestamp(seconds, 0).unwrap()
        };
        let (status, body) = match self.answer(&request) {
            Ok(answer) => answer,
            Err(StreamReply::Error { status, code }) => {
                (status, json!({ "__type": code, "message": "as scripted" }).to_string())
            }
            Err(StreamReply::Raw { status, body }) => (status, body.to_owned()),
            Err(StreamReply::Hang) => return HttpConnectorFuture::new(pending()),
        };
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        response.headers_mut().insert("date", date);
        HttpConnectorFuture::ready(Ok(response))
    }
}

/// Requests are signed with the service's time.
impl TimeSource for FakeStream {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.lock().time().unsigned_abs())
    }
}

impl HttpClient for FakeStream {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// The numbers, as a set.
pub(crate) fn numbers(range: std::ops::Range<u64>) -> BTreeSet<u64> {
    range.collect()
}
