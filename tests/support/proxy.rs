//! A TCP proxy that makes a network bad, in the test's own process: `noxious`, a port of Toxiproxy,
//! through its public interface.
//!
//! Of noxious 1.0.4 these are to be known:
//!
//! - Below 328 kB/s its bandwidth needs slices of at most a tenth of a second's bytes before it;
//!   otherwise it subtracts more time than there is, and panics.
//! - What is changed on a connection that is open applies the other way round, from the client to the
//!   server where the other was meant. So a change under way is one of both directions.
//! - "Remove all" removes what goes to the server and leaves the other direction: each is removed by
//!   name.
//! - It closes connections and never resets one: `resets.rs` does.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use bmrng::RequestSender;
use noxious::proxy::{ProxyConfig, ProxyRunner, Runner, Toxics};
use noxious::signal::{Close, Stop, Stopper};
pub(crate) use noxious::toxic::StreamDirection::{
    Downstream as TowardsClient, Upstream as TowardsServer,
};
pub(crate) use noxious::toxic::ToxicKind;
use noxious::toxic::{StreamDirection, Toxic, ToxicEvent, ToxicEventKind, ToxicEventResult};

/// How often a port may be lost to somebody else between finding it and listening at it.
const TRIES: usize = 10;

/// What makes the proxy bad, one way.
pub(crate) type Fault = (StreamDirection, ToxicKind);

/// The same fault both ways.
pub(crate) fn both_ways(kind: ToxicKind) -> [Fault; 2] {
    [(TowardsServer, kind), (TowardsClient, kind)]
}

/// Everything is swallowed, and no connection closed.
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
    /// Listens on a port of loopback and passes on to `upstream`, a host and a port.
    pub(crate) async fn start(upstream: &str, faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults: Vec<Toxic> = faults.into_iter().enumerate().map(toxic).collect();
        for _ in 0..TRIES {
            // Noxious does not tell which port it was given, so it has to be told one.
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            if let Ok(running) = run(address, upstream, &faults).await {
                let upstream = upstream.to_owned();
                return Self { address, upstream, faults, running: Some(running) };
            }
        }
        panic!("no port was to be had in {TRIES} tries");
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Brings a fault upon the connections that are open and upon those that follow.
    pub(crate) async fn worsen(&mut self, kind: ToxicKind) {
        assert!(self.faults.is_empty(), "one thing at a time");
        self.faults = both_ways(kind).into_iter().enumerate().map(toxic).collect();
        for fault in self.faults.clone() {
            self.change(ToxicEventKind::AddToxic(fault)).await;
        }
    }

    /// Takes all faults away, from open connections as well.
    pub(crate) async fn heal(&mut self) {
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
