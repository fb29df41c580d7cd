//! A TCP proxy that injects network faults, in the test's own process: `noxious`, a port of Toxiproxy,
//! through its public interface.
//!
//! Known limits of noxious 1.0.4:
//!
//! - A bandwidth below 328 kB/s needs a slicer before it. A slice may take at most a tenth of a
//!   second. Otherwise noxious subtracts more time than there is, and panics.
//! - A change on an open connection applies to the opposite of the named direction. So such a change
//!   always names both directions.
//! - "Remove all" removes only the faults towards the server. So each fault is removed by name.
//! - It closes connections, but cannot reset them. `resets.rs` can.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use bmrng::RequestSender;
use noxious::proxy::{ProxyConfig, ProxyRunner, Runner, Toxics};
use noxious::signal::{Close, Stop, Stopper};
pub(crate) use noxious::toxic::StreamDirection::{
    Downstream as TowardsClient, Upstream as TowardsServer,
};
pub(crate) use noxious::toxic::ToxicKind;
use noxious::toxic::{StreamDirection, Toxic, ToxicEvent, ToxicEventKind, ToxicEventResult};

/// How often the proxy tries another port, because another process has taken the free one first.
const TRIES: usize = 10;

/// A fault in one direction.
pub(crate) type Fault = (StreamDirection, ToxicKind);

/// The same fault in both directions.
pub(crate) fn in_both_directions(kind: ToxicKind) -> [Fault; 2] {
    [(TowardsServer, kind), (TowardsClient, kind)]
}

/// All bytes are dropped, and no connection is closed.
pub(crate) const BLACKHOLE: ToxicKind = ToxicKind::Timeout { timeout: 0 };

/// The proxy. Its port stays the same while it is disabled.
pub(crate) struct Proxy {
    address: SocketAddr,
    upstream: String,
    faults: Vec<Toxic>,
    running: Option<Running>,
}

struct Running {
    events: RequestSender<ToxicEvent, ToxicEventResult>,
    stopper: Stopper,
    closed: Close,
}

impl Proxy {
    /// Listens on a port of loopback and forwards to `upstream`, a host and a port.
    pub(crate) async fn start(upstream: &str, faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults: Vec<Toxic> = faults.into_iter().enumerate().map(toxic).collect();
        for _ in 0..TRIES {
            // Noxious does not report the port it listens on, so a free one is chosen here.
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            if let Ok(running) = run(address, upstream, &faults).await {
                let upstream = upstream.to_owned();
                return Self { address, upstream, faults, running: Some(running) };
            }
        }
        panic!("the proxy found no free port in {TRIES} tries");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a fault to all open and later connections.
    pub(crate) async fn add_fault(&mut self, kind: ToxicKind) {
        assert!(self.faults.is_empty(), "the proxy takes one fault at a time");
        self.faults = in_both_directions(kind).into_iter().enumerate().map(toxic).collect();
        for fault in self.faults.clone() {
            self.change(ToxicEventKind::AddToxic(fault)).await;
        }
    }

    /// Removes all faults from open and later connections.
    pub(crate) async fn remove_faults(&mut self) {
        for fault in std::mem::take(&mut self.faults) {
            self.change(ToxicEventKind::RemoveToxic(fault.name)).await;
        }
    }

    async fn change(&self, kind: ToxicEventKind) {
        let event = ToxicEvent::new(self.address.to_string(), kind);
        let running = self.running.as_ref().expect("the proxy to be enabled");
        running.events.send_receive(event).await.unwrap().unwrap();
    }

    /// Closes every connection. New ones are refused.
    pub(crate) async fn disable(&mut self) {
        if let Some(Running { events, stopper, closed }) = self.running.take() {
            stopper.stop();
            closed.recv().await.unwrap();
            drop(events);
        }
    }

    pub(crate) async fn enable(&mut self) {
        self.running = Some(run(self.address, &self.upstream, &self.faults).await.unwrap());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stopper.stop();
        }
    }
}

async fn run(address: SocketAddr, upstream: &str, faults: &[Toxic]) -> std::io::Result<Running> {
    let config = ProxyConfig {
        name: address.to_string(),
        listen: address.to_string(),
        upstream: upstream.to_owned(),
        enabled: true,
        rand_seed: None,
    };
    let (upstream, downstream) =
        faults.iter().cloned().partition(|fault| fault.direction == TowardsServer);
    let toxics = Toxics { upstream, downstream };
    let (listener, info) =
        ProxyRunner::initialize_proxy::<noxious::socket::TcpListener>(config, toxics).await?;
    let (events, requests) = bmrng::channel(1);
    let (stop, stopper) = Stop::new();
    let (closed, closer) = Close::new();
    tokio::spawn(ProxyRunner::run_proxy(listener, info, requests, stop, closer));
    Ok(Running { events, stopper, closed })
}

fn toxic((number, (direction, kind)): (usize, Fault)) -> Toxic {
    Toxic { kind, name: format!("fault {number}"), toxicity: 1.0, direction }
}
