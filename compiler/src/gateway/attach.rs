//! Which servers stand behind a gateway: both sides must want it, and each needs a prefix of its own.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_crds::{From as Namespaces, NamespaceSelection, ServerRef, ServerSelection};
use mcpmesh_ir::gateway::Attachment;
use mcpmesh_ir::{GatewayId, ServerId};

use super::Front;
use crate::compile::Parts;
use crate::diagnostic::{Diagnostic, Findings, ObjectKind, ObjectRef, Reason};
use crate::inputs::Inputs;
use crate::likeness::suggestion;
use crate::server::{CompiledServer, check_namespaces};

/// A server that a gateway takes, before its prefix is known to be free.
struct Candidate {
    server: ServerId,
    prefix: String,
    /// Where the gateway names it.
    path: String,
}

/// The attachments in order: those that `refs` name, then the gateway's own namespace, then others.
pub(super) fn servers(
    front: &Front<'_>,
    inputs: &Inputs,
    parts: &Parts,
    findings: &mut Findings,
) -> (Vec<Attachment>, Vec<Diagnostic>) {
    let candidates = match front.object {
        None => parts.servers().map(|server| named_after(&server.id, String::new())).collect(),
        Some(object) => {
            let all = ServerSelection::default();
            let chosen = object.spec.servers.as_ref().unwrap_or(&all);
            let mut candidates = named(chosen, front, inputs, parts, findings);
            selected(chosen, front, (inputs, parts), &mut candidates, findings);
            candidates
        }
    };
    attach(candidates, front, parts, findings)
}

fn named_after(id: &ServerId, path: String) -> Candidate {
    Candidate { server: id.clone(), prefix: id.name.clone(), path }
}

fn attach(
    candidates: Vec<Candidate>,
    front: &Front<'_>,
    parts: &Parts,
    findings: &mut Findings,
) -> (Vec<Attachment>, Vec<Diagnostic>) {
    let (mut attachments, mut diagnostics) = (Vec::new(), Vec::new());
    let mut prefixes: BTreeMap<String, ServerId> = BTreeMap::new();
    for Candidate { server, prefix, path } in candidates {
        let Some((reason, message)) = conflict(&server, &prefix, &prefixes) else {
            let levels = parts.levels_at(&server, &front.id);
            prefixes.insert(prefix.clone(), server.clone());
            attachments.push(Attachment { server, prefix, levels });
            continue;
        };
        if front.object.is_none() {
            // There is no object to mend but the server itself.
            let mut own =
                Findings::new(ObjectRef::new(ObjectKind::McpServer, &server.namespace, &server.name));
            own.error(
                "metadata.name",
                reason,
                message,
                "rename it, or add an McpGateway and give it a prefix",
            );
            diagnostics.extend(own.into_list());
        } else {
            findings.error(&path, reason, message, "give it another in spec.servers.refs[].prefix");
        }
    }
    (attachments, diagnostics)
}

fn conflict(server: &ServerId, prefix: &str, taken: &BTreeMap<String, ServerId>) -> Option<(Reason, String)> {
    if let Some(first) = taken.get(prefix) {
        let message =
            format!("McpServer {server} is not attached: {first} already has the prefix {prefix:?}");
        return Some((Reason::PrefixConflict, message));
    }
    let good = (1..=32).contains(&prefix.len())
        && prefix.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let message = || {
        format!(
            "McpServer {server} is not attached: {prefix:?} is no prefix (1 to 32 of a to z, 0 to 9 and -)"
        )
    };
    (!good).then(|| (Reason::InvalidPrefix, message()))
}

/// The servers that `refs` name. Whether one is missing or does not want to be used is not told apart.
fn named(
    chosen: &ServerSelection,
    front: &Front<'_>,
    inputs: &Inputs,
    parts: &Parts,
    findings: &mut Findings,
) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (index, reference) in chosen.refs.iter().enumerate() {
        let path = format!("spec.servers.refs[{index}]");
        let id = server_id(reference, &front.id);
        let usable = parts.server(&id).filter(|server| is_exported(server, &front.id, inputs));
        if candidates.iter().any(|candidate| candidate.server == id) {
            let message = format!("McpServer {id} is there twice");
            findings.error(&path, Reason::DuplicateName, message, "remove one");
        } else if usable.is_none() {
            not_usable(&id, &front.id, parts, &path, findings);
        } else {
            let prefix = reference.prefix.clone().unwrap_or_else(|| id.name.clone());
            candidates.push(Candidate { server: id, prefix, path });
        }
    }
    candidates
}

fn server_id(reference: &ServerRef, gateway: &GatewayId) -> ServerId {
    let namespace = if reference.namespace.is_empty() { &gateway.namespace } else { &reference.namespace };
    ServerId::new(namespace, &reference.name)
}

fn not_usable(id: &ServerId, gateway: &GatewayId, parts: &Parts, path: &str, findings: &mut Findings) {
    if id.namespace != gateway.namespace {
        let message = format!("McpServer {id} is not there for namespace {}", gateway.namespace);
        let help = "its owner exports it with spec.exportTo";
        findings.error(path, Reason::ServerNotFound, message, help);
    } else if let Some(why) = parts.unusable(id) {
        let message = format!("McpServer {id} {why}");
        findings.warning(path, Reason::NotAttached, message, "it is attached as soon as that is mended");
    } else {
        let there = parts.namespaces.get(&id.namespace).into_iter().flat_map(|namespace| namespace.usable());
        let help = suggestion(&id.name, there.map(|server| server.id.name.as_str()));
        let help = help.as_deref().unwrap_or("correct the name");
        findings.error(path, Reason::ServerNotFound, format!("no McpServer {id}"), help);
    }
}

/// Adds the servers that namespaces and labels choose. With `refs` alone nothing else is chosen.
fn selected(
    chosen: &ServerSelection,
    front: &Front<'_>,
    (inputs, parts): (&Inputs, &Parts),
    candidates: &mut Vec<Candidate>,
    findings: &mut Findings,
) {
    if chosen.namespaces.is_none() && chosen.selector.is_none() && !chosen.refs.is_empty() {
        return;
    }
    let same = NamespaceSelection::default();
    let namespaces = chosen.namespaces.as_ref().unwrap_or(&same);
    if !check_namespaces(namespaces, "spec.servers.namespaces", findings) {
        return;
    }
    let taken: BTreeSet<ServerId> = candidates.iter().map(|candidate| candidate.server.clone()).collect();
    let mut more: Vec<&ServerId> = parts
        .namespaces
        .iter()
        .filter(|(namespace, _)| includes(namespaces, &front.id.namespace, namespace, inputs))
        .flat_map(|(_, namespace)| namespace.usable())
        .filter(|server| {
            chosen.selector.as_ref().is_none_or(|selector| selector.matches(&server.labels))
                && is_exported(server, &front.id, inputs)
                && !taken.contains(&server.id)
        })
        .map(|server| &server.id)
        .collect();
    more.sort_by_key(|id| id.namespace != front.id.namespace);
    candidates.extend(more.into_iter().map(|id| named_after(id, "spec.servers".to_owned())));
}

/// Whether a server lets this gateway use it.
fn is_exported(server: &CompiledServer, gateway: &GatewayId, inputs: &Inputs) -> bool {
    let own = &server.id.namespace;
    *own == gateway.namespace
        || server
            .exports
            .as_ref()
            .is_some_and(|exports| includes(&exports.namespaces, own, &gateway.namespace, inputs))
}

/// Whether a choice of namespaces, made in `own`, includes `other`.
pub(crate) fn includes(choice: &NamespaceSelection, own: &str, other: &str, inputs: &Inputs) -> bool {
    match (choice.from, &choice.selector) {
        (Namespaces::Same, _) => own == other,
        (Namespaces::All, _) => true,
        (Namespaces::Selector, Some(selector)) => selector.matches(&inputs.namespace_labels(other)),
        (Namespaces::Selector, None) => false,
    }
}
