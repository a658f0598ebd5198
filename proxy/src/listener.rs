//! Accepts connections and serves HTTP/1 and HTTP/2 on them within bounds, until it drains.

mod lengths;
mod prompt;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown, Watcher};
use mcpmesh_ir::FleetId;
use mcpmesh_ir::gateway::ListenerTls;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use self::lengths::Ambiguous;
use self::prompt::Prompt;
use crate::access_log::AccessLog;
use crate::certificate::Kind;
use crate::gateway::Incoming;
use crate::http::{self as web, Answer};
use crate::identity::Arrival;
use crate::mcp::era::Era;
use crate::mcp::fault::Fault;
use crate::mesh::{Mesh, fleet_of};
use crate::metrics::Shared;
use crate::readiness::Readiness;
use crate::routes::Routes;
use crate::workers::Workers;

/// Bytes that a request's head may have: more is 431.
const HEAD: usize = 16 * 1024;
/// For a request's head to arrive.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For a client to take some of what is sent to it: a stalled one must not hold buffers for ever.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// HTTP/2 requests at once on one connection.
const STREAMS: u32 = 256;
/// For a TLS handshake, the wait for its turn included.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// TLS handshakes of the process at once.
pub(crate) const HANDSHAKES: usize = 512;

/// What connections are served with.
#[derive(Clone)]
pub struct Serving {
    /// The ways in, replaced when configurations change.
    pub routes: Arc<ArcSwap<Routes>>,
    /// Where panics are counted.
    pub metrics: Shared,
    /// Where refusals are written down.
    pub log: AccessLog,
    /// Requests that may be on their way to an answer at once: the next one is told to come again.
    pub admission: Arc<Semaphore>,
    /// TLS handshakes at once: the next one waits.
    pub handshakes: Arc<Semaphore>,
    /// The certificate for connections of the mesh.
    pub mesh: Mesh,
    /// Whether the process ends.
    pub readiness: Arc<Readiness>,
    /// Where connections are served.
    pub workers: Workers,
}

/// What a new connection finds.
pub struct Door {
    /// The listeners' port; none: one address stands for all of them.
    pub port: Option<u16>,
    /// What it must do first.
    pub entrance: Entrance,
}

/// What a connection must do before it may ask.
pub enum Entrance {
    /// Nothing.
    Plain,
    /// A TLS handshake.
    Tls(Arc<ServerConfig>),
    /// A TLS handshake with a certificate of the mesh.
    Mesh,
}

impl Entrance {
    fn kind(&self) -> Kind {
        match self {
            Self::Plain => Kind::Plain,
            Self::Tls(_) => Kind::Tls,
            Self::Mesh => Kind::Mesh,
        }
    }
}

/// A socket that somebody else holds open, and what stands behind it.
pub struct Accepting {
    /// Gone: it is closed.
    pub socket: Weak<TcpListener>,
    /// For the connections that are accepted from now on.
    pub door: Arc<ArcSwap<Door>>,
}

impl Accepting {
    /// The next connection; none once the socket is closed.
    async fn next(&self) -> Option<std::io::Result<TcpStream>> {
        std::future::poll_fn(|cx| match self.socket.upgrade() {
            Some(socket) => socket.poll_accept(cx).map(|accepted| Some(accepted.map(|(stream, _)| stream))),
            None => std::task::Poll::Ready(None),
        })
        .await
    }
}

/// How a connection came in.
#[derive(Clone)]
pub struct Way {
    /// Our own address on it.
    pub local: IpAddr,
    /// [`Door::port`]
    pub port: Option<u16>,
    /// What it did at the door.
    pub kind: Kind,
    /// The proxy that its certificate names.
    pub peer: Option<FleetId>,
}

/// Accepts until `stop`, then lets what is in flight finish for at most `grace`, as it is then.
pub async fn serve(
    accepting: Accepting,
    serving: Serving,
    stop: CancellationToken,
    grace: watch::Receiver<Duration>,
) {
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    loop {
        let accepted = tokio::select! {
            accepted = accepting.next() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Some(Ok(stream)) => {
                let (door, builder) = (accepting.door.load_full(), Arc::clone(&builder));
                let (watcher, stop, inside) = (graceful.watcher(), stop.clone(), serving.clone());
                let served = serving.workers.serve(stream, move |stream| async move {
                    if let Err(error) = welcome(stream, &door, (&builder, watcher), inside, stop).await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
                if let Err(error) = served {
                    tracing::warn!(%error, "cannot serve a connection");
                }
            }
            Some(Err(error)) => {
                // Out of file descriptors, most likely: waiting is all that helps.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None => break,
        }
    }
    drop(accepting);
    let grace = *grace.borrow();
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in flight when the time to drain was over");
    }
}

/// Lets a connection through its door and serves it to its end.
async fn welcome(
    stream: TcpStream,
    door: &Door,
    (builder, watcher): (&Builder<TokioExecutor>, Watcher),
    serving: Serving,
    stop: CancellationToken,
) -> Result<(), web::BodyError> {
    let local = stream.local_addr()?.ip();
    // Answers are written whole: waiting to fill a segment only delays them.
    stream.set_nodelay(true)?;
    let stream = patient(stream);
    let way = Way { local, port: door.port, kind: door.entrance.kind(), peer: None };
    let config = match &door.entrance {
        Entrance::Plain => return watcher.watch(connection(builder, stream, way, serving)).await,
        Entrance::Tls(config) => Arc::clone(config),
        Entrance::Mesh => serving.mesh.server().ok_or("there is no certificate of the mesh yet")?,
    };
    let stream = tokio::select! {
        shaken = shake(config, &serving.handshakes, stream) => shaken?,
        () = stop.cancelled() => return Ok(()),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let way = Way { peer: shown.and_then(fleet_of), ..way };
    watcher.watch(connection(builder, stream, way, serving)).await
}

/// A stream whose other end must take what is written to it, some of it at a time.
fn patient<S: AsyncRead + AsyncWrite>(stream: S) -> Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    Box::pin(stream)
}

/// A TLS handshake, in its turn.
async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    turns: &Semaphore,
    stream: S,
) -> Result<TlsStream<S>, web::BodyError> {
    let handshake = async {
        let _turn = turns.acquire().await.map_err(std::io::Error::other)?;
        TlsAcceptor::from(config).accept(stream).await
    };
    let shaken = tokio::time::timeout(HANDSHAKE_TIME, handshake).await;
    Ok(shaken.map_err(|_| "the TLS handshake took too long")??)
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .max_headers(100)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval(Duration::from_secs(30));
    builder
}

fn connection<S>(
    builder: &Builder<TokioExecutor>,
    stream: S,
    way: Way,
    serving: Serving,
) -> impl GracefulConnection<Output = Result<(), web::BodyError>> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let way = Arc::new(way);
    let (stream, lengths) = lengths::watched(Prompt::new(stream, HEAD_TIME));
    let service = service_fn(move |request: Request<Body>| {
        let ambiguous = lengths.ambiguous(request.version(), request.headers());
        let (serving, way, version) = (serving.clone(), Arc::clone(&way), request.version());
        // Boxed: an idle connection has no room for a request, and nobody moves it about.
        Box::pin(async move {
            let answer = match ambiguous {
                Some(why) => refused_length(&serving, why),
                None => answered(&serving, request, &way).await,
            };
            Ok::<_, Infallible>(if serving.readiness.is_leaving() { last(answer, version) } else { answer })
        })
    });
    builder.serve_connection(TokioIo::new(stream), service).into_owned()
}

/// Refuses a request that two parsers would end at different bytes, and all that follows it.
fn refused_length(serving: &Serving, why: Ambiguous) -> Answer {
    let mut answer = web::refuse(StatusCode::BAD_REQUEST, why.message());
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    serving.log.refused(None, "", why.reason(), &answer);
    answer
}

/// An HTTP/1 client is told to come again over another connection, which leads elsewhere by then: to close an idle
/// one later could cross its next request. HTTP/2 has GOAWAY for that.
fn last(mut answer: Answer, version: Version) -> Answer {
    if version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// Answers a request, and reads what it has not read of it.
async fn answered(serving: &Serving, request: Request<Body>, way: &Way) -> Answer {
    let (parts, mut body) = request.into_parts();
    let expects = parts.headers.contains_key(EXPECT);
    let answer = match serving.admission.try_acquire() {
        Ok(_admitted) => guarded(serving, parts, &mut body, way).await,
        Err(_) => {
            let message = "too many requests are being answered".into();
            let fault = Fault::Unavailable { message, retry_after: Some(Duration::from_secs(1)) };
            let answer = web::fault(&fault, Era::Modern, None);
            serving.log.refused(None, "", "overloaded", &answer);
            answer
        }
    };
    // Its place is another's by now. Who waits for a word before it sends the rest gets this one.
    if !expects {
        web::discard(body).await;
    }
    answer
}

/// A panic ends its own request and nothing else.
async fn guarded(serving: &Serving, parts: Parts, body: &mut Body, way: &Way) -> Answer {
    match AssertUnwindSafe(route(serving, parts, body, way)).catch_unwind().await {
        Ok(answer) => answer,
        Err(_) => {
            serving.metrics.panics.inc();
            tracing::error!("a request ended in a panic");
            web::fault(&Fault::Internal, Era::Modern, None)
        }
    }
}

async fn route(serving: &Serving, parts: Parts, body: &mut Body, way: &Way) -> Answer {
    let host = web::host(&parts.headers, &parts.uri);
    let routes = serving.routes.load();
    let Some(route) = routes.find(way, parts.uri.path(), host).cloned() else {
        let answer = web::refuse(StatusCode::NOT_FOUND, "nothing is served at this path");
        serving.log.refused(None, "", "unknown_path", &answer);
        return answer;
    };
    drop(routes);
    if let Err((reason, answer)) =
        web::check_origin(&parts.headers, host.unwrap_or_default(), &route.listener, way.local)
    {
        serving.log.refused(Some(&route.gateway.label), "", reason, &answer);
        return answer;
    }
    let arrival = match route.listener.tls {
        // A listener of the mesh is for peers alone, even where one plain address stands for all listeners.
        Some(ListenerTls::Mesh {}) => Arrival::Mesh(way.peer.clone()),
        Some(ListenerTls::Secret(_)) | None => Arrival::Open,
    };
    route.gateway.handle(Incoming { verb: parts.method, headers: parts.headers, arrival, body }).await
}
