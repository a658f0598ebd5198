//! Roots and keys as the Secret holds them, and when they are replaced.
//!
//! A new root is trusted everywhere before it signs, and the old one until nothing that it signed is valid: next,
//! current, previous.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Error, SKEW};

/// How long certificates last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    /// Of a root.
    pub(crate) root: Duration,
    /// Of what it signs.
    pub(crate) certificate: Duration,
}

/// Proxies renew every ten seconds at the most.
const SHORTEST: Duration = Duration::from_secs(20);

impl Lifetimes {
    /// # Errors
    /// When there is no time to renew certificates, or to trust a root before it signs and after it stopped.
    pub(crate) fn new(root: Duration, certificate: Duration) -> Result<Self, Error> {
        let has_time = certificate >= SHORTEST && root >= (certificate + SKEW) * 4;
        has_time.then_some(Self { root, certificate }).ok_or(Error::Lifetimes)
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: Duration::from_secs(365 * 86_400), certificate: Duration::from_secs(86_400) }
    }
}

/// A root with its key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Root {
    certificate: String,
    key: String,
    not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// All of the Secret. Debug output shows no key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Material {
    pub(crate) current: Root,
    /// Trusted, and signs later.
    next: Option<Root>,
    /// A certificate that is still trusted.
    previous: Option<String>,
    pub(crate) version_key: [u8; 32],
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("not_after", &self.current.not_after).finish_non_exhaustive()
    }
}

/// A certificate in PEM.
pub(super) fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

impl Root {
    fn generate(lifetime: Duration, now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "mcpmesh");
        // Roots must differ by name too: verifiers look an issuer up by it.
        name.push(DnType::CommonName, format!("mcpmesh root {}", &hex::encode(key.public_key_raw())[2..18]));
        let mut params = CertificateParams::default();
        params.not_before = (now - SKEW).into();
        params.not_after = (now + lifetime).into();
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Self::read(pem(certificate.der()), key.serialize_pem())
    }

    fn read(certificate: String, key: String) -> Result<Self, Error> {
        let der =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| Error::Material("tls.crt"))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| Error::Material("tls.crt"))?;
        let time = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        let (not_before, not_after) =
            (time(parsed.validity().not_before.timestamp()), time(parsed.validity().not_after.timestamp()));
        let pair = KeyPair::from_pem(&key).map_err(|_| Error::Material("tls.key"))?;
        if pair.public_key_raw() != parsed.public_key().subject_public_key.data.as_ref() {
            return Err(Error::Material("tls.key for its tls.crt"));
        }
        Ok(Self { certificate, key, not_before, not_after })
    }
}

impl Material {
    /// A new authority.
    pub(crate) fn generate(lifetimes: Lifetimes, now: SystemTime) -> Result<Self, Error> {
        let mut version_key = [0; 32];
        rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut version_key)
            .map_err(|_| Error::Material("randomness"))?;
        Ok(Self { current: Root::generate(lifetimes.root, now)?, next: None, previous: None, version_key })
    }

    /// From the Secret's data.
    pub(super) fn read(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, Error> {
        let text = |key: &'static str| {
            data.get(key)
                .map(|bytes| String::from_utf8(bytes.clone()).map_err(|_| Error::Material(key)))
                .transpose()
        };
        let current = Root::read(
            text("tls.crt")?.ok_or(Error::Material("tls.crt"))?,
            text("tls.key")?.ok_or(Error::Material("tls.key"))?,
        )?;
        let next = match (text("next.crt")?, text("next.key")?) {
            (Some(certificate), Some(key)) => Some(Root::read(certificate, key)?),
            _ => None,
        };
        let version_key =
            text("version.key")?.and_then(|hex| <[u8; 32]>::try_from(hex::decode(hex).ok()?).ok());
        let version_key = version_key.ok_or(Error::Material("version.key"))?;
        Ok(Self { current, next, previous: text("previous.crt")?, version_key })
    }

    /// As the Secret's data.
    pub(super) fn write(&self) -> BTreeMap<String, Vec<u8>> {
        let Self { current, next, previous, version_key } = self;
        let mut data = BTreeMap::from([
            ("tls.crt".to_owned(), current.certificate.clone().into_bytes()),
            ("tls.key".to_owned(), current.key.clone().into_bytes()),
            ("version.key".to_owned(), hex::encode(version_key).into_bytes()),
        ]);
        if let Some(next) = next {
            data.insert("next.crt".to_owned(), next.certificate.clone().into_bytes());
            data.insert("next.key".to_owned(), next.key.clone().into_bytes());
        }
        if let Some(previous) = previous {
            data.insert("previous.crt".to_owned(), previous.clone().into_bytes());
        }
        data
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        Ok(Issuer::from_ca_cert_pem(&self.current.certificate, KeyPair::from_pem(&self.current.key)?)?)
    }

    /// Everything that is trusted, in PEM.
    pub(crate) fn roots(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        let all = [Some(self.current.certificate.as_str()), next, self.previous.as_deref()];
        all.into_iter().flatten().map(|pem| format!("{}\n", pem.trim_end())).collect()
    }

    /// The step that is due, if any. At half of the root's life the next one appears; after one certificate's life
    /// everybody trusts it and it signs; after another one nothing of the old one is valid.
    pub(super) fn rotated(&self, lifetimes: Lifetimes, now: SystemTime) -> Result<Option<Self>, Error> {
        let age = |root: &Root| now.duration_since(root.not_before).unwrap_or_default();
        let spread = lifetimes.certificate + SKEW;
        if let Some(next) = &self.next {
            let promoted = || Self {
                current: next.clone(),
                next: None,
                previous: Some(self.current.certificate.clone()),
                version_key: self.version_key,
            };
            return Ok((age(next) >= spread).then(promoted));
        }
        if self.previous.is_some() {
            let dropped = || Self { previous: None, ..self.clone() };
            // Twice: it was made one certificate's life before it began to sign; and once more for good measure.
            return Ok((age(&self.current) >= spread * 3).then(dropped));
        }
        if age(&self.current) < lifetimes.root / 2 {
            return Ok(None);
        }
        Ok(Some(Self { next: Some(Root::generate(lifetimes.root, now)?), ..self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn lifetimes_without_time_to_replace_anything_are_refused() {
        let seconds = Duration::from_secs;
        assert!(Lifetimes::new(seconds(360), seconds(30)).is_ok());
        assert!(Lifetimes::new(seconds(359), seconds(30)).is_err());
        assert!(Lifetimes::new(DAY, seconds(19)).is_err());
        let Lifetimes { root, certificate } = Lifetimes::default();
        assert!(Lifetimes::new(root, certificate).is_ok());
    }

    #[test]
    fn an_authority_survives_its_secret_and_shows_no_key() {
        let material = Material::generate(Lifetimes::default(), SystemTime::now()).unwrap();
        assert!(Material::read(&material.write()).unwrap() == material);
        assert!(!format!("{material:?}").contains("PRIVATE"));
        let mut data = material.write();
        data.remove("tls.key");
        assert!(matches!(Material::read(&data), Err(Error::Material("tls.key"))));
    }

    #[test]
    fn a_root_is_trusted_before_it_signs_and_after_it_stopped() {
        let lifetimes = Lifetimes::default();
        let start = SystemTime::now();
        let first = Material::generate(lifetimes, start).unwrap();
        assert!(first.rotated(lifetimes, start + DAY * 180).unwrap().is_none());
        let half = start + lifetimes.root / 2;
        let second = first.rotated(lifetimes, half).unwrap().unwrap();
        assert!(second.current == first.current);
        assert_eq!(second.roots().matches("BEGIN").count(), 2);
        assert!(second.rotated(lifetimes, half + DAY / 2).unwrap().is_none());
        let third = second.rotated(lifetimes, half + DAY * 2).unwrap().unwrap();
        assert!(third.current != first.current);
        assert!(third.roots().contains(first.current.certificate.trim_end()));
        assert!(third.rotated(lifetimes, half + DAY * 3).unwrap().is_none());
        let last = third.rotated(lifetimes, half + DAY * 4).unwrap().unwrap();
        assert_eq!(last.roots().matches("BEGIN").count(), 1);
        assert_eq!(last.version_key, first.version_key);
    }
}
