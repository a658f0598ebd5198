//! One McpPolicy: its targets, rules and limits. An invalid one closes what it targets (product.md, semantics 5).

mod rule;

use std::collections::BTreeSet;

use mcpmesh_crds::{McpPolicy, McpPolicySpec, Mode, TargetKind, TargetRef};
use mcpmesh_ir::policy::{self, Effect};
use mcpmesh_ir::{GatewayId, PolicyId, ServerId};

use crate::compile::implied_gateway;
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason};
use crate::inputs::Inputs;

/// A policy with what it is attached to.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    /// None: it is invalid.
    pub(crate) body: Option<policy::Policy>,
    targets: Targets,
    enforced: bool,
}

/// Targets, all in the policy's namespace.
#[derive(Debug, Default)]
struct Targets {
    gateways: BTreeSet<String>,
    servers: BTreeSet<String>,
    /// The whole namespace.
    namespace: bool,
}

impl CompiledPolicy {
    /// Whether it speaks at a gateway's level; `id` is its own.
    pub(crate) fn holds_for_gateway(&self, id: &PolicyId, gateway: &GatewayId) -> bool {
        id.namespace == gateway.namespace
            && (self.targets.namespace || self.targets.gateways.contains(&gateway.name))
    }

    /// Whether it speaks at a server's level; `id` is its own.
    pub(crate) fn holds_for_server(&self, id: &PolicyId, server: &ServerId) -> bool {
        id.namespace == server.namespace
            && (self.targets.namespace || self.targets.servers.contains(&server.name))
    }

    /// Whether nothing passes where it is attached. An invalid Audit policy only goes unheard.
    pub(crate) fn closes(&self) -> bool {
        self.body.is_none() && self.enforced
    }

    /// Whether it can let a call pass.
    pub(crate) fn allows(&self) -> bool {
        let rules = self.body.iter().flat_map(|policy| &policy.access);
        self.enforced && rules.into_iter().any(|rule| rule.effect == Effect::Allow)
    }
}

/// Compiles one policy by itself.
pub(crate) fn compile(
    id: &PolicyId,
    object: &McpPolicy,
    inputs: &Inputs,
) -> (CompiledPolicy, Vec<Diagnostic>) {
    let mut findings = Findings::new(ObjectRef::new(ObjectKind::McpPolicy, &id.namespace, &id.name));
    let spec = &object.spec;
    let body = body(id, spec, &mut findings);
    let enforced = spec.mode == Mode::Enforce;
    if findings.has_errors() {
        let help = "mend the errors above";
        if enforced {
            let message = "the policy is invalid: until it is mended, nothing that it targets can be used";
            findings.error("", Reason::PolicyClosed, message, help);
        } else {
            findings.warning("", Reason::PolicyClosed, "the policy is invalid: it records nothing", help);
        }
    }
    let body = (!findings.has_errors()).then_some(body);
    let targets = targets(id, spec, inputs, &mut findings);
    (CompiledPolicy { body, targets, enforced }, findings.into_list())
}

fn body(id: &PolicyId, spec: &McpPolicySpec, findings: &mut Findings) -> policy::Policy {
    let mode = match spec.mode {
        Mode::Enforce => policy::Mode::Enforce,
        Mode::Audit => policy::Mode::Audit,
    };
    check_names(spec.access.iter().map(|rule| &rule.name), "spec.access", findings);
    check_names(spec.limits.iter().map(|limit| &limit.name), "spec.limits", findings);
    let access =
        spec.access.iter().enumerate().map(|(index, rule)| {
            rule::access(&id.namespace, rule, &format!("spec.access[{index}]"), findings)
        });
    let access = access.collect();
    let limits =
        spec.limits.iter().enumerate().map(|(index, limit)| {
            rule::limit(&id.namespace, limit, &format!("spec.limits[{index}]"), findings)
        });
    policy::Policy { id: id.clone(), mode, access, limits: limits.collect() }
}

fn check_names<'n>(names: impl Iterator<Item = &'n String>, path: &str, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        let path = format!("{path}[{index}].name");
        if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
            let message = format!("{name:?} is not a name");
            findings.error(&path, Reason::InvalidValue, message, "use 1 to 63 characters");
        } else if !seen.insert(name) {
            let message = format!("the name {name:?} is there twice");
            findings.error(&path, Reason::DuplicateName, message, "choose another: logs and can-i show it");
        }
    }
}

/// A target that is wrong or missing is reported and closes nothing else.
fn targets(id: &PolicyId, spec: &McpPolicySpec, inputs: &Inputs, findings: &mut Findings) -> Targets {
    let mut targets = Targets::default();
    if !(1..=16).contains(&spec.target_refs.len()) {
        let message = format!("{} targets are given", spec.target_refs.len());
        findings.error("spec.targetRefs", Reason::InvalidTarget, message, "give 1 to 16");
    }
    for (index, target) in spec.target_refs.iter().enumerate() {
        let path = format!("spec.targetRefs[{index}]");
        if !right_group(target) {
            let message = format!("{:?} has no such kind", target.group.as_deref().unwrap_or_default());
            findings.error(&format!("{path}.group"), Reason::InvalidTarget, message, "leave it out");
            continue;
        }
        let (namespace, name) = (&id.namespace, target.name.clone());
        let known = match target.kind {
            TargetKind::McpGateway => is_gateway(&GatewayId::new(namespace, &name), inputs),
            TargetKind::McpServer => inputs.servers.contains_key(&ServerId::new(namespace, &name)),
            TargetKind::Namespace => name == *namespace,
        };
        if !known {
            missing(id, target, &format!("{path}.name"), findings);
            continue;
        }
        match target.kind {
            TargetKind::McpGateway => _ = targets.gateways.insert(name),
            TargetKind::McpServer => _ = targets.servers.insert(name),
            TargetKind::Namespace => targets.namespace = true,
        }
    }
    targets
}

fn right_group(target: &TargetRef) -> bool {
    let right = match target.kind {
        TargetKind::McpGateway | TargetKind::McpServer => mcpmesh_crds::GROUP,
        TargetKind::Namespace => "",
    };
    target.group.as_ref().is_none_or(|group| group == right)
}

fn is_gateway(id: &GatewayId, inputs: &Inputs) -> bool {
    inputs.gateways.contains_key(id) || (inputs.has_implied_gateway() && *id == implied_gateway())
}

fn missing(id: &PolicyId, target: &TargetRef, path: &str, findings: &mut Findings) {
    let namespace = &id.namespace;
    if target.kind == TargetKind::Namespace {
        let message = format!("a policy of namespace {namespace} cannot target namespace {}", target.name);
        findings.error(path, Reason::InvalidTarget, message, "name its own, or move the policy");
        return;
    }
    let message = format!(
        "no {:?} {} in namespace {namespace}: the policy does nothing for it",
        target.kind, target.name
    );
    let help = "correct the name; a policy targets its own namespace only";
    findings.error(path, Reason::TargetNotFound, message, help);
}
