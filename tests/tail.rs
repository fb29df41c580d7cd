//! `EventTail`: against a fake stream on virtual time, and against the embedded table.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed step fails the test")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, StreamSpecification, StreamViewType};
use dynamodb_eventstore::{
    Backoff, EventTail, EventTailBuilder, ItemDefect, LocalTable, RecordLoss, ScannedItem,
    TailError, TailPosition, TailRecord, TailStart,
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use support::clock::{now, wait};
use support::stream::{FakeStream, STREAM_TABLE, StreamReply, key, numbers};

fn builder(stream: &FakeStream) -> EventTailBuilder {
    EventTail::builder(&stream.sdk_config(), STREAM_TABLE)
}

async fn from_the_beginning(stream: &FakeStream) -> EventTail {
    builder(stream).start_at(TailStart::Beginning).open().await.unwrap()
}

/// The position as a program saves and loads it.
fn saved(tail: &EventTail) -> TailPosition {
    serde_json::from_str(&serde_json::to_string(&tail.position()).unwrap()).unwrap()
}

/// The number of an event that was inserted.
fn number(record: &TailRecord) -> u64 {
    let TailRecord::Inserted(ScannedItem::Event(event)) = record else { panic!("{record:?}") };
    let body: Value = serde_json::from_str(&event.body).unwrap();
    let number = body["number"].as_u64().unwrap();
    assert_eq!(event.key.as_str(), key(number));
    number
}

async fn take(tail: &mut EventTail, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(number(&tail.try_next().await.unwrap().unwrap()));
    }
    taken
}

fn set(taken: &[u64]) -> BTreeSet<u64> {
    let set: BTreeSet<u64> = taken.iter().copied().collect();
    assert_eq!(set.len(), taken.len(), "a record came twice: {taken:?}");
    set
}

/// Everything that comes within a minute.
async fn rest(tail: &mut EventTail) -> Vec<TailRecord> {
    let end = now() + Duration::from_secs(60);
    let mut rest = Vec::new();
    while let Ok(record) = tokio::time::timeout_at(end, tail.next()).await {
        rest.push(record.unwrap().unwrap());
    }
    rest
}

#[tokio::test(start_paused = true)]
async fn shards_are_read_after_their_parents() {
    // The fake fails the test if a shard is read before the end of its parent. Its lists have two shards a page, and
    // the parents come after their children.
    let stream = FakeStream::with_shards(["z"]);
    stream.put("z", 0..12);
    stream.split("z", ["x", "y"]);
    stream.put("x", 12..20);
    stream.put("y", 20..23);
    stream.split("x", ["a", "b"]);
    stream.put("a", 23..30);
    let mut tail = from_the_beginning(&stream).await;
    let taken = take(&mut tail, 30).await;
    assert_eq!(set(&taken), numbers(0..30));
    for shard in [0..12, 12..20, 20..23, 23..30] {
        let of_shard: Vec<u64> = taken.iter().copied().filter(|n| shard.contains(n)).collect();
        assert!(of_shard.is_sorted(), "{taken:?}");
    }
    let pages = stream.calls("DescribeStream").len();
    assert!(pages >= 3, "{pages}");
}

#[tokio::test(start_paused = true)]
async fn shards_that_split_while_they_are_read_are_followed() {
    let stream = FakeStream::with_shards(["a"]);
    let mut tail = from_the_beginning(&stream).await;
    let mut parent = "a".to_owned();
    for generation in 0..20_u64 {
        let (first, second) = (format!("{parent}0"), format!("s{generation:02}"));
        stream.put(&parent, generation * 10..generation * 10 + 4);
        stream.split(&parent, [&first, &second]);
        stream.put(&second, generation * 10 + 4..generation * 10 + 10);
        let taken = take(&mut tail, 10).await;
        assert_eq!(set(&taken), numbers(generation * 10..generation * 10 + 10));
        parent = first;
    }
    // A saved position has no shard that the stream has no more.
    for shard in ["a", "a0", "a00"] {
        stream.remove_shard(shard);
    }
    assert_eq!(rest(&mut tail).await, []);
    let position = serde_json::to_value(tail.position()).unwrap();
    let shards = position["shards"].as_object().unwrap();
    assert!(!shards.contains_key("a0") && shards["a000"] == "end", "{position}");
}

#[tokio::test(start_paused = true)]
async fn tail_from_now_has_what_is_stored_after_it_opened() {
    let stream = FakeStream::with_shards(["a", "b"]);
    stream.put("a", 0..10);
    stream.split("a", ["c"]);
    stream.put("c", 10..20);
    stream.put("b", 20..30);
    let mut tail = builder(&stream).open().await.unwrap();
    stream.put("b", 30..35);
    stream.put("c", 35..40);
    stream.split("c", ["d"]);
    stream.put("d", 40..45);
    assert_eq!(set(&take(&mut tail, 15).await), numbers(30..45));
    assert_eq!(rest(&mut tail).await, []);
}

#[tokio::test(start_paused = true)]
async fn resumed_tail_leaves_nothing_out_and_repeats_nothing() {
    for cut in [0, 1, 4, 5, 6, 12, 13, 20, 29, 30] {
        let stream = FakeStream::with_shards(["a", "b"]);
        stream.put("a", 0..12);
        stream.put("b", 12..16);
        stream.split("a", ["c", "d"]);
        stream.put("c", 16..25);
        stream.put("d", 25..30);
        let mut tail = from_the_beginning(&stream).await;
        let mut taken = take(&mut tail, cut).await;
        let position = saved(&tail);
        drop(tail);
        stream.put("b", 30..40);
        stream.split("c", ["e"]);
        stream.put("e", 40..45);
        let mut tail = builder(&stream).resume_from(position).open().await.unwrap();
        taken.extend(take(&mut tail, 45 - cut).await);
        assert_eq!(set(&taken), numbers(0..45), "{cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn tail_from_now_resumes_before_its_first_record() {
    let stream = FakeStream::with_shards(["a"]);
    stream.put("a", 0..10);
    wait(Duration::from_secs(3_600)).await;
    let mut tail = builder(&stream).open().await.unwrap();
    assert_eq!(rest(&mut tail).await, []);
    let position = saved(&tail);
    drop(tail);
    stream.put("a", 10..20);
    stream.split("a", ["b"]);
    stream.put("b", 20..25);
    wait(Duration::from_secs(3_600)).await;
    let mut tail = builder(&stream).resume_from(position).open().await.unwrap();
    assert_eq!(set(&take(&mut tail, 15).await), numbers(10..25));
}

#[tokio::test(start_paused = true)]
async fn expired_iterator_is_replaced_without_a_gap() {
    let stream = FakeStream::with_shards(["a"]);
    stream.put("a", 0..40);
    let mut tail = from_the_beginning(&stream).await;
    let mut taken = take(&mut tail, 7).await;
    // Nobody takes a record, so the next page waits with its iterator.
    wait(Duration::from_secs(20 * 60)).await;
    taken.extend(take(&mut tail, 33).await);
    assert_eq!(set(&taken), numbers(0..40));
    let iterators = stream.calls("GetShardIterator").len();
    assert_eq!(iterators, 2);
}

#[tokio::test(start_paused = true)]
async fn first_iterator_of_now_expires_without_a_gap() {
    let stream = FakeStream::with_shards(["a"]);
    stream.put("a", 0..10);
    wait(Duration::from_secs(3_600)).await;
    let expired = StreamReply::Error { status: 400, code: "ExpiredIteratorException" };
    stream.reply("GetRecords", [expired]);
    let mut tail = builder(&stream).open().await.unwrap();
    stream.put("a", 10..13);
    assert_eq!(take(&mut tail, 3).await, [10, 11, 12]);
}

fn loss(record: TailRecord) -> RecordLoss {
    let TailRecord::Lost(loss) = record else { panic!("{record:?}") };
    loss
}

#[tokio::test(start_paused = true)]
async fn trimmed_records_are_reported_and_the_rest_follows() {
    let stream = FakeStream::with_shards(["a"]);
    stream.put("a", 0..20);
    let mut tail = from_the_beginning(&stream).await;
    assert_eq!(take(&mut tail, 3).await, [0, 1, 2]);
    let position = saved(&tail);
    drop(tail);
    stream.trim("a", 15);
    let mut tail = builder(&stream).resume_from(position).open().await.unwrap();
    let loss = loss(tail.try_next().await.unwrap().unwrap());
    assert!(loss.to_string().contains("24 hours"), "{loss}");
    let RecordLoss::Trimmed { shard, sequence_number } = loss else { panic!("{loss:?}") };
    assert_eq!((shard.as_str(), sequence_number.as_deref()), ("a", Some("100000000000000000003")));
    assert_eq!(take(&mut tail, 5).await, [15, 16, 17, 18, 19]);
    assert_eq!(rest(&mut tail).await, []);
}

#[tokio::test(start_paused = true)]
async fn removed_shard_is_reported_and_its_children_follow() {
    let stream = FakeStream::with_shards(["a"]);
    stream.put("a", 0..20);
    let mut tail = from_the_beginning(&stream).await;
    take(&mut tail, 3).await;
    let position = saved(&tail);
    drop(tail);
    stream.split("a", ["b"]);
    stream.put("b", 20..25);
    stream.remove_shard("a");
    let mut tail = builder(&stream).resume_from(position).open().await.unwrap();
    let mut rest = rest(&mut tail).await;
    let place = rest.iter().position(|record| matches!(record, TailRecord::Lost(_))).unwrap();
    let loss = loss(rest.remove(place));
    assert!(matches!(loss, RecordLoss::ShardRemoved { .. }), "{loss:?}");
    assert_eq!(rest.iter().map(number).collect::<Vec<_>>(), [20, 21, 22, 23, 24]);
}

#[tokio::test(start_paused = true)]
async fn position_of_two_days_ago_is_reported() {
    let stream = FakeStream::with_shards(["a"]);
    let tail = from_the_beginning(&stream).await;
    let position = saved(&tail);
    drop(tail);
    for (hours, is_too_old) in [(23, false), (48, true)] {
        wait(Duration::from_secs(hours * 3_600)).await;
        let tail = builder(&stream).resume_from(position.clone());
        let first = rest(&mut tail.open().await.unwrap()).await;
        match &first[..] {
            [] => assert!(!is_too_old),
            [TailRecord::Lost(RecordLoss::PositionTooOld { age })] => {
                assert!(is_too_old && *age >= Duration::from_secs(48 * 3_600), "{age:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn new_stream_is_read_from_its_beginning_with_a_report() {
    let stream = FakeStream::with_shards(["a"]);
    stream.put("a", 0..3);
    let mut tail = from_the_beginning(&stream).await;
    take(&mut tail, 2).await;
    let position = saved(&tail);
    drop(tail);
    stream.replace("b");
    stream.put("b", 3..6);
    let mut tail = builder(&stream).resume_from(position).open().await.unwrap();
    let loss = loss(tail.try_next().await.unwrap().unwrap());
    assert_eq!(loss, RecordLoss::StreamReplaced);
    assert_eq!(take(&mut tail, 3).await, [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn switched_off_stream_ends_the_tail_at_its_end() {
    let stream = FakeStream::with_shards(["a", "b"]);
    let mut tail = from_the_beginning(&stream).await;
    stream.put("a", 0..12);
    stream.put("b", 12..15);
    stream.switch_off();
    assert_eq!(set(&take(&mut tail, 15).await), numbers(0..15));
    let end = tail.next().await.unwrap().unwrap_err();
    assert!(matches!(end, TailError::StreamOff { .. }), "{end}");
    assert!(tail.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn call_that_fails_is_repeated_without_a_gap() {
    let broken = |body| StreamReply::Raw { status: 200, body };
    for reply in [
        StreamReply::Error { status: 400, code: "LimitExceededException" },
        StreamReply::Error { status: 400, code: "ThrottlingException" },
        StreamReply::Error { status: 500, code: "InternalServerError" },
        StreamReply::Error { status: 400, code: "ExpiredTokenException" },
        StreamReply::Raw { status: 502, body: "<html>" },
        StreamReply::Hang,
        // None of these must count as the end of a shard, or as a stream without shards.
        broken(""),
        broken("{}"),
        broken("\u{feff}"),
        broken(r#"{"NextShardIterator":"a|40|0"}"#),
        broken(r#"{"Records":[{"eventName":"INSERT","dynamodb":{"SequenceNumber":"1"}}]}"#),
        broken(r#"{"Records":[{"eventName":"EXPIRE","dynamodb":{"SequenceNumber":"1"}}]}"#),
        broken(r#"{"StreamDescription":{"StreamStatus":"DISABLED"}}"#),
    ] {
        let stream = FakeStream::with_shards(["a", "b", "c"]);
        stream.put("a", 0..12);
        stream.split("a", ["d"]);
        stream.put("d", 12..20);
        stream.put("b", 20..25);
        for operation in ["DescribeStream", "GetShardIterator", "GetRecords"] {
            stream.reply(operation, [reply; 4]);
        }
        let mut tail = from_the_beginning(&stream).await;
        assert_eq!(set(&take(&mut tail, 25).await), numbers(0..25), "{reply:?}");
        assert_eq!(rest(&mut tail).await, [], "{reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_call_ends_the_tail_and_names_the_permission() {
    let denied = StreamReply::Error { status: 400, code: "AccessDeniedException" };
    for operation in ["DescribeStream", "GetShardIterator", "GetRecords"] {
        let stream = FakeStream::with_shards(["a"]);
        stream.reply(operation, [denied]);
        let error = match builder(&stream).start_at(TailStart::Beginning).open().await {
            Ok(mut tail) => {
                let end = tokio::time::timeout(Duration::from_secs(9), tail.next()).await;
                end.unwrap().unwrap().unwrap_err()
            }
            Err(error) => error,
        };
        let permission = format!("grant dynamodb:{operation} on the table's streams");
        assert!(error.to_string().contains(&permission), "{error}");
        assert_eq!(stream.calls(operation).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn call_that_fails_for_too_long_ends_the_tail() {
    let stream = FakeStream::with_shards(["a"]);
    stream.put("a", 0..3);
    let tail = builder(&stream).start_at(TailStart::Beginning);
    let mut tail = tail.call_deadline(Duration::from_secs(30)).open().await.unwrap();
    take(&mut tail, 3).await;
    stream
        .reply("GetRecords", [StreamReply::Error { status: 503, code: "ServiceUnavailable" }; 99]);
    let (start, calls_before) = (now(), stream.calls("GetRecords").len());
    let error = tail.next().await.unwrap().unwrap_err();
    let seconds = (now() - start).as_secs_f64();
    assert!((24.0..32.0).contains(&seconds), "{seconds}");
    let TailError::Call { operation, shard, attempts, .. } = &error else { panic!("{error}") };
    assert_eq!((*operation, shard.as_deref()), ("GetRecords", Some("a")));
    assert!(*attempts >= 10, "{error}");
    // Each attempt is one call: the SDK's own retries are off.
    assert_eq!(stream.calls("GetRecords").len() - calls_before, *attempts as usize);
    // The position is that of the last record, so nothing is lost.
    let position = saved(&tail);
    stream.put("a", 3..6);
    stream.stop_replying();
    let mut tail = builder(&stream).resume_from(position).open().await.unwrap();
    assert_eq!(take(&mut tail, 3).await, [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn shard_is_called_once_in_the_poll_interval() {
    let stream = FakeStream::with_shards(["a", "b"]);
    stream.put("a", 0..50);
    let tail = builder(&stream).start_at(TailStart::Beginning);
    let mut tail = tail.poll_interval(Duration::from_secs(4)).open().await.unwrap();
    take(&mut tail, 50).await;
    assert_eq!(rest(&mut tail).await, []);
    let calls = stream.calls("GetRecords");
    let of = |shard: &str| -> Vec<_> {
        calls.iter().filter(|(called, _)| called == shard).map(|(_, at)| *at).collect()
    };
    for shard in ["a", "b"] {
        let calls = of(shard);
        let gaps: Vec<_> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let shortest = if shard == "a" { 200 } else { 4_000 };
        assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(shortest)), "{gaps:?}");
        assert!(calls.len() <= 10 + 17, "{shard}: {}", calls.len());
    }
}

#[tokio::test(start_paused = true)]
async fn replaced_removed_and_unexpected_items_are_told_apart() {
    let stream = FakeStream::with_shards(["a"]);
    let body = |text: &str| json!({ "body": { "S": text } });
    stream.store("a", "INSERT", &key(1), &body("1"));
    stream.store("a", "MODIFY", &key(1), &body("2"));
    stream.remove("a", &key(1));
    stream.store("a", "INSERT", "settings", &body("{}"));
    stream.store("a", "INSERT", &key(2), &json!({ "body": { "N": "1" } }));
    let mut tail = from_the_beginning(&stream).await;
    let mut records = rest(&mut tail).await;
    let defect = |record: TailRecord| match record {
        TailRecord::Inserted(ScannedItem::Unexpected(item)) => (item.key, item.defect),
        other => panic!("{other:?}"),
    };
    let last = defect(records.pop().unwrap());
    assert_eq!(last, (key(2), ItemDefect::BodyIsNotAString));
    let settings = defect(records.pop().unwrap());
    assert_eq!(settings, ("settings".to_owned(), ItemDefect::KeyIsNotAnEventKey));
    assert_eq!(records.pop().unwrap(), TailRecord::Removed(key(1)));
    let TailRecord::Replaced(ScannedItem::Event(event)) = records.pop().unwrap() else { panic!() };
    assert_eq!((event.key.as_str(), event.body.as_str()), (key(1).as_str(), "2"));
    let TailRecord::Inserted(ScannedItem::Event(event)) = records.pop().unwrap() else { panic!() };
    assert_eq!(event.body, "1");
}

#[tokio::test(start_paused = true)]
async fn table_without_usable_stream_says_how_to_enable_one() {
    let stream = FakeStream::with_shards(["a"]);
    let on = format!(
        "aws dynamodb update-table --table-name {STREAM_TABLE} --stream-specification \
         StreamEnabled=true,StreamViewType=NEW_IMAGE --region eu-west-1"
    );
    stream.set_view_type(None);
    let error = builder(&stream).open().await.unwrap_err();
    assert!(
        matches!(error, TailError::NoStream { .. }) && error.to_string().contains(&on),
        "{error}"
    );
    for view_type in ["KEYS_ONLY", "OLD_IMAGE"] {
        stream.set_view_type(Some(view_type));
        let error = builder(&stream).open().await.unwrap_err();
        assert!(matches!(error, TailError::WrongViewType { .. }), "{error}");
        let shown = error.to_string();
        assert!(shown.contains("StreamEnabled=false") && shown.contains(&on), "{shown}");
        assert!(shown.contains(view_type), "{shown}");
    }
    for view_type in ["NEW_IMAGE", "NEW_AND_OLD_IMAGES"] {
        stream.set_view_type(Some(view_type));
        drop(builder(&stream).open().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn bad_settings_do_not_open() {
    let stream = FakeStream::with_shards(["a"]);
    let position = from_the_beginning(&stream).await.position();
    let mut other_version = serde_json::to_value(&position).unwrap();
    other_version["version"] = json!(2);
    let other_version = serde_json::from_value(other_version).unwrap();
    let backoff = Backoff { base: Duration::ZERO, ..Backoff::default() };
    for (field, builder) in [
        ("table", EventTail::builder(&stream.sdk_config(), "")),
        ("poll_interval", builder(&stream).poll_interval(Duration::from_millis(199))),
        ("attempt_timeout", builder(&stream).attempt_timeout(Duration::ZERO)),
        ("backoff", builder(&stream).backoff(backoff)),
        ("resume_from", builder(&stream).resume_from(other_version)),
        ("resume_from", EventTail::builder(&stream.sdk_config(), "t").resume_from(position)),
    ] {
        match builder.open().await.unwrap_err() {
            TailError::Config(error) => assert_eq!(error.field, field),
            error => panic!("{field}: {error}"),
        }
    }
    assert_eq!(stream.calls("DescribeTable").len(), 1);
}

#[test]
fn tail_without_its_runtime_ends_with_an_error() {
    let start_runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap()
    };
    let (kept, lost) = (start_runtime(), start_runtime());
    let mut tail = lost.block_on(async {
        let mut tail = from_the_beginning(&FakeStream::with_shards(["a"])).await;
        assert!(tail.next().now_or_never().is_none());
        tail
    });
    drop(lost);
    let end = kept.block_on(tail.next()).unwrap();
    assert!(matches!(end, Err(TailError::Stopped)), "{end:?}");
}

#[tokio::test]
async fn embedded_table_is_followed_and_resumed() {
    let table = LocalTable::in_memory().await.unwrap();
    let tail = || EventTail::builder(table.sdk_config(), table.name());
    let error = tail().open().await.unwrap_err();
    assert!(matches!(error, TailError::NoStream { .. }), "{error}");
    let stream = StreamSpecification::builder().stream_enabled(true);
    let stream = stream.stream_view_type(StreamViewType::NewImage).build().unwrap();
    let update = table.client().update_table().table_name(table.name());
    update.stream_specification(stream).send().await.unwrap();

    let store = table.store_builder().start().await.unwrap();
    let put = async |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let json = json!({ "number": number });
            drop(store.put(&json).await.unwrap());
        }
        store.flush().await.unwrap();
    };
    let body = |record: TailRecord| match record {
        TailRecord::Inserted(ScannedItem::Event(event)) => event.body,
        other => panic!("{other:?}"),
    };
    put(0..10).await;
    let mut tail_from_now = tail().open().await.unwrap();
    put(10..30).await;
    let mut bodies = BTreeSet::new();
    for _ in 10..20 {
        bodies.insert(body(tail_from_now.try_next().await.unwrap().unwrap()));
    }
    let position = saved(&tail_from_now);
    drop(tail_from_now);
    put(30..35).await;
    let mut resumed = tail().resume_from(position).open().await.unwrap();
    for _ in 20..35 {
        bodies.insert(body(resumed.try_next().await.unwrap().unwrap()));
    }
    let expected: BTreeSet<String> = (10..35).map(|n| json!({ "number": n }).to_string()).collect();
    assert_eq!(bodies, expected);

    let delete = table.client().delete_item().table_name(table.name());
    let key = store.put(&json!(1)).await.unwrap().await.unwrap().key.to_string();
    delete.key("key", AttributeValue::S(key.clone())).send().await.unwrap();
    assert_eq!(body(resumed.try_next().await.unwrap().unwrap()), "1");
    assert_eq!(resumed.try_next().await.unwrap().unwrap(), TailRecord::Removed(key));
}
