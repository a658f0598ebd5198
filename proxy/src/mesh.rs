//! The proxy's own certificate of the mesh: what it shows to other proxies, and how it knows them.
//!
//! Names are SPIFFE ids ([`FleetId::uri`]), never DNS names: a pod's address says nothing of who it is. TLS 1.3
//! only. Sessions are not resumed, so that every connection proves a certificate that holds at that moment.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use mcpmesh_ir::FleetId;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::upstream::tls::provider;

/// Protocols on connections of the mesh, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chain or the roots are no PEM certificates, or there are none.
    #[error("the {0} hold no readable certificate")]
    Pem(&'static str),
    /// The key is not the certificate's, or of a kind that is not known.
    #[error("the key does not fit the certificate")]
    Key(#[source] rustls::Error),
    /// The certificate names no fleet.
    #[error("the certificate names no proxy of a mesh")]
    Name,
    /// No verifier can be made of the roots.
    #[error("the roots cannot be used")]
    Roots(#[source] rustls::server::VerifierBuilderError),
    /// The provider lacks TLS 1.3.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// The certificate in force, the key and the roots; one handle for all who use it. [`Mesh::install`] replaces them
/// at once: handshakes that begin later use the new ones, open connections go on.
#[derive(Clone, Default)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    identity: ArcSwapOption<Identity>,
    installed: watch::Sender<u64>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { identity: ArcSwapOption::empty(), installed: watch::Sender::new(0) }
    }
}

struct Identity {
    id: FleetId,
    own: Arc<SingleCertAndKey>,
    roots_pem: String,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
}

impl Identity {
    fn new(id: FleetId, own: Arc<SingleCertAndKey>, roots_pem: &str) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(roots_pem).ok_or(Error::Pem("roots"))?);
        let roots = Arc::new(roots);
        let server = Arc::new(server_config(&provider(), &roots, Arc::clone(&own) as _)?);
        Ok(Self { id, own, roots_pem: roots_pem.to_owned(), roots, server })
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Mesh {
    /// Puts a certificate in force: `chain_pem` is the certificate and its issuers, `roots_pem` everything that is
    /// trusted at present.
    ///
    /// # Errors
    /// When something of it cannot be used; then what was in force stays.
    pub fn install(
        &self,
        chain_pem: &str,
        key: PrivateKeyDer<'static>,
        roots_pem: &str,
    ) -> Result<(), Error> {
        let chain = certificates(chain_pem).ok_or(Error::Pem("chain"))?;
        let id = chain.first().and_then(fleet_of).ok_or(Error::Name)?;
        let own = CertifiedKey::from_der(chain, key, &provider()).map_err(Error::Key)?;
        let own = Arc::new(SingleCertAndKey::from(own));
        self.0.identity.store(Some(Arc::new(Identity::new(id, own, roots_pem)?)));
        self.0.installed.send_modify(|times| *times += 1);
        Ok(())
    }

    /// Puts other roots in force, everything that is trusted at present. Nothing is done before there is a
    /// certificate: its roots come with it.
    ///
    /// # Errors
    /// When they cannot be used; then what was in force stays.
    pub fn trust(&self, roots_pem: &str) -> Result<(), Error> {
        let Some(identity) = self.0.identity.load_full().filter(|one| one.roots_pem != roots_pem) else {
            return Ok(());
        };
        let trusting = Arc::new(Identity::new(identity.id.clone(), Arc::clone(&identity.own), roots_pem)?);
        // A certificate that was installed meanwhile brought roots that are newer.
        self.0.identity.compare_and_swap(&Some(identity), Some(trusting));
        Ok(())
    }

    /// Whether there is a certificate.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.identity.load().is_some()
    }

    /// How many times a certificate was installed; told anew at each.
    #[must_use]
    pub fn installed(&self) -> watch::Receiver<u64> {
        self.0.installed.subscribe()
    }

    /// Once there is a certificate.
    pub async fn certified(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.installed().wait_for(|_| self.ready()).await;
    }

    /// Whose certificate it is.
    #[must_use]
    pub fn id(&self) -> Option<FleetId> {
        self.0.identity.load().as_ref().map(|identity| identity.id.clone())
    }

    /// For one handshake with a client, which must show a certificate of the roots. None before there is one of
    /// our own.
    #[must_use]
    pub fn server(&self) -> Option<Arc<ServerConfig>> {
        self.0.identity.load().as_ref().map(|identity| Arc::clone(&identity.server))
    }

    /// For one handshake with a proxy of `peer`, which no other certificate passes for. None before there is one of
    /// our own.
    ///
    /// # Errors
    /// When the provider lacks TLS 1.3.
    pub fn client(&self, peer: &FleetId) -> Result<Option<ClientConfig>, Error> {
        let identity = self.0.identity.load();
        let Some(identity) = identity.as_ref() else { return Ok(None) };
        let provider = provider();
        let verifier =
            Peer { uri: peer.uri(), roots: Arc::clone(&identity.roots), provider: Arc::clone(&provider) };
        let own: Arc<dyn ResolvesClientCert> = Arc::clone(&identity.own) as _;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(own);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.enable_sni = false;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Some(config))
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    own: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig, Error> {
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::Tls)?
        .with_client_cert_verifier(clients.build().map_err(Error::Roots)?)
        .with_cert_resolver(own);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// All certificates of a PEM text; none when one cannot be read or there is none.
pub(crate) fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

/// The fleet that a certificate names. As an X.509 SVID it has exactly one URI (SPIFFE X509-SVID, section 2).
#[must_use]
pub fn fleet_of(certificate: &CertificateDer<'_>) -> Option<FleetId> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    FleetId::from_uri(uri).filter(|_| uris.next().is_none())
}

/// Takes the certificates of one fleet.
#[derive(Debug)]
struct Peer {
    uri: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Peer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        match fleet_of(end_entity) {
            Some(fleet) if fleet.uri() == self.uri => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 on a connection of the mesh".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(crate) use tests::certified;

#[cfg(test)]
mod tests;
