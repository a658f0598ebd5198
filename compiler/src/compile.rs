//! The compile: objects in, what proxies serve and what is run out. It has no memory (decisions.md 9).
//!
//! Four steps, each pure: the objects of each namespace by themselves, every gateway from those, in a cluster every
//! sidecar from both, and what users should know of the whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mcpmesh_crds::TargetKind;
use mcpmesh_ir::gateway::{Level, LevelKind};
use mcpmesh_ir::{Fleet, FleetId, GatewayId, PolicyId, ServerId, Snapshot};

use crate::child::Child;
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason};
use crate::gateway::Front;
use crate::inputs::Inputs;
use crate::memo::Memo;
use crate::policy::CompiledPolicy;
use crate::server::{CompiledServer, ServerPart};
use crate::workload::Workload;

/// Namespace and name of the gateway that a folder without McpGateway has.
pub const IMPLIED_GATEWAY: (&str, &str) = ("default", "default");

/// Namespace and name of the policy that lets anyone use the implied gateway. No object can have this name.
pub const IMPLIED_POLICY: (&str, &str) = ("default", "implied:anyone");

/// What a compile makes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compiled {
    /// On one machine: what each gateway gets.
    pub snapshots: BTreeMap<GatewayId, Snapshot>,
    /// What is run, for every enabled server that can be.
    pub workloads: BTreeMap<ServerId, Arc<Workload>>,
    /// In a cluster: what the proxies of each gateway, and the sidecars of each server that is run, get. Their
    /// watermarks are empty: whoever publishes knows them.
    pub fleets: BTreeMap<FleetId, Arc<Fleet>>,
    /// In a cluster: the objects that the operator makes for each of these fleets.
    pub children: BTreeMap<FleetId, Arc<Vec<Child>>>,
    /// The servers behind each gateway, in order of attachment.
    pub attached: BTreeMap<GatewayId, Arc<[ServerId]>>,
    /// The gateways before each server that has any, in order.
    pub gateways: BTreeMap<ServerId, Vec<GatewayId>>,
    /// The targets that each policy names, in its order. A policy with a namespaceSelector names none.
    pub policy_targets: BTreeMap<PolicyId, Arc<[PolicyTarget]>>,
    /// What the users should know, in order of objects ([`crate::findings_of`] relies on it).
    pub diagnostics: Vec<Diagnostic>,
}

/// What a compile makes, by the namespace of the objects. One in which nothing changed is the same `Arc` as in a memo's
/// compile before.
pub type ByNamespace = BTreeMap<String, Arc<Compiled>>;

impl Compiled {
    /// All namespaces in one.
    #[must_use]
    pub fn whole(parts: &ByNamespace) -> Self {
        let mut whole = Self::default();
        for part in parts.values() {
            let Self {
                snapshots,
                workloads,
                fleets,
                children,
                attached,
                gateways,
                policy_targets,
                diagnostics,
            } = Self::clone(part);
            whole.snapshots.extend(snapshots);
            whole.workloads.extend(workloads);
            whole.fleets.extend(fleets);
            whole.children.extend(children);
            whole.attached.extend(attached);
            whole.gateways.extend(gateways);
            whole.policy_targets.extend(policy_targets);
            whole.diagnostics.extend(diagnostics);
        }
        whole.diagnostics.sort();
        whole.diagnostics.dedup();
        whole
    }
}

/// What a policy names in `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTarget {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// Why the policy is not attached to it; none when it is.
    pub refused: Option<Reason>,
}

/// The objects of one namespace, compiled one by one.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    pub(crate) servers: BTreeMap<ServerId, Arc<ServerPart>>,
    /// All policies, invalid ones too: those close their targets.
    pub(crate) policies: BTreeMap<PolicyId, Arc<CompiledPolicy>>,
}

impl Namespace {
    /// The servers that can be used, in order.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &CompiledServer> {
        self.servers.values().filter_map(|part| part.outcome.as_ref().ok())
    }

    pub(crate) fn server(&self, id: &ServerId) -> Option<&CompiledServer> {
        self.servers.get(id)?.outcome.as_ref().ok()
    }

    /// The level of a server's own policies; none when it has none.
    pub(crate) fn server_levels(&self, server: &ServerId) -> Vec<Level> {
        let level = self.level(LevelKind::Server, |policy| policy.holds_for_server(server));
        if level.policies.is_empty() && level.closed.is_none() { Vec::new() } else { vec![level] }
    }

    /// The level that the chosen policies make. An invalid one closes it.
    pub(crate) fn level(&self, kind: LevelKind, chosen: impl Fn(&CompiledPolicy) -> bool) -> Level {
        let mut level = Level { kind, policies: Vec::new(), closed: None };
        for policy in self.policies.values().filter(|policy| chosen(policy)) {
            if policy.valid {
                level.policies.push(policy.id.clone());
            } else if policy.closes() {
                level.closed.get_or_insert_with(|| policy.id.clone());
            }
        }
        level
    }
}

/// The objects compiled one by one: what a gateway is made of.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) namespaces: BTreeMap<String, Arc<Namespace>>,
}

impl Parts {
    /// The servers of all namespaces that can be used.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &CompiledServer> {
        self.namespaces.values().flat_map(|namespace| namespace.usable())
    }

    pub(crate) fn server(&self, id: &ServerId) -> Option<&CompiledServer> {
        self.namespaces.get(&id.namespace)?.server(id)
    }

    /// Why a server that is there cannot be used, in a word.
    pub(crate) fn unusable(&self, id: &ServerId) -> Option<&'static str> {
        self.namespaces.get(&id.namespace)?.servers.get(id)?.outcome.as_ref().err().copied()
    }

    pub(crate) fn policy(&self, id: &PolicyId) -> Option<&CompiledPolicy> {
        self.namespaces.get(&id.namespace)?.policies.get(id).map(Arc::as_ref)
    }

    /// The levels of a server that are judged at this gateway: none where its sidecar does it (decisions.md 6).
    pub(crate) fn levels_at(&self, server: &ServerId, gateway: &GatewayId) -> Vec<Level> {
        let Some(namespace) = self.namespaces.get(&server.namespace) else { return Vec::new() };
        let elsewhere = server.namespace != gateway.namespace
            && namespace.server(server).is_some_and(|server| server.beside.is_some());
        if elsewhere { Vec::new() } else { namespace.server_levels(server) }
    }
}

/// Compiles. Equal inputs give equal outputs, to the byte.
#[must_use]
pub fn compile(inputs: &Inputs) -> Compiled {
    Compiled::whole(&Memo::default().compile(inputs))
}

/// The gateways of a namespace, or the implied one.
pub(crate) fn fronts<'i>(namespace: &str, inputs: &'i Inputs) -> Vec<Front<'i>> {
    if inputs.has_implied_gateway() {
        let here = namespace == IMPLIED_GATEWAY.0;
        return here.then(|| Front { id: implied_gateway(), object: None }).into_iter().collect();
    }
    let gateways = inputs.of(namespace).gateways.iter();
    gateways.map(|(id, object)| Front { id: id.clone(), object: Some(object) }).collect()
}

/// The id of the implied gateway.
pub(crate) fn implied_gateway() -> GatewayId {
    GatewayId::new(IMPLIED_GATEWAY.0, IMPLIED_GATEWAY.1)
}

/// A note for each server of a namespace that no gateway has, unless the reason is among the findings.
pub(crate) fn notes_on_unattached(
    namespace: &Namespace,
    attached: &BTreeMap<ServerId, Vec<GatewayId>>,
    known: &[Diagnostic],
) -> Vec<Diagnostic> {
    let explained: BTreeSet<&ObjectRef> = known
        .iter()
        .filter(|finding| matches!(finding.reason, Reason::PrefixConflict | Reason::InvalidPrefix))
        .filter_map(|finding| finding.object.as_ref())
        .collect();
    let mut notes = Vec::new();
    let unattached = |server: &&CompiledServer| !attached.contains_key(&server.id) && server.direct.is_none();
    for server in namespace.usable().filter(unattached) {
        let object = ObjectRef::new(ObjectKind::McpServer, &server.id.namespace, &server.id.name);
        if explained.contains(&object) {
            continue;
        }
        let mut findings = Findings::new(object);
        let help = "an McpGateway of its namespace takes all its servers unless spec.servers says otherwise";
        findings.note("", Reason::NotAttached, "no gateway has this server", help);
        notes.extend(findings.into_list());
    }
    notes
}
