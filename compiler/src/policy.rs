//! One McpPolicy: its targets, rules and limits. An invalid one closes what it targets (product.md, semantics 5).

mod rule;

use std::collections::BTreeSet;
use std::sync::Arc;

use mcpmesh_crds::{LabelSelector, McpPolicy, McpPolicySpec, Mode, SelectorOperator, TargetKind, TargetRef};
use mcpmesh_ir::policy::{self, Effect, NameGlobs};
use mcpmesh_ir::resource::{self, Resource};
use mcpmesh_ir::{GatewayId, PolicyId, ServerId};

use crate::compile::{PolicyTarget, implied_gateway};
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason, Severity};
use crate::inputs::Inputs;
use crate::likeness::suggestion;
use rule::Scope;

/// A policy with what it is attached to.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    pub(crate) id: PolicyId,
    /// Whether it means something.
    pub(crate) valid: bool,
    /// None: it is invalid, or means something else in each namespace ([`within`]).
    pub(crate) resource: Option<Resource>,
    /// Whether it can let a call pass.
    pub(crate) allows: bool,
    enforced: bool,
    targets: Targets,
    /// The namespaces at whose gateways it makes the mesh level.
    pub(crate) selector: Option<LabelSelector>,
    /// What it names.
    pub(crate) named: Arc<[PolicyTarget]>,
    pub(crate) findings: Vec<Diagnostic>,
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
    /// Whether it speaks at a gateway's level.
    pub(crate) fn holds_for_gateway(&self, gateway: &GatewayId) -> bool {
        self.id.namespace == gateway.namespace
            && (self.targets.namespace || self.targets.gateways.contains(&gateway.name))
    }

    /// Whether it speaks at a server's level.
    pub(crate) fn holds_for_server(&self, server: &ServerId) -> bool {
        self.id.namespace == server.namespace
            && (self.targets.namespace || self.targets.servers.contains(&server.name))
    }

    /// Whether nothing passes where it is attached. An invalid Audit policy only goes unheard.
    pub(crate) fn closes(&self) -> bool {
        !self.valid && self.enforced
    }
}

/// Compiles one policy by itself.
pub(crate) fn compile(id: &PolicyId, object: &McpPolicy, inputs: &Inputs) -> CompiledPolicy {
    let mut findings = Findings::new(ObjectRef::new(ObjectKind::McpPolicy, &id.namespace, &id.name));
    let spec = &object.spec;
    let body = body(id, spec, &Scope::new(&id.namespace, inputs), &mut findings);
    let selector = selector(id, spec, inputs, &mut findings);
    let enforced = spec.mode == Mode::Enforce;
    if inputs.install.unread_policies.contains(id) {
        let message = "the policy cannot be read, and nothing is known of it but what it targets";
        findings.error("", Reason::InvalidSyntax, message, "mend what cannot be read in its file");
    }
    let made = Resource::new(id.to_string(), &body).ok().filter(|_| !findings.has_errors());
    if made.is_none() {
        let help = "mend its other errors";
        if enforced {
            let message = "the policy is invalid: until it is mended, nothing that it targets can be used";
            findings.error("", Reason::PolicyClosed, message, help);
        } else {
            findings.warning("", Reason::PolicyClosed, "the policy is invalid: it records nothing", help);
        }
    }
    let (targets, named) = targets(id, spec, inputs, &mut findings);
    tell_of_idle_names(id, spec, inputs, &mut findings);
    if spec.namespace_selector.is_some() && selector.is_none() {
        refuse_selector(inputs, &mut findings);
    }
    CompiledPolicy {
        id: id.clone(),
        valid: made.is_some(),
        allows: enforced && made.is_some() && body.access.iter().any(|rule| rule.effect == Effect::Allow),
        resource: made.filter(|_| selector.is_none()),
        enforced,
        targets,
        selector,
        named: named.into(),
        findings: findings.into_list(),
    }
}

/// What names no server there is does nothing: of a Deny or a limit, that protects nothing. Only names of the policy's own
/// namespace can be told; a policy of the mesh level has them in every one.
fn tell_of_idle_names(id: &PolicyId, spec: &McpPolicySpec, inputs: &Inputs, findings: &mut Findings) {
    let rules = spec.access.iter().enumerate().map(|(index, rule)| {
        let said = match rule.effect {
            mcpmesh_crds::Effect::Allow => (Severity::Note, "allowed"),
            mcpmesh_crds::Effect::Deny => (Severity::Warning, "denied"),
        };
        (format!("spec.access[{index}]"), rule.to.as_ref(), said)
    });
    let limits = spec.limits.iter().enumerate().map(|(index, limit)| {
        (format!("spec.limits[{index}]"), limit.to.as_ref(), (Severity::Warning, "limited"))
    });
    let known = &inputs.of(&id.namespace).servers;
    for (path, to, (severity, verb)) in rules.chain(limits).filter(|_| spec.namespace_selector.is_none()) {
        let given = to.into_iter().flat_map(|to| &to.servers).enumerate();
        for (index, name) in given.filter(|(_, name)| !name.contains('/')) {
            // What is no glob has been said.
            let Ok(glob) = NameGlobs::new(std::slice::from_ref(name)) else { continue };
            if !known.keys().any(|server| glob.matches(&server.name)) {
                let message =
                    format!("no McpServer {name} in namespace {}: nothing is {verb} there", id.namespace);
                let names = known.keys().map(|server| server.name.as_str());
                let help = suggestion(name, names).unwrap_or_else(|| {
                    "correct the name; a server of another namespace is NAMESPACE/NAME".to_owned()
                });
                let path = format!("{path}.to.servers[{index}]");
                findings.add(severity, &path, Reason::ServerNotFound, (message, &help));
            }
        }
    }
}

/// A policy of the mesh level as it holds in a namespace: what names no namespace is meant there.
pub(crate) fn within(
    id: &PolicyId,
    object: &McpPolicy,
    namespace: &str,
    inputs: &Inputs,
) -> Result<Resource, resource::Error> {
    // What there is to find was found when the policy was compiled by itself.
    let mut known = Findings::new(ObjectRef::new(ObjectKind::McpPolicy, &id.namespace, &id.name));
    Resource::new(id.to_string(), &body(id, &object.spec, &Scope::new(namespace, inputs), &mut known))
}

/// The selector of a policy that may have one. What is wrong with it makes the policy invalid.
fn selector(
    id: &PolicyId,
    spec: &McpPolicySpec,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<LabelSelector> {
    let selector = spec.namespace_selector.as_ref()?;
    let path = "spec.namespaceSelector";
    if !spec.target_refs.is_empty() {
        let message = "targetRefs and namespaceSelector exclude each other";
        findings.error(path, Reason::InvalidUnion, message, "make two policies");
    }
    let mut meant =
        LabelSelector { match_labels: selector.match_labels.clone(), match_expressions: Vec::new() };
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let wants = matches!(requirement.operator, SelectorOperator::In | SelectorOperator::NotIn);
        if wants == requirement.values.is_empty() {
            // Whom it would have spared is not known: the invalid policy closes them, too.
            let message = "values are for In and NotIn, which need some";
            let path = format!("{path}.matchExpressions[{index}]");
            findings.error(&path, Reason::InvalidSelector, message, "add values, or remove them");
        } else {
            meant.match_expressions.push(requirement.clone());
        }
    }
    inputs.is_operators(&id.namespace).then_some(meant)
}

/// It selects nothing, and so closes nothing.
fn refuse_selector(inputs: &Inputs, findings: &mut Findings) {
    let path = "spec.namespaceSelector";
    match &inputs.install.cluster {
        None => {
            let help = "name targetRefs here; with a cluster, apply it there";
            findings.error(
                path,
                Reason::NotInCluster,
                "there is no operator's namespace on one machine",
                help,
            );
        }
        Some(_) => {
            let message =
                "only policies of the operator's namespace select namespaces: this one does nothing";
            findings.error(path, Reason::InvalidTarget, message, "name targetRefs of its own namespace");
        }
    }
}

fn body(id: &PolicyId, spec: &McpPolicySpec, scope: &Scope<'_>, findings: &mut Findings) -> policy::Policy {
    let mode = match spec.mode {
        Mode::Enforce => policy::Mode::Enforce,
        Mode::Audit => policy::Mode::Audit,
    };
    check_names(spec.access.iter().map(|rule| &rule.name), "spec.access", findings);
    check_names(spec.limits.iter().map(|limit| &limit.name), "spec.limits", findings);
    let access = spec
        .access
        .iter()
        .enumerate()
        .map(|(index, rule)| rule::access(scope, rule, &format!("spec.access[{index}]"), findings));
    let access = access.collect();
    let limits = spec
        .limits
        .iter()
        .enumerate()
        .map(|(index, limit)| rule::limit(scope, limit, &format!("spec.limits[{index}]"), findings));
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
fn targets(
    id: &PolicyId,
    spec: &McpPolicySpec,
    inputs: &Inputs,
    findings: &mut Findings,
) -> (Targets, Vec<PolicyTarget>) {
    let (mut targets, mut named) = (Targets::default(), Vec::new());
    let count = spec.target_refs.len();
    if count > 16 || (count == 0 && spec.namespace_selector.is_none()) {
        let message = format!("{count} targets are given");
        findings.error("spec.targetRefs", Reason::InvalidTarget, message, "give 1 to 16");
    }
    for (index, target) in spec.target_refs.iter().enumerate() {
        let refused = refused(id, target, &format!("spec.targetRefs[{index}]"), inputs, findings);
        let name = target.name.clone();
        named.push(PolicyTarget { kind: target.kind, name: name.clone(), refused });
        match target.kind {
            _ if refused.is_some() => {}
            TargetKind::McpGateway => _ = targets.gateways.insert(name),
            TargetKind::McpServer => _ = targets.servers.insert(name),
            TargetKind::Namespace => targets.namespace = true,
        }
    }
    (targets, named)
}

/// Why a policy is not attached to a target, after saying so.
fn refused(
    id: &PolicyId,
    target: &TargetRef,
    path: &str,
    inputs: &Inputs,
    findings: &mut Findings,
) -> Option<Reason> {
    if !right_group(target) {
        let message = format!("{:?} has no such kind", target.group.as_deref().unwrap_or_default());
        findings.error(&format!("{path}.group"), Reason::InvalidTarget, message, "leave it out");
        return Some(Reason::InvalidTarget);
    }
    let (namespace, name) = (&id.namespace, &target.name);
    let known = match target.kind {
        TargetKind::McpGateway => is_gateway(&GatewayId::new(namespace, name), inputs),
        TargetKind::McpServer => inputs.of(namespace).servers.contains_key(&ServerId::new(namespace, name)),
        TargetKind::Namespace => name == namespace,
    };
    if known { None } else { Some(missing(id, target, (&format!("{path}.name"), inputs), findings)) }
}

fn right_group(target: &TargetRef) -> bool {
    let right = match target.kind {
        TargetKind::McpGateway | TargetKind::McpServer => mcpmesh_crds::GROUP,
        TargetKind::Namespace => "",
    };
    target.group.as_ref().is_none_or(|group| group == right)
}

fn is_gateway(id: &GatewayId, inputs: &Inputs) -> bool {
    inputs.of(&id.namespace).gateways.contains_key(id)
        || (inputs.has_implied_gateway() && *id == implied_gateway())
}

fn missing(
    id: &PolicyId,
    target: &TargetRef,
    (path, inputs): (&str, &Inputs),
    findings: &mut Findings,
) -> Reason {
    let namespace = &id.namespace;
    if target.kind == TargetKind::Namespace {
        let message = format!("a policy of namespace {namespace} cannot target namespace {}", target.name);
        findings.error(path, Reason::InvalidTarget, message, "name its own, or move the policy");
        return Reason::InvalidTarget;
    }
    let message = format!(
        "no {:?} {} in namespace {namespace}: the policy does nothing for it",
        target.kind, target.name
    );
    let here = inputs.of(namespace);
    let names: Vec<&str> = match target.kind {
        TargetKind::McpGateway => here.gateways.keys().map(|id| id.name.as_str()).collect(),
        TargetKind::McpServer => here.servers.keys().map(|id| id.name.as_str()).collect(),
        TargetKind::Namespace => Vec::new(),
    };
    let help = suggestion(&target.name, names)
        .unwrap_or_else(|| "correct the name; a policy targets its own namespace only".to_owned());
    findings.error(path, Reason::TargetNotFound, message, &help);
    Reason::TargetNotFound
}
