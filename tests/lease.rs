//! Leased writer ids: stores write to a real table engine, and a proxy injects faults into calls to the table of
//! leases. Tests without faults are in `tests/contract.rs`. The simulation of the protocol is in
//! `src/lease_keeper`.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod support;

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use dynamodb_eventstore::{
    Capacity, EventStore, EventStoreBuilder, LeasedWriterIds, LocalTable, PutError, StartError,
    Table, WriterIds,
};
use serde_json::json;

use support::clock::{now, wait_milliseconds};
use support::lease_proxy::{Fate, LeaseProxy};

const WRITERS: &str = "events-writers";
const TERM: Duration = Duration::from_secs(1);

/// A table with its table of leases, both behind a proxy.
struct Tables {
    local: LocalTable,
    proxy: LeaseProxy,
}

impl Tables {
    async fn start() -> Self {
        let local = LocalTable::in_memory().await.unwrap();
        let proxy = LeaseProxy::start(&local.endpoint_url()).await;
        let tables = Self { local, proxy };
        tables.create().await;
        tables
    }

    fn writers(&self) -> Table {
        Table::for_writer_ids(self.local.client(), WRITERS)
    }

    async fn create(&self) {
        self.writers().create(Capacity::OnDemand).await.unwrap();
    }

    async fn delete(&self) {
        self.local.client().delete_table().table_name(WRITERS).send().await.unwrap();
    }

    fn store(&self, ids: LeasedWriterIds) -> EventStoreBuilder {
        EventStore::builder()
            .table(self.local.name())
            .region("us-east-1")
            .credentials("local", "local")
            .endpoint_url(self.proxy.url())
            .writer_id(ids)
    }

    /// An attribute of a row.
    async fn attribute(&self, id: &str, name: &str) -> Option<String> {
        let call = self.local.client().get_item().table_name(WRITERS).consistent_read(true);
        let read = call.key("id", AttributeValue::S(id.to_owned())).send().await.unwrap();
        match read.item?.remove(name)? {
            AttributeValue::S(text) | AttributeValue::N(text) => Some(text),
            _ => None,
        }
    }

    async fn until(&self, id: &str) -> u64 {
        self.attribute(id, "until").await.unwrap().parse().unwrap()
    }
}

/// This many ids, beginning with 7.
fn ids(count: u32) -> LeasedWriterIds {
    WriterIds::leased(WRITERS).ids(7..=6 + count).term(TERM).max_wait(Duration::from_millis(600))
}

async fn put(store: &EventStore) -> String {
    store.put(&json!({})).await.unwrap().await.unwrap().key.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_of_the_lease_table_do_not_stop_puts() {
    let tables = Tables::start().await;
    let store = tables.store(ids(1)).start().await.unwrap();
    let first = tables.until("00007").await;
    tables.proxy.script([Fate::Drop, Fate::LoseAnswer, Fate::Empty], Fate::Forward);
    let start = now();
    while start.elapsed() < 3 * TERM {
        assert_eq!(&put(&store).await[18..23], "00007");
        wait_milliseconds(20).await;
    }
    assert!(tables.until("00007").await > first + 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_is_held_when_every_second_answer_is_lost() {
    let tables = Tables::start().await;
    let store = tables.store(ids(1)).start().await.unwrap();
    tables.proxy.script([Fate::LoseAnswer, Fate::Forward].repeat(20), Fate::Forward);
    for _ in 0..100 {
        assert_eq!(&put(&store).await[18..23], "00007");
        wait_milliseconds(20).await;
    }
    assert!(tables.proxy.calls() > 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_fail_when_the_lease_cannot_be_extended() {
    let tables = Tables::start().await;
    let store = tables.store(ids(1)).start().await.unwrap();
    tables.proxy.script([], Fate::Drop);
    let last_until = tables.until("00007").await;
    let start = now();
    let error = loop {
        match store.put(&json!({})).await {
            Ok(ticket) => {
                let time = ticket.await.unwrap().key.timestamp().timestamp_millis();
                assert!(u64::try_from(time).unwrap() < last_until, "a key after the lease's end");
            }
            Err(error) => break error,
        }
        assert!(start.elapsed() < 10 * TERM, "puts are accepted without a lease");
        wait_milliseconds(10).await;
    };
    let PutError::NoWriterId(error) = error else { panic!("{error}") };
    let message = error.to_string();
    assert!(
        message.contains("no writer id was leased from table `events-writers` within 600"),
        "{message}"
    );
    assert!(error.cause().is_some());
    // `try_put` does not wait, and fails at once.
    let error = store.try_put(&json!({})).unwrap_err();
    assert!(matches!(error, PutError::NoWriterId(_)), "{error}");
    // Of many events, only the first waits.
    let start_all = now();
    let report = store.put_all(0..100).await.await;
    assert_eq!(report.not_accepted.len(), 100);
    assert!(start_all.elapsed() < 10 * TERM, "each event has waited");
    // When calls reach the table again, puts are accepted again.
    tables.proxy.script([], Fate::Forward);
    let key = loop {
        match store.put(&json!({})).await {
            Ok(ticket) => break ticket.await.unwrap().key,
            Err(PutError::NoWriterId(_)) if start.elapsed() < 20 * TERM => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert!(u64::try_from(key.timestamp().timestamp_millis()).unwrap() >= last_until);
}

/// A store whose lease has ended and whose table of leases does not answer. Its puts wait for 20 s.
async fn store_without_a_lease() -> (Tables, EventStore) {
    let tables = Tables::start().await;
    let patient = ids(1).max_wait(Duration::from_secs(20));
    let store = tables.store(patient).start().await.unwrap();
    tables.proxy.script([], Fate::Drop);
    let start = now();
    while !matches!(store.try_put(&json!({})), Err(PutError::NoWriterId(_))) {
        assert!(start.elapsed() < 5 * TERM, "puts are accepted without a lease");
        wait_milliseconds(10).await;
    }
    (tables, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_waits_for_a_lease_and_is_accepted() {
    let (tables, store) = store_without_a_lease().await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { put(&store).await }
    });
    wait_milliseconds(200).await;
    assert!(!waiting.is_finished());
    tables.proxy.script([], Fate::Forward);
    assert_eq!(&waiting.await.unwrap()[18..23], "00007");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_that_waits_for_a_lease_ends_with_close() {
    let (_tables, store) = store_without_a_lease().await;
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.put(&json!({})).await.map(drop) }
    });
    wait_milliseconds(100).await;
    assert!(store.close(Duration::from_secs(5)).await.unwrap().is_complete());
    assert!(matches!(waiting.await.unwrap(), Err(PutError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_response_grants_no_lease() {
    let tables = Tables::start().await;
    tables.proxy.script([Fate::Empty; 2], Fate::Forward);
    let _store = tables.store(ids(1)).start().await.unwrap();
    assert_eq!(tables.proxy.calls(), 3);
    assert!(tables.attribute("00007", "token").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_lease_is_replaced() {
    let tables = Tables::start().await;
    let store = tables.store(ids(1)).start().await.unwrap();
    let before = put(&store).await;
    // Without its row the lease is lost: the next extension finds no row.
    tables.delete().await;
    tables.create().await;
    wait_milliseconds(500).await;
    let after = put(&store).await;
    assert!(after > before);
    assert!(tables.attribute("00007", "token").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_writer_id_takes_another_lease() {
    let tables = Tables::start().await;
    let store = tables.store(ids(2)).start().await.unwrap();
    let before = put(&store).await;
    assert!(store.change_writer_id().await.unwrap());
    let after = put(&store).await;
    assert!(after > before);
    assert_ne!(after[18..23], before[18..23]);
    // There is no third id.
    let error = store.change_writer_id().await.unwrap_err();
    let PutError::NoWriterId(error) = error else { panic!("{error}") };
    assert!(error.to_string().contains("held by another store; lease from more ids"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_writer_id_replaces_drawn_but_not_assigned_ids() {
    let local = LocalTable::in_memory().await.unwrap();
    let drawn = local.store_builder().start().await.unwrap();
    let before = put(&drawn).await;
    assert!(drawn.change_writer_id().await.unwrap());
    let after = put(&drawn).await;
    assert!(after > before);
    assert_ne!(after[18..23], before[18..23]);
    let assigned = local.store_builder().writer_id(5).start().await.unwrap();
    assert!(!assigned.change_writer_id().await.unwrap());
    assert_eq!(&put(&assigned).await[18..23], "00005");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_without_permission_says_what_to_grant() {
    let tables = Tables::start().await;
    tables.proxy.script([], Fate::Refuse("AccessDeniedException"));
    let start = tables.store(ids(1).max_wait(Duration::from_secs(30)));
    let begun = now();
    let error = start.refusal_timeout(Duration::from_millis(300)).start().await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let StartError::WriterId(error) = error else { panic!("{error}") };
    let message = error.to_string();
    let grant = "grant dynamodb:UpdateItem on \
                 arn:aws:dynamodb:us-east-1:ACCOUNT:table/events-writers to the role: ";
    assert!(message.contains(grant), "{message}");
    assert_eq!(error.cause().unwrap().code(), Some("AccessDeniedException"));
    assert_eq!(error.table(), WRITERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_succeeds_after_a_brief_refusal() {
    let tables = Tables::start().await;
    tables.proxy.script([Fate::Refuse("AccessDeniedException"); 2], Fate::Forward);
    let store = tables.store(ids(1).max_wait(Duration::from_secs(30))).start().await.unwrap();
    assert_eq!(&put(&store).await[18..23], "00007");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_without_the_lease_table_says_how_to_create_it() {
    let tables = Tables::start().await;
    tables.delete().await;
    let begun = now();
    let start = tables.store(ids(1).max_wait(Duration::from_secs(30))).start();
    let error = start.await.unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(error.contains("there is no such table in region us-east-1"), "{error}");
    assert!(error.contains("create-table --table EVENTS --with-writers events-writers"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_of_events_is_refused_as_a_lease_table() {
    let tables = Tables::start().await;
    let ids = WriterIds::leased(tables.local.name()).max_wait(Duration::from_secs(30));
    let error = tables.store(ids).start().await.unwrap_err().to_string();
    assert!(error.contains("must have the hash key `id` of type S"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_with_an_own_batch_writer_is_a_config_error() {
    struct Writer;
    impl dynamodb_eventstore::BatchWriter for Writer {
        fn write_batch<'a>(
            &'a self,
            _: &'a [dynamodb_eventstore::Event],
        ) -> futures::future::BoxFuture<
            'a,
            Result<dynamodb_eventstore::BatchReceipt, dynamodb_eventstore::BatchError>,
        > {
            Box::pin(async { Ok(dynamodb_eventstore::BatchReceipt::all_processed()) })
        }
    }
    let start = EventStore::builder().batch_writer(Writer).writer_id(ids(1)).start();
    let error = start.await.unwrap_err();
    assert!(matches!(&error, StartError::Config(error) if error.field == "writer_id"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_handle_gives_the_id_back() {
    let tables = Tables::start().await;
    let store = tables.store(ids(1)).start().await.unwrap();
    let key = put(&store).await;
    drop(store);
    let start = now();
    while tables.attribute("00007", "token").await.is_some() {
        assert!(start.elapsed() < TERM, "the id is still held");
        wait_milliseconds(10).await;
    }
    let next = tables.store(ids(1)).start().await.unwrap();
    assert!(put(&next).await > key);
}

/// Shuts the runtime of a store down, which has the same effect as a killed process.
#[test]
fn killed_holder_keeps_its_id_for_two_terms() {
    let outer = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outer = outer.unwrap();
    let tables = outer.block_on(Tables::start());
    let killed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let killed = killed.unwrap();
    let key = killed.block_on(async {
        let store = tables.store(ids(1)).start().await.unwrap();
        let key = put(&store).await;
        std::mem::forget(store);
        key
    });
    killed.shutdown_background();
    outer.block_on(async {
        let until = tables.until("00007").await;
        let error = tables.store(ids(1)).start().await.unwrap_err();
        assert!(matches!(error, StartError::WriterId(_)), "{error}");
        let patient = ids(1).max_wait(Duration::from_secs(10));
        let store = tables.store(patient).start().await.unwrap();
        let next = put(&store).await;
        assert!(next > key);
        let time: dynamodb_eventstore::EventKey = next.parse().unwrap();
        let time = u64::try_from(time.timestamp().timestamp_millis()).unwrap();
        assert!(time >= until + 1_000, "{time} is within a term of {until}");
    });
}
