//! The process's certificate of the mesh: asked for with a key that never leaves the pod, renewed at half of its life,
//! and kept on the disk for a container that is started anew while no operator answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcpmesh_ir::push::{SignRequest, SignResponse};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::backoff::{Backoff, random};
use super::disk::Signed;
use super::{Causes, DiskError, OperatorError, Settings};
use crate::mesh;

/// For the operator to sign.
const SIGN: Duration = Duration::from_secs(30);
/// No certificate is renewed sooner, whatever it says of itself.
const SOONEST: Duration = Duration::from_secs(10);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Line(#[from] OperatorError),
    #[error("no key or request can be made")]
    Request(#[from] rcgen::Error),
    #[error("the operator does not sign: {}", .0.message())]
    Refused(#[from] Box<tonic::Status>),
    #[error("the operator did not answer in {SIGN:?}")]
    Late,
    #[error("the certificate cannot be used")]
    Install(#[from] mesh::Error),
    #[error("the certificate's dates cannot be read")]
    Dates,
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the certificate on the disk holds no more")]
    Over,
}

/// When a certificate holds, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    from: i64,
    until: i64,
}

/// Gets a certificate and renews it, for ever. A failure keeps the one that is there; at first that is the one on the
/// disk.
pub(super) async fn keep(settings: Arc<Settings>) {
    if let Err(error) = restore(&settings, SystemTime::now()) {
        tracing::warn!(error = %Causes(&error), "no certificate of the mesh from the disk");
    }
    let mut backoff = Backoff::default();
    loop {
        let wait = match renew(&settings).await {
            Ok(life) => {
                backoff.reset();
                life.renew_in(SystemTime::now(), random())
            }
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "no new certificate of the mesh");
                backoff.next()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Puts the certificate of the disk in force while it holds. What is trusted is what the operator is known by: it is
/// mounted, and so newer than the disk.
fn restore(settings: &Settings, now: SystemTime) -> Result<(), Error> {
    let Some(Signed { chain, key }) = settings.store.load_certificate()? else { return Ok(()) };
    let life = Life::of(&chain)?;
    if !life.holds(now) {
        return Err(Error::Over);
    }
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    settings.mesh.install(&chain, key, &settings.operator.roots()?)?;
    tracing::info!(until = life.until, "the certificate of the disk is in force");
    Ok(())
}

/// Gets one certificate and puts it in force.
async fn renew(settings: &Settings) -> Result<Life, Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    // The operator takes the key from it and nothing else: who we are is in the token.
    let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
    let request = SignRequest { fleet: settings.fleet.to_string(), csr };
    let signed = tokio::time::timeout(SIGN, async {
        let mut line = settings.operator.connect().await?;
        let request = line.request(request);
        Ok::<_, Error>(line.client().sign(request).await.map_err(Box::new)?.into_inner())
    });
    let SignResponse { chain, roots } = signed.await.map_err(|_| Error::Late)??;
    let life = Life::of(&chain)?;
    let signed = Signed { chain, key: key.serialize_der() };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.key.clone()));
    settings.mesh.install(&signed.chain, key, &roots)?;
    tracing::info!(until = life.until, "a certificate of the mesh is in force");
    // Small and rare: written here. Without it the process goes on as before.
    if let Err(error) = settings.store.save_certificate(&signed) {
        tracing::error!(error = %Causes(&error), "the certificate of the mesh is not kept");
    }
    Ok(life)
}

impl Life {
    fn of(chain: &str) -> Result<Self, Error> {
        let chain = mesh::certificates(chain).ok_or(Error::Dates)?;
        let first = chain.first().ok_or(Error::Dates)?;
        let (_, certificate) = X509Certificate::from_der(first).map_err(|_| Error::Dates)?;
        let validity = certificate.validity();
        Ok(Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    fn holds(self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        i64::try_from(now).is_ok_and(|now| (self.from..self.until).contains(&now))
    }

    /// Between 40 and 60 hundredths of its life (`share` is from 0 to 1), so that a fleet does not renew at once.
    fn renew_in(self, now: SystemTime, share: f64) -> Duration {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let life = Duration::from_secs(u64::try_from(self.until.saturating_sub(self.from)).unwrap_or(0));
        let from = Duration::from_secs(u64::try_from(self.from).unwrap_or(0));
        (from + life.mul_f64(0.4 + 0.2 * share)).saturating_sub(now).max(SOONEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_about_half_way_and_never_in_a_hurry() {
        let life = Life { from: 1000, until: 1000 + 86_400 };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(life.renew_in(at(1000), 0.0), Duration::from_secs(34_560));
        assert_eq!(life.renew_in(at(1000), 0.5), Duration::from_secs(43_200));
        assert_eq!(life.renew_in(at(1000), 1.0), Duration::from_secs(51_840));
        assert_eq!(life.renew_in(at(200_000), 0.5), SOONEST);
        assert_eq!(Life { from: 5, until: 1 }.renew_in(at(1000), 0.5), SOONEST);
        let held = [999, 1000, 1000 + 86_399, 1000 + 86_400].map(|now| life.holds(at(now)));
        assert_eq!(held, [false, true, true, false]);
    }
}
