//! Makes the children: server-side apply under one field manager, only where something differs; removes what is no
//! longer wanted. At rest it writes nothing.

mod ownership;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use mcpmesh_compiler::child::keys_name;
use mcpmesh_compiler::{Child, Compiled, ObjectKind, ObjectRef, Severity};
use mcpmesh_ir::FleetId;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::reconcile::Outcome;
use crate::world::World;
use crate::world::child::{ChildKind, LiveChild};

/// The hash of what was applied last, on the child itself: a restarted operator need not write.
const APPLIED: &str = "mcpmesh.io/applied";

/// The roots' ConfigMap of a namespace.
pub(crate) const ROOTS: &str = "mcpmesh-roots";

/// A child: kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChildRef {
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// One write that is due.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// Server-side apply of this manifest.
    Apply(ChildRef, Value),
    /// Only the object with this uid.
    Delete(ChildRef, String),
    /// A Secret with random content, which is never changed.
    Keys {
        /// Whose.
        owner: OwnerReference,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Write {
    /// What is written.
    pub(crate) fn target(&self) -> ChildRef {
        match self {
            Self::Apply(child, _) | Self::Delete(child, _) => child.clone(),
            Self::Keys { namespace, name, .. } => {
                ChildRef { kind: "Secret", namespace: namespace.clone(), name: name.clone() }
            }
        }
    }
}

/// The writes that lead from what is there in a namespace to what is wanted, in order.
pub(crate) fn due(namespace: &str, outcome: &Outcome, world: &World, roots: &str) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut wanted = BTreeSet::new();
    let nothing = Arc::<Compiled>::default();
    let compiled = outcome.compiled.get(namespace).unwrap_or(&nothing);
    let fleets: BTreeSet<&FleetId> = compiled.fleets.keys().chain(compiled.children.keys()).collect();
    if !fleets.is_empty() {
        let manifest = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": ROOTS, "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "mcpmesh-operator", "app.kubernetes.io/name": "mcpmesh-proxy"},
            },
            "data": {"ca.crt": roots},
        });
        want("ConfigMap", manifest, None, world, (&mut wanted, &mut writes));
    }
    for fleet in fleets {
        let Some(owner) = owner(fleet, world) else { continue };
        let keys = keys_name(fleet);
        if world.secrets.get(namespace, &keys).is_none() {
            let namespace = namespace.to_owned();
            writes.push(Write::Keys { owner: owner.clone(), namespace, name: keys });
        }
        for child in compiled.children.get(fleet).into_iter().flat_map(|all| all.iter()) {
            if let Some((kind, manifest)) = manifest(child, namespace) {
                want(kind, manifest, Some(&owner), world, (&mut wanted, &mut writes));
            }
        }
    }
    prune(namespace, &erring(namespace, outcome), world, &wanted, &mut writes);
    writes
}

fn want(
    kind: &'static str,
    mut manifest: Value,
    owner: Option<&OwnerReference>,
    world: &World,
    (wanted, writes): (&mut BTreeSet<ChildRef>, &mut Vec<Write>),
) {
    if let Some(owner) = owner {
        manifest["metadata"]["ownerReferences"] = json!([owner]);
    }
    let hash = hex::encode(&Sha256::digest(manifest.to_string())[..16]);
    manifest["metadata"]["annotations"][APPLIED] = json!(hash);
    let text =
        |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let child = ChildRef { kind, namespace: text("/metadata/namespace"), name: text("/metadata/name") };
    let live = world.children.get(kind).and_then(|store| store.get(&child.namespace, &child.name));
    let settled = live.as_ref().is_some_and(|live| is_as_applied(&live.metadata, &hash, &manifest));
    if !settled {
        if let Some(live) = live {
            // A leader that was paused meanwhile conflicts with whoever wrote since.
            manifest["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
        }
        writes.push(Write::Apply(child.clone(), manifest));
    }
    wanted.insert(child);
}

fn is_as_applied(live: &ObjectMeta, hash: &str, manifest: &Value) -> bool {
    let applied = live.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED));
    // What is on its way out cannot be changed; it comes back once it is gone.
    live.deletion_timestamp.is_some()
        || (applied.is_some_and(|applied| applied == hash) && ownership::is_whole(live, manifest))
}

/// Children of living owners without errors that nothing wants any more. Of an object with errors everything stays: a
/// slip of the pen takes no pods down. Those of a deleted object are the garbage collector's.
fn prune(
    namespace: &str,
    erring: &BTreeSet<ObjectRef>,
    world: &World,
    wanted: &BTreeSet<ChildRef>,
    writes: &mut Vec<Write>,
) {
    let owners = owners(namespace, world);
    for (kind, store) in &world.children {
        for (name, live) in &*store.of(namespace) {
            let child = ChildRef { kind, namespace: namespace.to_owned(), name: name.clone() };
            let surplus = !wanted.contains(&child)
                && live.metadata.deletion_timestamp.is_none()
                && match controller(live) {
                    Some(owner) => owners.get(&owner.uid).is_some_and(|object| !erring.contains(object)),
                    // The roots of a namespace without any of our objects.
                    None => child.kind == "ConfigMap" && child.name == ROOTS && owners.is_empty(),
                };
            if let (true, Some(uid)) = (surplus, live.metadata.uid.clone()) {
                writes.push(Write::Delete(child, uid));
            }
        }
    }
}

fn erring(namespace: &str, outcome: &Outcome) -> BTreeSet<ObjectRef> {
    let all = outcome.diagnostics(namespace).into_iter();
    all.filter(|finding| finding.severity == Severity::Error).filter_map(|finding| finding.object).collect()
}

/// All objects of a namespace that can own children, by uid.
fn owners(namespace: &str, world: &World) -> BTreeMap<String, ObjectRef> {
    let mut owners = BTreeMap::new();
    for (name, kept) in &*world.gateways.of(namespace) {
        if let Some(uid) = kept.metadata().uid.clone() {
            owners.insert(uid, ObjectRef::new(ObjectKind::McpGateway, namespace, name));
        }
    }
    for (name, kept) in &*world.servers.of(namespace) {
        if let Some(uid) = kept.metadata().uid.clone() {
            owners.insert(uid, ObjectRef::new(ObjectKind::McpServer, namespace, name));
        }
    }
    owners
}

fn controller(live: &LiveChild) -> Option<&OwnerReference> {
    let owners = live.metadata.owner_references.as_deref().unwrap_or_default();
    let ours = format!("{}/", mcpmesh_crds::GROUP);
    owners.iter().find(|owner| owner.controller == Some(true) && owner.api_version.starts_with(&ours))
}

/// The ownerReference to a fleet's object; none when it is gone or on its way out.
pub(crate) fn owner(fleet: &FleetId, world: &World) -> Option<OwnerReference> {
    let (kind, metadata) = match fleet {
        FleetId::Gateway(id) => {
            ("McpGateway", world.gateways.get(&id.namespace, &id.name)?.metadata().clone())
        }
        FleetId::Server(id) => ("McpServer", world.servers.get(&id.namespace, &id.name)?.metadata().clone()),
    };
    if metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(OwnerReference {
        api_version: format!("{}/{}", mcpmesh_crds::GROUP, mcpmesh_crds::VERSION),
        kind: kind.to_owned(),
        name: metadata.name?,
        uid: metadata.uid?,
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

/// A child as a manifest with its type.
fn manifest(child: &Child, namespace: &str) -> Option<(&'static str, Value)> {
    fn of<T: Serialize>(kind: &'static str, object: &T) -> Option<(&'static str, Value)> {
        Some((kind, serde_json::to_value(object).ok()?))
    }
    let (kind, mut value) = match child {
        Child::ServiceAccount(object) => of("ServiceAccount", object),
        Child::Deployment(object) => of("Deployment", object),
        Child::Service(object) => of("Service", object),
        Child::PodDisruptionBudget(object) => of("PodDisruptionBudget", object),
        Child::NetworkPolicy(object) => of("NetworkPolicy", object),
        Child::HorizontalPodAutoscaler(object) => of("HorizontalPodAutoscaler", object),
        Child::HttpRoute(object) => of("HTTPRoute", object),
    }?;
    value["apiVersion"] = json!(ChildKind::named(kind)?.api_version());
    value["kind"] = json!(kind);
    value["metadata"]["namespace"] = json!(namespace);
    Some((kind, value))
}

#[cfg(test)]
mod tests;
