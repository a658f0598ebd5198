//! Certificates of listeners: pairs out of Secrets, and which of a port's listeners shows which.

use std::collections::HashMap;
use std::sync::Arc;

use mcpmesh_ir::gateway::{Listener, ListenerTls};
use mcpmesh_ir::{Secret, SecretId};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::mesh;
use crate::upstream::tls::provider;

/// Keys of a Secret of type kubernetes.io/tls.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Why a Secret is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of its keys is not there, or the whole Secret.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// No certificates in PEM.
    #[error("tls.crt holds no readable PEM certificate")]
    Certificate,
    /// No private key in PEM.
    #[error("tls.key holds no readable PEM private key")]
    Key,
    /// They do not belong together, or are of a kind that is not known.
    #[error("tls.crt and tls.key do not belong together: {0}")]
    Pair(rustls::Error),
}

/// How a listener is reached.
#[derive(Debug, Clone)]
pub enum Security {
    /// HTTP.
    Plain,
    /// HTTPS with this certificate.
    Secret(Arc<CertifiedKey>),
    /// Mutual TLS with the proxy's own certificate of the mesh.
    Mesh,
}

/// What connections have in common, whatever the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP.
    Plain,
    /// HTTPS.
    Tls,
    /// Mutual TLS between proxies.
    Mesh,
}

impl Security {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Plain => Kind::Plain,
            Self::Secret(_) => Kind::Tls,
            Self::Mesh => Kind::Mesh,
        }
    }

    /// Reads what a listener needs.
    ///
    /// # Errors
    /// When its Secret holds no certificate: the Secret's name and why.
    pub fn of<'a>(
        listener: &'a Listener,
        secret: impl Fn(&SecretId) -> Option<&'a Secret>,
    ) -> Result<Self, (&'a SecretId, Error)> {
        match &listener.tls {
            None => Ok(Self::Plain),
            Some(ListenerTls::Mesh {}) => Ok(Self::Mesh),
            Some(ListenerTls::Secret(id)) => {
                let secret = secret(id).ok_or((id, Error::Missing(CERTIFICATE)))?;
                pair(secret).map(Self::Secret).map_err(|error| (id, error))
            }
        }
    }
}

/// A listener that can be served.
#[derive(Debug, Clone)]
pub struct Served {
    /// As the gateway says.
    pub listener: Listener,
    /// How it is reached.
    pub security: Security,
}

fn pair(secret: &Secret) -> Result<Arc<CertifiedKey>, Error> {
    let text = |key: &'static str| secret.data.get(key).ok_or(Error::Missing(key));
    let chain = mesh::certificates(text(CERTIFICATE)?).ok_or(Error::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(text(KEY)?.as_bytes()).map_err(|_| Error::Key)?;
    CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(Error::Pair)
}

/// The certificates of one port: by the name that a client asks for (SNI).
#[derive(Debug, Default)]
pub struct Names {
    by_host: HashMap<String, Arc<CertifiedKey>>,
    /// Of the first listener that takes any host.
    any: Option<Arc<CertifiedKey>>,
    /// Shown to a client that names no host.
    first: Option<Arc<CertifiedKey>>,
}

impl Names {
    /// Adds a listener's. Of two for one host the first stands.
    pub fn add(&mut self, hostname: Option<&str>, certificate: &Arc<CertifiedKey>) {
        self.first.get_or_insert_with(|| Arc::clone(certificate));
        match hostname {
            None => {
                self.any.get_or_insert_with(|| Arc::clone(certificate));
            }
            Some(host) => {
                self.by_host.entry(host.to_ascii_lowercase()).or_insert_with(|| Arc::clone(certificate));
            }
        }
    }

    /// For handshakes: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When the provider lacks them.
    pub fn config(self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(name) => self.by_host.get(&name.to_ascii_lowercase()).or(self.any.as_ref()).map(Arc::clone),
            None => self.any.as_ref().or(self.first.as_ref()).map(Arc::clone),
        }
    }
}
