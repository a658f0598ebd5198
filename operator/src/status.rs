//! Status from what is known: pure. An object, what the compile found, what lives, what proxies say.

mod conditions;
mod gateway;
mod keys;
pub(crate) mod lock;
mod policy;
mod server;
pub(crate) mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use mcpmesh_compiler::{Diagnostic, ObjectKind, ObjectRef, PolicyTarget, Severity};
use mcpmesh_ir::catalog::{CatalogIndex, Observed};
use mcpmesh_ir::push::{ProxyReport, Rejection};
use mcpmesh_ir::{FleetId, GatewayId, PolicyId, ResourceKind, ServerId};

use crate::world::child::Rollout;
pub(crate) use gateway::gateway;
pub(crate) use policy::policy;
pub(crate) use server::server;

/// What status derives from.
#[derive(Debug, Default)]
pub(crate) struct View {
    findings: BTreeMap<ObjectRef, Vec<Diagnostic>>,
    /// Rejections by the object that caused them: proxies' words, each once.
    rejections: BTreeMap<ObjectRef, BTreeSet<String>>,
    proxies: BTreeMap<FleetId, Vec<ProxyReport>>,
    observed: BTreeMap<ServerId, Observed>,
    pub(crate) attached: BTreeMap<GatewayId, Vec<ServerId>>,
    /// Of the fleets that have one.
    pub(crate) revisions: BTreeMap<FleetId, String>,
    /// Deployments of fleets.
    pub(crate) rollouts: BTreeMap<FleetId, Rollout>,
    /// The fleets whose pods we make.
    pub(crate) deployed: BTreeSet<FleetId>,
    /// What each policy names, as it was compiled; of one that cannot be read nothing.
    pub(crate) policy_targets: BTreeMap<PolicyId, Arc<[PolicyTarget]>>,
    /// What pinned tools were like: of what changed in one, a lock itself says nothing.
    pub(crate) pinned: Arc<lock::Pinned>,
    /// When a condition changes now.
    pub(crate) now: Timestamp,
}

impl View {
    /// From findings and reports; the rest is set by hand.
    pub(crate) fn new(findings: &[Diagnostic], reports: Vec<ProxyReport>, now: Timestamp) -> Self {
        let mut view = Self { now, ..Self::default() };
        for finding in findings {
            if let Some(object) = &finding.object {
                view.findings.entry(object.clone()).or_default().push(finding.clone());
            }
        }
        for report in reports {
            let Ok(fleet) = report.fleet.parse::<FleetId>() else { continue };
            for rejection in &report.rejections {
                if let Some(object) = cause(&fleet, rejection) {
                    view.rejections.entry(object).or_default().insert(rejection.reason.clone());
                }
            }
            for observation in &report.observations {
                let seen = serde_json::from_slice(&observation.body).ok();
                if let (Ok(server), Some(seen)) = (observation.server.parse(), seen) {
                    view.observe(server, seen);
                }
            }
            view.proxies.entry(fleet).or_default().push(report);
        }
        view
    }

    /// While an observer changes there may be two words of one server: the one that knows more counts.
    fn observe(&mut self, server: ServerId, seen: Observed) {
        let better = self.observed.get(&server).is_none_or(|known| weight(&seen) >= weight(known));
        if better {
            self.observed.insert(server, seen);
        }
    }

    /// What a server offers, as it was seen last.
    fn index(&self, server: &ServerId) -> Option<&CatalogIndex> {
        self.observed.get(server)?.index.as_ref()
    }

    fn findings(&self, object: &ObjectRef) -> &[Diagnostic] {
        self.findings.get(object).map(Vec::as_slice).unwrap_or_default()
    }

    /// What proxies say against an object; none: nothing.
    fn rejected(&self, object: &ObjectRef) -> Option<String> {
        let reasons = self.rejections.get(object)?;
        Some(reasons.iter().map(String::as_str).collect::<Vec<_>>().join("; "))
    }

    fn proxies(&self, fleet: &FleetId) -> &[ProxyReport] {
        self.proxies.get(fleet).map(Vec::as_slice).unwrap_or_default()
    }

    /// How many proxies a fleet has connected, how many of them have its revision without rejecting any of it, and how
    /// many resources they reject.
    pub(crate) fn in_sync(&self, fleet: &FleetId) -> (usize, usize, usize) {
        let proxies = self.proxies(fleet);
        let revision = self.revisions.get(fleet);
        let synced =
            proxies.iter().filter(|proxy| Some(&proxy.revision) == revision && proxy.rejections.is_empty());
        (
            proxies.len(),
            synced.count(),
            proxies.iter().map(|proxy| proxy.rejections.len()).max().unwrap_or_default(),
        )
    }

    /// Every fleet with proxies or a configuration.
    pub(crate) fn fleets(&self) -> BTreeSet<&FleetId> {
        self.proxies.keys().chain(self.revisions.keys()).collect()
    }
}

fn weight(seen: &Observed) -> u8 {
    use mcpmesh_ir::catalog::ObservedState::{Connecting, Failed, Ready};
    match seen.state {
        Connecting => 0,
        Failed { .. } => 1,
        Ready => 2,
    }
}

/// The object that a rejected resource was compiled from. Resources are named after it.
fn cause(fleet: &FleetId, rejection: &Rejection) -> Option<ObjectRef> {
    let kind = match (rejection.kind.parse().ok()?, fleet) {
        (ResourceKind::Gateway | ResourceKind::TokenIssuer, FleetId::Gateway(id)) => {
            return Some(ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name));
        }
        // The pseudo-gateways of a server's own fleet are the server's.
        (ResourceKind::Gateway | ResourceKind::TokenIssuer, FleetId::Server(id)) => {
            return Some(ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name));
        }
        (ResourceKind::Server, _) => ObjectKind::McpServer,
        (ResourceKind::Policy, _) => ObjectKind::McpPolicy,
        (ResourceKind::ApiKey | ResourceKind::Secret, _) => ObjectKind::Secret,
    };
    let (namespace, name) = rejection.name.split_once('/')?;
    Some(ObjectRef::new(kind, namespace, name))
}

/// The errors of an object: its own, and those of its references.
fn errors(findings: &[Diagnostic]) -> (Vec<&Diagnostic>, Vec<&Diagnostic>) {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.partition(|finding| !finding.reason.is_reference())
}

/// A finding as a condition's message.
fn message(finding: &Diagnostic) -> String {
    let place = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
    let help = finding.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
    format!("{place}{}{help}", finding.message)
}

/// Several findings as one message. Bounded: meta/v1 Condition takes 32768 bytes, and nobody reads more than a few.
fn messages(findings: &[&Diagnostic]) -> String {
    let mut text = findings.iter().take(3).map(|finding| message(finding)).collect::<Vec<_>>().join(". ");
    if findings.len() > 3 {
        text.push_str(&format!(". And {} more", findings.len() - 3));
    }
    text.chars().take(4096).collect()
}

#[cfg(test)]
mod tests;
