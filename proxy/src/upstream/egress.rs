//! Connections that lead only where the rule allows: judged on the address that the name resolved to, so that DNS cannot
//! change its answer after the check (decisions.md 22).

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use mcpmesh_ir::EgressRule;
use tower_service::Service;

/// The address is outside of what the rule allows. The message names no address, so that an error
/// body tells nobody what a name resolves to inside.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the address is not allowed by the egress rule")]
pub(crate) struct Forbidden;

pub(super) fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Forbidden)
}

/// Resolves names for a port, and keeps the addresses that the rule allows.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    rule: Arc<EgressRule>,
    port: u16,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (rule, port) = (Arc::clone(&self.rule), self.port);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|&one| rule.allows(one)).collect();
            if allowed.is_empty() { Err(refused()) } else { Ok(allowed.into_iter()) }
        })
    }
}

/// A TCP connector under the rule: the resolver sees names, this sees addresses in the URL itself.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    rule: Arc<EgressRule>,
    connect: Duration,
}

impl Guarded {
    pub(crate) fn new(rule: EgressRule, connect: Duration) -> Self {
        Self { rule: Arc::new(rule), connect }
    }

    /// Each connection has a connector of its own: a resolver is told names only, and the rule knows ports.
    fn tcp(&self, port: u16) -> HttpConnector<Resolver> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver { rule: Arc::clone(&self.rule), port });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(self.connect));
        tcp
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Guarded {
    type Response = <HttpConnector<Resolver> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        // As the connector takes it.
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
        let literal = host.parse::<IpAddr>().map(|address| SocketAddr::new(address, port));
        if literal.is_ok_and(|at| !self.rule.allows(at)) {
            return Box::pin(std::future::ready(Err(refused().into())));
        }
        let connecting = self.tcp(port).call(uri);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What connecting to a URL comes to: nothing, or what is said of it.
    async fn connect(rule: EgressRule, url: &str) -> Result<(), String> {
        let mut guarded = Guarded::new(rule, Duration::from_secs(5));
        guarded.call(url.parse().unwrap()).await.map(drop).map_err(|error| format!("{error:?}"))
    }

    #[tokio::test]
    async fn the_check_is_on_the_resolved_address_and_on_literals() {
        let urls = "http://localhost:9/ http://127.0.0.1:9/ http://[::1]:9/ http://127.1:9/ http://0x7f.1:9/";
        for url in urls.split_whitespace() {
            let text = connect(EgressRule::default(), url).await.unwrap_err();
            assert!(text.contains("Forbidden") || text.contains("dns"), "{url}: {text}");
        }
    }

    #[tokio::test]
    async fn an_excluded_address_is_refused_by_name_and_by_number_and_the_next_port_is_not() {
        let (one, other) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let (excluded, open) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        let rule = EgressRule::new(&["127.0.0.0/8".parse().unwrap()], [excluded]);
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            let text =
                connect(rule.clone(), &format!("https://{host}:{}/", excluded.port())).await.unwrap_err();
            assert!(text.contains("Forbidden"), "{host}: {text}");
            let allowed = connect(rule.clone(), &format!("https://{host}:{}/", open.port())).await;
            assert_eq!(allowed, Ok(()), "{host}");
        }
    }

    #[tokio::test]
    async fn a_url_without_a_port_is_judged_at_its_schemes() {
        for (scheme, port) in [("http", 80), ("https", 443)] {
            let excluded = SocketAddr::from(([127, 0, 0, 1], port));
            let rule = EgressRule::new(&["127.0.0.0/8".parse().unwrap()], [excluded]);
            for host in ["localhost", "127.0.0.1"] {
                let text = connect(rule.clone(), &format!("{scheme}://{host}/")).await.unwrap_err();
                assert!(text.contains("Forbidden"), "{scheme}://{host}: {text}");
            }
        }
    }
}
