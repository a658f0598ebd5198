//! The objects of a namespace as they were at the last compile, and how they differ now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcpmesh_crds::{ExportTo, McpGateway, McpPolicy, McpServer};
use mcpmesh_ir::gateway::Level;
use mcpmesh_ir::{GatewayId, PolicyId, SecretId, ServerId, Version};

use crate::compile::Namespace;
use crate::inputs::{Inputs, Secret, Service};

/// The objects of one namespace, in the inputs' order.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) servers: List<ServerId, McpServer>,
    pub(super) policies: List<PolicyId, McpPolicy>,
    gateways: List<GatewayId, McpGateway>,
    secrets: List<SecretId, Secret>,
    services: List<(String, String), Service>,
}

type List<K, V> = Vec<(K, Arc<V>)>;

/// How the objects of one kind differ from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Not in what a compile reads.
    None,
    /// The same objects, and something in them.
    Values,
    /// Other objects.
    Keys,
}

/// How the objects of a namespace differ from before.
pub(super) struct Changes {
    pub(super) servers: Change,
    pub(super) servers_changed: BTreeSet<ServerId>,
    pub(super) policies: Change,
    pub(super) policies_changed: BTreeSet<PolicyId>,
    pub(super) gateways: Change,
    pub(super) secrets: Change,
    pub(super) services: Change,
}

impl Changes {
    pub(super) fn any(&self) -> bool {
        [self.servers, self.policies, self.gateways, self.secrets, self.services]
            .iter()
            .any(|change| *change != Change::None)
    }
}

/// The namespaces in which there is anything.
pub(super) fn namespaces(inputs: &Inputs) -> BTreeSet<&str> {
    let Inputs { servers, gateways, policies, secrets, services, namespaces: _, install: _ } = inputs;
    let mut names = BTreeSet::new();
    distinct(servers.keys().map(|id| id.namespace.as_str()), &mut names);
    distinct(gateways.keys().map(|id| id.namespace.as_str()), &mut names);
    distinct(policies.keys().map(|id| id.namespace.as_str()), &mut names);
    distinct(secrets.keys().map(|id| id.namespace.as_str()), &mut names);
    distinct(services.keys().map(|(namespace, _)| namespace.as_str()), &mut names);
    names
}

/// They come in order, so that most need no look-up.
fn distinct<'i>(all: impl Iterator<Item = &'i str>, names: &mut BTreeSet<&'i str>) {
    let mut last = None;
    for name in all.filter(|name| !name.is_empty()) {
        if last != Some(name) {
            names.insert(name);
            last = Some(name);
        }
    }
}

impl Sources {
    /// Takes over what a namespace holds now.
    pub(super) fn update(&mut self, name: &str, inputs: &Inputs) -> Changes {
        let (mut servers_changed, mut policies_changed) = (BTreeSet::new(), BTreeSet::new());
        let servers = inputs.servers.range(ServerId::new(name, "")..);
        let servers = servers.take_while(|(id, _)| id.namespace == name);
        let policies = inputs.policies.range(PolicyId::new(name, "")..);
        let policies = policies.take_while(|(id, _)| id.namespace == name);
        let gateways = inputs.gateways.range(GatewayId::new(name, "")..);
        let gateways = gateways.take_while(|(id, _)| id.namespace == name);
        let secrets = inputs.secrets.range(SecretId::new(name, "")..);
        let secrets = secrets.take_while(|(id, _)| id.namespace == name);
        let services = inputs.services.range((name.to_owned(), String::new())..);
        let services = services.take_while(|((namespace, _), _)| namespace == name);
        Changes {
            servers: update(&mut self.servers, servers, &mut servers_changed),
            policies: update(&mut self.policies, policies, &mut policies_changed),
            gateways: update(&mut self.gateways, gateways, &mut BTreeSet::new()),
            secrets: update(&mut self.secrets, secrets, &mut BTreeSet::new()),
            services: update(&mut self.services, services, &mut BTreeSet::new()),
            servers_changed,
            policies_changed,
        }
    }
}

/// Takes over the objects of one kind; `changed` gets those that are new or differ.
fn update<'i, K: Ord + Clone + 'i, V: Source + 'i>(
    known: &mut List<K, V>,
    now: impl Iterator<Item = (&'i K, &'i Arc<V>)> + Clone,
    changed: &mut BTreeSet<K>,
) -> Change {
    let same_keys = now.clone().map(|(key, _)| key).eq(known.iter().map(|(key, _)| key));
    if !same_keys {
        let old: BTreeMap<K, Arc<V>> = std::mem::take(known).into_iter().collect();
        let differs = |(key, object): &(&K, &Arc<V>)| old.get(key).is_none_or(|old| !is_same(old, object));
        changed.extend(now.clone().filter(differs).map(|(key, _)| key.clone()));
        known.extend(now.map(|(key, object)| (key.clone(), object.clone())));
        return Change::Keys;
    }
    let mut change = Change::None;
    for ((key, old), (_, object)) in known.iter_mut().zip(now) {
        if !is_same(old, object) {
            changed.insert(key.clone());
            change = Change::Values;
        }
        if !Arc::ptr_eq(old, object) {
            *old = object.clone();
        }
    }
    change
}

fn is_same<V: Source>(one: &Arc<V>, other: &Arc<V>) -> bool {
    Arc::ptr_eq(one, other) || one.reads_as(other)
}

/// An object that a compile reads.
trait Source {
    /// Whether a compile would find the same in both. Status and versions change without meaning anything here.
    fn reads_as(&self, other: &Self) -> bool;
}

fn same(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    (&one.uid, &one.labels) == (&other.uid, &other.labels)
}

impl Source for McpServer {
    fn reads_as(&self, other: &Self) -> bool {
        same(&self.metadata, &other.metadata) && self.spec == other.spec
    }
}

impl Source for McpPolicy {
    fn reads_as(&self, other: &Self) -> bool {
        same(&self.metadata, &other.metadata) && self.spec == other.spec
    }
}

impl Source for McpGateway {
    fn reads_as(&self, other: &Self) -> bool {
        same(&self.metadata, &other.metadata) && self.spec == other.spec
    }
}

impl Source for Secret {
    fn reads_as(&self, other: &Self) -> bool {
        self == other
    }
}

impl Source for Service {
    fn reads_as(&self, other: &Self) -> bool {
        self == other
    }
}

/// What gateways of other namespaces see of this one.
#[derive(Default, PartialEq)]
pub(super) struct Surface(Vec<Exported>);

#[derive(PartialEq)]
struct Exported {
    server: ServerId,
    version: Version,
    labels: BTreeMap<String, String>,
    to: ExportTo,
    /// The policies that may be judged at such a gateway, with their content.
    levels: Vec<Level>,
    policies: Vec<Option<Version>>,
}

impl Surface {
    pub(super) fn of(namespace: &Namespace) -> Self {
        let exported = namespace.usable().filter_map(|server| {
            let levels = namespace.server_levels(&server.id);
            let policies = levels.iter().flat_map(|level| &level.policies).map(|id| {
                let policy = namespace.policies.get(id)?;
                policy.resource.as_ref().map(|resource| resource.version.clone())
            });
            Some(Exported {
                to: server.exports.clone()?,
                server: server.id.clone(),
                version: server.outside.version.clone(),
                labels: server.labels.clone(),
                policies: policies.collect(),
                levels,
            })
        });
        Self(exported.collect())
    }
}
