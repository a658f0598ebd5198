//! Status from what is known: pure. An object, what the compile found, what lives, what proxies say.

mod conditions;
mod gateway;
mod keys;
pub(crate) mod lock;
mod policy;
mod server;
pub(crate) mod words;
pub(crate) mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use mcpmesh_compiler::{Diagnostic, ObjectRef, PolicyTarget, Severity};
use mcpmesh_ir::catalog::CatalogIndex;
use mcpmesh_ir::{FleetId, GatewayId, PolicyId, ServerId};

use crate::world::child::Rollout;
pub(crate) use gateway::gateway;
pub(crate) use policy::policy;
pub(crate) use server::server;
use words::{Word, Words};

/// What the status of a namespace's objects derives from.
#[derive(Debug, Default)]
pub(crate) struct View {
    findings: BTreeMap<ObjectRef, Vec<Diagnostic>>,
    words: Arc<Words>,
    /// The servers behind each gateway of the namespace.
    pub(crate) attached: BTreeMap<GatewayId, Arc<[ServerId]>>,
    /// The gateways before each server of the namespace.
    pub(crate) gateways: BTreeMap<ServerId, Vec<GatewayId>>,
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
    /// From findings and what proxies say; the rest is set by hand.
    pub(crate) fn new(findings: Vec<Diagnostic>, words: Arc<Words>, now: Timestamp) -> Self {
        let mut view = Self { words, now, ..Self::default() };
        for finding in findings {
            if let Some(object) = &finding.object {
                view.findings.entry(object.clone()).or_default().push(finding);
            }
        }
        view
    }

    /// What a server offers, as it was seen last.
    fn index(&self, server: &ServerId) -> Option<&CatalogIndex> {
        self.words.observed(server)?.index.as_ref()
    }

    fn findings(&self, object: &ObjectRef) -> &[Diagnostic] {
        self.findings.get(object).map(Vec::as_slice).unwrap_or_default()
    }

    /// What proxies say against an object; none: nothing.
    fn rejected(&self, object: &ObjectRef) -> Option<String> {
        self.words.rejected(object)
    }

    fn proxies(&self, fleet: &FleetId) -> &[Word] {
        self.words.proxies(fleet)
    }

    fn in_sync(&self, fleet: &FleetId) -> (usize, usize, usize) {
        self.words.in_sync(fleet, self.revisions.get(fleet).map(String::as_str))
    }
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
