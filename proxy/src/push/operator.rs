//! The line to the operator: TLS 1.3 that trusts the mesh's roots alone, and the pod's token.
//!
//! Both files are read anew on every connection, since Kubernetes replaces them while we run.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

use self::client::push_client::PushClient;
use crate::upstream::tls::provider;

/// Written by the build script.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod client {
    include!(concat!(env!("OUT_DIR"), "/mcpmesh.push.v1.Push.rs"));
}

/// For the connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Between signs of life of a quiet connection.
const ALIVE: Duration = Duration::from_secs(20);
/// Most bytes of one message: a fleet's whole configuration is one.
const LARGEST: usize = 256 << 20;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not `HOST:PORT`.
    #[error("{0:?} is not HOST:PORT")]
    Address(String),
    /// A file of the identity folder.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No certificate in it, or no token.
    #[error("{0} holds nothing that can be used")]
    Content(String),
    /// Not reached, or not believed.
    #[error("no connection to the operator")]
    Connect(#[source] tonic::transport::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Where the operator is and how we prove ourselves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    address: Authority,
    name: ServerName<'static>,
    identity: PathBuf,
}

/// A connection and what every request on it carries.
pub(super) struct Line {
    client: PushClient<Channel>,
    token: MetadataValue<Ascii>,
}

impl Operator {
    /// The operator at `HOST:PORT`; HOST is also the name that its certificate must have. `identity` holds `ca.crt` and
    /// `token`.
    pub fn new(address: &str, identity: PathBuf) -> Result<Self, Error> {
        let invalid = || Error::Address(address.to_owned());
        let parsed: Authority = address.parse().map_err(|_| invalid())?;
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| invalid())?;
        if parsed.port_u16().is_none() || address.contains('@') {
            return Err(invalid());
        }
        Ok(Self { address: parsed, name, identity })
    }

    /// Connects. The files are small and local: they are read here.
    pub(super) async fn connect(&self) -> Result<Line, Error> {
        let tls = self.tls()?;
        let token = self.token()?;
        // The scheme only names the request's; the connector does TLS whatever it is.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(Error::Connect)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_timeout(CONNECT)
            .keep_alive_while_idle(true);
        let dial = Dial { tls, address: self.address.clone(), name: self.name.clone() };
        let channel = endpoint.connect_with_connector(dial).await.map_err(Error::Connect)?;
        let client = PushClient::new(channel);
        let client = client.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST);
        Ok(Line { client, token })
    }

    fn read(&self, name: &str) -> Result<(String, Zeroizing<String>), Error> {
        let path = self.identity.join(name);
        let shown = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => Ok((shown, Zeroizing::new(text))),
            Err(source) => Err(Error::File { path: shown, source }),
        }
    }

    /// What the operator and the proxies of the mesh are known by, PEM: the mounted file.
    pub(super) fn roots(&self) -> Result<String, Error> {
        self.read("ca.crt").map(|(_, pem)| pem.to_string())
    }

    fn token(&self) -> Result<MetadataValue<Ascii>, Error> {
        let (path, text) = self.read("token")?;
        let token = text.trim();
        let value = Zeroizing::new(format!("Bearer {token}"));
        let mut value: MetadataValue<Ascii> = match value.parse() {
            Ok(value) if !token.is_empty() => value,
            _ => return Err(Error::Content(path)),
        };
        value.set_sensitive(true);
        Ok(value)
    }

    fn tls(&self) -> Result<TlsConnector, Error> {
        let (path, pem) = self.read("ca.crt")?;
        let mut roots = RootCertStore::empty();
        roots
            .add_parsable_certificates(CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok));
        if roots.is_empty() {
            return Err(Error::Content(path));
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl Line {
    /// A request with the token.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.token.clone());
        request
    }

    /// The methods.
    pub(super) fn client(&mut self) -> &mut PushClient<Channel> {
        &mut self.client
    }
}

/// Opens connections for the channel.
struct Dial {
    tls: TlsConnector,
    address: Authority,
    name: ServerName<'static>,
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (tls, address, name) = (self.tls.clone(), self.address.to_string(), self.name.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["mcpmesh-operator.mcpmesh-system.svc:9443", "127.0.0.1:9443", "[::1]:9443"] {
            assert!(Operator::new(good, PathBuf::new()).is_ok(), "{good}");
        }
        for bad in ["", "operator", "https://operator:9443", "operator:", "operator:99999", "a@b:1", "a b:1"]
        {
            assert!(matches!(Operator::new(bad, PathBuf::new()), Err(Error::Address(_))), "{bad}");
        }
    }

    #[test]
    fn a_token_is_read_anew_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let operator = Operator::new("operator:1", folder.path().to_owned()).unwrap();
        assert!(matches!(operator.token(), Err(Error::File { .. })));
        fs::write(folder.path().join("token"), " \n").unwrap();
        assert!(matches!(operator.token(), Err(Error::Content(_))));
        for token in ["canary-1", "canary-2"] {
            fs::write(folder.path().join("token"), format!("{token}\n")).unwrap();
            let value = operator.token().unwrap();
            assert_eq!(value.to_str().unwrap(), format!("Bearer {token}"));
            assert!(!format!("{value:?}").contains(token));
        }
    }
}
