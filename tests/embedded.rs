//! smoke
use dynamodb_eventstore::LocalTable;
use std::time::Duration;

#[tokio::test]
async fn smoke() {
    let table = LocalTable::in_memory().await.unwrap();
    let store = table.store_builder().start().await.unwrap();
    let mut tickets = vec![];
    for i in 0..1000 {
        tickets.push(store.put(&serde_json::json!({"i": i})).await.unwrap());
    }
    for t in tickets {
        t.await.unwrap();
    }
    println!("{:?}", store.stats());
    let r = store.close(Duration::from_secs(5)).await.unwrap();
    println!("{r:?}");
    assert!(r.is_complete());
    table.stop().await.unwrap();
}
