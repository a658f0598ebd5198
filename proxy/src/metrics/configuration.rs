//! Where the configuration in force comes from and how old it may be, for proxies that an operator configures.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Revision {
    revision: String,
}

/// Whether the operator stands behind what is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Confirmed {
    /// No operator is asked, or it has said nothing yet.
    #[default]
    Never,
    /// It is connected and has confirmed.
    Now,
    /// It did so last at this time: what is in force may be out of date.
    Since(SystemTime),
}

/// Metrics of the configuration.
#[derive(Default)]
pub struct Configuration {
    stale: Gauge,
    revision: Family<Revision, Gauge>,
    age: Gauge<f64, AtomicU64>,
    disk_errors: Counter,
    connected: Gauge,
    confirmed: Mutex<Confirmed>,
}

impl Configuration {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mcpmesh_proxy_config_stale",
            "1 while the configuration is from disk and the operator has not confirmed it",
            self.stale.clone(),
        );
        registry.register(
            "mcpmesh_proxy_config_revision_info",
            "1 for the revision in force",
            self.revision.clone(),
        );
        registry.register(
            "mcpmesh_proxy_config_age_seconds",
            "Time since the operator last confirmed the configuration; 0 while connected",
            self.age.clone(),
        );
        registry.register(
            "mcpmesh_proxy_config_disk_errors",
            "Times that the last good configuration could not be read or written",
            self.disk_errors.clone(),
        );
        registry.register(
            "mcpmesh_proxy_operator_connected",
            "1 while the operator is connected",
            self.connected.clone(),
        );
    }

    /// Brings what changes by itself up to date. Before each exposition.
    pub(super) fn refresh(&self) {
        if let Confirmed::Since(time) = *self.confirmed.lock() {
            self.age.set(time.elapsed().unwrap_or_default().as_secs_f64());
        }
    }

    /// A configuration of this revision is in force, from the disk.
    pub fn from_disk(&self, revision: &str, confirmed: SystemTime) {
        self.revision(revision);
        self.stale.set(1);
        *self.confirmed.lock() = Confirmed::Since(confirmed);
    }

    /// The operator is connected and this is what it wants in force.
    pub fn confirmed(&self, revision: &str) {
        self.revision(revision);
        self.stale.set(0);
        self.connected.set(1);
        *self.confirmed.lock() = Confirmed::Now;
        self.age.set(0.0);
    }

    /// The operator is connected no more.
    pub fn disconnected(&self) {
        self.connected.set(0);
        let mut confirmed = self.confirmed.lock();
        if *confirmed == Confirmed::Now {
            *confirmed = Confirmed::Since(SystemTime::now());
        }
    }

    /// The last good configuration could not be read or written.
    pub fn disk_error(&self) {
        self.disk_errors.inc();
    }

    fn revision(&self, revision: &str) {
        self.revision.clear();
        self.revision.get_or_create(&Revision { revision: revision.to_owned() }).set(1);
    }
}
