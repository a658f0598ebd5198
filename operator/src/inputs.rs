//! From the stores to the compile's inputs. Secrets and ConfigMaps that something names are read here, each version once.

mod read;
mod references;
mod restrict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use mcpmesh_compiler::{
    ConfigMap, Diagnostic, Inputs, Install, ObjectKind, ObjectRef, Objects, Reason, Secret, Service, Severity,
};
use mcpmesh_crds::{
    AccessRule, Effect, Empty, LabelSelector, McpGateway, McpPolicy, McpPolicySpec, McpServer, Mode, Subject,
    TargetKind, TargetRef, To,
};
use mcpmesh_ir::{GatewayId, PolicyId, SecretId, ServerId};
use serde::Deserialize;
use serde_json::Value;

use crate::status::write::Kinds;
use crate::watch::Bucket;
use crate::world::endpoints::{Ports, Slice, addresses};
use crate::world::{Kept, SecretMeta, World};
pub(crate) use read::Error;
use read::Versions;

/// Gathers inputs. What it gathered from a namespace stands until something in the namespace changes.
pub(crate) struct Gatherer {
    client: kube::Client,
    world: Arc<World>,
    namespaces: BTreeMap<String, Known>,
    labels: Arc<Bucket<BTreeMap<String, String>>>,
    /// As the last compile had them.
    inputs: Inputs,
}

/// What was gathered from a namespace, and what from.
#[derive(Default)]
struct Known {
    seen: Option<Seen>,
    secrets: Versions<Secret>,
    config_maps: Versions<ConfigMap>,
    found: Arc<Found>,
}

/// A namespace's objects as they were looked at.
struct Seen {
    servers: Arc<Bucket<Kept<McpServer>>>,
    gateways: Arc<Bucket<Kept<McpGateway>>>,
    policies: Arc<Bucket<Kept<McpPolicy>>>,
    secrets: Arc<Bucket<SecretMeta>>,
    config_maps: Arc<Bucket<String>>,
    services: Arc<Bucket<Ports>>,
    slices: Arc<Bucket<Slice>>,
}

impl Seen {
    fn is(&self, other: &Self) -> bool {
        same(&self.servers, &other.servers)
            && same(&self.gateways, &other.gateways)
            && same(&self.policies, &other.policies)
            && same(&self.secrets, &other.secrets)
            && same(&self.config_maps, &other.config_maps)
            && same(&self.services, &other.services)
            && same(&self.slices, &other.slices)
    }
}

/// What is known of a namespace besides what a compile reads.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What is wrong with objects before a compile sees them.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// The objects that the compile reads.
    pub(crate) read: Kinds,
    /// Ready pods by Service.
    pub(crate) pods: BTreeMap<String, BTreeSet<String>>,
}

/// Inputs, and what else was found, by namespace.
pub(crate) struct Gathered {
    pub(crate) inputs: Inputs,
    pub(crate) found: BTreeMap<String, Arc<Found>>,
}

impl Gatherer {
    pub(crate) fn new(client: kube::Client, world: Arc<World>) -> Self {
        let (namespaces, labels, inputs) = Default::default();
        Self { client, world, namespaces, labels, inputs }
    }

    /// The inputs as they are now.
    pub(crate) async fn gather(&mut self, install: Install) -> Result<Gathered, Error> {
        self.inputs.install = install;
        self.labels();
        let world = self.world.clone();
        let (servers, gateways, policies) =
            (world.servers.buckets(), world.gateways.buckets(), world.policies.buckets());
        let names: BTreeSet<&String> = servers.keys().chain(gateways.keys()).chain(policies.keys()).collect();
        self.forget(|name| names.contains(&name.to_owned()));
        let named = |name: &str| Named {
            servers: servers.get(name).cloned().unwrap_or_default(),
            gateways: gateways.get(name).cloned().unwrap_or_default(),
            policies: policies.get(name).cloned().unwrap_or_default(),
        };
        // What objects name is followed before it is looked at: no change of it is missed.
        let drafts: Vec<(&String, Draft)> =
            names.into_iter().map(|name| (name, self.draft(name, named(name)))).collect();
        let (secrets, config_maps) = (world.secrets.buckets(), world.config_maps.buckets());
        let (services, slices) = (world.services.buckets(), world.slices.buckets());
        for (name, Draft { named: Named { servers, gateways, policies }, changed }) in drafts {
            let seen = Seen {
                servers,
                gateways,
                policies,
                secrets: secrets.get(name).cloned().unwrap_or_default(),
                config_maps: config_maps.get(name).cloned().unwrap_or_default(),
                services: services.get(name).cloned().unwrap_or_default(),
                slices: slices.get(name).cloned().unwrap_or_default(),
            };
            let known = self.namespaces.get(name).and_then(|known| known.seen.as_ref());
            if changed || known.is_none_or(|known| !known.is(&seen)) {
                self.read_namespace(name, seen).await?;
            }
        }
        let found = self.namespaces.iter().map(|(name, known)| (name.clone(), known.found.clone()));
        Ok(Gathered { inputs: self.inputs.clone(), found: found.collect() })
    }

    fn labels(&mut self) {
        let now = self.world.namespaces.of("");
        if !Arc::ptr_eq(&now, &self.labels) {
            let labels = now.iter().map(|(name, labels)| (name.clone(), (**labels).clone()));
            (self.inputs.labels, self.labels) = (Arc::new(labels.collect()), now);
        }
    }

    fn forget(&mut self, is_there: impl Fn(&str) -> bool) {
        self.namespaces.retain(|name, _| is_there(name));
        self.inputs.namespaces.retain(|name, _| is_there(name));
        self.world.interest.services.retain(&is_there);
        self.world.interest.secrets.retain(&is_there);
        self.world.interest.config_maps.retain(&is_there);
    }

    /// Says what the objects of a namespace name, where they changed.
    fn draft(&self, name: &str, named: Named) -> Draft {
        let known = self.namespaces.get(name).and_then(|known| known.seen.as_ref());
        let changed = known.is_none_or(|known| !named.is_of(known));
        if changed {
            let objects = self.objects(name, &named, &mut Vec::new());
            self.world.interest.services.set(name, references::services(&objects));
            self.world.interest.secrets.set(name, references::secrets(&objects));
            self.world.interest.config_maps.set(name, references::config_maps(&objects));
        }
        Draft { named, changed }
    }

    /// The objects of our kinds in a namespace.
    fn objects(&self, namespace: &str, named: &Named, diagnostics: &mut Vec<Diagnostic>) -> Objects {
        let mut objects = Objects::default();
        for (name, kept) in &*named.servers {
            match &**kept {
                Kept::Read(object) => {
                    objects.servers.insert(ServerId::new(namespace, name), Arc::clone(object));
                }
                Kept::Unread(unread) => {
                    diagnostics.push(finding(ObjectKind::McpServer, namespace, name, &unread.why));
                }
            }
        }
        for (name, kept) in &*named.gateways {
            match &**kept {
                Kept::Read(object) => {
                    objects.gateways.insert(GatewayId::new(namespace, name), Arc::clone(object));
                }
                Kept::Unread(unread) => {
                    diagnostics.push(finding(ObjectKind::McpGateway, namespace, name, &unread.why));
                }
            }
        }
        for (name, kept) in &*named.policies {
            let policy = match &**kept {
                Kept::Read(object) => Arc::clone(object),
                Kept::Unread(unread) => {
                    diagnostics.push(finding(ObjectKind::McpPolicy, namespace, name, &unread.why));
                    let Some(policy) = closing(&unread.object) else { continue };
                    Arc::new(policy)
                }
            };
            objects.policies.insert(PolicyId::new(namespace, name), policy);
        }
        if self.world.scopes.iter().all(Option::is_some) {
            restrict::to_namespaces(&mut objects, diagnostics);
        }
        objects
    }

    /// Takes over what a namespace holds now.
    async fn read_namespace(&mut self, name: &str, seen: Seen) -> Result<(), Error> {
        let mut diagnostics = Vec::new();
        let named = Named {
            servers: seen.servers.clone(),
            gateways: seen.gateways.clone(),
            policies: seen.policies.clone(),
        };
        let mut objects = self.objects(name, &named, &mut diagnostics);
        let pods = services(&mut objects, self.inputs.of(name), &seen);
        let mut known = self.namespaces.remove(name).unwrap_or_default();
        // Not seen until all of it is read.
        known.seen = None;
        let read = self.read_named((name, &seen), &objects, &mut known).await;
        if read.is_ok() {
            let secrets = known.secrets.iter();
            objects.secrets = secrets.map(|(of, (_, one))| (SecretId::new(name, of), one.clone())).collect();
            let maps = known.config_maps.iter();
            objects.config_maps = maps.map(|(of, (_, one))| (of.clone(), one.clone())).collect();
            self.inputs.namespaces.insert(name.to_owned(), Arc::new(objects));
            let Named { servers, gateways, policies } = named;
            let read = Kinds { namespace: name.to_owned(), servers, gateways, policies };
            known.found = Arc::new(Found { diagnostics, read, pods });
            known.seen = Some(seen);
        }
        self.namespaces.insert(name.to_owned(), known);
        read
    }

    /// Reads the Secrets of a namespace that are named or hold API keys, and the ConfigMaps that are named.
    async fn read_named(
        &self,
        (name, seen): (&str, &Seen),
        objects: &Objects,
        known: &mut Known,
    ) -> Result<(), Error> {
        let mut wanted = references::secrets(objects);
        if references::takes_keys(objects) {
            let keys = seen.secrets.iter().filter(|(_, meta)| meta.is_api_key());
            wanted.extend(keys.map(|(name, _)| name.clone()));
        }
        let version = |name: &str| seen.secrets.get(name).map(|meta| meta.version.clone());
        let secrets: Api<v1::Secret> = Api::namespaced(self.client.clone(), name);
        read::all(&secrets, &wanted, version, &mut known.secrets).await?;
        let version = |name: &str| seen.config_maps.get(name).map(ToString::to_string);
        let maps: Api<v1::ConfigMap> = Api::namespaced(self.client.clone(), name);
        read::all(&maps, &references::config_maps(objects), version, &mut known.config_maps).await
    }
}

/// A namespace without any has an empty one, made for each look.
fn same<T>(one: &Arc<Bucket<T>>, other: &Arc<Bucket<T>>) -> bool {
    Arc::ptr_eq(one, other) || (one.is_empty() && other.is_empty())
}

/// The objects of a namespace that name others.
struct Named {
    servers: Arc<Bucket<Kept<McpServer>>>,
    gateways: Arc<Bucket<Kept<McpGateway>>>,
    policies: Arc<Bucket<Kept<McpPolicy>>>,
}

impl Named {
    fn is_of(&self, seen: &Seen) -> bool {
        same(&self.servers, &seen.servers)
            && same(&self.gateways, &seen.gateways)
            && same(&self.policies, &seen.policies)
    }
}

struct Draft {
    named: Named,
    changed: bool,
}

/// Adds the Services that are named. Returns the pods behind them.
fn services(objects: &mut Objects, before: &Objects, seen: &Seen) -> BTreeMap<String, BTreeSet<String>> {
    let mut slices: BTreeMap<&str, Vec<Arc<Slice>>> = BTreeMap::new();
    for slice in seen.slices.values() {
        slices.entry(&slice.service).or_default().push(slice.clone());
    }
    let mut pods = BTreeMap::new();
    for name in references::services(objects) {
        let Some(ports) = seen.services.get(&name) else { continue };
        let of = slices.remove(name.as_str()).unwrap_or_default();
        let names = of.iter().flat_map(|slice| slice.ready.iter().filter_map(|(_, pod)| pod.clone()));
        pods.insert(name.clone(), names.collect());
        let service = Service { ports: addresses(ports, &of) };
        let known = before.services.get(&name).filter(|known| ***known == service).cloned();
        objects.services.insert(name, known.unwrap_or_else(|| Arc::new(service)));
    }
    pods
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

/// In place of a policy that cannot be read: one that is invalid and so closes the same. What it says of where it holds
/// counts as far as that can be read; where it cannot, all is closed that may be meant.
fn closing(object: &Value) -> Option<McpPolicy> {
    let metadata = ObjectMeta::deserialize(object.get("metadata")?).ok()?;
    let given = |field: &str| object.pointer(&format!("/spec/{field}"));
    let namespace_selector =
        given("namespaceSelector").map(|it| LabelSelector::deserialize(it).unwrap_or_default());
    let targets = given("targetRefs").map(|it| Vec::<TargetRef>::deserialize(it).unwrap_or_default());
    let target_refs = match targets {
        Some(targets) if !targets.is_empty() => targets,
        None if namespace_selector.is_some() => Vec::new(),
        _ => {
            let name = metadata.namespace.clone()?;
            vec![TargetRef { group: None, kind: TargetKind::Namespace, name }]
        }
    };
    // One that only watches closes nothing.
    let mode = given("mode").and_then(|it| Mode::deserialize(it).ok()).unwrap_or_default();
    // A glob that is none: invalid on purpose.
    let to = To { tools: vec!["[".to_owned()], ..To::default() };
    let from = vec![Subject { anyone: Some(Empty {}), ..Subject::default() }];
    let access = vec![AccessRule { name: "closed".to_owned(), effect: Effect::Allow, from, to: Some(to) }];
    let spec = McpPolicySpec { target_refs, namespace_selector, mode, access, ..McpPolicySpec::default() };
    Some(McpPolicy { metadata, ..McpPolicy::new("", spec) })
}

#[cfg(test)]
mod tests;
