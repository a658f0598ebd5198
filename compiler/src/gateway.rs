//! One gateway: where it listens, whom it lets in, what stands behind it and what is judged.

mod attach;
mod listener;
pub(crate) mod token_issuer;

use std::collections::BTreeSet;
use std::sync::Arc;

use mcpmesh_crds::{Anonymous, ApiKeys, McpGateway, Prefixing};
use mcpmesh_ir::gateway::{self, Level, LevelKind, Naming};
use mcpmesh_ir::policy::{AccessRule, Effect, Mode, Policy, Subject, To};
use mcpmesh_ir::resource::{self, Resource};
use mcpmesh_ir::{ApiKey, Fleet, FleetId, GatewayId, PolicyId, ServerId, Snapshot};

use crate::api_key;
use crate::child::{self, Child};
use crate::compile::{IMPLIED_POLICY, Parts};
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason};
use crate::inputs::Inputs;
use crate::policy;
use crate::secret::{self, KeyRef};

pub(crate) use attach::includes;

/// A gateway to compile.
pub(crate) struct Front<'i> {
    pub(crate) id: GatewayId,
    /// None: the implied one.
    pub(crate) object: Option<&'i McpGateway>,
}

/// What one gateway's compile makes.
#[derive(Debug)]
pub(crate) struct GatewayOutcome {
    /// On one machine, unless it cannot listen.
    pub(crate) snapshot: Option<Snapshot>,
    /// In a cluster, unless it cannot listen.
    pub(crate) fleet: Option<Arc<Fleet>>,
    /// What the operator makes for that fleet.
    pub(crate) children: Option<Arc<Vec<Child>>>,
    /// The servers behind it, in order.
    pub(crate) attached: Arc<[ServerId]>,
    pub(crate) findings: Vec<Diagnostic>,
}

/// Compiles one gateway.
pub(crate) fn compile(front: &Front<'_>, inputs: &Inputs, parts: &Parts) -> GatewayOutcome {
    let id = &front.id;
    let mut findings = Findings::new(ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name));
    let listeners = listener::listeners(front, inputs, &mut findings);
    if let Some(proxy) = front.object.and_then(|object| object.spec.proxy.as_ref()) {
        child::check_gateway(proxy, &mut findings);
    }
    let (servers, mut diagnostics) = attach::servers(front, inputs, parts, &mut findings);
    let attached = servers.iter().map(|attachment| attachment.server.clone()).collect();
    let (api_keys, refused) = api_keys(front, inputs);
    if let Some(object) = front.object {
        api_key::tell(&refused, &mut findings);
        if taken_keys(object).is_some() {
            diagnostics.extend(api_key::unlabelled(&id.namespace, inputs));
        }
    } else {
        diagnostics.extend(api_key::overlooked(&id.namespace, inputs));
    }
    diagnostics.extend(refused);
    let issuer = token_issuer::service_accounts(front, inputs, &mut findings);
    let levels = mesh_level(id, inputs, parts).into_iter().chain([gateway_level(front, parts)]);
    let body = gateway::Gateway {
        id: id.clone(),
        uid: uid(front),
        listeners,
        servers,
        naming: naming(front.object),
        anonymous: anonymous(front.object, inputs),
        api_keys: api_keys.iter().map(|key| key.secret.to_string()).collect(),
        token_issuers: issuer.iter().map(|issuer| issuer.name.clone()).collect(),
        peers: Vec::new(),
        levels: levels.collect(),
    };
    if let Some(object) = front.object {
        warn_of_no_access(object, &body, parts, &mut findings);
    }
    diagnostics.extend(findings.into_list());
    let mut outcome =
        GatewayOutcome { snapshot: None, fleet: None, children: None, attached, findings: diagnostics };
    let made = resources(&body, &api_keys, inputs, parts).ok().filter(|_| !body.listeners.is_empty());
    let resources = made.map(|resources| resources.into_iter().chain(issuer));
    if let Some(cluster) = &inputs.install.cluster {
        let fleet = resources.map(|resources| Fleet::new(FleetId::Gateway(body.id), resources));
        let made = front.object.zip(fleet.as_ref());
        outcome.children =
            made.map(|(object, fleet)| Arc::new(child::of_gateway(&object.spec, fleet, cluster)));
        outcome.fleet = fleet.map(Arc::new);
    } else {
        outcome.snapshot = resources.map(|resources| Snapshot::new(body.id, resources.collect()));
    }
    outcome
}

fn uid(front: &Front<'_>) -> String {
    let uid = front.object.and_then(|object| object.metadata.uid.clone());
    uid.unwrap_or_else(|| front.id.to_string())
}

fn naming(object: Option<&McpGateway>) -> Naming {
    match object.and_then(|object| object.spec.naming.as_ref()).map(|naming| naming.prefix) {
        None | Some(Prefixing::Always) => Naming::Always,
        Some(Prefixing::OnConflict) => Naming::OnConflict,
    }
}

/// Which API keys a gateway takes; none: it takes none.
fn taken_keys(object: &McpGateway) -> Option<&ApiKeys> {
    object.spec.authentication.as_ref()?.api_keys.as_ref()
}

fn api_keys(front: &Front<'_>, inputs: &Inputs) -> (Vec<ApiKey>, Vec<Diagnostic>) {
    let selector = match front.object {
        None => None,
        Some(object) => match taken_keys(object) {
            None => return (Vec::new(), Vec::new()),
            Some(keys) => keys.selector.as_ref(),
        },
    };
    api_key::of_namespace(&front.id.namespace, selector, inputs)
}

/// The implied gateway is open until something is meant to be a key: a mistake in the only one must not open what it
/// closed.
fn anonymous(object: Option<&McpGateway>, inputs: &Inputs) -> gateway::Anonymous {
    let open = match object {
        None => !inputs.install.unread_secret && !api_key::any_is_meant(inputs),
        Some(object) => {
            object.spec.authentication.as_ref().is_some_and(|given| given.anonymous == Anonymous::Allow)
        }
    };
    if open { gateway::Anonymous::Allow } else { gateway::Anonymous::Deny }
}

fn implied_policy_id() -> PolicyId {
    PolicyId::new(IMPLIED_POLICY.0, IMPLIED_POLICY.1)
}

/// Anyone may do anything: what a folder without McpGateway says, unless a policy of its own allows something there,
/// and what a sidecar says to those whom a gateway has judged.
pub(crate) fn anyone(id: PolicyId) -> Policy {
    let rule = AccessRule {
        name: "anyone".to_owned(),
        effect: Effect::Allow,
        from: vec![Subject::Anyone {}],
        to: To::default(),
    };
    Policy { id, mode: Mode::Enforce, access: vec![rule], limits: Vec::new() }
}

/// The level of the policies of the operator's namespace that select this gateway's; none when none does.
pub(crate) fn mesh_level(gateway: &GatewayId, inputs: &Inputs, parts: &Parts) -> Option<Level> {
    let cluster = inputs.install.cluster.as_ref()?;
    let operators = parts.namespaces.get(&cluster.operator_namespace)?;
    let labels = inputs.namespace_labels(&gateway.namespace);
    let level = operators.level(LevelKind::Mesh, |policy| {
        policy.selector.as_ref().is_some_and(|selector| selector.matches(&labels))
    });
    (!level.policies.is_empty() || level.closed.is_some()).then_some(level)
}

fn gateway_level(front: &Front<'_>, parts: &Parts) -> Level {
    let none = Level { kind: LevelKind::Gateway, policies: Vec::new(), closed: None };
    let namespace = parts.namespaces.get(&front.id.namespace);
    let mut level = namespace.map_or(none, |namespace| {
        namespace.level(LevelKind::Gateway, |policy| policy.holds_for_gateway(&front.id))
    });
    if front.object.is_none() && !allows(&level, parts) {
        level.policies.push(implied_policy_id());
        level.policies.sort();
    }
    level
}

fn allows(level: &Level, parts: &Parts) -> bool {
    level.policies.iter().filter_map(|id| parts.policy(id)).any(|policy| policy.allows)
}

fn warn_of_no_access(object: &McpGateway, body: &gateway::Gateway, parts: &Parts, findings: &mut Findings) {
    let nobody = body.api_keys.is_empty() && body.token_issuers.is_empty();
    if body.anonymous == gateway::Anonymous::Deny && nobody {
        let help = if taken_keys(object).is_some() {
            api_key::NONE
        } else {
            "add `authentication: {apiKeys: {}}` and a key of `mcpmesh key create`, or `anonymous: Allow`"
        };
        findings.warning("spec.authentication", Reason::NoAccess, "nobody can authenticate", help);
    }
    let mut own = body.levels.iter().filter(|level| level.kind == LevelKind::Gateway);
    if own.all(|level| level.closed.is_none() && !allows(level, parts)) {
        let help = "add an McpPolicy that targets this gateway, with an Allow rule";
        findings.warning("", Reason::NoAccess, "no policy allows anything here", help);
    }
}

fn resources(
    body: &gateway::Gateway,
    api_keys: &[ApiKey],
    inputs: &Inputs,
    parts: &Parts,
) -> Result<Vec<Resource>, resource::Error> {
    let mut resources = vec![Resource::new(body.id.to_string(), body)?];
    let servers: Vec<_> =
        body.servers.iter().filter_map(|attachment| parts.server(&attachment.server)).collect();
    for server in &servers {
        let is_own = server.id.namespace == body.id.namespace;
        resources.push(if is_own { server.inside.clone() } else { server.outside.clone() });
    }
    let levels = body.levels.iter().chain(body.servers.iter().flat_map(|attachment| &attachment.levels));
    let policies: BTreeSet<&PolicyId> = levels.flat_map(|level| &level.policies).collect();
    for id in policies {
        resources.extend(policy_resource(id, &body.id, inputs, parts)?);
    }
    for key in api_keys {
        resources.push(Resource::new(key.secret.to_string(), key)?);
    }
    let mut keys: BTreeSet<KeyRef> = servers.iter().flat_map(|server| &server.keys).cloned().collect();
    keys.extend(listener::keys(&body.listeners));
    if inputs.install.cluster.is_some() {
        keys.retain(|(secret, _)| secret.namespace == body.id.namespace);
    }
    resources.extend(secret::resources(inputs, keys.iter())?);
    Ok(resources)
}

/// A policy as it holds at a gateway. One that is named and not there would close its level.
pub(crate) fn policy_resource(
    id: &PolicyId,
    gateway: &GatewayId,
    inputs: &Inputs,
    parts: &Parts,
) -> Result<Option<Resource>, resource::Error> {
    let Some(policy) = parts.policy(id) else {
        let implied = (*id == implied_policy_id()).then(|| anyone(id.clone()));
        return implied.map(|body| Resource::new(id.to_string(), &body)).transpose();
    };
    match inputs.of(&id.namespace).policies.get(id).filter(|_| policy.selector.is_some()) {
        Some(object) => policy::within(id, object, &gateway.namespace, inputs).map(Some),
        None => Ok(policy.resource.clone()),
    }
}
