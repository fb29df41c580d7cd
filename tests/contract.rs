//! The store's contract against two real engines: the embedded one in every run, and Amazon's DynamoDB
//! Local if `.ci/dynamodb-local` starts it. Each case runs on both.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed set-up fails the test"
)]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType, TimeToLiveStatus,
};
use dynamodb_eventstore::{
    Capacity, Certainty, Event, EventStore, EventStoreBuilder, FailureClass, FailureReason,
    LocalTable, MAX_BODY_BYTES, Proof, PutError, StartError, Table, TableError, WriteMode,
    WriterIds,
};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use support::clock;
use support::dynamodb_local as local;
use support::table::{body, rows};

/// The time limit of every case. It allows for the largest batches on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// An engine with a table for events. A case may create more tables.
struct Engine {
    client: Client,
    table: String,
    /// Keeps the embedded engine running.
    embedded: Option<LocalTable>,
    /// Whether stores are given an SDK client instead of configuration.
    gives_client: bool,
}

impl Engine {
    async fn embedded(case: &str) -> Self {
        let embedded = LocalTable::builder().table(case).start().await.unwrap();
        Self {
            client: embedded.client().clone(),
            table: case.to_owned(),
            embedded: Some(embedded),
            gives_client: false,
        }
    }

    async fn dynamodb_local(case: &str) -> Self {
        let client = local::client();
        let table = local::create_table(&client, case).await;
        Self { client, table, embedded: None, gives_client: false }
    }

    async fn dynamodb_local_through_a_client(case: &str) -> Self {
        let engine = Self::dynamodb_local(&format!("{case}.client")).await;
        Self { gives_client: true, ..engine }
    }

    fn store(&self) -> EventStoreBuilder {
        match &self.embedded {
            Some(embedded) => embedded.store_builder(),
            None => self.store_in(&self.table),
        }
    }

    /// A store that writes to this table of the engine.
    fn store_in(&self, table: &str) -> EventStoreBuilder {
        let builder = EventStore::builder().table(table);
        if self.gives_client || self.embedded.is_some() {
            return builder.client(&self.client);
        }
        builder
            .region(local::REGION)
            .credentials(local::ACCESS_KEY_ID, "any")
            .endpoint_url(local::url())
    }

    /// The name of another table, which does not exist yet.
    fn other_table(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.table)
    }

    /// Creates a table with this key, given as name, role and type of each attribute, and returns the
    /// builder of a store for it.
    async fn create_table(
        &self,
        name: &str,
        key: &[(&str, KeyType, ScalarAttributeType)],
    ) -> EventStoreBuilder {
        let mut call =
            self.client.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
        for (attribute, role, of_type) in key {
            let schema = KeySchemaElement::builder()
                .attribute_name(*attribute)
                .key_type(role.clone())
                .build();
            let definition = AttributeDefinition::builder()
                .attribute_name(*attribute)
                .attribute_type(of_type.clone())
                .build();
            call = call.key_schema(schema.unwrap()).attribute_definitions(definition.unwrap());
        }
        call.send().await.unwrap();
        self.store_in(name)
    }

    async fn rows(&self) -> BTreeMap<String, String> {
        rows(&self.client, &self.table).await
    }

    async fn body(&self, key: impl AsRef<str>) -> Option<String> {
        body(&self.client, &self.table, key.as_ref()).await
    }
}

/// Makes three tests of each case: on the embedded engine, and on DynamoDB Local with each transport.
macro_rules! contract {
    ($($case:ident)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let case = async {
                        let engine = super::Engine::embedded(stringify!($case)).await;
                        super::$case(&engine).await;
                    };
                    super::in_time(case).await;
                }
            )*
        }

        mod dynamodb_local {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs DynamoDB Local: .ci/dynamodb-local runs it"]
                async fn $case() {
                    let case = async {
                        let engine = super::Engine::dynamodb_local(stringify!($case)).await;
                        super::$case(&engine).await;
                    };
                    super::in_time(case).await;
                }
            )*
        }

        mod dynamodb_local_through_a_client {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs DynamoDB Local: .ci/dynamodb-local runs it"]
                async fn $case() {
                    let case = async {
                        let engine =
                            super::Engine::dynamodb_local_through_a_client(stringify!($case)).await;
                        super::$case(&engine).await;
                    };
                    super::in_time(case).await;
                }
            )*
        }
    };
}

contract! {
    key_is_a_time_and_twelve_digits
    body_is_the_text_of_serde_json
    success_reaches_the_caller
    error_reaches_the_caller
    thousand_events_of_four_tasks_are_each_stored_once
    json_text_is_stored_byte_for_byte
    every_character_is_stored_unchanged
    largest_body_is_stored_and_larger_one_refused
    twenty_five_largest_bodies_are_stored_in_one_call
    largest_bodies_that_double_when_encoded_are_stored
    consumed_write_units_match_the_count
    table_with_another_key_is_refused
    missing_table_is_refused
    table_is_created_once
    flushed_event_is_seen_by_a_scan
    close_reports_what_was_stored
    two_writers_never_overwrite_each_other
    inserted_events_are_stored_byte_for_byte
    twenty_five_largest_bodies_are_inserted_in_one_call
    largest_bodies_that_double_when_encoded_are_inserted
    writers_with_one_id_overwrite_nothing_by_inserting
    event_that_is_inserted_again_is_found
    leased_id_is_held_extended_and_given_back
    fifty_stores_lease_fifty_ids
    lease_table_is_created_with_its_time_to_live
}

async fn in_time(case: impl Future<Output = ()>) {
    timeout(TIME_LIMIT, Box::pin(case)).await.expect("the case to end within its time limit");
}

// The four tests of the npm module.

async fn key_is_a_time_and_twelve_digits(engine: &Engine) {
    let store = engine.store().writer_id(50_885).start().await.unwrap();
    let stored = store.put(&json!({ "foo": "bar" })).await.unwrap().await.unwrap();

    let rows = engine.rows().await;
    let (key, _) = rows.first_key_value().unwrap();
    assert_eq!(key, stored.key.as_str());
    assert_eq!(key.len(), 27);
    for (index, character) in key.char_indices() {
        let is_valid = if index == 8 { character == 'T' } else { character.is_ascii_digit() };
        assert!(is_valid, "{key}");
    }
    // The time in milliseconds, then the writer id: 2013-09-27T00:52:40.652 is 20130927T005240652.
    assert_eq!(stored.key.timestamp().format("%Y%m%dT%H%M%S%3f").to_string(), key[..18]);
    assert_eq!(&key[18..23], "50885");
}

async fn body_is_the_text_of_serde_json(engine: &Engine) {
    let store = engine.store().start().await.unwrap();
    let event = json!({ "foo": "bar", "list": [1, 2.5, null, true], "nested": { "a": {} } });
    let stored = store.put(&event).await.unwrap().await.unwrap();
    let text = engine.body(stored.key).await.unwrap();
    assert_eq!(text, serde_json::to_string(&event).unwrap());
}

async fn success_reaches_the_caller(engine: &Engine) {
    let store = engine.store().start().await.unwrap();
    let ticket = store.put(&json!({ "foo": "bar" })).await.unwrap();
    let key = *ticket.key();
    let stored = ticket.await.unwrap();
    assert_eq!((stored.key, stored.attempts), (key, 1));
    assert_eq!(engine.body(key).await.unwrap(), r#"{"foo":"bar"}"#);
}

async fn error_reaches_the_caller(engine: &Engine) {
    let store = engine.store().start().await.unwrap();
    engine.client.delete_table().table_name(&engine.table).send().await.unwrap();
    let ticket = store.put(&json!({ "foo": "bar" })).await.unwrap();
    let key = *ticket.key();
    let error = ticket.await.unwrap_err();
    assert_eq!((*error.key(), error.attempts()), (key, 1));
    assert_eq!(error.certainty(), Certainty::NotStored);
    assert_eq!(error.reason(), FailureReason::NotRetryable);
    let cause = error.last_cause().unwrap();
    assert_eq!(cause.class(), FailureClass::Refused);
    assert_eq!(cause.code(), Some("ResourceNotFoundException"));
}

// Every event is stored once and unchanged.

async fn thousand_events_of_four_tasks_are_each_stored_once(engine: &Engine) {
    let store = engine.store().start().await.unwrap();
    let tasks = (0..4).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut puts = Vec::new();
            for number in 0..250 {
                let event = json!({ "task": task, "number": number, "text": "é".repeat(number) });
                puts.push((event.to_string(), store.put(&event).await.unwrap()));
            }
            let mut stored = BTreeMap::new();
            for (text, ticket) in puts {
                stored.insert(ticket.await.unwrap().key.to_string(), text);
            }
            stored
        })
    });
    let stored: Vec<_> = try_join_all(tasks).await.unwrap();
    let stored: BTreeMap<_, _> = stored.into_iter().flatten().collect();
    assert_eq!(stored.len(), 1_000);
    assert_eq!(engine.rows().await, stored);
}

async fn json_text_is_stored_byte_for_byte(engine: &Engine) {
    let store = engine.store().start().await.unwrap();
    for text in [
        "{ \"foo\" :\t\"bar\",\r\n  \"foo\": 1.0 }",
        "  [ 1e2, -0, 0.10, 12345678901234567890123 ]\n",
        r#""\u00e9\/\ud83d\ude00""#,
        "null",
        "\"\"",
    ] {
        let stored = store.put_json(text).await.unwrap().await.unwrap();
        assert_eq!(engine.body(stored.key).await.unwrap(), text);
    }
    for text in ["", "{", "{} {}", "'foo'", "\u{feff}{}"] {
        assert!(matches!(store.put_json(text).await, Err(PutError::NotJson(_))), "{text}");
    }
    assert_eq!(engine.rows().await.len(), 5);
}

async fn every_character_is_stored_unchanged(engine: &Engine) {
    let store = engine.store().start().await.unwrap();
    let ascii: String = (0..128).map(char::from).collect();
    let texts = [
        ascii.as_str(),
        "\\ \\\\ \" \\\" \\u0000 \\n",
        "Füße, Ελληνικά, 漢字, العربية",
        "👩‍👩‍👧‍👦 🏳️‍🌈 é (one) é (two)",
        "\u{0}\u{7f}\u{80}\u{2028}\u{2029}\u{feff}\u{fffd}\u{ffff}\u{10ffff}",
        "<script>alert('&amp;')</script> ${jndi:x} %00 +",
    ];
    for text in texts {
        let event = json!({ text: text });
        let stored = store.put(&event).await.unwrap().await.unwrap();
        let body = engine.body(stored.key).await.unwrap();
        assert_eq!(body, event.to_string());
        let read: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(read[text], text);
    }
}

// The limits.

/// A text whose JSON has this many bytes, including its quotes.
fn text_of(json_bytes: usize) -> String {
    "a".repeat(json_bytes - 2)
}

async fn largest_body_is_stored_and_larger_one_refused(engine: &Engine) {
    assert_eq!(MAX_BODY_BYTES, 409_566);
    let store = engine.store().start().await.unwrap();
    let too_large = text_of(409_567);
    assert!(matches!(store.put(&too_large).await, Err(PutError::TooLarge(_))));
    let json = format!("\"{too_large}\"");
    assert!(matches!(store.put_json(&json).await, Err(PutError::TooLarge(_))));
    assert!(matches!(store.try_put(&too_large), Err(PutError::TooLarge(_))));
    let report = store.flush().await.unwrap();
    assert_eq!((report.stored, report.failed), (0, 0));
    assert_eq!((store.stats().accepted, store.stats().batches), (0, 0));

    let largest = text_of(409_566);
    let stored = store.put(&largest).await.unwrap().await.unwrap();
    let body = engine.body(stored.key).await.unwrap();
    assert_eq!(body.len(), 409_566);
    assert_eq!(body, format!("\"{largest}\""));
    assert_eq!(engine.rows().await.len(), 1);
}

/// Stores the same text in 25 events, the most that fit into a batch, and returns the number of calls.
async fn store_a_batch_of(engine: &Engine, mode: WriteMode, text: &str) -> u64 {
    let store = engine.store().linger(TIME_LIMIT / 2).attempt_timeout(TIME_LIMIT);
    let store = store.write_mode(mode);
    let store = store.event_deadline(TIME_LIMIT);
    let store = store.start().await.unwrap();
    let mut tickets = Vec::new();
    for _ in 0..25 {
        tickets.push(store.put(text).await.unwrap());
    }
    store.flush().await.unwrap();
    let stored = try_join_all(tickets).await.unwrap();
    assert!(stored.iter().all(|stored| stored.attempts == 1));
    let json = serde_json::to_string(text).unwrap();
    let rows = engine.rows().await;
    assert_eq!(rows.len(), 25);
    assert!(rows.values().all(|body| *body == json));
    store.stats().batches
}

async fn twenty_five_largest_bodies_are_stored_in_one_call(engine: &Engine) {
    assert_eq!(store_a_batch_of(engine, WriteMode::Put, &text_of(409_566)).await, 1);
}

async fn largest_bodies_that_double_when_encoded_are_stored(engine: &Engine) {
    // Each quote has two bytes in the body and four in the request: 20 MB, too much for one call.
    let quotes = "\"".repeat((409_566 - 2) / 2);
    assert_eq!(store_a_batch_of(engine, WriteMode::Put, &quotes).await, 2);
}

// The table.

async fn consumed_write_units_match_the_count(engine: &Engine) {
    let store = engine.store().return_consumed_capacity(true).start().await.unwrap();
    let mut counted = 0;
    // An item of 1,024 bytes is a body of 990.
    for bytes in [2, 989, 990, 991, 2_014, 2_015, 100_000, MAX_BODY_BYTES] {
        let ticket = store.put(&text_of(bytes)).await.unwrap();
        let stored = ticket.await.unwrap();
        let body = engine.body(stored.key).await.unwrap();
        let units = (34 + body.len()).div_ceil(1_024);
        assert_eq!(stored.write_units(), Some(units as f64), "{bytes} bytes");
        counted += units;
        assert_eq!(store.stats().consumed_write_units, counted as f64, "{bytes} bytes");
    }
    let store = engine.store().start().await.unwrap();
    let stored = store.put(&1).await.unwrap().await.unwrap();
    assert_eq!(stored.write_units(), None);
    assert_eq!(store.stats().consumed_write_units, 0.0);
}

async fn table_with_another_key_is_refused(engine: &Engine) {
    use KeyType::{Hash, Range};
    use ScalarAttributeType::{B, N, S};
    let cases: [(&str, &[_], _); 5] = [
        (
            "range-key",
            &[("key", Hash, S), ("at", Range, N)],
            "hash key `key` of type S and range key `at` of type N",
        ),
        ("number-key", &[("key", Hash, N)], "hash key `key` of type N"),
        ("binary-key", &[("key", Hash, B)], "hash key `key` of type B"),
        ("other-name", &[("id", Hash, S)], "hash key `id` of type S"),
        (
            "other-name-and-range-key",
            &[("id", Hash, S), ("key", Range, S)],
            "hash key `id` of type S and range key `key` of type S",
        ),
    ];
    for (name, key, description) in cases {
        let name = engine.other_table(name);
        let store = engine.create_table(&name, key).await;
        match store.start().await.unwrap_err() {
            StartError::Table(TableError::WrongKey { table, found }) => {
                assert_eq!((table, found.as_str()), (name, description));
            }
            error => panic!("{name}: {error}"),
        }
    }
}

async fn missing_table_is_refused(engine: &Engine) {
    let missing = engine.other_table("missing");
    let error = engine.store().table(&missing).start().await.unwrap_err();
    assert!(
        matches!(&error, StartError::Table(TableError::Missing { table, .. }) if *table == missing),
        "{error}"
    );
}

async fn table_is_created_once(engine: &Engine) {
    for (suffix, capacity) in [
        ("on-demand", Capacity::OnDemand),
        ("provisioned", Capacity::Provisioned { read_units: 5, write_units: 7 }),
    ] {
        let name = engine.other_table(suffix);
        let table = Table::new(&engine.client, &name);
        let missing = table.check().await.unwrap_err();
        assert!(matches!(missing, TableError::Missing { .. }), "{missing}");
        let missing = table.wait_until_active(Duration::from_millis(1)).await.unwrap_err();
        assert!(matches!(missing, TableError::Missing { .. }), "{missing}");

        table.create(capacity).await.unwrap();
        table.wait_until_active(TIME_LIMIT).await.unwrap();
        table.check().await.unwrap();
        let exists = table.create(capacity).await.unwrap_err();
        assert!(matches!(&exists, TableError::Exists { table } if *table == name), "{exists}");

        let described = engine.client.describe_table().table_name(&name).send().await.unwrap();
        let units = described
            .table()
            .and_then(|table| table.provisioned_throughput())
            .and_then(|throughput| throughput.write_capacity_units());
        let expected = match capacity {
            Capacity::Provisioned { write_units, .. } => i64::from(write_units),
            _ => 0,
        };
        assert_eq!(units.unwrap_or(0), expected);

        let store = engine.store().table(&name).start().await.unwrap();
        store.put(&json!({ "foo": "bar" })).await.unwrap().await.unwrap();
        assert_eq!(rows(&engine.client, &name).await.len(), 1);
    }
}

// Flush and close.

async fn flushed_event_is_seen_by_a_scan(engine: &Engine) {
    // The linger is so long that only the flush can send the last events.
    let store = engine.store().linger(Duration::from_secs(30)).start().await.unwrap();
    for round in 1..=3 {
        for number in 0..60 {
            // The flush also covers events whose tickets were dropped.
            drop(store.put(&json!({ "number": number })).await.unwrap());
        }
        let report = store.flush().await.unwrap();
        assert_eq!((report.stored, report.failed), (60, 0));
        assert_eq!(engine.rows().await.len(), round * 60);
    }
}

async fn close_reports_what_was_stored(engine: &Engine) {
    let store = engine.store().linger(Duration::from_secs(30)).start().await.unwrap();
    for number in 0..310 {
        drop(store.put(&json!({ "number": number })).await.unwrap());
    }
    let report = store.close(TIME_LIMIT).await.unwrap();
    assert!(report.is_complete());
    assert_eq!((report.stored, report.failed, report.not_listed), (310, 0, 0));
    assert!(report.errors.is_empty());
    assert_eq!(engine.rows().await.len(), 310);
    assert!(matches!(store.put(&1).await, Err(PutError::Closed)));
    assert_eq!(engine.rows().await.len(), 310);
}

async fn two_writers_never_overwrite_each_other(engine: &Engine) {
    let first = engine.store().writer_id(1).start().await.unwrap();
    let second = engine.store().writer_id(2).start().await.unwrap();
    let mut puts = Vec::new();
    // The writers put alternately, so that they use the same milliseconds and sequence numbers.
    for number in 0..500 {
        for (writer, store) in [&first, &second].into_iter().enumerate() {
            let event = json!({ "writer": writer, "number": number });
            puts.push((event.to_string(), store.put(&event).await.unwrap()));
        }
    }
    let mut stored = BTreeMap::new();
    for (text, ticket) in puts {
        stored.insert(ticket.await.unwrap().key.to_string(), text);
    }
    assert_eq!(stored.len(), 1_000);
    assert_eq!(engine.rows().await, stored);

    // Some of their keys differ only in the five digits of the writer id.
    let without_writer = |key: &String| format!("{}{}", &key[..18], &key[23..]);
    let distinct: HashSet<String> = stored.keys().map(without_writer).collect();
    assert!(distinct.len() < 1_000, "the writers never shared a millisecond and sequence number");
}

// Inserts.

async fn inserted_events_are_stored_byte_for_byte(engine: &Engine) {
    let store = engine.store().write_mode(WriteMode::Insert).start().await.unwrap();
    let controls: String = (0..0x20_u8).map(char::from).collect();
    let texts =
        ["", "\"quoted\" C:\\ /", "Grüße 😀 \u{2028}", "'?' \"key\" VALUE {'body':?}", &controls];
    let mut puts = Vec::new();
    for text in texts {
        puts.push((serde_json::to_string(text).unwrap(), store.put(text).await.unwrap()));
    }
    let mut stored = BTreeMap::new();
    for (json, ticket) in puts {
        stored.insert(ticket.await.unwrap().key.to_string(), json);
    }
    assert_eq!(engine.rows().await, stored);
    assert_eq!(store.stats().batches, 1);
}

async fn twenty_five_largest_bodies_are_inserted_in_one_call(engine: &Engine) {
    assert_eq!(store_a_batch_of(engine, WriteMode::Insert, &text_of(409_566)).await, 1);
}

async fn largest_bodies_that_double_when_encoded_are_inserted(engine: &Engine) {
    let quotes = "\"".repeat((409_566 - 2) / 2);
    assert_eq!(store_a_batch_of(engine, WriteMode::Insert, &quotes).await, 2);
}

async fn writers_with_one_id_overwrite_nothing_by_inserting(engine: &Engine) {
    let store = || engine.store().writer_id(7).write_mode(WriteMode::Insert);
    let stores = [store().start().await.unwrap(), store().start().await.unwrap()];
    let mut puts = Vec::new();
    // The writers put in turn, so that they make the same keys.
    for number in 0..1_000 {
        for (writer, store) in stores.iter().enumerate() {
            let event = json!({ "writer": writer, "number": number });
            puts.push((event.to_string(), store.put(&event).await.unwrap()));
        }
    }
    let mut stored = BTreeMap::new();
    let mut replaced = 0;
    for (text, ticket) in puts {
        let key = *ticket.key();
        let answer = ticket.await.unwrap();
        replaced += u64::from(answer.key != key);
        stored.insert(answer.key.to_string(), text);
    }
    assert_eq!(stored.len(), 2_000);
    assert_eq!(engine.rows().await, stored);
    assert!(replaced > 0, "the writers never made the same key");
    assert!(stores.iter().map(|store| store.stats().replaced_keys).sum::<u64>() >= replaced);
}

async fn event_that_is_inserted_again_is_found(engine: &Engine) {
    let store = engine.store().write_mode(WriteMode::Insert).start().await.unwrap();
    let stored = store.put(&1).await.unwrap().await.unwrap();
    let event = || Event::new(stored.key, "1").unwrap();
    let again = store.put_event(event()).await.unwrap().await.unwrap();
    assert_eq!((again.key, again.proof), (stored.key, Proof::ReadBack));
    let other = Event::new(stored.key, "2").unwrap();
    let error = store.put_event(other.clone()).await.unwrap().await.unwrap_err();
    assert_eq!(error.certainty(), Certainty::MaybeStored);
    let other = store.put_again(other, Certainty::NotStored).await.unwrap().await.unwrap();
    assert_ne!(other.key, stored.key);
    let rows = engine.rows().await;
    assert_eq!((rows[stored.key.as_str()].as_str(), rows[other.key.as_str()].as_str()), ("1", "2"));
    assert_eq!(rows.len(), 2);
}

// Leased writer ids.

impl Engine {
    /// Creates a table of leases, and returns its name.
    async fn lease_table(&self) -> String {
        let name = self.other_table("writers");
        let table = Table::for_writer_ids(&self.client, &name);
        table.create(Capacity::OnDemand).await.unwrap();
        table.wait_until_active(TIME_LIMIT).await.unwrap();
        table.remove_expired_rows().await.unwrap();
        name
    }

    /// The row of an id, with all values as text.
    async fn lease(&self, table: &str, id: &str) -> BTreeMap<String, String> {
        let read = self.client.get_item().table_name(table).consistent_read(true);
        let read = read.key("id", AttributeValue::S(id.to_owned())).send().await.unwrap();
        let row = read.item.unwrap().into_iter();
        row.map(|(name, value)| match value {
            AttributeValue::S(text) | AttributeValue::N(text) => (name, text),
            value => panic!("{name}: {value:?}"),
        })
        .collect()
    }
}

fn milliseconds(row: &BTreeMap<String, String>, attribute: &str) -> i64 {
    row[attribute].parse().unwrap()
}

async fn leased_id_is_held_extended_and_given_back(engine: &Engine) {
    let name = engine.lease_table().await;
    let term = Duration::from_secs(3);
    let ids = WriterIds::leased(&name).ids(7..=7).term(term).max_wait(Duration::from_millis(300));
    let store = engine.store().writer_id(ids.clone()).start().await.unwrap();
    let taken = engine.lease(&name, "00007").await;
    let attributes = ["expires_at", "holder", "id", "since", "token", "until"];
    assert!(taken.keys().eq(attributes), "{taken:?}");
    assert_eq!(milliseconds(&taken, "until") - milliseconds(&taken, "since"), 3_000);
    let month = 30 * 24 * 60 * 60;
    assert_eq!(milliseconds(&taken, "expires_at"), milliseconds(&taken, "until") / 1_000 + month);

    let error = engine.store().writer_id(ids.clone()).start().await.unwrap_err();
    let StartError::WriterId(error) = error else { panic!("{error}") };
    assert!(error.to_string().contains("held by another store"), "{error}");

    let start = clock::now();
    while engine.lease(&name, "00007").await["token"] == taken["token"] {
        assert!(start.elapsed() < term, "the lease is not extended");
        clock::wait_milliseconds(20).await;
    }
    let extended = engine.lease(&name, "00007").await;
    assert!(milliseconds(&extended, "until") > milliseconds(&taken, "until"));
    assert_eq!(extended["since"], taken["since"]);

    let last = store.put(&json!({})).await.unwrap();
    let last = last.await.unwrap().key;
    assert_eq!(&last.as_str()[18..23], "00007");
    assert!(store.close(TIME_LIMIT).await.unwrap().is_complete());
    let free = engine.lease(&name, "00007").await;
    assert!(free.keys().eq(["expires_at", "id", "since", "until"]), "{free:?}");
    assert_eq!(milliseconds(&free, "until"), last.timestamp().timestamp_millis() + 1);

    let next = engine.store().writer_id(ids).start().await.unwrap();
    let first = next.put(&json!({})).await.unwrap().await.unwrap().key;
    assert_eq!(&first.as_str()[18..23], "00007");
    assert!(first.timestamp() > last.timestamp());
}

async fn fifty_stores_lease_fifty_ids(engine: &Engine) {
    let name = engine.lease_table().await;
    let ids = WriterIds::leased(&name).ids(100..=149).max_wait(TIME_LIMIT);
    let starts = (0..50).map(|_| engine.store().writer_id(ids.clone()).start());
    let stores = try_join_all(starts).await.unwrap();
    let mut held = HashSet::new();
    for store in &stores {
        let key = *store.put(&json!({})).await.unwrap().key();
        held.insert(key.as_str()[18..23].to_owned());
    }
    assert_eq!(held.len(), 50);
    for store in &stores {
        assert!(store.close(TIME_LIMIT).await.unwrap().is_complete());
    }
    assert_eq!(engine.rows().await.len(), 50);
}

async fn lease_table_is_created_with_its_time_to_live(engine: &Engine) {
    let name = engine.lease_table().await;
    let table = Table::for_writer_ids(&engine.client, &name);
    // A second call changes nothing.
    table.remove_expired_rows().await.unwrap();
    table.check().await.unwrap();
    let described = engine.client.describe_time_to_live().table_name(&name).send().await.unwrap();
    let live = described.time_to_live_description.unwrap();
    assert_eq!(live.attribute_name.as_deref(), Some("expires_at"));
    assert_eq!(live.time_to_live_status, Some(TimeToLiveStatus::Enabled));

    let error = Table::new(&engine.client, &name).check().await.unwrap_err();
    assert!(error.to_string().contains("but events need a table whose only key"), "{error}");
    let events = Table::for_writer_ids(&engine.client, &engine.table);
    let error = events.check().await.unwrap_err();
    assert!(error.to_string().contains("but leases need a table whose only key"), "{error}");
}

// The embedded engine only.

#[tokio::test]
async fn table_in_a_file_keeps_its_events_when_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.sqlite");
    let mut stored = BTreeMap::new();
    for round in 0..3 {
        let table = LocalTable::open(&file).await.unwrap();
        assert_eq!(rows(table.client(), table.name()).await, stored, "before round {round}");
        let store = table.store_builder().start().await.unwrap();
        for number in 0..40 {
            let event = json!({ "round": round, "number": number });
            let ticket = store.put(&event).await.unwrap();
            stored.insert(ticket.key().to_string(), event.to_string());
        }
        assert!(store.close(TIME_LIMIT).await.unwrap().is_complete());
        table.stop().await.unwrap();
    }
    let table = LocalTable::open(&file).await.unwrap();
    assert_eq!(rows(table.client(), table.name()).await, stored);
    assert_eq!(stored.len(), 120);
}
