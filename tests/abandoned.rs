//! What becomes of a request that is given up while it is being sent: what the connection has not taken
//! by then is forgotten, and not kept in memory until somebody reads it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::Ipv4Addr;
use std::time::Duration;

use dynamodb_eventstore::{Certainty, EventStore, MAX_BODY_BYTES, PutTicket, WriteError};
use futures::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const TIME_LIMIT: Duration = Duration::from_secs(30);

/// One call of such events is more than two sockets take of which nobody reads.
const EVENTS: usize = 25;
const REQUEST_BYTES: usize = EVENTS * MAX_BODY_BYTES;

/// A service that takes one connection, and a store whose one call of all events is on its way there.
async fn large_call() -> (TcpStream, Vec<PutTicket>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let store = EventStore::builder()
        .table("events")
        .region("us-east-1")
        .credentials("test", "test")
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .check_table(false)
        // So that all events are in the one call.
        .linger(TIME_LIMIT / 2)
        .attempt_timeout(Duration::from_secs(3))
        .max_attempts(1)
        .read_back(false)
        .start()
        .await
        .unwrap();
    let body = format!("\"{}\"", "a".repeat(MAX_BODY_BYTES - 2));
    let mut tickets = Vec::new();
    for _ in 0..EVENTS {
        tickets.push(store.put_json(&body).await.unwrap());
    }
    let (connection, _) = listener.accept().await.unwrap();
    (connection, tickets)
}

async fn errors(tickets: Vec<PutTicket>) -> Vec<WriteError> {
    join_all(tickets).await.into_iter().map(Result::unwrap_err).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_has_timed_out_is_not_sent_to_its_end() {
    let test = async {
        // Nothing of it is read.
        let (mut connection, tickets) = large_call().await;
        for error in errors(tickets).await {
            assert_eq!(error.certainty(), Certainty::MaybeStored, "{error}");
        }
        // Nobody waits for an answer any more, so what was not sent by now is to be forgotten.
        let (mut sent, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(read @ 1..) = connection.read(&mut buffer).await {
            sent += read;
        }
        assert!(sent > 0, "nothing was sent, so nothing is shown");
        assert!(sent < REQUEST_BYTES, "all {sent} bytes were sent after the attempt had timed out");
    };
    timeout(TIME_LIMIT, Box::pin(test)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_which_a_part_never_left_was_not_stored() {
    let test = async {
        let (mut connection, tickets) = large_call().await;
        connection.read_exact(&mut vec![0; 1 << 16]).await.unwrap();
        drop(connection);
        for error in errors(tickets).await {
            assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 1), "{error}");
            assert!(error.to_string().contains("the connection broke"), "{error}");
        }
    };
    timeout(TIME_LIMIT, Box::pin(test)).await.unwrap();
}
