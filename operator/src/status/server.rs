//! What is said of an McpServer.

use mcpmesh_compiler::{ObjectKind, ObjectRef};
use mcpmesh_crds::{
    CatalogStatus, McpServer, McpServerSpec, McpServerStatus, ProtocolStatus, ServerInfo, State, condition,
};
use mcpmesh_ir::catalog::{CatalogIndex, Observed, ObservedState};
use mcpmesh_ir::{FleetId, GatewayId, ServerId};

use super::conditions::{Answer, Conditions, Said, cut, said};
use super::{View, keys, lock};
use mcpmesh_compiler::child::{DIRECT_PORT, SIDECAR_PORT, base_name};

/// What to do about a port that answers where only the proxy should.
const BYPASSABLE: &str = "the container's port answers at the pod's address, so callers can come past the proxy and its \
                          policies; let the server listen on 127.0.0.1";

/// The status of a server.
pub(crate) fn server(view: &View, id: &ServerId, object: &McpServer) -> McpServerStatus {
    let before = object.status.clone().unwrap_or_default();
    let reference = ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name);
    let fleet = FleetId::Server(id.clone());
    let generation = object.metadata.generation;
    let mut conditions = Conditions::new(&before.conditions, generation, view.now);
    let findings = view.findings(&reference);
    let mut stopped = conditions.of_findings(findings, view.rejected(&reference), true);
    let gateways: &[GatewayId] = view.gateways.get(id).map(Vec::as_slice).unwrap_or_default();
    let enabled = object.spec.state == State::Enabled;
    let observable = enabled && (!gateways.is_empty() || view.revisions.contains_key(&fleet));
    let seen = view.words.observed(id).filter(|_| observable);
    if stopped.is_none() && object.spec.container.is_some() && seen.is_some_and(|seen| seen.bypassable) {
        let bypassable = said(Answer::True, "Bypassable", BYPASSABLE);
        conditions.set(condition::STALLED, bypassable);
        stopped = Some(said(Answer::False, "Bypassable", BYPASSABLE));
    }
    let (verified, ready) = if !enabled {
        (said(Answer::Unknown, "Disabled", ""), said(Answer::True, "Disabled", "spec.state is Disabled"))
    } else if !observable {
        let message = "no gateway has this server";
        (said(Answer::Unknown, "NotAttached", message), said(Answer::True, "NotAttached", message))
    } else {
        let verified = verified(seen);
        (verified.clone(), ready(view, &fleet, verified))
    };
    conditions.set(condition::VERIFIED, verified);
    conditions.set(condition::READY, stopped.unwrap_or(ready));
    if let Some(usable) = keys::usable(object.spec.authentication.as_ref(), findings) {
        conditions.set(condition::KEYS_USABLE, usable);
    }
    let known = seen.and_then(|seen| Some((seen, seen.index.as_ref()?)));
    let index = known.map(|(_, index)| index);
    if let Some(holds) = lock::holds(&object.spec, index, (&before.conditions, generation)) {
        conditions.set(condition::LOCK_HOLDS, holds);
    }
    McpServerStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        // What was known stays while an observer changes; Verified says how much it is worth now.
        protocol: known
            .map(|(_, index)| ProtocolStatus { versions: index.versions.clone() })
            .or(before.protocol),
        server_info: known.and_then(|(seen, _)| info(seen)).or(before.server_info),
        catalog: known.map(|(_, index)| catalog(index)).or(before.catalog),
        address: view.revisions.contains_key(&fleet).then(|| address(&fleet, &object.spec)).flatten(),
        gateways: u32::try_from(gateways.len()).ok(),
    }
}

/// Where callers reach the Service of a server's proxies; where they come through gateways only, where these do. These need
/// no port of a team's own Service: they know the pods behind it.
fn address(fleet: &FleetId, spec: &McpServerSpec) -> Option<String> {
    let (service, port) = match (&spec.service, &spec.authentication) {
        (None, None) => (base_name(fleet), SIDECAR_PORT),
        (None, Some(_)) => (base_name(fleet), DIRECT_PORT),
        (Some(own), Some(_)) => (own.name.clone(), DIRECT_PORT),
        (Some(_), None) => return None,
    };
    Some(format!("{service}.{}.svc:{port}", fleet.namespace()))
}

fn verified(seen: Option<&Observed>) -> Said {
    match seen.map(|seen| &seen.state) {
        Some(ObservedState::Ready) => said(Answer::True, "Handshake", ""),
        Some(ObservedState::Failed { reason }) => said(Answer::False, "HandshakeFailed", reason),
        Some(ObservedState::Connecting) => said(Answer::Unknown, "Connecting", "a proxy is connecting to it"),
        None => said(Answer::Unknown, "Pending", "no proxy has tried yet"),
    }
}

/// Ready follows the handshake, and the rollout of the pods that we make for it.
fn ready(view: &View, fleet: &FleetId, (answer, reason, message): Said) -> Said {
    if view.deployed.contains(fleet) {
        let rollout = view.rollouts.get(fleet).copied().unwrap_or_default();
        if rollout.stuck {
            return said(Answer::False, "RolloutStuck", "its pods do not become ready: look at their events");
        }
        if !rollout.observed || rollout.updated < rollout.wanted || rollout.ready < rollout.wanted {
            let counts = format!("{} of {} pods are ready", rollout.ready, rollout.wanted);
            return said(Answer::False, "Progressing", counts);
        }
    }
    match answer {
        Answer::True => said(Answer::True, "Ready", ""),
        Answer::False => said(Answer::False, "Unreachable", message),
        Answer::Unknown => said(Answer::False, &reason, message),
    }
}

/// The characters of a name or version that a status repeats: the server chose them, and every reader pays for them.
const SERVER_INFO: usize = 256;

fn info(seen: &Observed) -> Option<ServerInfo> {
    let info = seen.server_info.as_ref()?;
    let bounded = |text: &String| cut(text.clone(), SERVER_INFO);
    Some(ServerInfo { name: bounded(&info.name), version: bounded(&info.version) })
}

fn catalog(index: &CatalogIndex) -> CatalogStatus {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    CatalogStatus {
        tools: count(index.tools.len()),
        prompts: count(index.prompts.len()),
        resources: count(index.resources.len() + index.resource_templates.len()),
        digest: index.digest(),
    }
}
