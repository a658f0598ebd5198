//! Certificates, listeners and clients for tests that need more than one plain address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use mcpmesh_ir::{FleetId, Gateway, Resource, ResourceKind, Snapshot};
use mcpmesh_proxy::mesh::Mesh;
use mcpmesh_proxy::upstream::tls::provider;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::harness::{Answered, soon, whole};

/// An address of this test alone: ports are numbers in a configuration, so each test needs all of them.
pub(crate) fn own_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

pub(crate) struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn mesh(&self, id: &FleetId) -> Mesh {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = vec![SanType::URI(id.uri().as_str().try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem();
        let mesh = Mesh::default();
        mesh.install(&chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into(), &self.0.pem()).unwrap();
        mesh
    }

    /// `tls.crt` and `tls.key` for a host.
    pub(crate) fn pair(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.0.der().to_vec())).unwrap();
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// The snapshot with another Gateway, and with more resources.
pub(crate) fn changed(
    mut snapshot: Snapshot,
    change: impl FnOnce(&mut Gateway),
    more: Vec<Resource>,
) -> Snapshot {
    for resource in &mut snapshot.resources {
        if resource.kind == ResourceKind::Gateway {
            let mut gateway: Gateway = resource.decode().unwrap();
            change(&mut gateway);
            *resource = Resource::new(resource.name.clone(), &gateway).unwrap();
            break;
        }
    }
    snapshot.resources.extend(more);
    Snapshot::new(snapshot.gateway, snapshot.resources)
}

/// One request on a TLS connection of its own, and the certificate that the server showed.
pub(crate) async fn ask_tls(
    address: SocketAddr,
    config: ClientConfig,
    host: &str,
    request: Request<Full<Bytes>>,
) -> std::io::Result<(Answered, CertificateDer<'static>)> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = soon("a handshake", connecting).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    let response = soon("an answer", sender.send_request(request)).await.map_err(std::io::Error::other)?;
    Ok((whole(response).await, shown))
}

/// A request of a modern client.
pub(crate) fn discover(host: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let meta = serde_json::json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}});
    let mut request = Request::post("/mcp")
        .header("host", host)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "server/discover");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body.to_string()))).unwrap()
}
