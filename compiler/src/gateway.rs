//! One gateway: where it listens, whom it lets in, what stands behind it and what is judged.

mod attach;
mod listener;

use std::collections::BTreeSet;

use mcpmesh_crds::{Anonymous, McpGateway, Prefixing};
use mcpmesh_ir::gateway::{self, Level, LevelKind, Naming};
use mcpmesh_ir::policy::{AccessRule, Effect, Mode, Policy, Subject, To};
use mcpmesh_ir::resource::{self, Resource};
use mcpmesh_ir::{ApiKey, GatewayId, PolicyId, ServerId, Snapshot};

use crate::api_key;
use crate::child;
use crate::compile::{GatewayOutcome, IMPLIED_POLICY, Parts};
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason};
use crate::inputs::Inputs;
use crate::secret;

/// A gateway to compile.
pub(crate) struct Front<'i> {
    pub(crate) id: GatewayId,
    /// None: the implied one.
    pub(crate) object: Option<&'i McpGateway>,
}

/// Compiles one gateway: its snapshot, the servers behind it, and the findings. No snapshot: it cannot listen.
pub(crate) fn compile(front: &Front<'_>, inputs: &Inputs, parts: &Parts) -> GatewayOutcome {
    let id = &front.id;
    let mut findings = Findings::new(ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name));
    let listeners = listener::listeners(front.object, &mut findings);
    if let Some(proxy) = front.object.and_then(|object| object.spec.proxy.as_ref()) {
        child::check_gateway(proxy, &mut findings);
    }
    let (servers, mut diagnostics) = attach::servers(front, inputs, parts, &mut findings);
    let attached = servers.iter().map(|attachment| attachment.server.clone()).collect();
    let (api_keys, refused) = api_keys(front, inputs);
    diagnostics.extend(refused);
    let body = gateway::Gateway {
        id: id.clone(),
        uid: uid(front),
        listeners,
        servers,
        naming: naming(front.object),
        anonymous: anonymous(front.object, &api_keys),
        api_keys: api_keys.iter().map(|key| key.secret.to_string()).collect(),
        token_issuers: Vec::new(),
        peers: Vec::new(),
        levels: vec![gateway_level(front, parts)],
    };
    if front.object.is_some() {
        warn_of_no_access(&body, parts, &mut findings);
    }
    let snapshot = if body.listeners.is_empty() { None } else { snapshot(&body, &api_keys, inputs, parts) };
    diagnostics.extend(findings.into_list());
    (snapshot, attached, diagnostics)
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

fn api_keys(front: &Front<'_>, inputs: &Inputs) -> (Vec<ApiKey>, Vec<Diagnostic>) {
    let selector = match front.object {
        None => None,
        Some(object) => match object.spec.authentication.as_ref().and_then(|given| given.api_keys.as_ref()) {
            None => return (Vec::new(), Vec::new()),
            Some(keys) => keys.selector.as_ref(),
        },
    };
    api_key::of_namespace(&front.id.namespace, selector, inputs)
}

/// The implied gateway is open until there is a key: who makes one means it.
fn anonymous(object: Option<&McpGateway>, api_keys: &[ApiKey]) -> gateway::Anonymous {
    let open = match object {
        None => api_keys.is_empty(),
        Some(object) => {
            object.spec.authentication.as_ref().is_some_and(|given| given.anonymous == Anonymous::Allow)
        }
    };
    if open { gateway::Anonymous::Allow } else { gateway::Anonymous::Deny }
}

fn implied_policy_id() -> PolicyId {
    PolicyId::new(IMPLIED_POLICY.0, IMPLIED_POLICY.1)
}

/// Anyone may do anything: what a folder without McpGateway says, unless a policy of its own allows something there.
fn implied_policy() -> Policy {
    let rule = AccessRule {
        name: "anyone".to_owned(),
        effect: Effect::Allow,
        from: vec![Subject::Anyone {}],
        to: To::default(),
    };
    Policy { id: implied_policy_id(), mode: Mode::Enforce, access: vec![rule], limits: Vec::new() }
}

fn gateway_level(front: &Front<'_>, parts: &Parts) -> Level {
    let mut level = level(LevelKind::Gateway, parts, |id| {
        parts.policies.get(id).is_some_and(|policy| policy.holds_for_gateway(id, &front.id))
    });
    if front.object.is_none() && !allows(&level, parts) {
        level.policies.push(implied_policy_id());
        level.policies.sort();
    }
    level
}

fn allows(level: &Level, parts: &Parts) -> bool {
    level.policies.iter().filter_map(|id| parts.policies.get(id)).any(super::policy::CompiledPolicy::allows)
}

/// The level that the chosen policies make. An invalid one closes it.
fn level(kind: LevelKind, parts: &Parts, chosen: impl Fn(&PolicyId) -> bool) -> Level {
    let mut level = Level { kind, policies: Vec::new(), closed: None };
    for (id, policy) in parts.policies.iter().filter(|(id, _)| chosen(id)) {
        if policy.body.is_some() {
            level.policies.push(id.clone());
        } else if policy.closes() {
            level.closed.get_or_insert_with(|| id.clone());
        }
    }
    level
}

/// The level of a server's own policies; none when it has none.
fn server_levels(server: &ServerId, parts: &Parts) -> Vec<Level> {
    let level = level(LevelKind::Server, parts, |id| {
        parts.policies.get(id).is_some_and(|policy| policy.holds_for_server(id, server))
    });
    if level.policies.is_empty() && level.closed.is_none() { Vec::new() } else { vec![level] }
}

fn warn_of_no_access(body: &gateway::Gateway, parts: &Parts, findings: &mut Findings) {
    if body.anonymous == gateway::Anonymous::Deny && body.api_keys.is_empty() {
        let help =
            "add `authentication: {apiKeys: {}}` and a key of `mcpmesh key create`, or `anonymous: Allow`";
        findings.warning("spec.authentication", Reason::NoAccess, "nobody can authenticate", help);
    }
    if body.levels.iter().all(|level| level.closed.is_none() && !allows(level, parts)) {
        let help = "add an McpPolicy that targets this gateway, with an Allow rule";
        findings.warning("", Reason::NoAccess, "no policy allows anything here", help);
    }
}

fn snapshot(
    body: &gateway::Gateway,
    api_keys: &[ApiKey],
    inputs: &Inputs,
    parts: &Parts,
) -> Option<Snapshot> {
    resources(body, api_keys, inputs, parts).ok().map(|resources| Snapshot::new(body.id.clone(), resources))
}

fn resources(
    body: &gateway::Gateway,
    api_keys: &[ApiKey],
    inputs: &Inputs,
    parts: &Parts,
) -> Result<Vec<Resource>, resource::Error> {
    let mut resources = vec![Resource::new(body.id.to_string(), body)?];
    let servers: Vec<_> =
        body.servers.iter().filter_map(|attachment| parts.servers.get(&attachment.server)).collect();
    for server in &servers {
        resources.push(Resource::new(server.body.id.to_string(), &server.body)?);
    }
    let levels = body.levels.iter().chain(body.servers.iter().flat_map(|attachment| &attachment.levels));
    let policies: BTreeSet<&PolicyId> = levels.flat_map(|level| &level.policies).collect();
    for id in policies {
        match parts.policies.get(id).and_then(|policy| policy.body.as_ref()) {
            Some(policy) => resources.push(Resource::new(id.to_string(), policy)?),
            None => resources.push(Resource::new(id.to_string(), &implied_policy())?),
        }
    }
    for key in api_keys {
        resources.push(Resource::new(key.secret.to_string(), key)?);
    }
    let keys: BTreeSet<_> = servers.iter().flat_map(|server| &server.keys).collect();
    resources.extend(secret::resources(inputs, keys.into_iter())?);
    Ok(resources)
}
