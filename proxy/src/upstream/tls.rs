//! TLS towards upstreams: the one place that names the crypto provider and the trust roots.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};

/// The provider of the whole product (decisions.md 23).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// A client that trusts these roots, or the system's. There is no way to skip verification.
pub(crate) fn client(roots: Option<&Arc<RootCertStore>>) -> Result<ClientConfig, rustls::Error> {
    // One for all who trust the system's: with each come a hundred kilobytes for its sessions.
    static OF_SYSTEM: OnceLock<ClientConfig> = OnceLock::new();
    match (roots, OF_SYSTEM.get()) {
        (Some(roots), _) => trusting(Arc::clone(roots)),
        (None, Some(made)) => Ok(made.clone()),
        (None, None) => {
            let made = trusting(system())?;
            Ok(OF_SYSTEM.get_or_init(|| made).clone())
        }
    }
}

/// A client for plain HTTP, which shakes no hands: to read the system's roots takes longer than many an answer.
pub(crate) fn unused() -> Result<ClientConfig, rustls::Error> {
    static UNUSED: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(made) = UNUSED.get() {
        return Ok(made.clone());
    }
    let made = trusting(Arc::new(RootCertStore::empty()))?;
    Ok(UNUSED.get_or_init(|| made).clone())
}

fn trusting(roots: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The system's roots. Without any root every handshake fails, which is said once in the log: a plain-HTTP
/// installation need not have roots, and reads none.
fn system() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, ignored) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(ignored, "no trusted root certificates found on this system");
        }
        Arc::new(store)
    });
    Arc::clone(roots)
}
