//! Whether a process may be sent requests, and what it says about that on `/readyz`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::mesh::Mesh;

/// A new gateway waits so long for the servers of the mesh: whoever comes first would be told that a tool is unknown
/// which others have just called. One that is down must not hold it up for ever.
const REACH: Duration = Duration::from_secs(15);

/// What a configuration needs the process's certificate of the mesh for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Certificate {
    /// Nothing.
    Unneeded,
    /// To be let in by some of its servers; the others can do without.
    ForServers,
    /// To show it to every client.
    ForClients,
}

/// What has to be there before requests may come, and what ends it. Set by those who bring it about.
#[derive(Debug, Default)]
pub struct Readiness {
    configured: AtomicBool,
    certificate: AtomicU8,
    since: OnceLock<Instant>,
    reached: AtomicBool,
    stale: AtomicBool,
    leaving: AtomicBool,
    mesh: Mesh,
}

impl Readiness {
    /// Not ready: nothing is configured yet.
    #[must_use]
    pub fn new(mesh: Mesh) -> Self {
        Self { mesh, ..Self::default() }
    }

    /// A configuration is in force, which needs the certificate for this.
    pub fn configured(&self, certificate: Certificate) {
        self.certificate.store(certificate as u8, Ordering::Release);
        self.since.get_or_init(Instant::now);
        self.configured.store(true, Ordering::Release);
    }

    /// Every server that is waited for has answered once.
    pub fn reached(&self) {
        self.reached.store(true, Ordering::Release);
    }

    /// Whether the configuration is from disk and the operator has not confirmed it. Says nothing of readiness.
    pub fn set_stale(&self, stale: bool) {
        self.stale.store(stale, Ordering::Release);
    }

    /// The process ends: never ready again.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Whether the process ends.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Without the operator, who alone signs, a proxy that started from its disk serves what it can.
    fn waits_for_servers(&self) -> bool {
        let needed = self.certificate.load(Ordering::Acquire);
        needed == Certificate::ForServers as u8 && !self.stale.load(Ordering::Acquire)
    }

    fn lacks_certificate(&self) -> bool {
        let needed = self.certificate.load(Ordering::Acquire);
        (self.waits_for_servers() || needed == Certificate::ForClients as u8) && !self.mesh.ready()
    }

    /// A sidecar is of no use without its server: other pods of it may be.
    fn lacks_servers(&self) -> bool {
        let is_sidecar = self.certificate.load(Ordering::Acquire) == Certificate::ForClients as u8;
        let is_young = self.since.get().is_some_and(|since| since.elapsed() < REACH);
        !self.reached.load(Ordering::Acquire) && (is_sidecar || self.waits_for_servers() && is_young)
    }

    /// Ready, and in which words; or not, and why.
    ///
    /// # Errors
    /// What is missing.
    pub fn verdict(&self) -> Result<&'static str, &'static str> {
        let is = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        if is(&self.leaving) {
            Err("draining")
        } else if !is(&self.configured) {
            Err("no configuration yet")
        } else if self.lacks_certificate() {
            Err("no certificate of the mesh yet")
        } else if self.lacks_servers() {
            Err("not every server has answered yet")
        } else if is(&self.stale) {
            Ok("ok, with the last good configuration: stale until the operator confirms it")
        } else {
            Ok("ok")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_new_process_waits_a_while_for_the_servers_of_the_mesh() {
        let readiness = || {
            let readiness = Readiness::new(crate::mesh::certified());
            readiness.configured(Certificate::ForServers);
            assert_eq!(readiness.verdict(), Err("not every server has answered yet"));
            readiness
        };
        let sidecar = Readiness::new(crate::mesh::certified());
        sidecar.configured(Certificate::ForClients);
        tokio::time::advance(REACH).await;
        assert_eq!(
            sidecar.verdict(),
            Err("not every server has answered yet"),
            "its server is all that it has"
        );
        let answered = readiness();
        answered.reached();
        assert_eq!(answered.verdict(), Ok("ok"));
        let down = readiness();
        tokio::time::advance(REACH).await;
        assert_eq!(down.verdict(), Ok("ok"));
    }

    #[test]
    fn a_process_is_ready_once_configured_and_certified_until_it_leaves() {
        let readiness = Readiness::default();
        assert_eq!(readiness.verdict(), Err("no configuration yet"));
        readiness.configured(Certificate::ForClients);
        assert_eq!(readiness.verdict(), Err("no certificate of the mesh yet"));
        readiness.configured(Certificate::ForServers);
        assert_eq!(readiness.verdict(), Err("no certificate of the mesh yet"));
        readiness.configured(Certificate::Unneeded);
        assert_eq!(readiness.verdict(), Ok("ok"));
        readiness.set_stale(true);
        assert!(readiness.verdict().is_ok_and(|word| word.contains("stale")));
        readiness.configured(Certificate::ForServers);
        assert!(readiness.verdict().is_ok(), "nobody can sign, and other servers need no certificate");
        readiness.configured(Certificate::ForClients);
        assert_eq!(readiness.verdict(), Err("no certificate of the mesh yet"));
        readiness.leave();
        readiness.configured(Certificate::Unneeded);
        assert_eq!(readiness.verdict(), Err("draining"));
    }
}
