//! The one place where `up` touches the proxy's run-time.

use std::error::Error as _;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use mcpmesh_compiler::Compiled;
use mcpmesh_proxy::proxy::{self, Options, Proxy};
use mcpmesh_proxy::workers::Workers;
use mcpmesh_proxy::{ring, upstream};
use tokio::sync::watch;

use super::status::{ServerStatus, State};
use crate::client::plain_reason;
use crate::exit::Failure;
use crate::names;
use crate::workloads::Workloads;

/// Where to listen, and where things are kept and written.
pub(super) struct Place {
    pub(super) data: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) admin: SocketAddr,
    /// For the key ring.
    pub(super) state: PathBuf,
    pub(super) access_log: Option<Box<dyn Write + Send>>,
}

/// A running proxy.
pub(super) struct DataPlane {
    proxy: Arc<Proxy>,
    workloads: Workloads,
}

impl DataPlane {
    /// Binds and serves; nothing is configured yet.
    pub(super) async fn start(place: Place, workloads: Workloads) -> Result<Self, Failure> {
        let mut options = Options::new(place.data);
        options.metrics = place.metrics;
        options.admin = place.admin;
        options.ring = ring::Source::Folder(place.state);
        options.access_log = place.access_log;
        options.workers = Workers::for_processors().context("cannot start a thread")?;
        options.connector = Some(Arc::new(workloads.clone()));
        match Proxy::start(options).await {
            Ok(proxy) => Ok(Self { proxy, workloads }),
            Err(error) => Err(cannot_start(&error, [place.metrics, place.admin])),
        }
    }

    /// Puts a compiled configuration in force. What the proxy rejects is returned.
    pub(super) fn apply(&self, compiled: &Compiled) -> Vec<String> {
        let rejected = self.proxy.apply(compiled.snapshots.values().cloned().collect());
        let text = |rejection: mcpmesh_proxy::config::Rejection| {
            format!("{} {} is rejected: {}", rejection.kind, rejection.name, rejection.reason)
        };
        rejected.into_iter().map(text).collect()
    }

    /// The port of the endpoint.
    pub(super) fn port(&self) -> u16 {
        self.proxy.data_addr().port()
    }

    /// The URLs of all gateways.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.proxy.urls(&reachable(self.proxy.data_addr()).to_string())
    }

    pub(super) fn metrics_url(&self) -> String {
        format!("http://{}/metrics", reachable(self.proxy.metrics_addr()))
    }

    pub(super) fn admin_url(&self) -> String {
        format!("http://{}/config_dump", self.proxy.admin_addr())
    }

    pub(super) fn status(&self) -> Status {
        let mut servers = self.proxy.servers();
        // What is there already is news, too.
        servers.mark_changed();
        Status { servers, workloads: self.workloads.clone() }
    }

    pub(super) async fn drain(self, time: Duration) {
        self.proxy.drain(time).await;
    }
}

/// Changes of servers.
pub(super) struct Status {
    servers: watch::Receiver<Vec<proxy::ServerStatus>>,
    workloads: Workloads,
}

impl Status {
    /// The rows after the next change; the first call answers at once.
    pub(super) async fn next(&mut self) -> Vec<ServerStatus> {
        if self.servers.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.servers.borrow_and_update().iter().map(|server| row(server, &self.workloads)).collect()
    }
}

fn row(server: &proxy::ServerStatus, workloads: &Workloads) -> ServerStatus {
    let (state, reason) = match &server.state {
        upstream::State::Connecting => (State::Connecting, None),
        upstream::State::Ready => {
            workloads.forget_words(&server.id);
            (State::Ready, None)
        }
        upstream::State::Degraded { reason, .. } => (State::Degraded, Some(plain_reason(reason))),
        upstream::State::Failed { reason, .. } => {
            (State::Failed, Some(workloads.last_words(&server.id).unwrap_or_else(|| plain_reason(reason))))
        }
    };
    let known = !server.protocol.is_empty();
    ServerStatus {
        name: names::server(&server.id),
        state,
        protocol: known.then(|| server.protocol.join(",")),
        tools: known.then_some(server.tools),
        reason,
    }
}

/// An address that a client of this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    match address.ip() {
        ip if !ip.is_unspecified() => {}
        std::net::IpAddr::V4(_) => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
        std::net::IpAddr::V6(_) => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
    }
    address
}

fn cannot_start(error: &proxy::Error, [metrics, admin]: [SocketAddr; 2]) -> Failure {
    let proxy::Error::Bind { address, source } = error else {
        let cause = error.source().map(|cause| format!(": {cause}"));
        let advice = if matches!(error, proxy::Error::Ring(_)) { "; choose another --state-dir" } else { "" };
        return Failure::failed(format!("{error}{}{advice}", cause.unwrap_or_default()));
    };
    let option = match address {
        address if *address == metrics => "--metrics",
        address if *address == admin => "--admin",
        _ => "--listen",
    };
    let advice = match source.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "the port is taken, perhaps by another `mcpmesh up`: end that, or choose another {option}"
            )
        }
        ErrorKind::PermissionDenied => format!("this user may not use the port: choose {option} above 1023"),
        ErrorKind::AddrNotAvailable => {
            format!("this machine does not have that address: choose another {option}")
        }
        _ => source.to_string(),
    };
    Failure::failed(format!("{option} {address}: {advice}"))
}
