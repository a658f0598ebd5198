//! Whether a process may be sent requests, and what it says about that on `/readyz`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::mesh::Mesh;

/// What has to be there before requests may come, and what ends it. Set by those who bring it about.
#[derive(Debug, Default)]
pub struct Readiness {
    configured: AtomicBool,
    wants_certificate: AtomicBool,
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

    /// A configuration is in force; `wants_certificate`: one of its listeners shows the mesh's.
    pub fn configured(&self, wants_certificate: bool) {
        self.wants_certificate.store(wants_certificate, Ordering::Release);
        self.configured.store(true, Ordering::Release);
    }

    /// Whether the configuration is from disk and the operator has not confirmed it. Says nothing of readiness.
    pub fn set_stale(&self, stale: bool) {
        self.stale.store(stale, Ordering::Release);
    }

    /// The process ends: never ready again.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
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
        } else if is(&self.wants_certificate) && !self.mesh.ready() {
            Err("no certificate of the mesh yet")
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

    #[test]
    fn a_process_is_ready_once_configured_and_certified_until_it_leaves() {
        let readiness = Readiness::default();
        assert_eq!(readiness.verdict(), Err("no configuration yet"));
        readiness.configured(true);
        assert_eq!(readiness.verdict(), Err("no certificate of the mesh yet"));
        readiness.configured(false);
        assert_eq!(readiness.verdict(), Ok("ok"));
        readiness.set_stale(true);
        assert!(readiness.verdict().is_ok_and(|word| word.contains("stale")));
        readiness.leave();
        readiness.configured(false);
        assert_eq!(readiness.verdict(), Err("draining"));
    }
}
