//! From the stores to the compile's inputs. Secrets that something names are read here, each version once.

mod references;
mod restrict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use kube::Api;
use mcpmesh_compiler::{
    Diagnostic, Inputs, Install, ObjectKind, ObjectRef, Reason, Secret, Service, Severity,
};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer};
use mcpmesh_ir::{GatewayId, PolicyId, SecretId, ServerId};

use crate::watch::Key;
use crate::world::endpoints::{Slice, addresses};
use crate::world::{Kept, World};

/// A Secret that could not be read. What was served before stays.
#[derive(Debug, thiserror::Error)]
#[error("cannot read Secret {0}")]
pub(crate) struct Error(SecretId, #[source] kube::Error);

/// Gathers inputs, and keeps the Secrets that it has read.
pub(crate) struct Gatherer {
    client: kube::Client,
    world: Arc<World>,
    secrets: BTreeMap<SecretId, (String, Arc<Secret>)>,
}

/// The objects that a compile has read.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) servers: BTreeMap<Key, Arc<Kept<McpServer>>>,
    pub(crate) gateways: BTreeMap<Key, Arc<Kept<McpGateway>>>,
    pub(crate) policies: BTreeMap<Key, Arc<Kept<McpPolicy>>>,
}

/// Inputs, and what is wrong with objects before a compile sees them.
pub(crate) struct Gathered {
    pub(crate) inputs: Inputs,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Where they come from.
    pub(crate) objects: Objects,
    /// Ready pods by Service.
    pub(crate) pods: BTreeMap<Key, BTreeSet<String>>,
}

impl Gatherer {
    pub(crate) fn new(client: kube::Client, world: Arc<World>) -> Self {
        Self { client, world, secrets: BTreeMap::new() }
    }

    /// The inputs as they are now.
    pub(crate) async fn gather(&mut self, install: Install) -> Result<Gathered, Error> {
        let mut diagnostics = Vec::new();
        let mut inputs = Inputs { install, ..Inputs::default() };
        let objects = Objects {
            servers: self.world.servers.all(),
            gateways: self.world.gateways.all(),
            policies: self.world.policies.all(),
        };
        kinds(&objects, &mut inputs, &mut diagnostics);
        if self.world.scopes.iter().all(Option::is_some) {
            restrict::to_namespaces(&mut inputs, &mut diagnostics);
        }
        let services = references::services(&inputs);
        *self.world.interest.services.write() = services.clone();
        let pods = self.services(&mut inputs, &services);
        for ((_, name), labels) in self.world.namespaces.all() {
            inputs.namespaces.insert(name, (*labels).clone());
        }
        let secrets = references::secrets(&inputs);
        *self.world.interest.secrets.write() = secrets.clone();
        self.read_secrets(&inputs, secrets).await?;
        let known = self.secrets.iter().map(|(id, (_, secret))| (id.clone(), secret.clone()));
        inputs.secrets = known.collect();
        Ok(Gathered { inputs, diagnostics, objects, pods })
    }

    /// The Services that are named, and the pods behind them.
    fn services(&self, inputs: &mut Inputs, named: &BTreeSet<Key>) -> BTreeMap<Key, BTreeSet<String>> {
        let mut slices: BTreeMap<Key, Vec<Arc<Slice>>> = BTreeMap::new();
        for ((namespace, _), slice) in self.world.slices.all() {
            slices.entry((namespace, slice.service.clone())).or_default().push(slice);
        }
        let mut pods = BTreeMap::new();
        for key in named {
            let Some(ports) = self.world.services.get(&key.0, &key.1) else { continue };
            let of = slices.remove(key).unwrap_or_default();
            let names = of.iter().flat_map(|slice| slice.ready.iter().filter_map(|(_, pod)| pod.clone()));
            pods.insert(key.clone(), names.collect());
            let ports = addresses(&ports, &of);
            inputs.services.insert(key.clone(), Arc::new(Service { ports }));
        }
        pods
    }

    async fn read_secrets(&mut self, inputs: &Inputs, mut wanted: BTreeSet<Key>) -> Result<(), Error> {
        let all = self.world.secrets.all();
        let keyed = references::namespaces_with_keys(inputs);
        let keys = all.iter().filter(|((namespace, _), meta)| meta.is_api_key() && keyed.contains(namespace));
        wanted.extend(keys.map(|(key, _)| key.clone()));
        let there = |key: &Key| all.get(key).map(|meta| meta.version.clone());
        self.secrets.retain(|id, _| {
            let key = (id.namespace.clone(), id.name.clone());
            wanted.contains(&key) && there(&key).is_some()
        });
        for key in wanted {
            let Some(version) = there(&key) else { continue };
            let id = SecretId::new(&key.0, &key.1);
            if self.secrets.get(&id).is_some_and(|(known, _)| *known == version) {
                continue;
            }
            let api: Api<v1::Secret> = Api::namespaced(self.client.clone(), &key.0);
            match api.get_opt(&key.1).await {
                Ok(Some(secret)) => _ = self.secrets.insert(id, (version, Arc::new(read(secret)))),
                Ok(None) => _ = self.secrets.remove(&id),
                // Not ours to read is as not there: the object that names it says so.
                Err(kube::Error::Api(status)) if status.code == 403 => _ = self.secrets.remove(&id),
                Err(error) => return Err(Error(id, error)),
            }
        }
        Ok(())
    }
}

fn kinds(objects: &Objects, inputs: &mut Inputs, diagnostics: &mut Vec<Diagnostic>) {
    for ((namespace, name), kept) in &objects.servers {
        match &**kept {
            Kept::Read(object) => {
                inputs.servers.insert(ServerId::new(namespace, name), Arc::clone(object));
            }
            Kept::Unread(unread) => {
                diagnostics.push(finding(ObjectKind::McpServer, namespace, name, &unread.why));
            }
        }
    }
    for ((namespace, name), kept) in &objects.gateways {
        match &**kept {
            Kept::Read(object) => {
                inputs.gateways.insert(GatewayId::new(namespace, name), Arc::clone(object));
            }
            Kept::Unread(unread) => {
                diagnostics.push(finding(ObjectKind::McpGateway, namespace, name, &unread.why));
            }
        }
    }
    for ((namespace, name), kept) in &objects.policies {
        let policy = match &**kept {
            Kept::Read(object) => Arc::clone(object),
            Kept::Unread(unread) => {
                diagnostics.push(finding(ObjectKind::McpPolicy, namespace, name, &unread.why));
                let Some(policy) = closing(&unread.object) else { continue };
                Arc::new(policy)
            }
        };
        inputs.policies.insert(PolicyId::new(namespace, name), policy);
    }
}

fn read(secret: v1::Secret) -> Secret {
    Secret {
        labels: secret.metadata.labels.unwrap_or_default(),
        annotations: secret.metadata.annotations.unwrap_or_default(),
        data: secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(),
    }
}

fn finding(kind: ObjectKind, namespace: &str, name: &str, why: &str) -> Diagnostic {
    Diagnostic {
        object: Some(ObjectRef::new(kind, namespace, name)),
        path: "spec".to_owned(),
        severity: Severity::Error,
        reason: Reason::InvalidField,
        message: format!("this version of the operator cannot read it: {why}"),
        help: Some("correct it, or upgrade the operator".to_owned()),
        location: None,
    }
}

/// In place of a policy that cannot be read: one that is invalid and so closes the same targets. Without targets that
/// can be read, all of its namespace.
fn closing(object: &serde_json::Value) -> Option<McpPolicy> {
    let namespace = object.pointer("/metadata/namespace")?;
    let targets = object.pointer("/spec/targetRefs").cloned();
    let everything = serde_json::json!([{"kind": "Namespace", "name": namespace}]);
    let with = |targets: serde_json::Value| {
        // A glob that is none: invalid on purpose.
        let rule = serde_json::json!({"name": "closed", "effect": "Allow", "to": {"tools": ["["]}, "from": [{"anyone": {}}]});
        let policy = serde_json::json!({
            "apiVersion": object.get("apiVersion"), "kind": object.get("kind"), "metadata": object.get("metadata"),
            "spec": {"targetRefs": targets, "access": [rule]},
        });
        serde_json::from_value(policy).ok()
    };
    targets.and_then(with).or_else(|| with(everything))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_cannot_be_read_closes_its_targets() {
        let object = serde_json::json!({
            "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpPolicy", "metadata": {"name": "p", "namespace": "a"},
            "spec": {"targetRefs": [{"kind": "McpGateway", "name": "gw"}], "later": true},
        });
        let policy = closing(&object).unwrap();
        let gateway = serde_json::json!({
            "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpGateway", "metadata": {"name": "gw", "namespace": "a"},
            "spec": {},
        });
        let inputs = Inputs {
            gateways: BTreeMap::from([(
                GatewayId::new("a", "gw"),
                Arc::new(serde_json::from_value(gateway).unwrap()),
            )]),
            policies: BTreeMap::from([(PolicyId::new("a", "p"), Arc::new(policy))]),
            ..Inputs::default()
        };
        let compiled = mcpmesh_compiler::compile(&inputs);
        let snapshot = &compiled.snapshots[&GatewayId::new("a", "gw")];
        let body: mcpmesh_ir::Gateway = snapshot.resources[0].decode().unwrap();
        assert_eq!(body.levels[0].closed, Some(PolicyId::new("a", "p")));
    }

    #[test]
    fn without_readable_targets_the_whole_namespace_is_closed() {
        let object = serde_json::json!({
            "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpPolicy", "metadata": {"name": "p", "namespace": "a"},
            "spec": {"targetRefs": [{"kind": "Later", "name": "gw"}]},
        });
        let policy = closing(&object).unwrap();
        assert_eq!(policy.spec.target_refs[0].kind, mcpmesh_crds::TargetKind::Namespace);
    }
}
