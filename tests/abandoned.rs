//! What becomes of a large request while it is being sent. It has the whole attempt time-out; and when it
//! is given up, what the connection has not taken by then is forgotten, and not kept in memory until
//! somebody reads it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use dynamodb_eventstore::{Certainty, EventStore, MAX_BODY_BYTES, PutTicket, WriteError};
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use support::clock::wait;

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// An attempt time-out that is to pass.
const SHORT: Duration = Duration::from_secs(3);

/// One call of such events is more than two sockets take of which nobody reads.
const EVENTS: usize = 25;
const REQUEST_BYTES: usize = EVENTS * MAX_BODY_BYTES;

/// By which way the store writes.
#[derive(Debug, Clone, Copy)]
enum Way {
    Configured,
    Client,
}

/// What nearly every answer of the service is.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n\
    content-length: 23\r\n\r\n{\"UnprocessedItems\":{}}";

/// A service that takes one connection, and a store whose one call of all events is on its way there.
async fn large_call(way: Way, attempt_timeout: Duration) -> (TcpStream, Vec<PutTicket>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let credentials = Credentials::new("test", "test", None, None, "tests");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .build();
    let store = match way {
        Way::Configured => EventStore::builder().sdk_config(&config),
        Way::Client => EventStore::builder().client(&Client::new(&config)),
    };
    let store = store
        .table("events")
        .check_table(false)
        // So that all events are in the one call.
        .linger(TIME_LIMIT / 2)
        .attempt_timeout(attempt_timeout)
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

async fn each_way<F: Future<Output = ()> + Send>(test: impl Fn(Way) -> F + Send + Sync) {
    let both = async { tokio::join!(test(Way::Configured), test(Way::Client)) };
    timeout(TIME_LIMIT, Box::pin(both)).await.unwrap();
}

/// Reads what a request has left, without waiting for what does not come.
async fn drain(connection: &mut TcpStream, bytes: usize) -> usize {
    let (mut sent, mut buffer) = (0, vec![0; 1 << 16]);
    while sent < bytes
        && let Ok(read @ 1..) = connection.read(&mut buffer).await
    {
        sent += read;
    }
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timed_out_request_is_not_sent_to_its_end() {
    each_way(|way| async move {
        // Nothing of it is read.
        let (mut connection, tickets) = large_call(way, SHORT).await;
        for error in errors(tickets).await {
            assert_eq!(error.certainty(), Certainty::NotStored, "{error}");
        }
        // Nobody waits for an answer any more, so what was not sent by now is to be forgotten.
        let sent = drain(&mut connection, usize::MAX).await;
        assert!(sent > 0, "nothing was sent, so nothing is shown");
        assert!(sent < REQUEST_BYTES, "all {sent} bytes were sent after the attempt had timed out");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_cut_off_while_sending_is_not_stored() {
    each_way(|way| async move {
        let (mut connection, tickets) = large_call(way, SHORT).await;
        connection.read_exact(&mut vec![0; 1 << 16]).await.unwrap();
        drop(connection);
        for error in errors(tickets).await {
            assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 1), "{error}");
            assert!(error.to_string().contains("the connection broke"), "{error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_before_the_request_was_sent_is_not_accepted() {
    each_way(|way| async move {
        let (mut connection, tickets) = large_call(way, SHORT).await;
        connection.read_exact(&mut vec![0; 1 << 16]).await.unwrap();
        connection.write_all(ANSWER).await.unwrap();
        for error in errors(tickets).await {
            assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 1), "{error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowly_read_request_may_use_the_whole_attempt_timeout() {
    each_way(|way| async move {
        let (mut connection, tickets) = large_call(way, TIME_LIMIT).await;
        // Longer than the SDK waits for a stream that stands still: the first half is read in bits, and
        // the rest after a while.
        let mut read = 0;
        for _ in 0..7 {
            wait(Duration::from_secs(1)).await;
            read += drain(&mut connection, REQUEST_BYTES / 14).await;
        }
        drain(&mut connection, REQUEST_BYTES - read).await;
        connection.write_all(ANSWER).await.unwrap();
        for ticket in tickets {
            assert_eq!(ticket.await.unwrap().attempts, 1);
        }
    })
    .await;
}
