//! Large requests that are cancelled while they are being sent. A request may use the whole attempt
//! timeout. After the timeout, bytes that were not yet written to the connection are dropped. They are
//! not kept in memory until the peer reads them.

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

/// An attempt timeout that is short enough for tests to wait for it.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);

/// One call with this many of the largest events is larger than the buffers of both sockets.
const EVENTS: usize = 25;
const REQUEST_BYTES: usize = EVENTS * MAX_BODY_BYTES;

/// How the store is built: from configuration, or with an SDK client.
#[derive(Debug, Clone, Copy)]
enum Setup {
    Configured,
    Client,
}

/// An acknowledgement of the whole batch.
const ACKNOWLEDGEMENT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n\
    content-length: 23\r\n\r\n{\"UnprocessedItems\":{}}";

/// Starts a service that accepts one connection, and a store whose only call carries all events.
/// Returns the connection, from which nothing has been read, and the tickets.
async fn large_call(setup: Setup, attempt_timeout: Duration) -> (TcpStream, Vec<PutTicket>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let credentials = Credentials::new("test", "test", None, None, "tests");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
        .build();
    let store = match setup {
        Setup::Configured => EventStore::builder().sdk_config(&config),
        Setup::Client => EventStore::builder().client(&Client::new(&config)),
    };
    let store = store
        .table("events")
        .check_table(false)
        // All events go into one call.
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

async fn for_each_setup<F: Future<Output = ()> + Send>(test: impl Fn(Setup) -> F + Send + Sync) {
    let both = async { tokio::join!(test(Setup::Configured), test(Setup::Client)) };
    timeout(TIME_LIMIT, Box::pin(both)).await.unwrap();
}

/// Reads at most `bytes` bytes until the connection ends, and returns how many there were.
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
    for_each_setup(|setup| async move {
        // The peer reads nothing before the timeout.
        let (mut connection, tickets) = large_call(setup, SHORT_TIMEOUT).await;
        for error in errors(tickets).await {
            assert_eq!(error.certainty(), Certainty::NotStored, "{error}");
        }
        // The attempt is over, so the bytes that were not sent must have been dropped.
        let sent = drain(&mut connection, usize::MAX).await;
        assert!(sent > 0, "no part of the request was sent, so the test proves nothing");
        assert!(sent < REQUEST_BYTES, "all {sent} bytes were sent after the attempt had timed out");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_cut_off_while_sending_is_not_stored() {
    for_each_setup(|setup| async move {
        let (mut connection, tickets) = large_call(setup, SHORT_TIMEOUT).await;
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
    for_each_setup(|setup| async move {
        let (mut connection, tickets) = large_call(setup, SHORT_TIMEOUT).await;
        connection.read_exact(&mut vec![0; 1 << 16]).await.unwrap();
        connection.write_all(ACKNOWLEDGEMENT).await.unwrap();
        for error in errors(tickets).await {
            assert_eq!((error.certainty(), error.attempts()), (Certainty::NotStored, 1), "{error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowly_read_request_may_use_the_whole_attempt_timeout() {
    for_each_setup(|setup| async move {
        let (mut connection, tickets) = large_call(setup, TIME_LIMIT).await;
        // The first half is read in parts, one a second, and then the rest. This takes longer than the
        // SDK waits for a stalled stream.
        let mut read = 0;
        for _ in 0..7 {
            wait(Duration::from_secs(1)).await;
            read += drain(&mut connection, REQUEST_BYTES / 14).await;
        }
        drain(&mut connection, REQUEST_BYTES - read).await;
        connection.write_all(ACKNOWLEDGEMENT).await.unwrap();
        for ticket in tickets {
            assert_eq!(ticket.await.unwrap().attempts, 1);
        }
    })
    .await;
}
