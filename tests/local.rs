//! The embedded table: other AWS clients, web pages, files of other programs, and a killed
//! process.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::batch_write_item::BatchWriteItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, DeleteRequest, GlobalSecondaryIndex,
    KeySchemaElement, KeyType, Projection, ProjectionType, PutRequest, ReturnConsumedCapacity,
    ScalarAttributeType, StreamSpecification, StreamViewType, WriteRequest,
};
use dynamodb_eventstore::{
    Certainty, Event, FailureReason, LocalError, LocalTable, OnDuplicate, WriteCapacity, WriteMode,
};
use futures::future::join_all;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use support::table::rows;

/// The attributes of an item by name.
type Item = HashMap<String, AttributeValue>;

fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

fn event(key: &str, body: &str) -> Item {
    HashMap::from([("key".to_owned(), text(key)), ("body".to_owned(), text(body))])
}

fn put(item: Item) -> WriteRequest {
    let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}

fn delete(key: &str) -> WriteRequest {
    let delete = DeleteRequest::builder().key("key", text(key)).build().unwrap();
    WriteRequest::builder().delete_request(delete).build()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The length and the checksum of every file in the folder.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (usize, u32)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let content = |path| {
        let bytes = fs::read(&path).unwrap();
        (path, (bytes.len(), crc32fast::hash(&bytes)))
    };
    files.map(content).collect()
}

/// A put as an AWS client sends it, with this method and these headers.
fn request(method: &str, headers: &str) -> String {
    let item = json!({ "key": { "S": "k" }, "body": { "S": "{}" } });
    let body = json!({ "TableName": "events", "Item": item });
    call(method, headers, "DynamoDB_20120810.PutItem", &body)
}

fn call(method: &str, headers: &str, target: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "{method} / HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {}\r\n\
         content-type: application/x-amz-json-1.0\r\nx-amz-target: {target}\r\n\
         x-amz-date: 20261124T000000Z\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=any/20261124/us-east-1/dynamodb/aws4_request, SignedHeaders=host, \
         Signature=any\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request and returns the whole response.
async fn send(table: &LocalTable, request: &str) -> String {
    let address = table.endpoint_url().replace("http://", "");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Calls an operation of DynamoDB Streams and returns its result.
async fn ask_streams(table: &LocalTable, operation: &str, body: Value) -> Value {
    let target = format!("DynamoDBStreams_20120810.{operation}");
    let answer = send(table, &call("POST", "host: localhost\r\n", &target, &body)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn requests_of_web_pages_are_refused_and_change_nothing() {
    let table = LocalTable::in_memory().await.unwrap();
    let preflight = "host: 127.0.0.1\r\norigin: https://evil.example\r\n\
                     access-control-request-method: POST\r\n\
                     access-control-request-headers: x-amz-target,content-type\r\n";
    let refused = [
        ("POST", "host: 127.0.0.1:8000\r\norigin: https://evil.example\r\n"),
        ("POST", "host: 127.0.0.1:8000\r\norigin: null\r\n"),
        ("POST", "host: 127.0.0.1:8000\r\norigin: http://localhost:3000\r\n"),
        ("POST", "host: evil.example:8000\r\n"),
        ("POST", "host: 127.0.0.1.evil.example\r\n"),
        ("POST", ""),
        ("GET", "host: evil.example:8000\r\n"),
        ("OPTIONS", preflight),
    ];
    for (method, headers) in refused {
        let answer = send(&table, &request(method, headers)).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{headers}: {answer}");
        assert!(!answer.contains("access-control"), "{headers}: {answer}");
    }
    let answer = send(&table, &request("OPTIONS", "host: localhost\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(rows(table.client(), table.name()).await, BTreeMap::new());
}

#[tokio::test]
async fn requests_to_every_loopback_name_are_answered() {
    let table = LocalTable::in_memory().await.unwrap();
    for host in ["127.0.0.1:8000", "127.0.0.1", "localhost:8000", "LOCALHOST", "[::1]:8000"] {
        let answer = send(&table, &request("POST", &format!("host: {host}\r\n"))).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        assert!(answer.contains("x-amz-crc32: ") && !answer.contains("access-control"), "{answer}");
    }
    assert_eq!(rows(table.client(), table.name()).await.len(), 1);
}

#[tokio::test]
async fn foreign_database_is_refused_and_left_unchanged() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let tables = "CREATE TABLE people (name); INSERT INTO people VALUES ('Ada');
                  CREATE TABLE _config (key, value)";
    let begin = |name: &str, with: &str| {
        let database = Connection::open(path(name)).unwrap();
        database.execute_batch(with).unwrap();
        database
    };
    drop(begin("tables.sqlite", tables));
    drop(begin("wal.sqlite", &format!("PRAGMA journal_mode = WAL; {tables}")));
    drop(begin("same-name.sqlite", "CREATE TABLE _tables (a); CREATE TABLE _config (b)"));
    drop(begin("identified.sqlite", "PRAGMA application_id = 7"));
    drop(begin("versioned?a=1#%41.sqlite", "PRAGMA user_version = 3"));
    // The database of a running program, whose tables are still only in the -wal file.
    let running = begin("running.sqlite", &format!("PRAGMA journal_mode = WAL; {tables}"));
    // The database of a killed program, with and without the index (-shm) of the -wal file.
    for (copy, suffixes) in [("killed", &["", "-wal", "-shm"][..]), ("moved", &["", "-wal"][..])] {
        for suffix in suffixes {
            let original = path(&format!("running.sqlite{suffix}"));
            fs::copy(original, path(&format!("{copy}.sqlite{suffix}"))).unwrap();
        }
    }
    // A database with a -wal file that holds no valid frame.
    fs::copy(path("wal.sqlite"), path("junk.sqlite")).unwrap();
    fs::write(path("junk.sqlite-wal"), [7; 100]).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(path("running.sqlite"), path("link.sqlite")).unwrap();
    fs::write(path("page.sqlite"), "<!DOCTYPE html>").unwrap();

    // All files except the -shm file of the running program, in which readers set their marks.
    let contents = || {
        let mut contents = contents(folder.path());
        contents.remove(&path("running.sqlite-shm")).unwrap();
        contents
    };
    let before = contents();
    for (name, expected) in [
        ("tables.sqlite", "it holds `_config`, `people`"),
        ("wal.sqlite", "it holds `_config`, `people`"),
        ("same-name.sqlite", "it holds `_config`, `_tables`"),
        ("identified.sqlite", "its application_id is 7"),
        ("versioned?a=1#%41.sqlite", "its user_version is 3"),
        ("running.sqlite", "it holds `_config`, `people`"),
        ("killed.sqlite", "it holds `_config`, `people`"),
        ("moved.sqlite", "it holds `_config`, `people`"),
        ("junk.sqlite", "it holds `_config`, `people`"),
        #[cfg(unix)]
        ("link.sqlite", "it holds `_config`, `people`"),
        ("page.sqlite", "it is another kind of file"),
    ] {
        let refused = LocalTable::open(path(name)).await.unwrap_err();
        assert!(matches!(refused, LocalError::Open { .. }), "{name}: {refused}");
        assert!(refused.to_string().contains(expected), "{name}: {refused}");
        assert_eq!(contents(), before, "{name} was touched");
    }
    drop(running);
}

#[tokio::test]
async fn empty_file_becomes_a_table() {
    let folder = folder();
    let file = folder.path().join("file:empty?.sqlite");
    fs::write(&file, "").unwrap();
    for _ in 0..2 {
        LocalTable::open(&file).await.unwrap().stop().await.unwrap();
    }
    assert_eq!(contents(folder.path()).into_keys().collect::<Vec<_>>(), [file]);
}

#[tokio::test]
async fn taken_port_is_reported_before_a_file_is_created() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let file = folder.path().join("events.sqlite");
    let refused = LocalTable::builder().file(&file).port(port).start().await.unwrap_err();
    assert!(matches!(refused, LocalError::Listen { .. }), "{refused}");
    assert_eq!(contents(folder.path()), BTreeMap::new());
}

#[cfg(unix)]
#[tokio::test]
async fn files_of_a_new_table_are_private_to_their_user() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    let mode =
        |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    let table = LocalTable::open(folder.path().join("new")).await.unwrap();
    for file in ["new", "new-wal", "new-shm"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    drop(table);

    // The mode of an existing file stays.
    fs::write(folder.path().join("shared"), "").unwrap();
    let shared = fs::Permissions::from_mode(0o640);
    fs::set_permissions(folder.path().join("shared"), shared).unwrap();
    let _table = LocalTable::open(folder.path().join("shared")).await.unwrap();
    assert_eq!(mode("shared"), 0o640);
}

/// The number of transactions in a `-wal` file. The last frame of each holds the new length of the
/// database.
fn transactions(wal: &Path) -> usize {
    const HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;
    let wal = fs::read(wal).unwrap();
    let number = |at: usize| u32::from_be_bytes(*wal.get(at..).unwrap().first_chunk().unwrap());
    let frame = FRAME_HEADER + usize::try_from(number(8)).unwrap();
    (HEADER..wal.len()).step_by(frame).filter(|&at| number(at + 4) > 0).count()
}

#[tokio::test]
async fn batch_of_events_is_one_transaction() {
    let folder = folder();
    let file = folder.path().join("events.sqlite");
    let table = LocalTable::open(&file).await.unwrap();
    let before = transactions(&folder.path().join("events.sqlite-wal"));
    let batch = (0..25).map(|number| put(event(&format!("{number:02}"), "{}"))).collect();
    let written = table.client().batch_write_item().request_items("events", batch).send().await;
    assert_eq!(written.unwrap().unprocessed_items, Some(HashMap::new()));
    assert_eq!(transactions(&folder.path().join("events.sqlite-wal")), before + 1);
    assert_eq!(rows(table.client(), "events").await.len(), 25);
}

fn attribute(name: &str, kind: ScalarAttributeType) -> AttributeDefinition {
    let attribute = AttributeDefinition::builder().attribute_name(name);
    attribute.attribute_type(kind).build().unwrap()
}

fn hash(name: &str) -> KeySchemaElement {
    let key = KeySchemaElement::builder().attribute_name(name);
    key.key_type(KeyType::Hash).build().unwrap()
}

/// Creates a table with an index. Its batches go to the engine's own `BatchWriteItem`.
async fn create_indexed(client: &Client, name: &str) {
    let all = Projection::builder().projection_type(ProjectionType::All).build();
    let index = GlobalSecondaryIndex::builder().index_name("index").key_schema(hash("other"));
    let create = client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    create
        .attribute_definitions(attribute("key", ScalarAttributeType::S))
        .attribute_definitions(attribute("other", ScalarAttributeType::S))
        .key_schema(hash("key"))
        .global_secondary_indexes(index.projection(all).build().unwrap())
        .send()
        .await
        .unwrap();
}

/// Writes a batch, and returns the result and the items of the table after it.
async fn write(
    client: &Client,
    table: &str,
    batch: Vec<WriteRequest>,
) -> (Result<(), (Option<String>, Option<String>)>, BTreeMap<String, Item>) {
    let written = client.batch_write_item().request_items(table, batch).send().await;
    let answer = match written {
        Ok(written) => {
            assert_eq!(written.unprocessed_items, Some(HashMap::new()));
            Ok(())
        }
        Err(error) => Err((error.code().map(Into::into), error.message().map(Into::into))),
    };
    let items = client.scan().table_name(table).send().await.unwrap().items.unwrap();
    let key = |item: &Item| item["key"].as_s().unwrap().clone();
    (answer, items.into_iter().map(|item| (key(&item), item)).collect())
}

#[tokio::test]
async fn import_writes_the_same_rows_as_the_engine() {
    let table = LocalTable::in_memory().await.unwrap();
    let client = table.client();
    create_indexed(client, "indexed").await;
    let with = |name: &str, value| {
        let mut item = event("a", "{}");
        item.insert(name.to_owned(), value);
        vec![put(item)]
    };
    let numbers = |numbers: &[&str]| {
        AttributeValue::Ns(numbers.iter().map(|&number| number.to_owned()).collect())
    };
    let nested = AttributeValue::L(vec![
        AttributeValue::M(HashMap::from([("m".to_owned(), AttributeValue::Null(true))])),
        AttributeValue::Bool(true),
        AttributeValue::B(Blob::new([0, 255])),
    ]);
    let body_of = |bytes| "x".repeat(bytes);
    let (largest, too_large) = (409_600 - 8, 409_600 - 7);
    let stored = [
        ("puts", vec![put(event("a", "1")), put(event("b", "2"))]),
        ("an overwrite", vec![put(event("a", "3"))]),
        ("a number", with("other-attribute", AttributeValue::N("1.50".to_owned()))),
        ("a set of numbers", with("set", numbers(&["2", "1.0"]))),
        ("nested values", with("nested", nested)),
        ("an empty string", vec![put(event("a", ""))]),
        ("a put and a delete", vec![put(event("c", "4")), delete("b")]),
        ("the largest item", vec![put(event("a", &body_of(largest)))]),
        ("the longest key", vec![put(event(&"k".repeat(2048), "{}"))]),
    ];
    let refused = [
        ("no writes", vec![]),
        ("26 writes", (0..26).map(|number| put(event(&number.to_string(), "{}"))).collect()),
        ("a key twice", vec![put(event("d", "1")), put(event("d", "2"))]),
        ("a key twice, deleted", vec![put(event("d", "1")), delete("d")]),
        ("an empty key", vec![put(event("d", "1")), put(event("", "1"))]),
        ("a key too long", vec![put(event(&"k".repeat(2049), "{}"))]),
        ("no key", vec![put(HashMap::from([("body".to_owned(), text("{}"))]))]),
        ("a number as key", with("key", AttributeValue::N("1".to_owned()))),
        ("an item too large", vec![put(event("a", &body_of(too_large))), put(event("d", "{}"))]),
        ("an empty set", with("set", numbers(&[]))),
        ("a number twice", with("set", numbers(&["1", "1.0"]))),
        ("no number", with("number", AttributeValue::N("one".to_owned()))),
        ("an empty name", with("", text("x"))),
        ("neither put nor delete", vec![WriteRequest::builder().build()]),
    ];
    let mut before = BTreeMap::new();
    for (case, batch) in stored {
        let written = write(client, "events", batch.clone()).await;
        assert_eq!(written, write(client, "indexed", batch).await, "{case}");
        assert_eq!(written.0, Ok(()), "{case}");
        before = written.1;
    }
    for (case, batch) in refused {
        let (answer, after) = write(client, "events", batch.clone()).await;
        let (other, _) = write(client, "indexed", batch).await;
        let error = |answer: &Result<(), (Option<String>, Option<String>)>| {
            // The engine's message repeats the request with the name of its table.
            let (code, message) = answer.clone().expect_err(case);
            (code.unwrap(), message.unwrap().replace("indexed", "events"))
        };
        assert_eq!(error(&answer), error(&other), "{case}");
        assert_eq!(after, before, "{case}");
    }
}

#[tokio::test]
async fn batch_that_asks_for_consumed_capacity_gets_it() {
    let table = LocalTable::in_memory().await.unwrap();
    let client = table.client();
    let write = client.batch_write_item().request_items("events", vec![put(event("a", "{}"))]);
    let written = write.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await;
    let consumed = written.unwrap().consumed_capacity.unwrap();
    assert_eq!(consumed[0].capacity_units, Some(1.0));

    let missing = client.batch_write_item().request_items("missing", vec![put(event("a", "{}"))]);
    let error = missing.send().await.unwrap_err();
    assert_eq!(error.code(), Some("ResourceNotFoundException"));
}

#[tokio::test]
async fn limited_table_refuses_writes_beyond_its_capacity() {
    let capacity = WriteCapacity::provisioned(2).saved(Duration::from_secs(1));
    let table = LocalTable::builder().write_capacity(capacity).start().await.unwrap();
    let client = table.client();
    let large = "x".repeat(100_000);
    let batch = vec![put(event("a", &large)), put(event("b", "{}")), delete("c")];
    let written = client.batch_write_item().request_items("events", batch).send().await.unwrap();
    let unprocessed = written.unprocessed_items.unwrap().remove("events").unwrap();
    assert_eq!(unprocessed, [put(event("b", "{}")), delete("c")]);

    // The large item has used up the units of fifty seconds.
    let refused = client.batch_write_item().request_items("events", unprocessed).send().await;
    let refused = refused.unwrap_err().into_service_error();
    let BatchWriteItemError::ProvisionedThroughputExceededException(refused) = refused else {
        panic!("{refused:?}");
    };
    let [reason] = refused.throttling_reasons() else { panic!("{refused:?}") };
    assert_eq!(reason.reason(), Some("TableWriteProvisionedThroughputExceeded"));
    assert!(reason.resource().unwrap().ends_with(":table/events"));

    let put = client.put_item().table_name("events").set_item(Some(event("d", "{}")));
    let code = "ProvisionedThroughputExceededException";
    assert_eq!(put.send().await.unwrap_err().code(), Some(code));
    let delete = client.delete_item().table_name("events").key("key", text("a"));
    assert_eq!(delete.send().await.unwrap_err().code(), Some(code));
    assert_eq!(rows(client, "events").await.into_keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn store_writes_to_a_limited_table_without_loss() {
    let capacity = WriteCapacity::provisioned(1_000).burst(Duration::from_secs(1));
    let table = LocalTable::builder().write_capacity(capacity).start().await.unwrap();
    let store = table.store_builder().start().await.unwrap();
    for number in 0..2_500 {
        drop(store.put(&number).await.unwrap());
    }
    let report = store.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!((report.stored, report.failed), (2_500, 0));
    let stats = store.stats();
    assert!(stats.throttled_units > 0, "{stats:?}");
    assert_eq!(rows(table.client(), "events").await.len(), 2_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_inserts_into_a_limited_table_without_loss() {
    let capacity = WriteCapacity::provisioned(100).burst(Duration::ZERO);
    let table = LocalTable::builder().write_capacity(capacity).start().await.unwrap();
    let store = table.store_builder().write_mode(WriteMode::Insert).start().await.unwrap();
    let mut tickets = Vec::new();
    for number in 0..300 {
        tickets.push(store.put(&number).await.unwrap());
    }
    for stored in join_all(tickets).await {
        stored.unwrap();
    }
    assert!(store.stats().throttled_units > 0, "{:?}", store.stats());
    assert_eq!(rows(table.client(), table.name()).await.len(), 300);
}

/// An insert that finds its key taken costs as much as the larger of the two items, by captures of AWS's answers that
/// the engine's authors made. A batch in which no statement succeeds reports no units.
#[tokio::test]
async fn insert_that_finds_its_key_taken_consumes_write_units() {
    let table = LocalTable::in_memory().await.unwrap();
    let store = table.store_builder().write_mode(WriteMode::Insert).linger(Duration::from_secs(30));
    let store = store.on_duplicate(OnDuplicate::Fail).return_consumed_capacity(true);
    let store = store.start().await.unwrap();
    let mut consumed = 0.0;
    for (stored_bytes, bytes, units) in [(2, 2, 1.0), (3_000, 2, 3.0), (2, 3_000, 3.0)] {
        let body = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
        let ticket = store.put_json(&body(stored_bytes)).await.unwrap();
        store.flush().await.unwrap();
        let key = ticket.await.unwrap().key;
        consumed += (stored_bytes + 34).div_ceil(1_024) as f64;
        assert_eq!(store.stats().consumed_write_units, consumed);
        let again = Event::new(key, body(bytes).replace('a', "b")).unwrap();
        let again = store.put_again(again, Certainty::NotStored).await.unwrap();
        let other = store.put(&1).await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(again.await.unwrap_err().reason(), FailureReason::DuplicateKey);
        other.await.unwrap();
        consumed += units + 1.0;
        assert_eq!(store.stats().consumed_write_units, consumed, "{stored_bytes}, {bytes}");
    }
}

#[tokio::test]
async fn batch_reaches_the_table_stream_and_obeys_its_key() {
    let table = LocalTable::in_memory().await.unwrap();
    let client = table.client();
    let stream = StreamSpecification::builder().stream_enabled(true);
    let created = client
        .create_table()
        .table_name("streamed")
        .attribute_definitions(attribute("key", ScalarAttributeType::S))
        .key_schema(hash("key"))
        .billing_mode(BillingMode::PayPerRequest)
        .stream_specification(stream.stream_view_type(StreamViewType::KeysOnly).build().unwrap())
        .send();
    let stream = created.await.unwrap().table_description.unwrap().latest_stream_arn.unwrap();
    let (answer, _) = write(client, "streamed", vec![put(event("a", "1"))]).await;
    assert_eq!(answer, Ok(()));
    let described = ask_streams(&table, "DescribeStream", json!({ "StreamArn": stream })).await;
    let shard = &described["StreamDescription"]["Shards"][0]["ShardId"];
    let from = json!({
        "StreamArn": stream, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON",
    });
    let iterator = ask_streams(&table, "GetShardIterator", from).await;
    let records =
        ask_streams(&table, "GetRecords", json!({ "ShardIterator": iterator["ShardIterator"] }));
    assert_eq!(records.await["Records"][0]["dynamodb"]["Keys"], json!({ "key": { "S": "a" } }));

    let numbered = client.create_table().table_name("numbered").key_schema(hash("key"));
    let number = attribute("key", ScalarAttributeType::N);
    let numbered = numbered.attribute_definitions(number).billing_mode(BillingMode::PayPerRequest);
    numbered.send().await.unwrap();
    let batch = client.batch_write_item().request_items("numbered", vec![put(event("a", "1"))]);
    let refused = batch.send().await.unwrap_err();
    assert_eq!(refused.message(), Some("The provided key element does not match the schema"));
}

/// The number of batches that are written concurrently, and of those that are acknowledged before
/// the kill.
const WRITERS: usize = 4;
const BATCHES_BEFORE_THE_KILL: usize = 100;

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_batches_are_whole_after_a_kill() {
    let folder = folder();
    let mut server = Command::new(env!("CARGO_BIN_EXE_dynamodb-eventstore"))
        .args(["local", "events.sqlite", "--port", "0"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first_line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut first_line).unwrap();
    let url = first_line.trim().rsplit_once(' ').unwrap().1;
    // The configuration of another local table's client is right except for the address.
    let other = LocalTable::in_memory().await.unwrap();
    let config = other.client().config().to_builder().endpoint_url(url);
    let config = config.retry_config(aws_config::retry::RetryConfig::disabled()).build();
    let client = Client::from_conf(config);

    let (acknowledged, mut acknowledgements) = tokio::sync::mpsc::unbounded_channel();
    let writers = (0..WRITERS).map(|writer| {
        let (client, acknowledged) = (client.clone(), acknowledged.clone());
        async move {
            for number in 0.. {
                let batch = format!("{writer}-{number:06}");
                let writes = (0..25).map(|index| put(event(&format!("{batch}-{index:02}"), "{}")));
                let call = client.batch_write_item().request_items("events", writes.collect());
                if call.send().await.is_err() {
                    break;
                }
                acknowledged.send(batch).unwrap();
            }
        }
    });
    let writers = tokio::spawn(join_all(writers.collect::<Vec<_>>()));
    drop(acknowledged);
    let mut batches = Vec::new();
    while let Some(batch) = acknowledgements.recv().await {
        batches.push(batch);
        if batches.len() == BATCHES_BEFORE_THE_KILL {
            server.kill().unwrap();
        }
    }
    writers.await.unwrap();
    assert!(!server.wait().unwrap().success());

    assert!(batches.len() >= BATCHES_BEFORE_THE_KILL);
    // Also check a copy without the index (-shm) of the -wal file.
    for suffix in ["", "-wal"] {
        let file = |name: &str| folder.path().join(format!("{name}.sqlite{suffix}"));
        fs::copy(file("events"), file("copy")).unwrap();
    }
    for file in ["events.sqlite", "copy.sqlite"] {
        let table = LocalTable::open(folder.path().join(file)).await.unwrap();
        let mut events: BTreeMap<String, usize> = BTreeMap::new();
        for key in rows(table.client(), "events").await.into_keys() {
            *events.entry(key.rsplit_once('-').unwrap().0.to_owned()).or_default() += 1;
        }
        for batch in &batches {
            assert!(events.contains_key(batch), "{batch} was acknowledged and is not in {file}");
        }
        for (batch, events) in events {
            assert_eq!(events, 25, "{batch} is not whole in {file}");
        }
    }
}
