//! The mesh's own certificate authority: signs for proxies, and for this replica in memory.

mod material;
mod secret;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use mcpmesh_ir::FleetId;
use mcpmesh_ir::push::SignResponse;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

pub(crate) use material::{Lifetimes, Material};
use mcpmesh_compiler::child::base_name;
pub(crate) use secret::keep;

/// Before this time's start a certificate is not valid: clocks differ.
const SKEW: Duration = Duration::from_secs(60);

/// What the authority cannot do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No authority is loaded.
    #[error("there is no certificate authority yet")]
    NotYet,
    /// A request that is none.
    #[error("the certificate request is not usable: {0}")]
    Request(String),
    /// A certificate or key that cannot be made or read.
    #[error("a certificate of the authority is not usable")]
    Certificate(#[from] rcgen::Error),
    /// See [`Lifetimes::new`].
    #[error(
        "certificates must last 20 s at least, and the root four times as long as they do and four minutes more"
    )]
    Lifetimes,
    /// The Secret's content is damaged.
    #[error("the authority's Secret has no usable {0}")]
    Material(&'static str),
    /// rustls refused what we made.
    #[error("the certificate cannot be served")]
    Tls(#[from] rustls::Error),
}

/// The authority as it is loaded at present.
pub(crate) struct Authority {
    loaded: ArcSwapOption<Loaded>,
    serving: Arc<Serving>,
    server: Arc<ServerConfig>,
    /// Names and addresses of the operator.
    names: Vec<String>,
    lifetimes: Lifetimes,
}

struct Loaded {
    material: Material,
    issuer: Issuer<'static, KeyPair>,
    /// When this replica's own certificate was made.
    since: SystemTime,
}

/// The certificate that new connections are served with.
#[derive(Debug, Default)]
struct Serving(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Authority {
    /// Of an operator with these names and addresses; nothing is loaded.
    pub(crate) fn new(names: Vec<String>, lifetimes: Lifetimes) -> Result<Self, Error> {
        let serving = Arc::<Serving>::default();
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(serving.clone());
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { loaded: ArcSwapOption::empty(), serving, server: Arc::new(server), names, lifetimes })
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.loaded.load().is_some()
    }

    /// How connections to us are served: with the certificate of that moment.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For connections to other replicas.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.roots()?.as_bytes()) {
            roots.add(certificate.map_err(|_| Error::Material("roots"))?)?;
        }
        Ok(ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }

    /// Everything that is trusted at present, in PEM.
    pub(crate) fn roots(&self) -> Result<String, Error> {
        Ok(self.loaded.load().as_ref().ok_or(Error::NotYet)?.material.roots())
    }

    /// The key of the hashes that version Secrets: the same on every replica.
    pub(crate) fn version_key(&self) -> Result<[u8; 32], Error> {
        Ok(self.loaded.load().as_ref().ok_or(Error::NotYet)?.material.version_key)
    }

    /// When the root and this replica's certificate end, as seconds since 1970.
    pub(crate) fn expiries(&self) -> Option<(u64, u64)> {
        let loaded = self.loaded.load_full()?;
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
        };
        Some((seconds(loaded.material.current.not_after), seconds(loaded.since + self.lifetimes.certificate)))
    }

    /// Puts an authority in force, and makes a certificate for this replica when the old one is not of this authority
    /// or half of its time is over.
    pub(crate) fn load(&self, material: Material, now: SystemTime) -> Result<(), Error> {
        let fresh = self.loaded.load().as_ref().is_some_and(|loaded| {
            loaded.material == material
                && now.duration_since(loaded.since).is_ok_and(|age| age < self.lifetimes.certificate / 2)
        });
        if fresh {
            return Ok(());
        }
        let issuer = material.issuer()?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut names = Vec::new();
        for name in &self.names {
            names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(name.as_str())?),
            });
        }
        let chain = self.certificate(names, &key, &issuer, now)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certified = CertifiedKey::from_der(vec![chain], key, &provider())?;
        self.serving.0.store(Some(Arc::new(certified)));
        self.loaded.store(Some(Arc::new(Loaded { material, issuer, since: now })));
        Ok(())
    }

    /// A certificate for a proxy of a fleet. Of the request (PKCS #10, DER) only the public key counts.
    pub(crate) fn sign(&self, fleet: &FleetId, csr: &[u8]) -> Result<SignResponse, Error> {
        let loaded = self.loaded.load_full().ok_or(Error::NotYet)?;
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|error| Error::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Request("the key is not of P-256".to_owned()));
        }
        let host = format!("{}.{}.svc", base_name(fleet), fleet.namespace());
        let names = vec![
            SanType::URI(Ia5String::try_from(fleet.uri())?),
            SanType::DnsName(Ia5String::try_from(host)?),
        ];
        let certificate = self.certificate(names, &request.public_key, &loaded.issuer, SystemTime::now())?;
        Ok(SignResponse { chain: material::pem(&certificate), roots: loaded.material.roots() })
    }

    fn certificate(
        &self,
        names: Vec<SanType>,
        key: &impl PublicKeyData,
        issuer: &Issuer<'_, KeyPair>,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, Error> {
        let mut params = CertificateParams::default();
        params.not_before = (now - SKEW).into();
        params.not_after = (now + self.lifetimes.certificate).into();
        params.subject_alt_names = names;
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, issuer)?.der().clone())
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    use super::*;

    fn authority() -> Authority {
        let lifetimes = Lifetimes::default();
        let authority =
            Authority::new(vec!["mcpmesh-operator.mcpmesh-system.svc".to_owned()], lifetimes).unwrap();
        let now = SystemTime::now();
        authority.load(Material::generate(lifetimes, now).unwrap(), now).unwrap();
        authority
    }

    fn request(key: &KeyPair) -> Vec<u8> {
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_has_our_names_and_none_of_the_request() {
        let fleet: FleetId = "gateway/team-a/main".parse().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let signed = authority().sign(&fleet, &request(&key)).unwrap();
        let der = CertificateDer::from_pem_slice(signed.chain.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        let expected = [
            GeneralName::URI("spiffe://mcpmesh/gateway/team-a/main"),
            GeneralName::DNSName("main-mcpgateway.team-a.svc"),
        ];
        assert_eq!(names, &expected);
        assert!(!certificate.is_ca());
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        let root = CertificateDer::from_pem_slice(signed.roots.as_bytes()).unwrap();
        let (_, root) = X509Certificate::from_der(&root).unwrap();
        certificate.verify_signature(Some(root.public_key())).unwrap();
    }

    #[test]
    fn another_kind_of_key_and_a_damaged_request_are_refused() {
        let fleet: FleetId = "gateway/team-a/main".parse().unwrap();
        let authority = authority();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(matches!(authority.sign(&fleet, &request(&key)), Err(Error::Request(_))));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut damaged = request(&key);
        if let Some(last) = damaged.last_mut() {
            *last ^= 1;
        }
        assert!(matches!(authority.sign(&fleet, &damaged), Err(Error::Request(_))));
    }

    #[test]
    fn a_replica_renews_its_certificate_at_half_of_its_life_and_not_before() {
        let authority = authority();
        let loaded = authority.loaded.load_full().unwrap();
        let served = || authority.serving.0.load_full().unwrap();
        let first = served();
        let half = Lifetimes::default().certificate / 2;
        authority.load(loaded.material.clone(), loaded.since + half - Duration::from_secs(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &served()));
        authority.load(loaded.material.clone(), loaded.since + half).unwrap();
        assert!(!Arc::ptr_eq(&first, &served()));
    }
}
