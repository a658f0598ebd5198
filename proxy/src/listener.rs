//! Accepts connections and serves HTTP/1 and HTTP/2 on them within bounds, until it drains.

mod lengths;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use self::lengths::Watched;
use crate::gateway::Incoming;
use crate::http::{self as web, Answer};
use crate::mcp::era::Era;
use crate::mcp::fault::Fault;
use crate::metrics::Shared;
use crate::routes::Routes;

/// Bytes that a request's head may have: more is 431.
const HEAD: usize = 16 * 1024;
/// For a request's head to arrive.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// For a client to take some of what is sent to it: a stalled one must not hold buffers for ever.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// HTTP/2 requests at once on one connection.
const STREAMS: u32 = 256;

/// What connections are served with.
#[derive(Clone)]
pub struct Serving {
    /// The ways in, replaced when configurations change.
    pub routes: Arc<ArcSwap<Routes>>,
    /// Where panics are counted.
    pub metrics: Shared,
    /// Requests that may be on their way to an answer at once: the next one is told to come again.
    pub admission: Arc<Semaphore>,
}

/// Accepts until `stop`, then lets what is in flight finish for at most `grace`, as it is then.
pub async fn serve(
    listener: TcpListener,
    serving: Serving,
    stop: CancellationToken,
    grace: watch::Receiver<Duration>,
) {
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(local) = stream.local_addr() else { continue };
                let connection = connection(&builder, stream, local, &serving);
                let watched = graceful.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = watched.await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: waiting is all that helps.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let grace = *grace.borrow();
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in flight when the time to drain was over");
    }
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

fn connection(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    local: SocketAddr,
    serving: &Serving,
) -> impl GracefulConnection<Error = web::BodyError> + Send + use<> {
    // Answers are written whole: waiting to fill a segment only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    let (stream, lengths) = Watched::new(Box::pin(stream));
    let serving = serving.clone();
    let service = service_fn(move |request: Request<Body>| {
        let contradiction = lengths.contradict(request.version(), request.headers());
        let serving = serving.clone();
        async move {
            Ok::<_, Infallible>(match contradiction {
                true => two_lengths(),
                false => guarded(&serving, request, local.ip()).await,
            })
        }
    });
    builder.serve_connection(TokioIo::new(stream), service).into_owned()
}

/// Refuses a request that two parsers would end at different bytes, and all that follows it.
fn two_lengths() -> Answer {
    let message = "Content-Length and Transfer-Encoding in one request";
    let mut answer = web::refuse(StatusCode::BAD_REQUEST, message);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// A panic ends its own request and nothing else.
async fn guarded(serving: &Serving, request: Request<Body>, local: IpAddr) -> Answer {
    let Ok(_admitted) = serving.admission.try_acquire() else {
        let message = "too many requests are being answered".into();
        let fault = Fault::Unavailable { message, retry_after: Some(Duration::from_secs(1)) };
        return web::fault(&fault, Era::Modern, None);
    };
    match AssertUnwindSafe(route(serving, request, local)).catch_unwind().await {
        Ok(answer) => answer,
        Err(_) => {
            serving.metrics.panics.inc();
            tracing::error!("a request ended in a panic");
            web::fault(&Fault::Internal, Era::Modern, None)
        }
    }
}

async fn route(serving: &Serving, request: Request<Body>, local: IpAddr) -> Answer {
    let (parts, body) = request.into_parts();
    let host = web::host(&parts.headers, &parts.uri);
    let routes = serving.routes.load();
    let Some(route) = routes.find(parts.uri.path(), host).cloned() else {
        return web::refuse(StatusCode::NOT_FOUND, "nothing is served at this path");
    };
    drop(routes);
    if let Err(answer) = web::check_origin(&parts.headers, &parts.uri, &route.listener, local) {
        return answer;
    }
    route.gateway.handle(Incoming { verb: parts.method, headers: parts.headers, body }).await
}
