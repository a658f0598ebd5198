//! The conformance suite's fixture server on crates.io rmcp: plays `fixtures/catalogue.json`, in both eras.
//!
//! `fixture-rmcp [--port N] [--address IP] | --stdio` prints the URL that it serves on stdout once it listens.

mod ask;
mod catalogue;
mod play;
mod server;
mod tasks;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rmcp::ServiceExt as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::server::Server;

type Service = StreamableHttpService<Server, LocalSessionManager>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let server = Server::new()?;
    if words.iter().any(|word| word == "--stdio") {
        server.serve(rmcp::transport::stdio()).await?.waiting().await?;
        return Ok(());
    }
    let address = option(&words, "--address")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let port = option(&words, "--port")?.unwrap_or_default();
    serve(server, SocketAddr::new(address, port)).await
}

/// The word after this one, if it is there.
fn option<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    words: &[String],
    name: &str,
) -> anyhow::Result<Option<T>> {
    let Some(at) = words.iter().position(|word| word == name) else { return Ok(None) };
    let word = words.get(at + 1).with_context(|| format!("{name} needs a value"))?;
    Ok(Some(word.parse().with_context(|| format!("{name} {word}"))?))
}

async fn serve(server: Server, address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    writeln!(std::io::stdout(), "http://{}/mcp", listener.local_addr()?)?;
    let sessions = Arc::new(LocalSessionManager::default());
    let config = StreamableHttpServerConfig::default();
    // Whom others than this machine reach, they reach by names that rmcp does not expect.
    let config = if address.ip().is_loopback() { config } else { config.disable_allowed_hosts() };
    let service: Service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    // The first process of a container ends only when it asks to be told.
    let mut end = signal(SignalKind::terminate())?;
    loop {
        let (connection, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = end.recv() => return Ok(()),
        };
        connection.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(service.clone(), request));
            if let Err(error) =
                Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), answer).await
            {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn answer(
    service: Service,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.uri().path() == "/mcp" {
        return Ok(service.handle(request).await);
    }
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::NOT_FOUND;
    Ok(response)
}
