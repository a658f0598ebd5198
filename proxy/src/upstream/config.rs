//! What an upstream is started with. Secrets are header values marked sensitive: they never show
//! in `Debug` output.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{HeaderName, HeaderValue};
use mcpmesh_ir::{EgressRule, ServerId};
use rustls::RootCertStore;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;

use super::service::Addresses;
use crate::mesh::Mesh;

/// One server, as attached.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server's stable name.
    pub id: ServerId,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Sent with each HTTP request; mark secrets with `HeaderValue::set_sensitive`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Deadlines of each call.
    pub timeouts: Timeouts,
    /// Most bytes that one answer may have.
    pub max_response_bytes: usize,
    /// Most calls at once; as many may wait.
    pub max_in_flight: usize,
    /// Where connections may lead.
    pub egress: EgressRule,
    /// Who may vouch for `https` servers; none: the system's roots (`SSL_CERT_FILE`, `SSL_CERT_DIR`).
    pub roots: Option<Arc<RootCertStore>>,
    /// Lists are read again after about this time (jittered), besides change notifications.
    pub poll: Duration,
}

impl Config {
    /// A configuration with the defaults of everything but the name and the place.
    #[must_use]
    pub fn new(id: ServerId, endpoint: Endpoint) -> Self {
        Self {
            id,
            endpoint,
            headers: Vec::new(),
            timeouts: Timeouts::default(),
            max_response_bytes: 64 << 20,
            max_in_flight: 256,
            egress: EgressRule::default(),
            roots: None,
            poll: Duration::from_secs(60),
        }
    }
}

/// Where a server is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// At a URL.
    Remote {
        /// `http` or `https`.
        url: Url,
        /// How to speak to it.
        transport: Transport,
    },
    /// At any of the addresses of a Service.
    Service {
        /// Those that are ready.
        addresses: Addresses,
        /// What requests name.
        url: Url,
        /// How to speak to it.
        transport: Transport,
        /// The server of the mesh whose sidecars they are: mutual TLS, and each request says for whom it is.
        mesh: Option<ServerId>,
    },
    /// Started or found by [`Connector`].
    Workload,
}

/// How to speak to a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Find out.
    #[default]
    Auto,
    /// Streamable HTTP (2025-03-26 and later).
    StreamableHttp,
    /// HTTP+SSE (2024-11-05).
    Sse,
}

/// Deadlines of a call.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until there is a connection, a process, a place in the queue.
    pub connect: Duration,
    /// Until the first byte of an answer.
    pub first_byte: Duration,
    /// Until the end of an answer.
    pub total: Duration,
}

impl Timeouts {
    /// How long a process may take to say its first word: the first start of a package installs it.
    pub(crate) fn start(&self) -> Duration {
        self.first_byte.max(Duration::from_secs(300))
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(300),
            total: Duration::from_secs(600),
        }
    }
}

/// What the surroundings bring.
#[derive(Clone, Default)]
pub struct Deps {
    /// Reaches workloads; absent where nothing may start processes.
    pub connector: Option<Arc<dyn Connector>>,
    /// The certificate for servers of the mesh.
    pub mesh: Mesh,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("connector", &self.connector.is_some()).finish()
    }
}

/// Starts or finds workloads. Only `mcpmesh up` and `mcpmesh-proxy bridge` have one.
pub trait Connector: Send + Sync {
    /// A new process or address of this server.
    fn connect(&self, server: &ServerId) -> BoxFuture<'static, Result<Connected, ConnectError>>;
}

/// Something that ends what was connected when it is dropped (a process group, a lease).
pub type Guard = Box<dyn Send + Sync>;

/// A workload that is there.
pub enum Connected {
    /// A process that speaks lines of JSON.
    Stdio {
        /// Its standard input.
        stdin: Box<dyn AsyncWrite + Send + Unpin>,
        /// Its standard output.
        stdout: Box<dyn AsyncRead + Send + Unpin>,
        /// Ends the process group when dropped.
        guard: Guard,
        /// Resolves once the process is gone, which may be a while after `guard` was dropped.
        ended: BoxFuture<'static, ()>,
    },
    /// A port that speaks HTTP.
    Http {
        /// Its URL.
        url: Url,
        /// Ends the workload when dropped.
        guard: Guard,
    },
}

/// A workload that could not be reached.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(pub String);
