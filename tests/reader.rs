//! `EventReader`: against the embedded table, and `#[ignore]`d against DynamoDB Local.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_types::body::SdkBody;
use chrono::{DateTime, Utc};
use dynamodb_eventstore::{
    Backoff, Event, EventReader, EventReaderBuilder, EventStore, ItemDefect, LocalTable, ReadError,
    ReadPosition, ScannedItem, StoredEvent,
};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use support::endpoint::{Described, EVENT_KEY, Endpoint, ScanReply, Script, TABLE};
use support::http_client::HttpClientFn;
use support::table::rows;
use support::{clock, dynamodb_local};

/// Keys as the npm module makes them, whose last part is not padded, with their bodies.
const NPM_EVENTS: [(&str, &str); 5] = [
    ("20130927T005240652508858176", r#"{"foo":"bar"}"#),
    ("20130927T0052406525", r#"{"foo":1}"#),
    ("20130927T00524065250", "[1,\n 2]"),
    ("20130927T0052406539", r#""é""#),
    ("20130927T00524065312345678", "null"),
];

async fn put_item(client: &Client, table: &str, attributes: &[(&str, AttributeValue)]) {
    let mut put = client.put_item().table_name(table);
    for (name, value) in attributes {
        put = put.item(*name, value.clone());
    }
    put.send().await.unwrap();
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

async fn put_npm_events(client: &Client, table: &str) {
    for (key, body) in NPM_EVENTS {
        put_item(client, table, &[("key", text(key)), ("body", text(body))]).await;
    }
}

async fn put_numbers(store: EventStore, count: usize) {
    put_numbers_with(store, count, |number| number % 60).await;
}

/// Puts events with texts of these lengths.
async fn put_numbers_with(store: EventStore, count: usize, length: impl Fn(usize) -> usize) {
    for number in 0..count {
        let text = "x".repeat(length(number));
        let body = format!(r#"{{ "number":{number},"text":"{text}" }}"#);
        drop(store.put_json(&body).await.unwrap());
    }
    let report = store.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!((report.stored, report.failed), (count as u64, 0));
}

async fn events(reader: EventReader) -> Vec<StoredEvent> {
    let items: Vec<ScannedItem> = reader.try_collect().await.unwrap();
    let event = |item| match item {
        ScannedItem::Event(event) => event,
        ScannedItem::Unexpected(item) => panic!("{item:?}"),
    };
    items.into_iter().map(event).collect()
}

fn as_rows(events: &[StoredEvent]) -> BTreeMap<String, String> {
    let rows = events.iter().map(|event| (event.key.to_string(), event.body.clone()));
    rows.collect()
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Reads a table in which are events of both writers, sorted, unsorted and by times.
async fn assert_reads_everything(client: &Client, table: &str, store: EventStore) {
    put_npm_events(client, table).await;
    put_numbers(store, 3_000).await;
    let expected = rows(client, table).await;
    assert_eq!(expected.len(), 3_005);

    let unsorted = events(EventReader::builder(client, table).open().await.unwrap()).await;
    assert_eq!(unsorted.len(), expected.len());
    assert_eq!(as_rows(&unsorted), expected);

    let reader = EventReader::builder(client, table).sorted(true).consistent_read(true);
    let sorted = events(reader.open().await.unwrap()).await;
    assert!(sorted.is_sorted_by(|a, b| a.key < b.key));
    assert!(sorted.is_sorted_by_key(|event| event.key.timestamp()));
    assert_eq!(as_rows(&sorted), expected);

    let range = time("2013-09-27T00:52:40.652Z")..time("2013-09-27T00:52:40.653Z");
    let reader = EventReader::builder(client, table).time_range(range).sorted(true);
    assert_eq!(reader.clone().open().await.unwrap().count().await.unwrap(), 3);
    let keys = events(reader.open().await.unwrap()).await;
    let keys: Vec<String> = keys.iter().map(|event| event.key.to_string()).collect();
    assert_eq!(
        keys,
        ["20130927T0052406525", "20130927T00524065250", "20130927T005240652508858176"]
    );
    let all = EventReader::builder(client, table).open().await.unwrap();
    assert_eq!(all.count().await.unwrap(), 3_005);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_table_is_read_as_it_is() {
    let table = LocalTable::in_memory().await.unwrap();
    let store = table.store_builder().start().await.unwrap();
    assert_reads_everything(table.client(), table.name(), store).await;
}

#[tokio::test]
#[ignore = "needs DynamoDB Local: .ci/dynamodb-local CMD"]
async fn dynamodb_local_is_read_as_it_is() {
    let client = dynamodb_local::client();
    let name = dynamodb_local::create_table(&client, "reader").await;
    let store = EventStore::builder().client(&client).table(&name).start().await.unwrap();
    assert_reads_everything(&client, &name, store).await;
    client.delete_table().table_name(&name).send().await.unwrap();
}

#[tokio::test]
async fn unexpected_items_are_reported_beside_the_events() {
    let table = LocalTable::in_memory().await.unwrap();
    let (client, name) = (table.client(), table.name());
    put_npm_events(client, name).await;
    let key = |number: u32| format!("20260101T00000000000000000{number}");
    let number = AttributeValue::N("1".to_owned());
    put_item(client, name, &[("key", text("settings")), ("body", text("{}"))]).await;
    put_item(client, name, &[("key", text(&key(1)))]).await;
    put_item(client, name, &[("key", text(&key(2))), ("body", number.clone())]).await;
    put_item(client, name, &[("key", text(&key(3))), ("body", text("{foo}"))]).await;
    let more = [("key", text(&key(4))), ("body", text("{}")), ("ttl", number), ("a", text(""))];
    put_item(client, name, &more).await;

    for is_sorted in [false, true] {
        let reader = EventReader::builder(client, name).sorted(is_sorted).open().await.unwrap();
        let items: Vec<ScannedItem> = reader.try_collect().await.unwrap();
        let (mut events, mut defects) = (0, BTreeMap::new());
        for item in items {
            match item {
                ScannedItem::Event(_) => events += 1,
                ScannedItem::Unexpected(item) => {
                    defects.insert(item.key, (item.body, item.defect));
                }
            }
        }
        let json = |text: &str| Some(text.to_owned());
        let others = ItemDefect::OtherAttributes(vec!["a".to_owned(), "ttl".to_owned()]);
        let expected = [
            ("settings".to_owned(), (json("{}"), ItemDefect::KeyIsNotAnEventKey)),
            (key(1), (None, ItemDefect::BodyIsMissing)),
            (key(2), (None, ItemDefect::BodyIsNotAString)),
            (key(3), (json("{foo}"), ItemDefect::BodyIsNotJson)),
            (key(4), (json("{}"), others)),
        ];
        assert_eq!(events, NPM_EVENTS.len());
        assert_eq!(defects, BTreeMap::from(expected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_reader_repeats_at_most_a_page_and_omits_nothing() {
    let table = LocalTable::in_memory().await.unwrap();
    let (client, name) = (table.client(), table.name());
    // A page of 1 MB has 342 of them at most, so that each segment has two pages.
    let store = table.store_builder().start().await.unwrap();
    put_numbers_with(store, 1_500, |_| 3_000).await;
    let builder = EventReader::builder(client, name).segments(3);
    let expected = rows(client, name).await;
    for taken in [0, 1, 150, 900, 1_499] {
        let mut reader = builder.clone().open().await.unwrap();
        let mut read = Vec::new();
        for _ in 0..taken {
            read.push(reader.next().await.unwrap().unwrap().key().to_owned());
        }
        let saved = serde_json::to_string(&reader.position().unwrap()).unwrap();
        drop(reader);
        let position: ReadPosition = serde_json::from_str(&saved).unwrap();
        let mut rest = builder.clone().resume_from(position).open().await.unwrap();
        while let Some(item) = rest.try_next().await.unwrap() {
            read.push(item.key().to_owned());
        }
        assert!(rest.position().unwrap().is_at_end());
        let distinct: BTreeSet<&String> = read.iter().collect();
        assert_eq!(distinct.len(), expected.len());
        assert!(read.len() - distinct.len() <= 342, "{}", read.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_at_an_exact_position_repeats_nothing() {
    let table = LocalTable::in_memory().await.unwrap();
    let (client, name) = (table.client(), table.name());
    let store = table.store_builder().start().await.unwrap();
    put_numbers_with(store, 1_500, |_| 3_000).await;
    let builder = EventReader::builder(client, name).segments(2);
    let mut reader = builder.clone().open().await.unwrap();
    let mut read = Vec::new();
    let mut positions = vec![(0, reader.exact_position().unwrap())];
    while let Some(item) = reader.try_next().await.unwrap() {
        read.push(item.key().to_owned());
        positions.extend(reader.exact_position().map(|position| (read.len(), position)));
    }
    // The pages of 1 MB, and the start.
    assert!((4..20).contains(&positions.len()), "{}", positions.len());
    let all: BTreeSet<&String> = read.iter().collect();
    for (taken, position) in positions {
        let mut keys: Vec<String> = read[..taken].to_vec();
        let mut rest = builder.clone().resume_from(position).open().await.unwrap();
        while let Some(item) = rest.try_next().await.unwrap() {
            keys.push(item.key().to_owned());
        }
        assert_eq!(keys.len(), read.len());
        assert_eq!(keys.iter().collect::<BTreeSet<_>>(), all);
    }
    let sorted = builder.sorted(true).open().await.unwrap();
    assert_eq!(sorted.exact_position(), None);
}

#[tokio::test]
async fn export_and_put_again_keep_every_body() {
    let (source, copy) =
        (LocalTable::in_memory().await.unwrap(), LocalTable::in_memory().await.unwrap());
    put_npm_events(source.client(), source.name()).await;
    put_numbers(source.store_builder().start().await.unwrap(), 500).await;
    let reader = EventReader::builder(source.client(), source.name()).sorted(true);
    let exported = events(reader.open().await.unwrap()).await;
    let store = copy.store_builder().start().await.unwrap();
    for event in &exported {
        drop(store.put_event(Event::try_from(event.clone()).unwrap()).await.unwrap());
    }
    assert!(store.close(Duration::from_secs(60)).await.unwrap().is_complete());
    let reader = EventReader::builder(copy.client(), copy.name()).sorted(true);
    assert_eq!(events(reader.open().await.unwrap()).await, exported);
}

#[tokio::test]
async fn missing_table_and_bad_settings_do_not_open() {
    let table = LocalTable::in_memory().await.unwrap();
    let (client, name) = (table.client(), table.name());
    let missing = EventReader::builder(client, "nowhere").open().await.unwrap_err();
    assert!(matches!(missing, ReadError::Table(_)), "{missing}");
    let builder = || EventReader::builder(client, name);
    let now = time("2026-01-01T00:00:00Z");
    let position = builder().open().await.unwrap().position().unwrap();
    let of_other_range = builder().time_range(now..).open().await.unwrap().position().unwrap();
    for (field, builder) in [
        ("segments", builder().segments(0)),
        ("segments", builder().segments(257)),
        ("time_range", builder().time_range(now..now)),
        ("max_memory_bytes", builder().sorted(true).max_memory_bytes(1)),
        ("max_read_units_per_second", builder().max_read_units_per_second(0)),
        ("max_attempts", builder().max_attempts(0)),
        ("attempt_timeout", builder().attempt_timeout(Duration::ZERO)),
        ("resume_from", builder().sorted(true).resume_from(position.clone())),
        ("resume_from", builder().segments(9).resume_from(position)),
        ("resume_from", builder().resume_from(of_other_range)),
        ("table", EventReader::builder(client, "")),
    ] {
        match builder.open().await.unwrap_err() {
            ReadError::Config(error) => assert_eq!(error.field, field),
            error => panic!("{field}: {error}"),
        }
    }
}

#[tokio::test]
async fn estimate_and_progress_are_those_of_the_table() {
    let table = LocalTable::in_memory().await.unwrap();
    put_npm_events(table.client(), table.name()).await;
    let mut reader = EventReader::builder(table.client(), table.name()).open().await.unwrap();
    let before = reader.progress();
    assert_eq!((before.estimated_items, before.scanned_items), (Some(5), 0));
    assert!(before.estimated_bytes.is_some_and(|bytes| bytes > 150), "{before:?}");
    assert_eq!(before.estimated_read_units, Some(1.0));
    while reader.try_next().await.unwrap().is_some() {}
    let counted = EventReader::builder(table.client(), table.name()).open().await.unwrap();
    let mut pages = Vec::new();
    let counted = counted.count_with_progress(|read| pages.push(read.matching_items)).await;
    assert_eq!((counted.unwrap(), pages.len(), pages.last()), (5, 8, Some(&5)));
    let after = reader.progress();
    assert_eq!((after.scanned_items, after.matching_items, after.pages), (5, 5, 8));
    assert!(after.read_units > 0.0 && after.matching_bytes > 150, "{after:?}");
}

/// Bodies in the endpoint's table, put by a store.
async fn fill(endpoint: &Endpoint) {
    put_numbers(endpoint.store().start().await.unwrap(), 200).await;
}

fn patient(endpoint: &Endpoint) -> EventReaderBuilder {
    let backoff = Backoff {
        floor: Duration::ZERO,
        base: Duration::from_millis(1),
        ceiling: Duration::from_millis(1),
    };
    EventReader::builder(&Client::new(&endpoint.sdk_config()), TABLE).segments(2).backoff(backoff)
}

#[tokio::test]
async fn page_that_fails_or_is_broken_is_read_again() {
    let throttled = ScanReply::Throttled {
        code: "ProvisionedThroughputExceededException",
        reason: "TableReadProvisionedThroughputExceeded",
    };
    for reply in [
        throttled,
        ScanReply::Error { status: 500, code: "InternalServerError" },
        ScanReply::Error { status: 503, code: "ServiceUnavailable" },
        ScanReply::Raw { status: 502, body: "<html>" },
        // Each of these must not count as a segment without items.
        ScanReply::Raw { status: 200, body: "" },
        ScanReply::Raw { status: 200, body: "{}" },
        ScanReply::Raw { status: 200, body: "\u{feff}" },
        ScanReply::Raw { status: 200, body: r#"{"Items":[],"Count":0,"ScannedCount":0}"# },
        ScanReply::Raw {
            status: 200,
            body: r#"{"Items":[],"Count":1,"ScannedCount":1,"ConsumedCapacity":{"CapacityUnits":1}}"#,
        },
        ScanReply::Raw {
            status: 200,
            body: r#"{"Count":0,"ScannedCount":0,"ConsumedCapacity":{"CapacityUnits":1}}"#,
        },
        ScanReply::Raw {
            status: 200,
            body: r#"{"Items":[{"id":{"S":"a"}}],"Count":1,"ScannedCount":1,
                "ConsumedCapacity":{"CapacityUnits":1}}"#,
        },
        ScanReply::CutShort,
        ScanReply::WrongChecksum,
        ScanReply::HangUp,
        ScanReply::Hang,
    ] {
        let script = Script::of([]).first_scanning([reply.clone(), reply.clone()]);
        let endpoint = Endpoint::start(script).await;
        fill(&endpoint).await;
        let reader = patient(&endpoint).attempt_timeout(Duration::from_millis(500));
        let mut reader = reader.open().await.unwrap();
        let mut read = BTreeMap::new();
        while let Some(item) = reader.try_next().await.unwrap() {
            let ScannedItem::Event(event) = item else { panic!("{item:?}") };
            read.insert(event.key.to_string(), event.body);
        }
        assert_eq!(read, endpoint.table().await, "{reply:?}");
        let progress = reader.progress();
        let is_throttled = matches!(reply, ScanReply::Throttled { .. });
        let failures = (progress.throttled_attempts, progress.failed_attempts);
        assert_eq!(failures, if is_throttled { (2, 0) } else { (0, 2) }, "{reply:?}");
    }
}

#[tokio::test]
async fn count_is_not_that_of_a_broken_answer() {
    for body in ["", "{}", r#"{"Count":0,"ScannedCount":0}"#] {
        let script = Script::of([]).first_scanning([ScanReply::Raw { status: 200, body }]);
        let endpoint = Endpoint::start(script).await;
        fill(&endpoint).await;
        let reader = patient(&endpoint).open().await.unwrap();
        assert_eq!(reader.count().await.unwrap(), 200, "{body}");
    }
}

#[tokio::test]
async fn refused_scan_ends_at_once_and_names_the_permission() {
    let refusal = ScanReply::Error { status: 400, code: "AccessDeniedException" };
    let script = Script::of([]).scanning(refusal);
    let endpoint = Endpoint::start(script).await;
    for is_sorted in [false, true] {
        let mut reader = patient(&endpoint).segments(1).sorted(is_sorted).open().await.unwrap();
        let error = reader.next().await.unwrap().unwrap_err();
        let shown = error.to_string();
        assert!(matches!(error, ReadError::Page { attempts: 1, .. }), "{shown}");
        assert!(shown.contains("grant dynamodb:Scan") && shown.contains("request id"), "{shown}");
        assert!(reader.next().await.is_none());
    }
    assert_eq!(endpoint.calls("Scan").len(), 2);
}

#[tokio::test]
async fn page_that_keeps_failing_ends_a_reader_that_can_resume() {
    let error = ScanReply::Error { status: 500, code: "InternalServerError" };
    let script = Script::of([]).first_scanning([ScanReply::Ok]).scanning(error);
    let endpoint = Endpoint::start(script).await;
    fill(&endpoint).await;
    let builder = patient(&endpoint).max_attempts(3);
    let mut reader = builder.clone().open().await.unwrap();
    let mut read = BTreeMap::new();
    let failed = loop {
        match reader.next().await.unwrap() {
            Ok(ScannedItem::Event(event)) => read.insert(event.key.to_string(), event.body),
            Ok(item) => panic!("{item:?}"),
            Err(error) => break error,
        };
    };
    let ReadError::Page { attempts, after_key, .. } = &failed else { panic!("{failed}") };
    assert_eq!((*attempts, after_key), (3, &None), "{failed}");
    let position = reader.position().unwrap();
    assert!(!read.is_empty() && !position.is_at_end());

    endpoint.scan_from_now_on(ScanReply::Ok);
    for event in events(builder.resume_from(position).open().await.unwrap()).await {
        assert_eq!(read.insert(event.key.to_string(), event.body), None);
    }
    assert_eq!(read, endpoint.table().await);
}

#[tokio::test]
async fn throttled_page_ends_the_reader_at_its_deadline() {
    let throttled = ScanReply::Throttled {
        code: "ThrottlingException",
        reason: "TableReadMaxOnDemandThroughputExceeded",
    };
    let endpoint = Endpoint::start(Script::of([]).scanning(throttled)).await;
    let reader = patient(&endpoint).max_attempts(1).page_deadline(Duration::from_millis(200));
    let error = reader.open().await.unwrap().next().await.unwrap().unwrap_err();
    let shown = error.to_string();
    assert!(matches!(error, ReadError::Page { attempts: 2.., .. }), "{shown}");
    assert!(shown.contains("lower limit of read units"), "{shown}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn temporary_files_have_no_name_and_are_in_their_directory() {
    let table = LocalTable::in_memory().await.unwrap();
    let store = table.store_builder().start().await.unwrap();
    put_numbers_with(store, 3_000, |_| 2_000).await;
    let folder = tempfile::tempdir().unwrap();
    let builder = EventReader::builder(table.client(), table.name()).sorted(true);
    let builder = builder.max_memory_bytes(4 << 20).temporary_directory(folder.path());
    let mut reader = builder.clone().open().await.unwrap();
    assert!(matches!(reader.next().await, Some(Ok(ScannedItem::Event(_)))));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(events(reader).await.len(), 2_999);

    let gone = folder.path().join("gone");
    let mut reader = builder.temporary_directory(&gone).open().await.unwrap();
    let error = reader.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ReadError::TemporaryFile { .. }), "{error}");
    assert!(error.to_string().contains("gone could not be created"), "{error}");
}

/// A table whose pages take this many units each.
fn table_of_pages(pages_per_segment: usize, read_units: f64) -> Client {
    let read: Mutex<[usize; 4]> = Mutex::default();
    let http_client = HttpClientFn::new(move |request| {
        let asked: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let Some(segment) = asked["Segment"].as_u64() else {
            return HttpResponse::new(200.try_into().unwrap(), SdkBody::from(DESCRIBED));
        };
        let mut read = read.lock().unwrap();
        let number = &mut read[usize::try_from(segment).unwrap()];
        *number += 1;
        let mut page = json!({
            "Items": [], "Count": 0, "ScannedCount": 10,
            "ConsumedCapacity": { "TableName": TABLE, "CapacityUnits": read_units },
        });
        if *number < pages_per_segment {
            page["LastEvaluatedKey"] = json!({ "key": { "S": number.to_string() } });
        }
        HttpResponse::new(200.try_into().unwrap(), SdkBody::from(page.to_string()))
    });
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(credentials)
        .http_client(http_client)
        .build();
    Client::from_conf(config)
}

const DESCRIBED: &str = r#"{"Table":{"TableName":"events","TableStatus":"ACTIVE",
    "KeySchema":[{"AttributeName":"key","KeyType":"HASH"}],
    "AttributeDefinitions":[{"AttributeName":"key","AttributeType":"S"}]}}"#;

#[tokio::test(start_paused = true)]
async fn limited_reader_uses_no_more_units_per_second() {
    // 4 segments of 25 pages of 5 units are 500 units, which take 25 s. The first pages leave later than they need to,
    // because it is not known yet what they cost.
    let client = table_of_pages(25, 5.0);
    let start = clock::now();
    let reader = EventReader::builder(&client, TABLE).segments(4).max_read_units_per_second(20);
    let mut reader = reader.open().await.unwrap();
    assert!(reader.next().await.is_none());
    assert_eq!(reader.progress().read_units, 500.0);
    let seconds = (clock::now() - start).as_secs_f64();
    assert!((24.0..28.0).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn role_without_describe_table_reads_without_an_estimate() {
    let refused = Described::Error { status: 400, code: "AccessDeniedException" };
    let script = Script::of([]).first_describing([Described::with_key([EVENT_KEY])]);
    let endpoint = Endpoint::start(script.describing(refused)).await;
    fill(&endpoint).await;
    let reader = patient(&endpoint).open().await.unwrap();
    assert_eq!(reader.progress().estimated_items, None);
    assert_eq!(events(reader).await.len(), 200);
}

#[test]
fn reader_without_its_runtime_ends_with_an_error() {
    let start_runtime =
        || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let kept = start_runtime();
    let endpoint = kept.block_on(Endpoint::start(Script::of([]).scanning(ScanReply::Hang)));
    for is_sorted in [false, true] {
        let lost = start_runtime();
        let reader = patient(&endpoint).sorted(is_sorted);
        let mut reader = kept.block_on(reader.open()).unwrap();
        lost.block_on(async { assert!(futures::poll!(reader.next()).is_pending()) });
        drop(lost);
        let end = kept.block_on(reader.next()).unwrap();
        assert!(matches!(end, Err(ReadError::Stopped)), "{end:?}");
    }
}
