//! The compile: objects in, what proxies serve and what is run out. It has no memory (decisions.md 9).
//!
//! Three steps, each pure: every server and every policy by itself, then every gateway from those.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_ir::{Fleet, FleetId, GatewayId, PolicyId, ServerId, Snapshot};

use crate::child::{self, Child};
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason};
use crate::gateway::{self, Front};
use crate::inputs::Inputs;
use crate::policy::{self, CompiledPolicy};
use crate::server::{self, CompiledServer};
use crate::workload::Workload;

/// Namespace and name of the gateway that a folder without McpGateway has.
pub const IMPLIED_GATEWAY: (&str, &str) = ("default", "default");

/// Namespace and name of the policy that lets anyone use the implied gateway. No object can have this name.
pub const IMPLIED_POLICY: (&str, &str) = ("default", "implied:anyone");

/// What a compile makes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Compiled {
    /// What each gateway's proxies get.
    pub snapshots: BTreeMap<GatewayId, Snapshot>,
    /// What is run, for every enabled server that can be.
    pub workloads: BTreeMap<ServerId, Workload>,
    /// In a cluster: what the proxies of each gateway, and the sidecars of each server that is run, get.
    pub fleets: BTreeMap<FleetId, Fleet>,
    /// In a cluster: the objects that the operator makes for each of these fleets.
    pub children: BTreeMap<FleetId, Vec<Child>>,
    /// The servers behind each gateway, in order of attachment.
    pub attached: BTreeMap<GatewayId, Vec<ServerId>>,
    /// What the users should know, in order of objects.
    pub diagnostics: Vec<Diagnostic>,
}

/// The objects compiled one by one: what a gateway is made of.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// Enabled servers without errors.
    pub(crate) servers: BTreeMap<ServerId, CompiledServer>,
    /// Servers that are there and cannot be used, and why in a word.
    pub(crate) unusable: BTreeMap<ServerId, &'static str>,
    /// All policies, invalid ones too: those close their targets.
    pub(crate) policies: BTreeMap<PolicyId, CompiledPolicy>,
}

/// What one gateway's compile makes: its snapshot, the servers behind it, its findings.
pub(crate) type GatewayOutcome = (Option<Snapshot>, Vec<ServerId>, Vec<Diagnostic>);

/// Compiles. Equal inputs give equal outputs, to the byte.
#[must_use]
pub fn compile(inputs: &Inputs) -> Compiled {
    compile_with(inputs, |front, parts| gateway::compile(front, inputs, parts))
}

/// Compiles, with the gateways' part from `outcome`: the compile itself, or one remembered.
pub(crate) fn compile_with(
    inputs: &Inputs,
    mut outcome: impl FnMut(&Front<'_>, &Parts) -> GatewayOutcome,
) -> Compiled {
    let mut compiled = Compiled::default();
    let parts = parts(inputs, &mut compiled);
    let mut attached = BTreeSet::new();
    for front in fronts(inputs) {
        let (snapshot, servers, findings) = outcome(&front, &parts);
        compiled.attached.insert(front.id.clone(), servers.clone());
        attached.extend(servers);
        compiled.diagnostics.extend(findings);
        if let Some(snapshot) = &snapshot
            && inputs.install.cluster.is_some()
        {
            let fleet = FleetId::Gateway(front.id.clone());
            compiled.fleets.insert(fleet.clone(), Fleet::new(fleet, snapshot.resources.iter().cloned()));
        }
        if let Some(snapshot) = snapshot {
            compiled.snapshots.insert(snapshot.gateway.clone(), snapshot);
        }
    }
    compiled.children = child::all(inputs, &compiled);
    for id in parts.servers.keys().filter(|id| !attached.contains(*id)) {
        let note = not_attached(id, &compiled.diagnostics);
        compiled.diagnostics.extend(note);
    }
    compiled.diagnostics.sort();
    compiled.diagnostics.dedup();
    compiled
}

fn parts(inputs: &Inputs, compiled: &mut Compiled) -> Parts {
    let mut parts = Parts::default();
    for (id, object) in &inputs.servers {
        let (outcome, findings) = server::compile(id, object, inputs);
        compiled.diagnostics.extend(findings);
        match outcome {
            Ok(mut server) => {
                if let Some(workload) = server.workload.take() {
                    compiled.workloads.insert(id.clone(), workload);
                }
                parts.servers.insert(id.clone(), server);
            }
            Err(why) => {
                parts.unusable.insert(id.clone(), why);
            }
        }
    }
    for (id, object) in &inputs.policies {
        let (policy, findings) = policy::compile(id, object, inputs);
        compiled.diagnostics.extend(findings);
        parts.policies.insert(id.clone(), policy);
    }
    parts
}

/// The gateways, or the implied one.
fn fronts(inputs: &Inputs) -> Vec<Front<'_>> {
    if inputs.has_implied_gateway() {
        return vec![Front { id: implied_gateway(), object: None }];
    }
    inputs.gateways.iter().map(|(id, object)| Front { id: id.clone(), object: Some(object) }).collect()
}

/// The id of the implied gateway.
pub(crate) fn implied_gateway() -> GatewayId {
    GatewayId::new(IMPLIED_GATEWAY.0, IMPLIED_GATEWAY.1)
}

/// A note, unless the server already has the reason among its findings.
fn not_attached(id: &ServerId, known: &[Diagnostic]) -> Vec<Diagnostic> {
    let object = ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name);
    let explains = |finding: &Diagnostic| {
        matches!(finding.reason, Reason::PrefixConflict | Reason::InvalidPrefix)
            && finding.object.as_ref() == Some(&object)
    };
    if known.iter().any(explains) {
        return Vec::new();
    }
    let mut findings = Findings::new(object);
    let help = "an McpGateway of its namespace takes all its servers unless spec.servers says otherwise";
    findings.note("", Reason::NotAttached, "no gateway has this server", help);
    findings.into_list()
}
