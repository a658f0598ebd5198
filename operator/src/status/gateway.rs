//! What is said of an McpGateway.

use mcpmesh_compiler::{ObjectKind, ObjectRef};
use mcpmesh_crds::{McpGateway, McpGatewayStatus, ProxiesStatus, ServersStatus, condition};
use mcpmesh_ir::catalog::ObservedState;
use mcpmesh_ir::{FleetId, GatewayId, ServerId};

use super::conditions::{Answer, Conditions, Said, said};
use super::{View, keys};
use mcpmesh_compiler::child::base_name;

/// The status of a gateway.
pub(crate) fn gateway(view: &View, id: &GatewayId, object: &McpGateway) -> McpGatewayStatus {
    let before = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let reference = ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name);
    let fleet = FleetId::Gateway(id.clone());
    let generation = object.metadata.generation;
    let mut conditions = Conditions::new(before, generation, view.now);
    let stopped = conditions.of_findings(view.findings(&reference), view.rejected(&reference), true);
    if let Some(usable) = keys::usable(object.spec.authentication.as_ref(), view.findings(&reference)) {
        conditions.set(condition::KEYS_USABLE, usable);
    }
    let programmed = programmed(view, &fleet, &reference);
    conditions.set(condition::PROGRAMMED, programmed.clone());
    conditions.set(condition::READY, stopped.unwrap_or_else(|| ready(view, &fleet, programmed)));
    let (total, in_sync, _) = view.in_sync(&fleet);
    let servers = view.attached.get(id).map(|servers| &**servers).unwrap_or_default();
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    McpGatewayStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        // Without a configuration nothing listens.
        url: view.revisions.contains_key(&fleet).then(|| url(&fleet, object)),
        servers: Some(ServersStatus {
            attached: count(servers.len()),
            ready: count(servers.iter().filter(|server| is_ready(view, server)).count()),
        }),
        tools: Some(count(servers.iter().map(|server| tools(view, server)).sum())),
        revision: view.revisions.get(&fleet).cloned(),
        proxies: Some(ProxiesStatus { in_sync: count(in_sync), total: count(total) }),
    }
}

/// Every connected proxy, and at least one, has the revision; what it rejects is not of the gateway itself: that is
/// said of the object that caused it.
fn programmed(view: &View, fleet: &FleetId, gateway: &ObjectRef) -> Said {
    let Some(revision) = view.revisions.get(fleet) else {
        return said(Answer::False, "Invalid", "there is no configuration for its proxies");
    };
    if let Some(why) = view.rejected(gateway) {
        return said(Answer::False, "RejectedByProxy", why);
    }
    let proxies = view.proxies(fleet);
    let current = proxies.iter().filter(|proxy| proxy.revision == *revision).count();
    match proxies.len() {
        0 => said(Answer::False, "NoProxies", "no proxy is connected"),
        total if current < total => said(
            Answer::False,
            "Progressing",
            format!("{current} of {total} proxies have revision {revision}"),
        ),
        _ => said(Answer::True, "Programmed", ""),
    }
}

fn ready(view: &View, fleet: &FleetId, programmed: Said) -> Said {
    let (answer, reason, message) = programmed;
    let rollout = view.rollouts.get(fleet).copied().unwrap_or_default();
    if view.deployed.contains(fleet) && rollout.stuck {
        return said(Answer::False, "RolloutStuck", "its pods do not become ready: look at their events");
    }
    if answer != Answer::True {
        return (answer, reason, message);
    }
    if view.deployed.contains(fleet)
        && (!rollout.observed || rollout.updated < rollout.wanted || rollout.ready < rollout.wanted)
    {
        let counts = format!("{} of {} proxies are ready", rollout.ready, rollout.wanted);
        return said(Answer::False, "Progressing", counts);
    }
    said(Answer::True, "Ready", "")
}

fn is_ready(view: &View, server: &ServerId) -> bool {
    view.words.observed(server).is_some_and(|seen| seen.state == ObservedState::Ready)
}

fn tools(view: &View, server: &ServerId) -> usize {
    let index = view.words.observed(server).and_then(|seen| seen.index.as_ref());
    index.map(|index| index.tools.len()).unwrap_or_default()
}

/// Inside the cluster, of the first listener.
fn url(fleet: &FleetId, object: &McpGateway) -> String {
    let first = object.spec.listeners.first();
    let port = first.and_then(|listener| listener.port).unwrap_or(8080);
    let path = first.and_then(|listener| listener.path.as_deref()).unwrap_or("/mcp");
    let scheme = if first.is_some_and(|listener| listener.tls.is_some()) { "https" } else { "http" };
    format!("{scheme}://{}.{}.svc:{port}{path}", base_name(fleet), fleet.namespace())
}
