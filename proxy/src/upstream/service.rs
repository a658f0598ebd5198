//! The addresses of one Service: requests are spread over them, a dead one is left for the others, and a session
//! stays at the one that opened it. The set can be replaced at any time; what stays in it keeps its connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy;
use hyper_util::rt::TokioIo;
use mcpmesh_ir::{EgressRule, FleetId, ServerId};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::clients::Clients;
use super::egress::refused;
use crate::identity::assertion;
use crate::mesh::Mesh;

/// A connection that many calls share is asked this often whether it lives: pods vanish without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Those that are ready. Clones are the same set.
#[derive(Debug, Clone)]
pub struct Addresses(Arc<watch::Sender<Vec<SocketAddr>>>);

impl Addresses {
    /// A first set.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self(Arc::new(watch::Sender::new(addresses)))
    }

    /// Replaces the set.
    pub fn replace(&self, addresses: &[SocketAddr]) {
        self.0.send_if_modified(|current| {
            let news = current.as_slice() != addresses;
            if news {
                *current = addresses.to_vec();
            }
            news
        });
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.0.subscribe()
    }
}

/// A Service as one upstream reaches it.
pub(crate) struct Service {
    addresses: Addresses,
    connect: Duration,
    mesh: Option<(Mesh, ServerId)>,
    places: Mutex<Vec<Arc<Place>>>,
    turn: AtomicUsize,
}

impl Service {
    pub(crate) fn new(addresses: Addresses, connect: Duration, mesh: Option<(Mesh, ServerId)>) -> Arc<Self> {
        Arc::new(Self { addresses, connect, mesh, places: Mutex::default(), turn: AtomicUsize::new(0) })
    }

    /// All, in the order in which they are to be tried: the least busy first, and in turn among equals.
    pub(crate) fn places(&self) -> Vec<Arc<Place>> {
        let mut known = self.places.lock();
        let wanted = self.addresses.0.borrow().clone();
        if !known.iter().map(|place| place.dial.address).eq(wanted.iter().copied()) {
            let old = std::mem::take(&mut *known);
            let kept =
                |address: &SocketAddr| old.iter().find(|place| place.dial.address == *address).cloned();
            *known = wanted.iter().map(|one| kept(one).unwrap_or_else(|| self.place(*one))).collect();
        }
        let mut places = known.clone();
        drop(known);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(places.len()).unwrap_or(0);
        places.rotate_left(turn);
        places.sort_by_key(|place| place.pending.load(Ordering::Relaxed));
        places
    }

    fn place(&self, address: SocketAddr) -> Arc<Place> {
        let dial = Dial { address, connect: self.connect, mesh: self.mesh.clone() };
        let clients = Clients::new(dial.clone(), |builder| {
            builder.http2_keep_alive_interval(KEEP_ALIVE);
        });
        Arc::new(Place { dial, clients, pending: AtomicUsize::new(0) })
    }
}

/// One address with its connections.
pub(crate) struct Place {
    dial: Dial,
    clients: Clients<Dial>,
    /// Requests whose answers have not begun.
    pending: AtomicUsize,
}

impl Place {
    pub(crate) async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let _pending = Pending::of(&self.pending);
        self.clients.request(request).await
    }

    /// What we say of ourselves when we ask for nobody.
    pub(crate) fn observer(&self) -> Option<HeaderValue> {
        match self.dial.mesh.as_ref()?.0.id()? {
            FleetId::Gateway(gateway) => assertion::of_observer(gateway),
            FleetId::Server(_) => None,
        }
    }
}

struct Pending<'a>(&'a AtomicUsize);

impl<'a> Pending<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects to one address, whatever the URL says.
#[derive(Clone)]
pub(crate) struct Dial {
    address: SocketAddr,
    connect: Duration,
    mesh: Option<(Mesh, ServerId)>,
}

type Line = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Dial {
    async fn line(self) -> io::Result<Line> {
        // What made the addresses is not ours: none may lead to the cloud's metadata.
        if !EgressRule::private().allows(self.address) {
            return Err(refused());
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        let Some((mesh, server)) = self.mesh else { return Ok(MaybeHttpsStream::Http(stream)) };
        let config = mesh.client(&FleetId::Server(server)).map_err(io::Error::other)?;
        let config = config.ok_or_else(|| io::Error::other("there is no certificate of the mesh yet"))?;
        // The name is not sent and not looked at: the certificate's URI counts.
        let name = ServerName::IpAddress(self.address.ip().into());
        let tls = TlsConnector::from(Arc::new(config)).connect(name, TokioIo::new(stream)).await?;
        Ok(MaybeHttpsStream::Https(TokioIo::new(tls)))
    }
}

impl tower_service::Service<Uri> for Dial {
    type Response = Line;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Line>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (dial, patience) = (self.clone(), self.connect);
        Box::pin(async move {
            let connecting = tokio::time::timeout(patience, dial.line()).await;
            connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}
