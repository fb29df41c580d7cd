//! A TCP proxy that resets connections, which `noxious` cannot: it closes them in good order.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How much of a connection gets through before it is reset, towards both ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reset {
    /// So many bytes of what the client sends, and any number of bytes back.
    AfterSent(u64),
    /// All that the client sends, and so many bytes back.
    AfterAnswered(u64),
}

/// The proxy, for as long as it is held.
#[derive(Debug)]
pub(crate) struct ResettingProxy {
    address: SocketAddr,
    resets: Arc<Mutex<VecDeque<Reset>>>,
    server: JoinHandle<()>,
}

impl ResettingProxy {
    /// Resets the first connections, one each, and lets the others be.
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

    /// How many resets have not begun.
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
        // An error is an end that went away: so does the other then.
        connections.spawn(async move { pass_on(client, &upstream, reset).await });
    }
}

async fn pass_on(mut client: TcpStream, upstream: &str, reset: Option<Reset>) -> io::Result<u64> {
    let mut server = TcpStream::connect(upstream).await?;
    let (sent, answered) = match reset {
        None => (u64::MAX, u64::MAX),
        Some(Reset::AfterSent(bytes)) => (bytes, u64::MAX),
        Some(Reset::AfterAnswered(bytes)) => (u64::MAX, bytes),
    };
    for end in [&client, &server] {
        end.set_nodelay(true)?;
        if reset.is_some() {
            // A socket that does not linger is reset when it is dropped.
            end.set_zero_linger()?;
        }
    }
    // Owned halves would be shut down in good order before the reset.
    let (from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let (mut from_client, mut from_server) = (from_client.take(sent), from_server.take(answered));
    tokio::select! {
        passed = copy(&mut from_client, &mut to_server) => passed,
        passed = copy(&mut from_server, &mut to_client) => passed,
    }
}
