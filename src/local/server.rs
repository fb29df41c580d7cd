//! The HTTP server on loopback in front of the engine.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dynoxide::Database;
use dynoxide::auth_material::{self, AuthMaterial};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::access;
use super::error::LocalError;
use super::file::open_database;
use super::limits::Limits;
use super::operations;
use super::response::{AMZ_JSON, Answer};
use crate::clock::{KeyClock, now};
use crate::write_capacity::WriteCapacity;

/// How long a stopping server waits for requests that have begun.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a connection could not be accepted, for example because there are no file descriptors
/// left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest request: a batch of 16 MB, and the JSON around its items.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// Runs the server in the current thread, with its own runtime. The engine blocks the tasks of the
/// requests, which would delay other tasks of a shared runtime.
///
/// The port is bound before the file is opened, so that no file is created if the port is taken.
pub(super) fn run(
    file: Option<&Path>,
    port: u16,
    capacity: Option<WriteCapacity>,
    started: oneshot::Sender<SocketAddr>,
    stop: oneshot::Receiver<()>,
) -> Result<(), LocalError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LocalError::Thread)?;
    runtime.block_on(async move {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let not_listening = |cause| LocalError::Listen { address, cause };
        let listener = TcpListener::bind(address).await.map_err(not_listening)?;
        let bound = listener.local_addr().map_err(not_listening)?;
        let service = Arc::new(Service::new(open_database(file)?, capacity));
        if started.send(bound).is_ok() {
            serve(listener, service, stop).await;
        }
        Ok(())
    })
}

/// Serves requests until `stop` is sent or dropped. Then it waits for the requests that have begun, with
/// a timeout, because a client may never finish sending one.
async fn serve(listener: TcpListener, service: Arc<Service>, stop: oneshot::Receiver<()>) {
    let connections = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let answer = {
                    let service = Arc::clone(&service);
                    move |request| Arc::clone(&service).answer(request)
                };
                // Responses are small, so Nagle's algorithm would only delay them.
                let _ = stream.set_nodelay(true);
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                let connection = connections.watch(connection);
                // An error means that the client has left or does not speak HTTP.
                tokio::spawn(async move { drop(connection.await) });
            }
            Err(error) if is_caused_by_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the local table cannot accept connections");
                sleep_until(Instant::from_std(now() + ACCEPT_PAUSE)).await;
            }
        }
    }
    drop(listener);
    let timeout = sleep_until(Instant::from_std(now() + STOP_TIMEOUT));
    tokio::select! {
        () = connections.shutdown() => {}
        () = timeout => {}
    }
}

fn is_caused_by_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers the requests of all connections with the engine.
struct Service {
    database: Database,
    /// `None` for tables without limits.
    limits: Option<Limits>,
    started: u64,
    requests: AtomicU64,
}

impl Service {
    fn new(database: Database, capacity: Option<WriteCapacity>) -> Self {
        let started = KeyClock::Wall.unix_milliseconds();
        Self { database, limits: capacity.map(Limits::new), started, requests: AtomicU64::new(0) }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("LOCAL{:015}{number:032}", self.started);
        Ok(self.handle(request).await.into_response(&request_id))
    }

    /// Answers a request. Its body is read only after the access check.
    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if let Err(reason) = access::check(&head.uri, &head.headers) {
            tracing::warn!(reason, "the local table refused a request");
            return Answer::error(StatusCode::FORBIDDEN, "AccessDeniedException", &reason);
        }
        match head.method {
            Method::POST => {}
            // Tools that wait until a server is up send this request as a health check.
            Method::GET if head.uri.path() == "/" => {
                return Answer::text(StatusCode::OK, "healthy: dynamodb.us-east-1.amazonaws.com ");
            }
            _ => return unknown_operation(StatusCode::NOT_FOUND),
        }
        let body = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let message = format!("the request could not be read: {error}");
                return Answer::error(StatusCode::PAYLOAD_TOO_LARGE, SERIALIZATION, &message);
            }
        };
        match str::from_utf8(&body) {
            Ok(body) => {
                let answer = self.call(&head, body);
                let latency = self.limits.as_ref().map_or(Duration::ZERO, Limits::latency);
                if !latency.is_zero() {
                    sleep_until(Instant::from_std(now() + latency)).await;
                }
                answer
            }
            Err(_) => Answer::error(StatusCode::BAD_REQUEST, SERIALIZATION, "it is not UTF-8"),
        }
    }

    /// Runs the operation that the request names.
    fn call(&self, head: &Parts, body: &str) -> Answer {
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let content_type = header(CONTENT_TYPE).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        let content_type = if content_type.eq_ignore_ascii_case("application/json") {
            HeaderValue::from_static("application/json")
        } else if content_type.as_bytes().eq_ignore_ascii_case(AMZ_JSON.as_bytes()) {
            AMZ_JSON
        } else {
            return unknown_operation(StatusCode::NOT_FOUND);
        };
        let signature = AuthMaterial {
            authorization: header(AUTHORIZATION),
            query: head.uri.query().unwrap_or_default(),
            has_date_header: head.headers.contains_key("x-amz-date")
                || head.headers.contains_key(DATE),
        };
        if let Some(refusal) = auth_material::validate(signature) {
            return Answer::json(StatusCode::BAD_REQUEST, refusal);
        }
        let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let ran = target
            .and_then(|target| operations::run(&self.database, self.limits.as_ref(), target, body));
        let (status, body) = match ran {
            Some(Ok(body)) => (StatusCode::OK, body),
            Some(Err(failure)) => (failure.status(), failure.to_json()),
            None => return unknown_operation(StatusCode::BAD_REQUEST),
        };
        Answer { status, content_type, body }
    }
}

const SERIALIZATION: &str = "com.amazon.coral.service#SerializationException";

fn unknown_operation(status: StatusCode) -> Answer {
    let kind = "com.amazon.coral.service#UnknownOperationException";
    Answer::error(status, kind, "the local table has no operation with this name")
}
