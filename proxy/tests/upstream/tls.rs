//! TLS towards upstreams over real handshakes: who is believed, and which HTTP is agreed on.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use mcpmesh_ir::ServerId;
use mcpmesh_proxy::mcp::era::Era;
use mcpmesh_proxy::upstream::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fake::{Seen, call, modern, observe, ready, send};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    Arc::new(roots)
}

fn named(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// A modern server behind this certificate.
struct Server {
    port: u16,
    versions: Arc<Mutex<Vec<Version>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(authority: &Authority, params: CertificateParams, alpn: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let versions = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&versions);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        log.lock().unwrap().push(request.version());
                        answer(request)
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, versions, task }
    }

    fn upstream(&self, roots: Option<Arc<RootCertStore>>) -> Arc<Upstream> {
        let url = format!("https://localhost:{}/mcp", self.port).parse().unwrap();
        let endpoint = Endpoint::Remote { url, transport: Transport::StreamableHttp };
        let mut config = Config::new(ServerId::new("ns", "tls"), endpoint);
        config.egress = mcpmesh_ir::EgressRule::private();
        config.roots = roots;
        Upstream::start(config, Deps::default())
    }

    /// Why nothing was said to the server.
    async fn refusal(&self, roots: Option<Arc<RootCertStore>>) -> String {
        let upstream = self.upstream(roots);
        let seen = observe(&upstream, |one| matches!(one.state, State::Failed { .. })).await;
        assert!(self.versions.lock().unwrap().is_empty(), "a request was sent");
        let State::Failed { reason, .. } = seen.state.clone() else { unreachable!() };
        reason
    }
}

async fn answer(request: Request<Incoming>) -> Result<super::fake::Answer, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(modern(&Seen { verb: head.method, path: head.uri.path().to_owned(), headers: head.headers, body }))
}

#[tokio::test]
async fn a_server_that_a_trusted_root_vouches_for_is_called_over_http_2_where_it_speaks_that() {
    let authority = authority("known");
    for (alpn, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let server = Server::start(&authority, named("localhost"), alpn).await;
        let upstream = server.upstream(Some(roots(&authority)));
        ready(&upstream).await;
        assert!(send(&upstream, call(Era::Modern)).await.unwrap()["result"].is_object());
        assert!(server.versions.lock().unwrap().iter().all(|one| *one == version), "{alpn:?}");
    }
}

#[tokio::test]
async fn nobody_else_is_believed_and_the_reason_is_told() {
    let (known, other) = (authority("known"), authority("other"));
    let server = Server::start(&other, named("localhost"), &["h2"]).await;
    for roots in [Some(roots(&known)), None] {
        let reason = server.refusal(roots).await;
        assert!(reason.contains("invalid peer certificate: UnknownIssuer"), "{reason}");
    }
    let server = Server::start(&known, named("other.example"), &["h2"]).await;
    let reason = server.refusal(Some(roots(&known))).await;
    assert!(reason.contains("certificate not valid for name \"localhost\""), "{reason}");
    let mut expired = named("localhost");
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let server = Server::start(&known, expired, &["h2"]).await;
    let reason = server.refusal(Some(roots(&known))).await;
    assert!(reason.contains("certificate expired"), "{reason}");
}
