//! The endpoint's connections, with and without TLS, and how they end.

use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::{Either, select};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use super::answer::{Answer, Response};
use super::batch::{Item, Read, UNKNOWN_KEY};
use super::script::Selector;
use super::storage::statement_error;
use super::{Inner, TABLE, Transport, tls};

/// A request to close all connections. It is answered after they are closed.
pub(super) type Close = oneshot::Sender<()>;

/// Accepts connections until the task is aborted, which closes them as well.
pub(super) async fn serve(
    listener: TcpListener,
    transport: Transport,
    inner: Arc<Inner>,
    mut closes: mpsc::UnboundedReceiver<Close>,
) {
    let mut connections = JoinSet::new();
    let (mut open, mut open_until) = watch::channel(());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                while connections.try_join_next().is_some() {}
                inner.lock().connections += 1;
                let (inner, open) = (Arc::clone(&inner), open_until.clone());
                connections.spawn(async move {
                    match transport {
                        Transport::Http | Transport::Client => {
                            serve_connection(stream, &inner, open).await;
                        }
                        // An error means that the client does not trust the endpoint, or has left.
                        Transport::Https => if let Ok(stream) = tls::acceptor().accept(stream).await {
                            serve_connection(stream, &inner, open).await;
                        },
                    }
                });
            }
            Some(closed) = closes.recv() => {
                drop(std::mem::replace(&mut open, watch::Sender::new(())));
                open_until = open.subscribe();
                while connections.join_next().await.is_some() {}
                let _ = closed.send(());
            }
        }
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Socket for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Answers the requests of one connection until `open` changes.
async fn serve_connection(stream: impl Socket, inner: &Inner, mut open: watch::Receiver<()>) {
    let reset = AtomicBool::new(false);
    let service = service_fn(|request| answer(request, inner, &reset).boxed());
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let served = poll_fn(|context| connection.poll_without_shutdown(context));
    // An error means that the client has left, or that a reply breaks the connection.
    match select(served, Box::pin(open.changed())).await {
        Either::Left(_) | Either::Right(_) => {}
    }
    let mut stream = connection.into_parts().io.into_inner();
    if reset.into_inner() {
        // Closing a socket with a linger time of zero resets its connection.
        stream.tcp().set_zero_linger().unwrap();
    } else {
        // It fails if the client has closed the connection first.
        let _ = stream.shutdown().await;
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    inner: &Inner,
    reset: &AtomicBool,
) -> Result<Response, io::Error> {
    let (head, mut body) = request.into_parts();
    let operation = operation(&head.headers);
    if is_write(&operation) && inner.lock().takes_reset_in_request() {
        let read = body.frame().await.and_then(|frame| frame.ok()?.into_data().ok());
        inner.lock().log(&operation, Vec::new(), read.map_or(0, |data| data.len()));
        reset.store(true, Ordering::Relaxed);
        return Err(io::Error::other("reset in the middle of the request, as scripted"));
    }
    let bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        // The client has disconnected, so no answer can be sent.
        Err(error) => return Err(io::Error::other(error)),
    };
    let decision = inner.lock().decide(&operation, &head.headers, &bytes);
    inner.storage.insert(decision.taken).await;
    if !decision.to_apply.is_empty() {
        if operation == "BatchExecuteStatement" {
            inner.storage.insert(decision.to_apply).await;
        } else {
            inner.storage.apply(decision.to_apply).await;
        }
    }
    let head = decision.head;
    match decision.answer {
        Answer::Text { status, body } => Ok(head.text(status, body)),
        Answer::Drip { body, pause } => Ok(head.drip(body, pause)),
        Answer::WrongChecksum { body } => Ok(head.wrong_checksum(body)),
        Answer::Endless => Ok(head.endless()),
        Answer::CutShort { body } => Ok(head.cut_short(body)),
        Answer::ResetInResponse { body } => {
            reset.store(true, Ordering::Relaxed);
            Ok(head.cut_short(body))
        }
        Answer::Inserted { items } => Ok(head.text(200, inserted(inner, items).await.to_string())),
        Answer::Read { read, unprocessed, with_responses } => {
            let body = read_result(inner, read, &unprocessed, with_responses).await;
            Ok(head.text(200, body.to_string()))
        }
        Answer::Scan { request } => Ok(head.text(200, inner.storage.scan(request).await)),
        Answer::HangUp => Err(io::Error::other("hung up, as scripted")),
        Answer::Hang => pending().await,
    }
}

pub(super) fn is_write(operation: &str) -> bool {
    matches!(operation, "BatchWriteItem" | "BatchExecuteStatement")
}

/// The answer to inserts, of which those with a code fail.
async fn inserted(inner: &Inner, items: Vec<(Item, Option<&'static str>)>) -> Value {
    let applied = items.iter().filter(|(_, code)| code.is_none()).map(|(item, _)| item.clone());
    let mut applied = inner.storage.insert(applied.collect()).await.into_iter();
    let answer = |(_, code): (Item, Option<&'static str>)| match code {
        Some(code) => statement_error(code),
        None => applied.next().unwrap(),
    };
    json!({ "Responses": items.into_iter().map(answer).collect::<Vec<_>>() })
}

/// The answer to a read, in which the keys that `unprocessed` selects are left unread.
async fn read_result(
    inner: &Inner,
    read: Read,
    unprocessed: &Selector,
    with_responses: bool,
) -> Value {
    let (unprocessed, keys) = unprocessed.split(read.keys.clone(), UNKNOWN_KEY.to_owned());
    let mut answer = Map::new();
    if with_responses {
        let items = inner.storage.read(Read { keys, ..read }).await;
        answer.insert("Responses".to_owned(), json!({ TABLE: items }));
    }
    let unprocessed: Vec<Value> =
        unprocessed.iter().map(|key| json!({ "key": { "S": key } })).collect();
    let unprocessed = if unprocessed.is_empty() {
        json!({})
    } else {
        json!({ TABLE: { "Keys": unprocessed, "ConsistentRead": true } })
    };
    answer.insert("UnprocessedKeys".to_owned(), unprocessed);
    Value::Object(answer)
}

/// The operation in a request's target header, for example `DynamoDB_20120810.BatchWriteItem`.
fn operation(headers: &hyper::HeaderMap) -> String {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    target
        .and_then(|target| target.strip_prefix("DynamoDB_20120810."))
        .unwrap_or("(none)")
        .to_owned()
}
