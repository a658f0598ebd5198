//! The addresses that clients come to: opened and closed as configurations name them.
//!
//! A port that stays keeps its socket and its connections; only what new connections get changes. One that goes is
//! free at once, and its connections end as those of a process that drains do.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mcpmesh_ir::GatewayId;
use mcpmesh_ir::gateway::Listener;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificate::{Kind, Names, Security};
use crate::listener::{self, Door, Entrance, Serving};
use crate::routes::{Route, Routes};

/// The one address, among the ports.
const ONE: u16 = 0;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Where clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// One address for all listeners, whatever their ports (`mcpmesh up`, where `--listen` stands for them). Port 0
    /// picks one.
    One(SocketAddr),
    /// Every port that a listener names, at this address.
    Listeners(IpAddr),
}

impl Bind {
    /// The address that is bound first; its port is 0 where listeners decide.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        match self {
            Self::One(address) => address,
            Self::Listeners(ip) => SocketAddr::new(ip, 0),
        }
    }
}

/// An open port. Dropping it closes the socket: its accept loop holds none.
struct Port {
    address: SocketAddr,
    door: Arc<ArcSwap<Door>>,
    stop: CancellationToken,
    _socket: Arc<TcpListener>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// See the module.
pub struct Ports {
    bind: Bind,
    open: BTreeMap<u16, Port>,
    /// The one address before there is a configuration: whoever connects waits, for there is nothing to say yet.
    waiting: Option<(listener::Accepting, CancellationToken)>,
    serving: Serving,
    grace: watch::Receiver<Duration>,
    tasks: TaskTracker,
}

/// Why a gateway's listener is not served.
#[derive(Debug)]
pub struct Unserved {
    /// Whose.
    pub gateway: GatewayId,
    /// Why.
    pub reason: String,
}

impl Ports {
    /// With the one address open, or none yet. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the one address cannot be bound.
    pub fn new(bind: Bind, serving: Serving, grace: watch::Receiver<Duration>) -> std::io::Result<Self> {
        let tasks = TaskTracker::new();
        let mut ports = Self { bind, open: BTreeMap::new(), waiting: None, serving, grace, tasks };
        if let Bind::One(address) = bind {
            let door = Door { port: None, entrance: Entrance::Plain };
            let (port, accepting) = open(address, door)?;
            ports.waiting = Some((accepting, port.stop.clone()));
            ports.open.insert(ONE, port);
        }
        Ok(ports)
    }

    /// Where clients come: the one address, or that of the listeners with the first port that is open (0: none).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.open.values().next().map_or(self.bind.address(), |port| port.address)
    }

    /// Opens what the routes' listeners name and is not open, closes what they name no more. Gateways come in order:
    /// the first decides whether a port is plain, TLS or of the mesh, and has the place that two want.
    pub fn sync(&mut self, routes: &Routes) -> Vec<Unserved> {
        if self.tasks.is_closed() {
            // The process drains: who comes now is another's.
            return Vec::new();
        }
        let (mut doors, mut unserved) = doors(routes, self.bind);
        let Bind::Listeners(ip) = self.bind else {
            if let (Some((door, _)), Some(port)) = (doors.remove(&ONE), self.open.get(&ONE)) {
                port.door.store(Arc::new(door));
            }
            if let Some((accepting, stop)) = self.waiting.take() {
                self.accept(accepting, stop);
            }
            return unserved;
        };
        self.open.retain(|port, _| doors.contains_key(port));
        for (number, (door, gateways)) in doors {
            if let Some(port) = self.open.get(&number) {
                port.door.store(Arc::new(door));
                continue;
            }
            match open(SocketAddr::new(ip, number), door) {
                Ok((port, accepting)) => {
                    tracing::info!(address = %port.address, "listening");
                    self.accept(accepting, port.stop.clone());
                    self.open.insert(number, port);
                }
                Err(error) => unserved.extend(gateways.into_iter().map(|gateway| {
                    let reason = format!("cannot listen on port {number}: {error}");
                    Unserved { gateway, reason }
                })),
            }
        }
        unserved
    }

    fn accept(&self, accepting: listener::Accepting, stop: CancellationToken) {
        self.tasks.spawn(listener::serve(accepting, self.serving.clone(), stop, self.grace.clone()));
    }

    /// Closes all, for good. The tracker is empty once nothing is in flight any more.
    pub fn close(&mut self) -> TaskTracker {
        self.open.clear();
        self.tasks.close();
        self.tasks.clone()
    }
}

fn open(address: SocketAddr, door: Door) -> std::io::Result<(Port, listener::Accepting)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port is free again at once, though connections of before may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let socket = Arc::new(socket.listen(BACKLOG)?);
    let door = Arc::new(ArcSwap::from_pointee(door));
    let accepting = listener::Accepting { socket: Arc::downgrade(&socket), door: Arc::clone(&door) };
    let (address, stop) = (socket.local_addr()?, CancellationToken::new());
    Ok((Port { address, door, stop, _socket: socket }, accepting))
}

type Doors = BTreeMap<u16, (Door, Vec<GatewayId>)>;

/// What the routes to one port have in common.
struct Behind {
    kind: Kind,
    names: Names,
    gateways: Vec<GatewayId>,
    /// Whose each host and path is.
    places: HashMap<(Option<String>, String), GatewayId>,
}

impl Behind {
    fn new(kind: Kind) -> Self {
        Self { kind, names: Names::default(), gateways: Vec::new(), places: HashMap::new() }
    }

    /// Takes a route, or says why it cannot be.
    fn add(&mut self, Route { listener, security, gateway }: &Route, port: &str) -> Result<(), String> {
        let Listener { name, hostname, path, .. } = listener;
        if self.kind != security.kind() {
            let first = self.gateways.first().map(ToString::to_string).unwrap_or_default();
            return Err(format!(
                "listener {name} is not served: it wants another kind of TLS on {port} than {first} does"
            ));
        }
        let place = (hostname.clone(), path.clone());
        let owner = self.places.entry(place).or_insert_with(|| gateway.id.clone());
        if *owner != gateway.id {
            return Err(format!("listener {name} is not served: {owner} has the path {path} on {port}"));
        }
        if let Security::Secret(certificate) = security {
            self.names.add(hostname.as_deref(), certificate);
        }
        if !self.gateways.contains(&gateway.id) {
            self.gateways.push(gateway.id.clone());
        }
        Ok(())
    }
}

/// What stands behind each port, and for whom.
fn doors(routes: &Routes, bind: Bind) -> (Doors, Vec<Unserved>) {
    let number = |listener: &Listener| match bind {
        Bind::One(_) => ONE,
        Bind::Listeners(_) => listener.port,
    };
    let said = |port: u16| if port == ONE { "the one address".to_owned() } else { format!("port {port}") };
    let mut ports: BTreeMap<u16, Behind> = BTreeMap::new();
    let mut unserved = Vec::new();
    for route in routes.iter() {
        let port = number(&route.listener);
        let behind = ports.entry(port).or_insert_with(|| Behind::new(route.security.kind()));
        if let Err(reason) = behind.add(route, &said(port)) {
            unserved.push(Unserved { gateway: route.gateway.id.clone(), reason });
        }
    }
    let mut doors = Doors::new();
    for (port, Behind { kind, names, gateways, .. }) in ports {
        let entrance = match kind {
            Kind::Plain => Entrance::Plain,
            Kind::Mesh => Entrance::Mesh,
            Kind::Tls => match names.config() {
                Ok(config) => Entrance::Tls(config),
                Err(error) => {
                    let reason = format!("TLS cannot be set up on {}: {error}", said(port));
                    unserved.extend(
                        gateways.into_iter().map(|gateway| Unserved { gateway, reason: reason.clone() }),
                    );
                    continue;
                }
            },
        };
        doors.insert(port, (Door { port: (port != ONE).then_some(port), entrance }, gateways));
    }
    (doors, unserved)
}
