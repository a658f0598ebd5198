//! How the objects of a namespace differ from those of the last compile, as far as a compile can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer};
use mcpmesh_ir::{FleetId, GatewayId, PolicyId, SecretId, ServerId};

use crate::child::base_name;
use crate::inputs::{ConfigMap, Objects, Secret, Service};

/// The objects of one kind that differ.
pub(super) struct Of<K> {
    /// Those that are new, differ, or are gone.
    changed: BTreeSet<K>,
    /// Whether some are new or gone.
    pub(super) others: bool,
}

impl<K> Of<K> {
    pub(super) fn any(&self) -> bool {
        !self.changed.is_empty()
    }
}

/// How the objects of a namespace differ from before.
pub(super) struct Changes {
    servers: Of<ServerId>,
    pub(super) policies: Of<PolicyId>,
    gateways: Of<GatewayId>,
    secrets: Of<SecretId>,
    config_maps: Of<String>,
    services: Of<String>,
}

impl Changes {
    pub(super) fn between(old: &Objects, new: &Objects) -> Self {
        Self {
            servers: between(&old.servers, &new.servers),
            policies: between(&old.policies, &new.policies),
            gateways: between(&old.gateways, &new.gateways),
            secrets: between(&old.secrets, &new.secrets),
            config_maps: between(&old.config_maps, &new.config_maps),
            services: between(&old.services, &new.services),
        }
    }

    pub(super) fn any(&self) -> bool {
        let Self { servers, policies, gateways, secrets, config_maps, services } = self;
        let named = secrets.any() || config_maps.any() || services.any();
        servers.any() || policies.any() || gateways.any() || named
    }

    /// Whether a server may compile to something else: it changed, or something that it names did.
    pub(super) fn reach_server(&self, id: &ServerId, object: &McpServer) -> bool {
        let spec = &object.spec;
        let runs = spec.package.is_some() || spec.container.is_some();
        let service = || {
            let named = spec.service.as_ref().map(|service| service.name.clone());
            named.or_else(|| runs.then(|| base_name(&FleetId::Server(id.clone()))))
        };
        self.servers.changed.contains(id)
            || (self.secrets.any() && (runs || spec.credentials.is_some() || spec.authentication.is_some()))
            || (self.config_maps.any() && runs)
            || (self.services.any() && service().is_some_and(|name| self.services.changed.contains(&name)))
    }

    /// Whether a policy may compile to something else. It asks which servers and gateways there are, not what they are.
    pub(super) fn reach_policy(&self, id: &PolicyId) -> bool {
        self.policies.changed.contains(id) || self.servers.others || self.gateways.others
    }
}

fn between<K: Ord + Clone, V: Source>(old: &BTreeMap<K, Arc<V>>, new: &BTreeMap<K, Arc<V>>) -> Of<K> {
    let mut of = Of { changed: BTreeSet::new(), others: false };
    for (key, object) in new {
        match old.get(key) {
            Some(old) if Arc::ptr_eq(old, object) || old.reads_as(object) => {}
            Some(_) => _ = of.changed.insert(key.clone()),
            None => {
                of.others = true;
                of.changed.insert(key.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        of.others = true;
        of.changed.insert(key.clone());
    }
    of
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

impl Source for ConfigMap {
    fn reads_as(&self, other: &Self) -> bool {
        self == other
    }
}

impl Source for Service {
    fn reads_as(&self, other: &Self) -> bool {
        self == other
    }
}
