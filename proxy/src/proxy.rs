//! The process: listeners, gateways and upstreams, from start over changes of configuration to the drain.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use governor::{Quota, RateLimiter};
use mcpmesh_ir::gateway::ListenerTls;
use mcpmesh_ir::{GatewayId, ResourceKind, ServerId, Snapshot};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::catalog::{Config, reached};
use crate::certificate::Kind;
use crate::config::{Rejection, prepare};
use crate::gateway::{Bounds, Gateway, Shell};
use crate::limit::Registry;
use crate::listener::{self, Serving};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::observability::{self, Port, Telling};
use crate::ports::{Bind, Ports};
use crate::readiness::{Certificate, Readiness};
use crate::ring;
use crate::routes::{Routes, Routing};
use crate::upstream::{Connector, Deps, State, Upstream};
use crate::upstreams::Upstreams;
use crate::workers::Workers;

/// Between rounds of tidying: idle sessions, full buckets.
const TIDY: Duration = Duration::from_secs(30);

/// Denials that the process's own log tells in a second.
const TOLD_DENIALS: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// How a process runs.
pub struct Options {
    /// Where clients come.
    pub bind: Bind,
    /// `/metrics`, `/readyz`, `/livez`.
    pub metrics: SocketAddr,
    /// `/config_dump`. Must be loopback.
    pub admin: SocketAddr,
    /// Where the keys of handles come from.
    pub ring: ring::Source,
    /// The process's certificate of the mesh; it may come later.
    pub mesh: Mesh,
    /// Starts workloads; none: servers that need one are unavailable.
    pub connector: Option<Arc<dyn Connector>>,
    /// Where the access log goes.
    pub access_log: Option<Box<dyn Write + Send>>,
    /// How gateways share the address.
    pub routing: Routing,
    /// Bounds on clients.
    pub bounds: Bounds,
    /// Where connections are served.
    pub workers: Workers,
}

impl Options {
    /// Listens here, picks free loopback ports for the rest, keeps nothing.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            bind: Bind::One(listen),
            metrics: any,
            admin: any,
            ring: ring::Source::default(),
            mesh: Mesh::default(),
            connector: None,
            access_log: None,
            routing: Routing::default(),
            bounds: Bounds::default(),
            workers: Workers::none(),
        }
    }
}

impl Options {
    /// Listens where the listeners of the configuration say, at this address.
    #[must_use]
    pub fn listeners(address: std::net::IpAddr) -> Self {
        let any = SocketAddr::new(address, 0);
        Self { routing: Routing::Listeners, bind: Bind::Listeners(address), ..Self::new(any) }
    }
}

/// Why a process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The admin port would be reachable from elsewhere.
    #[error("the admin address {0} is not loopback")]
    Admin(SocketAddr),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// No keys for handles.
    #[error(transparent)]
    Ring(#[from] ring::Error),
}

/// A server as a person wants to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which.
    pub id: ServerId,
    /// How it is.
    pub state: State,
    /// Revisions that it speaks, newest first.
    pub protocol: Vec<&'static str>,
    /// How many of its tools are listed.
    pub tools: usize,
}

/// See the module.
pub struct Proxy {
    shell: Shell,
    routing: Routing,
    addresses: [SocketAddr; 2],
    limits: Arc<Registry>,
    inner: Mutex<Inner>,
    routes: Arc<ArcSwap<Routes>>,
    telling: Telling,
    servers: watch::Sender<Vec<ServerStatus>>,
    stop: CancellationToken,
    grace: watch::Sender<Duration>,
}

struct Inner {
    gateways: HashMap<GatewayId, Arc<Gateway>>,
    upstreams: Upstreams,
    ports: Ports,
    watching: CancellationToken,
}

impl Proxy {
    /// Binds and begins to serve; nothing is routed before the first [`Proxy::apply`].
    pub async fn start(options: Options) -> Result<Arc<Self>, Error> {
        if !options.admin.ip().is_loopback() {
            return Err(Error::Admin(options.admin));
        }
        let ring = Arc::new(ring::load(&options.ring)?);
        let metrics = Arc::new(Metrics::default());
        let log = AccessLog::new(options.access_log, Arc::clone(&metrics)).map_err(Error::Thread)?;
        let (scrape, metrics_address) = bind(options.metrics).await?;
        let (admin, admin_address) = bind(options.admin).await?;
        let stop = CancellationToken::new();
        let telling = Telling {
            metrics: Arc::clone(&metrics),
            ready: Arc::new(Readiness::new(options.mesh.clone())),
            snapshots: Arc::new(ArcSwap::from_pointee(Vec::new())),
        };
        observe([(scrape, Port::Metrics), (admin, Port::Admin)], &telling, &stop)?;
        let routes = Arc::new(ArcSwap::from_pointee(Routes::default()));
        let serving = Serving {
            routes: Arc::clone(&routes),
            metrics: Arc::clone(&metrics),
            log: log.clone(),
            admission: Arc::new(Semaphore::new(options.bounds.requests)),
            handshakes: Arc::new(Semaphore::new(listener::HANDSHAKES)),
            mesh: options.mesh.clone(),
            readiness: Arc::clone(&telling.ready),
            workers: options.workers,
        };
        let grace = watch::Sender::new(Duration::from_secs(30));
        let ports = Ports::new(options.bind, serving, grace.subscribe())
            .map_err(|source| Error::Bind { address: options.bind.address(), source })?;
        let draining = CancellationToken::new();
        let denials = RateLimiter::direct(Quota::per_second(TOLD_DENIALS));
        let proxy = Arc::new(Self {
            shell: Shell { metrics, log, ring, bounds: options.bounds, denials: Arc::new(denials), draining },
            routing: options.routing,
            addresses: [metrics_address, admin_address],
            limits: Arc::default(),
            inner: Mutex::new(Inner {
                gateways: HashMap::new(),
                upstreams: Upstreams::new(Deps { connector: options.connector, mesh: options.mesh }),
                ports,
                watching: CancellationToken::new(),
            }),
            routes,
            telling,
            servers: watch::Sender::new(Vec::new()),
            stop,
            grace,
        });
        proxy.tidy();
        Ok(proxy)
    }

    /// Where clients come: [`Bind::One`], or the first port of [`Bind::Listeners`] that is open (0: none).
    #[must_use]
    pub fn data_addr(&self) -> SocketAddr {
        self.inner.lock().ports.address()
    }

    /// Where metrics are.
    #[must_use]
    pub fn metrics_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where the configuration can be read.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.addresses[1]
    }

    /// Puts a whole configuration in force, in one swap for each gateway. What is rejected is returned; the rest
    /// holds. A gateway whose own resource is rejected keeps the configuration that it had.
    pub fn apply(&self, snapshots: Vec<Snapshot>) -> Vec<Rejection> {
        let mut rejected = Vec::new();
        let mut inner = self.inner.lock();
        let Inner { gateways, upstreams, ports, .. } = &mut *inner;
        for snapshot in &snapshots {
            let Some(config) = prepare(snapshot, &self.limits, upstreams, &mut rejected) else { continue };
            let config = Arc::new(config);
            match gateways.get(&snapshot.gateway) {
                Some(gateway) => gateway.configure(config),
                None => {
                    gateways.insert(snapshot.gateway.clone(), Gateway::start(config, self.shell.clone()));
                }
            }
        }
        let wanted: HashSet<_> = snapshots.iter().map(|snapshot| &snapshot.gateway).collect();
        gateways.retain(|id, gateway| {
            wanted.contains(id) || {
                gateway.end();
                false
            }
        });
        let mut all: Vec<_> = gateways.values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        let routes = Arc::new(Routes::new(self.routing, &all));
        self.routes.store(Arc::clone(&routes));
        rejected.extend(
            ports
                .sync(&routes)
                .into_iter()
                .map(|one| Rejection::new(ResourceKind::Gateway, &one.gateway.to_string(), &one.reason)),
        );
        self.retire(&mut inner, &all);
        let certificate = certificate(&all);
        self.watch(&mut inner, &all, certificate);
        drop(inner);
        self.shell.metrics.config_applied.set(jiff::Timestamp::now().as_duration().as_secs_f64());
        self.shell.metrics.config_rejected.set(i64::try_from(rejected.len()).unwrap_or(i64::MAX));
        self.telling.snapshots.store(Arc::new(snapshots));
        self.telling.ready.configured(certificate);
        rejected
    }

    /// Forgets servers that no gateway has any more.
    fn retire(&self, inner: &mut Inner, gateways: &[Arc<Gateway>]) {
        let attached: HashSet<ServerId> = gateways
            .iter()
            .flat_map(|gateway| {
                let config = Arc::clone(&gateway.view().config);
                config.attached.iter().map(|attached| attached.id.clone()).collect::<Vec<_>>()
            })
            .collect();
        for gone in inner.upstreams.retain(|id| attached.contains(id)) {
            self.shell.metrics.forget_server(&gone, &STATES);
        }
    }

    /// Tells the state of the servers whenever one changes, until the next configuration.
    fn watch(&self, inner: &mut Inner, gateways: &[Arc<Gateway>], certificate: Certificate) {
        inner.watching.cancel();
        let until = CancellationToken::new();
        inner.watching = until.clone();
        let upstreams = inner.upstreams.all();
        let (servers, metrics) = (self.servers.clone(), Arc::clone(&self.shell.metrics));
        let readiness = Arc::clone(&self.telling.ready);
        let attached = attached(gateways);
        // What changes from now on is told one by one: to look at all of them costs as much as there are.
        let changes = upstreams.iter().enumerate().map(|(place, (_, upstream))| {
            WatchStream::from_changes(upstream.observation()).map(move |_| place)
        });
        let mut changes = select_all(changes.collect::<Vec<_>>());
        let of = move |(id, upstream): &(ServerId, Arc<Upstream>)| status(id, upstream, attached.get(id));
        let all: Vec<_> = upstreams.iter().map(&of).collect();
        for one in news(&servers.borrow(), &all) {
            metrics.server_state(&one.id, word(&one.state), &STATES);
        }
        servers.send_replace(all);
        let reached = move |upstreams: &[_]| {
            if is_reached(certificate, upstreams) {
                readiness.reached();
            }
        };
        reached(&upstreams);
        tokio::spawn(async move {
            let work = async {
                while let Some(place) = changes.next().await {
                    servers.send_modify(|all| {
                        let (Some(before), Some(one)) = (all.get_mut(place), upstreams.get(place).map(&of))
                        else {
                            return;
                        };
                        // Another configuration may be told already.
                        if before.id != one.id {
                            return;
                        }
                        if word(&before.state) != word(&one.state) {
                            metrics.server_state(&one.id, word(&one.state), &STATES);
                        }
                        *before = one;
                    });
                    reached(&upstreams);
                }
            };
            until.run_until_cancelled(work).await;
        });
    }

    /// The servers, told anew whenever one changes.
    #[must_use]
    pub fn servers(&self) -> watch::Receiver<Vec<ServerStatus>> {
        self.servers.subscribe()
    }

    /// The client to a server, as the configuration in force has it.
    #[must_use]
    pub fn upstream(&self, server: &ServerId) -> Option<Arc<Upstream>> {
        self.inner.lock().upstreams.find(server)
    }

    /// How many proxies share what limits grant: this one grants its part ([`Registry::share`]).
    pub fn share_limits(&self, fleet_size: u32) {
        self.limits.share(fleet_size);
    }

    /// The metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shell.metrics
    }

    /// Whether this process may be sent requests.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.telling.ready
    }

    /// Stops being ready and goes on serving: whoever sends requests here needs time to notice. Then [`Proxy::drain`].
    pub fn leave(&self) {
        self.telling.ready.leave();
    }

    /// The paths in force, with their gateways.
    #[must_use]
    pub fn paths(&self) -> Vec<(GatewayId, String)> {
        let routes = self.routes.load();
        routes.iter().map(|route| (route.gateway.id.clone(), route.listener.path.clone())).collect()
    }

    /// The URLs of what is served at [`Bind::One`], by gateway and path, with this host and port.
    #[must_use]
    pub fn urls(&self, authority: &str) -> Vec<String> {
        let routes = self.routes.load();
        let kind = routes.iter().next().map(|route| route.security.kind());
        let served = routes.iter().filter(|route| Some(route.security.kind()) == kind);
        let scheme = if kind == Some(Kind::Plain) { "http" } else { "https" };
        let mut urls: Vec<_> =
            served.map(|route| format!("{scheme}://{authority}{}", route.listener.path)).collect();
        urls.dedup();
        urls
    }

    fn tidy(self: &Arc<Self>) {
        let proxy = Arc::downgrade(self);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let work = async {
                loop {
                    tokio::time::sleep(TIDY).await;
                    let Some(proxy) = proxy.upgrade() else { return };
                    proxy.limits.tidy();
                    let gateways: Vec<_> = proxy.inner.lock().gateways.values().cloned().collect();
                    gateways.iter().for_each(|gateway| gateway.tidy());
                }
            };
            stop.run_until_cancelled(work).await;
        });
    }

    /// Stops being ready, ends streams with their last word, lets requests finish for at most `grace`, then ends
    /// every server's processes.
    pub async fn drain(&self, grace: Duration) {
        self.leave();
        self.shell.draining.cancel();
        self.grace.send_replace(grace);
        self.stop.cancel();
        let mut waited = Duration::ZERO;
        let connections = self.inner.lock().ports.close();
        while !connections.is_empty() && waited < grace {
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited += Duration::from_millis(10);
        }
        let gateways: Vec<_> = self.inner.lock().gateways.drain().map(|(_, gateway)| gateway).collect();
        gateways.iter().for_each(|gateway| gateway.end());
        let upstreams = {
            let mut inner = self.inner.lock();
            inner.watching.cancel();
            let upstreams = inner.upstreams.all();
            inner.upstreams.retain(|_| false);
            upstreams
        };
        upstreams.iter().for_each(|(_, upstream)| upstream.stop());
        let log = self.shell.log.clone();
        if tokio::task::spawn_blocking(move || log.flush()).await.is_err() {
            tracing::warn!("the access log could not be flushed");
        }
    }
}

/// How a gateway has each server, and where: which tools it lists is its own McpServer's to say, and every gateway that
/// has it says the same.
fn attached(gateways: &[Arc<Gateway>]) -> HashMap<ServerId, (Arc<Config>, usize)> {
    let configs = gateways.iter().map(|gateway| Arc::clone(&gateway.view().config));
    let all = configs.flat_map(|config| {
        let ids: Vec<_> = config.attached.iter().map(|attached| attached.id.clone()).collect();
        ids.into_iter().enumerate().map(move |(place, id)| (id, (Arc::clone(&config), place)))
    });
    all.collect()
}

fn status(id: &ServerId, upstream: &Upstream, attached: Option<&(Arc<Config>, usize)>) -> ServerStatus {
    let observation = Arc::clone(&upstream.observation().borrow());
    let attached = attached.and_then(|(config, place)| config.attached.get(*place));
    ServerStatus {
        id: id.clone(),
        state: observation.state.clone(),
        protocol: observation.eras.revisions(),
        tools: attached.map_or(0, |attached| attached.listed(&observation)),
    }
}

/// Those whose state is another one than it was. Both are in order of their ids.
fn news<'a>(old: &'a [ServerStatus], now: &'a [ServerStatus]) -> impl Iterator<Item = &'a ServerStatus> {
    let known = |one: &ServerStatus| {
        let place = old.binary_search_by(|status| status.id.cmp(&one.id)).ok()?;
        old.get(place).map(|status| word(&status.state))
    };
    now.iter().filter(move |one| known(one) != Some(word(&one.state)))
}

/// Whether there are servers that readiness waits for, and all of them have answered: a sidecar's own, or those of
/// the mesh.
fn is_reached(certificate: Certificate, upstreams: &[(ServerId, Arc<Upstream>)]) -> bool {
    let counts = |upstream: &Upstream| certificate == Certificate::ForClients || upstream.is_of_mesh();
    let mut awaited = upstreams.iter().map(|(_, upstream)| upstream).filter(|one| counts(one)).peekable();
    awaited.peek().is_some() && awaited.all(|upstream| reached(&upstream.observation().borrow()))
}

/// The words for states: values of a label and of the table.
const STATES: [&str; 4] = ["connecting", "ready", "degraded", "failed"];

/// A state's word.
#[must_use]
pub fn word(state: &State) -> &'static str {
    match state {
        State::Connecting => "connecting",
        State::Ready => "ready",
        State::Degraded { .. } => "degraded",
        State::Failed { .. } => "failed",
    }
}

/// What they need the process's certificate of the mesh for.
fn certificate(gateways: &[Arc<Gateway>]) -> Certificate {
    let of = |gateway: &Arc<Gateway>| {
        let config = &gateway.view().config;
        let mut listeners = config.gateway.listeners.iter();
        if listeners.any(|listener| matches!(listener.tls, Some(ListenerTls::Mesh {}))) {
            Certificate::ForClients
        } else if config.attached.iter().any(|attached| attached.upstream.is_of_mesh()) {
            Certificate::ForServers
        } else {
            Certificate::Unneeded
        }
    };
    gateways.iter().map(of).max().unwrap_or(Certificate::Unneeded)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Metrics and admin on a thread of their own.
fn observe(
    ports: [(TcpListener, Port); 2],
    telling: &Telling,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    let mut listeners = Vec::new();
    for (listener, port) in ports {
        listeners.push((listener.into_std().map_err(Error::Thread)?, port));
    }
    let (telling, stop) = (telling.clone(), stop.clone());
    let work = async move {
        for (listener, port) in listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    tokio::spawn(observability::serve(listener, port, telling.clone(), stop.clone()));
                }
                Err(error) => tracing::error!(%error, ?port, "not served"),
            }
        }
        stop.cancelled().await;
    };
    std::thread::Builder::new()
        .name("observability".to_owned())
        .spawn(move || runtime.block_on(work))
        .map_err(Error::Thread)?;
    Ok(())
}
