//! A TCP proxy that resets connections. `noxious` can only close them cleanly.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How many bytes a connection passes on before the proxy resets both of its ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reset {
    /// After this number of bytes from the client. Bytes from the server do not count.
    AfterSent(u64),
    /// After this number of bytes from the server. Bytes from the client do not count.
    AfterReceived(u64),
}

/// The proxy. It runs until it is dropped.
#[derive(Debug)]
pub(crate) struct ResettingProxy {
    address: SocketAddr,
    resets: Arc<Mutex<VecDeque<Reset>>>,
    server: JoinHandle<()>,
}

impl ResettingProxy {
    /// Applies one reset to each of the first connections, and passes on the later ones unchanged.
    pub(crate) async fn start(upstream: &str, resets: impl IntoIterator<Item = Reset>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let resets = Arc::new(Mutex::new(resets.into_iter().collect()));
        let server = tokio::spawn(serve(listener, upstream.to_owned(), Arc::clone(&resets)));
        Self { address, resets, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many resets have no connection yet.
    pub(crate) fn left(&self) -> usize {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for ResettingProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, upstream: String, resets: Arc<Mutex<VecDeque<Reset>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        let reset = resets.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let upstream = upstream.clone();
        // An error means that one end has closed its connection; then the other end is closed too.
        connections.spawn(async move { pass_on(client, &upstream, reset).await });
    }
}

async fn pass_on(mut client: TcpStream, upstream: &str, reset: Option<Reset>) -> io::Result<u64> {
    let mut server = TcpStream::connect(upstream).await?;
    let (max_sent, max_received) = match reset {
        None => (u64::MAX, u64::MAX),
        Some(Reset::AfterSent(bytes)) => (bytes, u64::MAX),
        Some(Reset::AfterReceived(bytes)) => (u64::MAX, bytes),
    };
    for end in [&client, &server] {
        end.set_nodelay(true)?;
        if reset.is_some() {
            // Dropping a socket with a linger time of zero resets its connection.
            end.set_zero_linger()?;
        }
    }
    // Owned halves would shut the connection down cleanly when they are dropped.
    let (from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let (mut from_client, mut from_server) =
        (from_client.take(max_sent), from_server.take(max_received));
    tokio::select! {
        passed = copy(&mut from_client, &mut to_server) => passed,
        passed = copy(&mut from_server, &mut to_client) => passed,
    }
}
