//! An HTTP proxy in front of the embedded table. It injects faults into calls to the table of leases. A
//! connection carries one call.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to one `UpdateItem` call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Forward,
    /// The call is applied, and its answer is lost.
    LoseAnswer,
    /// The call does not reach the table.
    Drop,
    /// The proxy answers with 200 and no body. The call does not reach the table.
    Empty,
    /// The call is refused with this code.
    Refuse(&'static str),
}

#[derive(Debug)]
struct Script {
    fates: VecDeque<Fate>,
    then: Fate,
    calls: usize,
}

/// The proxy. It runs until it is dropped.
#[derive(Debug)]
pub(crate) struct LeaseProxy {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl LeaseProxy {
    /// Forwards to `upstream`, an endpoint URL.
    pub(crate) async fn start(upstream: &str) -> Self {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { fates: VecDeque::new(), then: Fate::Forward, calls: 0 };
        let script = Arc::new(Mutex::new(script));
        let shared = Arc::clone(&script);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream.clone(), Arc::clone(&shared)));
            }
        });
        Self { address, script, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the fates of the next calls, and the fate of all calls after them.
    pub(crate) fn script(&self, fates: impl IntoIterator<Item = Fate>, then: Fate) {
        let mut script = self.script.lock().unwrap();
        script.fates = fates.into_iter().collect();
        script.then = then;
    }

    /// Number of `UpdateItem` calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.script.lock().unwrap().calls
    }
}

impl Drop for LeaseProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves one call, and closes the connection.
async fn serve(mut client: TcpStream, upstream: String, script: Arc<Mutex<Script>>) {
    let Some(request) = read_request(&mut client).await else { return };
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let fate = if head.contains("x-amz-target: dynamodb_20120810.updateitem\r\n") {
        let mut script = script.lock().unwrap();
        script.calls += 1;
        script.fates.pop_front().unwrap_or(script.then)
    } else {
        Fate::Forward
    };
    match fate {
        Fate::Forward => {
            let answer = forward(&request, &upstream).await;
            client.write_all(&answer).await.ok();
        }
        Fate::LoseAnswer => drop(forward(&request, &upstream).await),
        Fate::Drop => {}
        Fate::Empty => answer(&mut client, 200, "").await,
        Fate::Refuse(code) => {
            let body = format!(
                "{{\"__type\":\"com.amazonaws.dynamodb.v20120810#{code}\",\"message\":\"as scripted\"}}"
            );
            answer(&mut client, 400, &body).await;
        }
    }
    client.shutdown().await.ok();
}

async fn answer(client: &mut TcpStream, status: u16, body: &str) {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    client.write_all(answer.as_bytes()).await.ok();
}

/// Reads the head and the body of a request; `None` if the connection ends before.
async fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if request.len() >= head + 4 + length {
                return Some(request);
            }
        }
        if client.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}

/// The upstream's answer, which ends the connection.
async fn forward(request: &[u8], upstream: &str) -> Vec<u8> {
    let mut server = TcpStream::connect(upstream).await.unwrap();
    let head = request.windows(2).position(|window| window == b"\r\n").unwrap();
    server.write_all(&request[..head]).await.unwrap();
    server.write_all(b"\r\nconnection: close").await.unwrap();
    server.write_all(&request[head..]).await.unwrap();
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.ok();
    answer
}
