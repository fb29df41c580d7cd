//! What stands in for DynamoDB: a server in a process of its own, so that its work is not counted
//! as ours.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::cores::Cores;

/// Set in the process that is to be the endpoint.
const ROLE: &str = "EVENTSTORE_BENCH_ENDPOINT";

/// The running endpoint. It ends when this is dropped, and at the latest with this process, which
/// holds the other end of its standard input.
#[derive(Debug)]
pub(crate) struct Endpoint {
    process: Child,
    port: u16,
}

impl Endpoint {
    pub(crate) fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let output = process.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut port).unwrap();
        Self { process, port: port.trim().parse().unwrap() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Either fails only where the process has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether this process is to be the endpoint and not the benchmark.
pub(crate) fn is_this_process() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Serves until standard input is closed: by the benchmark, or because the benchmark is no more.
pub(crate) fn serve() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    Cores::given().keep_to_last();
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(connection);
        }
    });
}

/// Takes everything, as cheaply as can be: nothing of the request is looked at but its operation.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_batch = request
        .headers()
        .get("x-amz-target")
        .is_some_and(|target| target == "DynamoDB_20120810.BatchWriteItem");
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let said = if is_batch { r#"{"UnprocessedItems":{}}"# } else { "{}" };
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "REQUEST")
        .body(Full::new(Bytes::from_static(said.as_bytes())))
        .unwrap();
    Ok(response)
}
