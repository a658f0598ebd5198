//! Prometheus metrics. Every label value comes from configuration or from a fixed set, never from a caller.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use mcpmesh_ir::policy::Decision;
use mcpmesh_ir::{PolicyId, ServerId};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

mod configuration;

pub use configuration::Configuration;

use crate::catalog::Why;

/// An identity as metrics and logs write it, `namespace/name`: written once, not for each request.
pub type Label = Arc<str>;

/// Labels of an operation. Names follow OpenTelemetry's semantic conventions for MCP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    gateway: Label,
    server: Label,
    mcp_method_name: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfServer {
    gateway: Label,
    server: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeftOut {
    gateway: Label,
    server: Label,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfGateway {
    gateway: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Judged {
    gateway: Label,
    policy: String,
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    gateway: Label,
    policy: String,
    limit: String,
    enforced: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    gateway: Label,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    server: String,
    state: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    operations: Histograms<Operation>,
    upstream: Histograms<OfServer>,
    overhead: Histograms<OfGateway>,
    decisions: Family<Judged, Counter>,
    audits: Family<Judged, Counter>,
    limited: Family<Limited, Counter>,
    refused: Family<Refused, Counter>,
    servers: Family<State, Gauge>,
    quarantined: Family<OfServer, Gauge>,
    hiding: Family<OfServer, Gauge>,
    left_out: Family<LeftOut, Gauge>,
    sessions: Family<OfGateway, Gauge>,
    streams: Family<OfGateway, Gauge>,
    /// Requests that are being answered.
    pub in_flight: Gauge,
    /// Requests that ended in a panic of ours.
    pub panics: Counter,
    /// Access log records that were dropped because the sink was slow.
    pub log_dropped: Counter,
    /// Seconds since the Unix epoch when the configuration in force was applied.
    pub config_applied: Gauge<f64, AtomicU64>,
    /// Resources that were rejected by the configuration in force.
    pub config_rejected: Gauge,
    /// Where it comes from.
    pub configuration: Configuration,
}

fn seconds() -> Histogram {
    // 50 us to 26 s: our own share of a request up to a slow tool.
    Histogram::new(exponential_buckets(0.000_05, 3.0, 13))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut new = Self {
            registry: Registry::default(),
            operations: Family::new_with_constructor(seconds),
            upstream: Family::new_with_constructor(seconds),
            overhead: Family::new_with_constructor(seconds),
            decisions: Family::default(),
            audits: Family::default(),
            limited: Family::default(),
            refused: Family::default(),
            servers: Family::default(),
            quarantined: Family::default(),
            hiding: Family::default(),
            left_out: Family::default(),
            sessions: Family::default(),
            streams: Family::default(),
            in_flight: Gauge::default(),
            panics: Counter::default(),
            log_dropped: Counter::default(),
            config_applied: Gauge::default(),
            config_rejected: Gauge::default(),
            configuration: Configuration::default(),
        };
        new.register_requests();
        new.register_state();
        new
    }
}

impl OfServer {
    fn new(gateway: &Label, server: &Label) -> Self {
        Self { gateway: Arc::clone(gateway), server: Arc::clone(server) }
    }
}

impl Metrics {
    fn register_requests(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "mcp_server_operation_duration_seconds",
            "Time from the head of a request to the end of its answer",
            self.operations.clone(),
        );
        registry.register(
            "mcpmesh_upstream_duration_seconds",
            "Time for which the MCP server of a request was waited for",
            self.upstream.clone(),
        );
        registry.register(
            "mcpmesh_gateway_duration_seconds",
            "Time from a whole request until its MCP server was asked",
            self.overhead.clone(),
        );
        registry.register(
            "mcpmesh_decisions",
            "Access decisions by policy and reason",
            self.decisions.clone(),
        );
        registry.register(
            "mcpmesh_audit_decisions",
            "Decisions that policies in Audit mode would have changed",
            self.audits.clone(),
        );
        registry.register("mcpmesh_limit_exceeded", "Calls over a rate limit", self.limited.clone());
        registry.register(
            "mcpmesh_refused_requests",
            "Requests refused before a decision: malformed, unauthenticated, oversized",
            self.refused.clone(),
        );
    }

    fn register_state(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "mcpmesh_server_state",
            "1 for the state that a server is in",
            self.servers.clone(),
        );
        registry.register(
            "mcpmesh_quarantined_tools",
            "Tools that are not there because their definitions are not those that a lock pins",
            self.quarantined.clone(),
        );
        registry.register(
            "mcpmesh_hidden_text_objects",
            "Objects from whose texts hidden characters were taken out",
            self.hiding.clone(),
        );
        registry.register(
            "mcpmesh_left_out_objects",
            "Objects that a server lists and its gateway does not, by reason",
            self.left_out.clone(),
        );
        registry.register("mcpmesh_sessions", "Open sessions of legacy clients", self.sessions.clone());
        registry.register("mcpmesh_streams", "Open event streams to clients", self.streams.clone());
        registry.register("mcpmesh_requests_in_flight", "Requests being answered", self.in_flight.clone());
        registry.register("mcpmesh_panics", "Requests ended by a panic", self.panics.clone());
        registry.register(
            "mcpmesh_access_log_dropped",
            "Access log records dropped",
            self.log_dropped.clone(),
        );
        registry.register(
            "mcpmesh_config_applied_timestamp_seconds",
            "When the configuration in force was applied",
            self.config_applied.clone(),
        );
        registry.register(
            "mcpmesh_config_rejected_resources",
            "Resources of the configuration in force that were rejected",
            self.config_rejected.clone(),
        );
        self.configuration.register(registry);
    }

    /// The text exposition.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.configuration.refresh();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }

    /// Counts an answered request.
    pub fn operation(&self, done: &Done<'_>) {
        let (gateway, server) = (Arc::clone(done.gateway), done.server.map(Arc::clone));
        if let (Some(upstream), Some(server)) = (done.upstream, &server) {
            let labels = OfServer { gateway: Arc::clone(&gateway), server: Arc::clone(server) };
            self.upstream.get_or_create(&labels).observe(upstream.as_secs_f64());
            let own = OfGateway { gateway: Arc::clone(&gateway) };
            self.overhead.get_or_create(&own).observe(done.own.as_secs_f64());
        }
        let server = server.unwrap_or_default();
        let labels = Operation { gateway, server, mcp_method_name: done.method, outcome: done.outcome };
        self.operations.get_or_create(&labels).observe(done.total.as_secs_f64());
    }

    /// Counts a decision on a call.
    pub fn decision(&self, gateway: &Label, decision: &Decision<'_>) {
        let policy = |policy: Option<&PolicyId>| policy.map(ToString::to_string).unwrap_or_default();
        let verdict = |allowed: bool| if allowed { "allow" } else { "deny" };
        let labels = Judged {
            gateway: Arc::clone(gateway),
            policy: policy(decision.rule.map(|rule| rule.policy)),
            verdict: verdict(decision.allowed()),
            reason: decision.reason.as_str(),
        };
        self.decisions.get_or_create(&labels).inc();
        if let Some(note) = &decision.audit {
            let labels = Judged {
                gateway: Arc::clone(gateway),
                policy: policy(note.rule.map(|rule| rule.policy)),
                verdict: verdict(note.verdict == mcpmesh_ir::policy::Verdict::Allow),
                reason: note.reason.as_str(),
            };
            self.audits.get_or_create(&labels).inc();
        }
    }

    /// Counts a call over a limit.
    pub fn limited(&self, gateway: &Label, policy: &PolicyId, limit: &str, enforced: bool) {
        let labels = Limited {
            gateway: Arc::clone(gateway),
            policy: policy.to_string(),
            limit: limit.to_owned(),
            enforced: if enforced { "true" } else { "false" },
        };
        self.limited.get_or_create(&labels).inc();
    }

    /// Counts a request that was refused before any decision.
    pub fn refused(&self, gateway: Option<&Label>, reason: &'static str) {
        let gateway = gateway.map(Arc::clone).unwrap_or_default();
        self.refused.get_or_create(&Refused { gateway, reason }).inc();
    }

    /// Shows how many tools of a server are quarantined; none: it has no lock.
    pub fn quarantined(&self, gateway: &Label, server: &Label, tools: Option<usize>) {
        show(&self.quarantined, &OfServer::new(gateway, server), tools);
    }

    /// Shows how many objects of a server hide something in their texts.
    pub fn hiding(&self, gateway: &Label, server: &Label, objects: usize) {
        show(&self.hiding, &OfServer::new(gateway, server), (objects > 0).then_some(objects));
    }

    /// Shows how many objects of a server are not listed for a reason.
    pub fn left_out(&self, gateway: &Label, server: &Label, why: Why, objects: usize) {
        let (gateway, server) = (Arc::clone(gateway), Arc::clone(server));
        let count = (objects > 0).then_some(objects);
        show(&self.left_out, &LeftOut { gateway, server, reason: why.label() }, count);
    }

    /// A gateway does not have this server any more.
    pub fn forget_objects(&self, gateway: &Label, server: &Label) {
        show(&self.quarantined, &OfServer::new(gateway, server), None);
        show(&self.hiding, &OfServer::new(gateway, server), None);
        Why::ALL.into_iter().for_each(|why| self.left_out(gateway, server, why, 0));
    }

    /// Shows the state of a server.
    pub fn server_state(&self, server: &ServerId, state: &'static str, all: &[&'static str]) {
        for one in all {
            let labels = State { server: server.to_string(), state: one };
            self.servers.get_or_create(&labels).set(i64::from(*one == state));
        }
    }

    /// Forgets a server that is gone.
    pub fn forget_server(&self, server: &ServerId, all: &[&'static str]) {
        for state in all {
            self.servers.remove(&State { server: server.to_string(), state });
        }
    }

    /// Counts an open session until the guard is dropped.
    #[must_use]
    pub fn session(&self, gateway: &Label) -> Open {
        Open::new(self.sessions.get_or_create(&OfGateway { gateway: Arc::clone(gateway) }).clone())
    }

    /// Counts an open stream until the guard is dropped.
    #[must_use]
    pub fn stream(&self, gateway: &Label) -> Open {
        Open::new(self.streams.get_or_create(&OfGateway { gateway: Arc::clone(gateway) }).clone())
    }
}

/// An answered request.
#[derive(Debug)]
pub struct Done<'a> {
    /// The gateway.
    pub gateway: &'a Label,
    /// The server, when one was asked.
    pub server: Option<&'a Label>,
    /// [`crate::mcp::envelope::Method::label`].
    pub method: &'static str,
    /// `ok`, `tool_error`, `denied`, `limited`, `unknown`, `invalid`, `upstream_error`, `cancelled`, `internal`.
    pub outcome: &'static str,
    /// From the request's head to the answer's last byte.
    pub total: Duration,
    /// Ours, from the whole request until the server was asked.
    pub own: Duration,
    /// For which the server was waited for.
    pub upstream: Option<Duration>,
}

/// One of a gauge, taken back on drop.
#[derive(Debug)]
pub struct Open(Gauge);

impl Open {
    /// Counts one.
    #[must_use]
    pub fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The metrics as everyone holds them.
pub type Shared = Arc<Metrics>;

/// A number, or nothing of it.
fn show<L>(gauge: &Family<L, Gauge>, labels: &L, count: Option<usize>)
where
    L: Clone + Eq + std::hash::Hash,
{
    match count {
        Some(count) => {
            gauge.get_or_create(labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        None => {
            gauge.remove(labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exposition_is_openmetrics_with_units_in_the_names() {
        let metrics = Metrics::default();
        let gateway = Label::from("a/gw");
        metrics.refused(Some(&gateway), "unknown_credentials");
        let _session = metrics.session(&gateway);
        let text = metrics.render();
        assert!(
            text.contains(
                "mcpmesh_refused_requests_total{gateway=\"a/gw\",reason=\"unknown_credentials\"} 1"
            )
        );
        assert!(text.contains("mcpmesh_sessions{gateway=\"a/gw\"} 1"));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn an_open_guard_counts_until_it_is_dropped() {
        let metrics = Metrics::default();
        let guard = metrics.stream(&Label::from("a/gw"));
        drop(guard);
        assert!(metrics.render().contains("mcpmesh_streams{gateway=\"a/gw\"} 0"));
    }
}
