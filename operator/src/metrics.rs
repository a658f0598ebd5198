//! Prometheus metrics of the operator. Label values come from objects or from a fixed set.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use mcpmesh_compiler::Severity;
use mcpmesh_ir::FleetId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::publish::Publisher;
use crate::reconcile::Outcome;
use crate::status::words::Words;

/// A kind of object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    pub(crate) kind: &'static str,
}

/// A fleet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfFleet {
    namespace: String,
    fleet_kind: &'static str,
    name: String,
}

impl From<&FleetId> for OfFleet {
    fn from(fleet: &FleetId) -> Self {
        let fleet_kind = match fleet {
            FleetId::Gateway(_) => "gateway",
            FleetId::Server(_) => "server",
        };
        Self { namespace: fleet.namespace().to_owned(), fleet_kind, name: fleet.name().to_owned() }
    }
}

/// A write to the API server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Write {
    pub(crate) kind: String,
    pub(crate) result: &'static str,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfCertificate {
    pub(crate) certificate: &'static str,
}

/// How bad findings are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfSeverity {
    pub(crate) severity: &'static str,
}

/// All of them. `Default` makes them, [`Metrics::registry`] names them.
pub(crate) struct Metrics {
    pub(crate) reconcile: Histogram,
    pub(crate) compile: Histogram,
    pub(crate) propagation: Histogram,
    pub(crate) queue_depth: Gauge,
    pub(crate) objects: Family<OfKind, Gauge>,
    pub(crate) proxies_connected: Family<OfFleet, Gauge>,
    pub(crate) proxies_in_sync: Family<OfFleet, Gauge>,
    pub(crate) push_rejections: Family<OfFleet, Gauge>,
    pub(crate) writes: Family<Write, Counter>,
    pub(crate) leader: Gauge,
    pub(crate) config_age: Gauge<f64, AtomicU64>,
    pub(crate) pushes: Counter,
    pub(crate) certificate_expiry: Family<OfCertificate, Gauge>,
    pub(crate) diagnostics: Family<OfSeverity, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        Self {
            reconcile: seconds(),
            compile: seconds(),
            // Around the goals of 30 and 100 ms, closer.
            propagation: Histogram::new([
                0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0,
            ]),
            queue_depth: Gauge::default(),
            objects: Family::default(),
            proxies_connected: Family::default(),
            proxies_in_sync: Family::default(),
            push_rejections: Family::default(),
            writes: Family::default(),
            leader: Gauge::default(),
            config_age: Gauge::default(),
            pushes: Counter::default(),
            certificate_expiry: Family::default(),
            diagnostics: Family::default(),
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Metrics {
    /// The findings of an outcome.
    pub(crate) fn count(&self, outcome: &Outcome) {
        let mut counts = [Severity::Error, Severity::Warning, Severity::Note].map(|severity| (severity, 0));
        let found = outcome.found.values().flat_map(|found| &found.diagnostics);
        for finding in outcome.compiled.values().flat_map(|of| &of.diagnostics).chain(found) {
            counts
                .iter_mut()
                .filter(|(severity, _)| *severity == finding.severity)
                .for_each(|one| one.1 += 1);
        }
        for (severity, count) in counts {
            let label = OfSeverity { severity: severity.as_str() };
            self.diagnostics.get_or_create(&label).set(number(count));
        }
    }

    /// The proxies of each fleet, and what they say.
    pub(crate) fn count_proxies(&self, outcome: &Outcome, words: &Words, publisher: &Publisher) {
        for family in [&self.proxies_connected, &self.proxies_in_sync, &self.push_rejections] {
            family.clear();
        }
        let fleets = outcome.compiled.values().flat_map(|of| of.fleets.keys()).chain(words.fleets());
        for fleet in fleets.collect::<BTreeSet<_>>() {
            let revision = publisher.revision(fleet);
            let (total, in_sync, rejections) = words.in_sync(fleet, revision.as_deref());
            let label = OfFleet::from(fleet);
            self.proxies_connected.get_or_create(&label).set(number(total));
            self.proxies_in_sync.get_or_create(&label).set(number(in_sync));
            self.push_rejections.get_or_create(&label).set(number(rejections));
        }
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("mcpmesh_operator");
        let r = &mut registry;
        let help = "From waking up to the end of apply and status";
        r.register_with_unit("reconcile_duration", help, Unit::Seconds, self.reconcile.clone());
        r.register_with_unit("compile_duration", "Of one compile", Unit::Seconds, self.compile.clone());
        let help = "From the watch event of a change to a proxy's acknowledgement";
        r.register_with_unit("propagation", help, Unit::Seconds, self.propagation.clone());
        r.register("queue_depth", "Objects whose write waits to be tried again", self.queue_depth.clone());
        r.register("objects", "Objects that are watched", self.objects.clone());
        r.register(
            "proxies_connected",
            "Proxies, of all replicas on the leader",
            self.proxies_connected.clone(),
        );
        let help = "Proxies with the current revision and without rejections";
        r.register("proxies_in_sync", help, self.proxies_in_sync.clone());
        r.register("push_rejections", "Resources that proxies reject", self.push_rejections.clone());
        r.register("writes", "Writes to the API server", self.writes.clone());
        r.register("leader", "1 on the replica that leads", self.leader.clone());
        let help = "Since the watches were last current";
        r.register_with_unit("config_age", help, Unit::Seconds, self.config_age.clone());
        r.register("pushes", "Updates that were sent", self.pushes.clone());
        let help = "When a certificate ends, in seconds since 1970";
        r.register("certificate_expiry_timestamp_seconds", help, self.certificate_expiry.clone());
        r.register("diagnostics", "Findings on objects", self.diagnostics.clone());
        registry
    }

    /// As OpenMetrics text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_know() {
        let metrics = Metrics::default();
        metrics.pushes.inc();
        metrics.writes.get_or_create(&Write { kind: "Service".to_owned(), result: "ok" }).inc();
        let text = metrics.render();
        for line in [
            "mcpmesh_operator_pushes_total 1",
            "mcpmesh_operator_writes_total{kind=\"Service\",result=\"ok\"} 1",
            "mcpmesh_operator_propagation_seconds_count 0",
            "mcpmesh_operator_config_age_seconds 0.0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
