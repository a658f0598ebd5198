//! Everything that is watched: one store for each kind.

pub(crate) mod child;
pub(crate) mod endpoints;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{ApiResource, DynamicObject};
use mcpmesh_crds::{API_KEY_LABEL, McpGateway, McpPolicy, McpServer};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;

use crate::api_server;
use crate::last_good::Copied;
use crate::watch::{Position, Source, Store, Wake, follow};
use child::LiveChild;
use endpoints::{Ports, Slice};

/// An object of one of our kinds. One that this version cannot read takes down no other.
#[derive(Debug)]
pub(crate) enum Kept<K> {
    /// Shared: an unchanged object stays the same one for the compile.
    Read(Arc<K>),
    Unread(Box<Unread>),
}

/// An object that cannot be read.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) metadata: ObjectMeta,
    /// As the API server has it.
    pub(crate) object: serde_json::Value,
    /// What the decoder said.
    pub(crate) why: String,
}

impl<K: Resource<DynamicType = ()>> Kept<K> {
    pub(crate) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Read(object) => object.meta(),
            Self::Unread(unread) => &unread.metadata,
        }
    }

    /// Whether both are the same object with the same spec.
    pub(crate) fn has_the_spec_of(&self, other: &Self) -> bool {
        let told = |kept: &Self| (kept.metadata().uid.clone(), kept.metadata().generation);
        told(self) == told(other)
    }
}

/// A Secret's metadata: its content is asked for only where something names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SecretMeta {
    pub(crate) version: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Of a fleet's last-good Secret.
    pub(crate) last_good: Option<Copied>,
}

impl SecretMeta {
    pub(crate) fn is_api_key(&self) -> bool {
        self.labels.get(API_KEY_LABEL).is_some_and(|value| value == "true")
    }
}

/// What the objects name outside our kinds: only changes there lead to a compile.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    pub(crate) secrets: Names,
    pub(crate) config_maps: Names,
    pub(crate) services: Names,
}

/// Names of objects, by namespace.
#[derive(Debug, Default)]
pub(crate) struct Names(RwLock<BTreeMap<String, BTreeSet<String>>>);

impl Names {
    fn has(&self, namespace: &str, name: &str) -> bool {
        self.0.read().get(namespace).is_some_and(|names| names.contains(name))
    }

    /// Replaces those of one namespace.
    pub(crate) fn set(&self, namespace: &str, names: BTreeSet<String>) {
        self.0.write().insert(namespace.to_owned(), names);
    }

    /// Forgets all other namespaces.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.0.write().retain(|namespace, _| keep(namespace));
    }
}

/// All stores.
pub(crate) struct World {
    pub(crate) servers: Arc<Store<Kept<McpServer>>>,
    pub(crate) gateways: Arc<Store<Kept<McpGateway>>>,
    pub(crate) policies: Arc<Store<Kept<McpPolicy>>>,
    pub(crate) secrets: Arc<Store<SecretMeta>>,
    /// Versions: as of Secrets, only what is named is read.
    pub(crate) config_maps: Arc<Store<String>>,
    /// Labels; empty in a namespaced install.
    pub(crate) namespaces: Arc<Store<BTreeMap<String, String>>>,
    pub(crate) services: Arc<Store<Ports>>,
    pub(crate) slices: Arc<Store<Slice>>,
    pub(crate) children: BTreeMap<&'static str, Arc<Store<LiveChild>>>,
    pub(crate) interest: Arc<Interest>,
    /// None: the whole cluster.
    pub(crate) scopes: Vec<Option<String>>,
    /// Told of changes that a compile depends on.
    pub(crate) inputs: Wake,
    /// Told of changes of children.
    pub(crate) live: Wake,
}

impl World {
    /// Empty stores over these namespaces; none: all.
    pub(crate) fn new(namespaces: &[String]) -> Self {
        let scopes: Vec<Option<String>> = match namespaces {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        };
        let (inputs, live) = (Wake::new(None), Wake::new(None));
        let interest = Arc::<Interest>::default();
        let (of_secrets, of_maps) = (interest.clone(), interest.clone());
        let (of_services, of_slices) = (interest.clone(), interest.clone());
        let secrets = Store::filtered(&scopes, inputs.clone(), move |key, old: Option<&SecretMeta>, new| {
            old.map(|old| &old.version) != new.map(|new| &new.version)
                && ([old, new].iter().flatten().any(|meta| meta.is_api_key())
                    || of_secrets.secrets.has(&key.0, &key.1))
        });
        let config_maps = Store::filtered(&scopes, inputs.clone(), move |key, old: Option<&String>, new| {
            old != new && of_maps.config_maps.has(&key.0, &key.1)
        });
        let services = Store::filtered(&scopes, inputs.clone(), move |key, old: Option<&Ports>, new| {
            old != new && of_services.services.has(&key.0, &key.1)
        });
        let slices =
            Store::filtered(&scopes, inputs.clone(), move |(namespace, _), old: Option<&Slice>, new| {
                let named = |slice: &Slice| of_slices.services.has(namespace, &slice.service);
                let matters = |slice: &Slice| named(slice) || api_server::is_its(namespace, slice);
                old != new && [old, new].into_iter().flatten().any(matters)
            });
        let everywhere = if namespaces.is_empty() { vec![None] } else { Vec::new() };
        let children =
            child::KINDS.iter().map(|kind| (kind.kind, Arc::new(Store::new(&scopes, live.clone()))));
        Self {
            servers: Arc::new(Store::filtered(&scopes, inputs.clone(), |_, old, new| differs(old, new))),
            gateways: Arc::new(Store::filtered(&scopes, inputs.clone(), |_, old, new| differs(old, new))),
            policies: Arc::new(Store::filtered(&scopes, inputs.clone(), |_, old, new| differs(old, new))),
            secrets: Arc::new(secrets),
            config_maps: Arc::new(config_maps),
            namespaces: Arc::new(Store::filtered(&everywhere, inputs.clone(), |_, old, new| old != new)),
            services: Arc::new(services),
            slices: Arc::new(slices),
            children: children.collect(),
            interest,
            scopes,
            inputs,
            live,
        }
    }

    /// Starts to follow everything, for ever.
    pub(crate) fn start(&self, client: &kube::Client) {
        for scope in &self.scopes {
            let of = |resource: ApiResource| Source::new(client.clone(), resource, scope.clone());
            tokio::spawn(follow(of(ApiResource::erase::<McpServer>(&())), self.servers.clone(), kept));
            tokio::spawn(follow(of(ApiResource::erase::<McpGateway>(&())), self.gateways.clone(), kept));
            tokio::spawn(follow(of(ApiResource::erase::<McpPolicy>(&())), self.policies.clone(), kept));
            let secrets = of(ApiResource::erase::<Secret>(&())).metadata();
            tokio::spawn(follow(secrets, self.secrets.clone(), secret));
            let maps = of(ApiResource::erase::<ConfigMap>(&())).metadata();
            tokio::spawn(follow(maps, self.config_maps.clone(), version));
            tokio::spawn(follow(of(ApiResource::erase::<Service>(&())), self.services.clone(), Ports::read));
            tokio::spawn(follow(
                of(ApiResource::erase::<EndpointSlice>(&())),
                self.slices.clone(),
                Slice::read,
            ));
            for kind in &child::KINDS {
                if let Some(store) = self.children.get(kind.kind) {
                    let source = of(kind.resource()).labelled(child::MANAGED);
                    let source = if kind.kind == "Deployment" { source } else { source.metadata() };
                    tokio::spawn(follow(source, store.clone(), LiveChild::read));
                }
            }
        }
        if !self.namespaces.positions().is_empty() {
            let source = Source::new(client.clone(), ApiResource::erase::<Namespace>(&()), None).metadata();
            tokio::spawn(follow(source, self.namespaces.clone(), labels));
        }
    }

    /// How far each kind that a compile reads has been followed, named as in a watermark: the kind, in a namespaced
    /// install with the namespace.
    pub(crate) fn positions(&self) -> BTreeMap<String, Position> {
        let kinds = [
            ("McpServer", self.servers.positions()),
            ("McpGateway", self.gateways.positions()),
            ("McpPolicy", self.policies.positions()),
            ("Secret", self.secrets.positions()),
            ("ConfigMap", self.config_maps.positions()),
            ("Namespace", self.namespaces.positions()),
            ("Service", self.services.positions()),
            ("EndpointSlice", self.slices.positions()),
        ];
        let name = |kind: &str, scope: Option<String>| match scope {
            None => kind.to_owned(),
            Some(namespace) => format!("{kind}/{namespace}"),
        };
        let named = kinds.into_iter().flat_map(|(kind, scopes)| {
            scopes.into_iter().map(move |(scope, position)| (name(kind, scope), position))
        });
        named.collect()
    }

    /// Whether all of what a compile reads is there.
    pub(crate) fn is_listed(&self) -> bool {
        self.positions().values().all(|position| position.listed)
    }

    /// Whether all children are known: before that nothing is made or removed.
    pub(crate) fn children_are_listed(&self) -> bool {
        self.children.values().all(|store| store.is_listed())
    }

    /// How long the longest broken line has been down.
    pub(crate) fn age(&self) -> Duration {
        let since = self.positions().into_values().filter_map(|position| position.broken);
        since.map(|since| since.elapsed()).max().unwrap_or_default()
    }
}

/// Whether a compile can tell them apart. Status and managed fields make no difference.
fn differs<K: Resource<DynamicType = ()>>(old: Option<&Kept<K>>, new: Option<&Kept<K>>) -> bool {
    let told = |kept: &Kept<K>| {
        let meta = kept.metadata();
        (meta.uid.clone(), meta.generation, meta.labels.clone(), meta.deletion_timestamp.is_some())
    };
    old.map(told) != new.map(told)
}

fn kept<K: DeserializeOwned>(mut object: DynamicObject) -> Option<Kept<K>> {
    object.metadata.managed_fields = None;
    let metadata = object.metadata.clone();
    let value = serde_json::to_value(object).ok()?;
    Some(match serde_json::from_value(value.clone()) {
        Ok(read) => Kept::Read(Arc::new(read)),
        Err(error) => Kept::Unread(Box::new(Unread { metadata, object: value, why: error.to_string() })),
    })
}

fn secret(object: DynamicObject) -> Option<SecretMeta> {
    let ObjectMeta { resource_version, labels, annotations, .. } = object.metadata;
    let last_good = annotations.as_ref().and_then(Copied::of);
    Some(SecretMeta { version: resource_version?, labels: labels.unwrap_or_default(), last_good })
}

fn version(object: DynamicObject) -> Option<String> {
    object.metadata.resource_version
}

fn labels(object: DynamicObject) -> Option<BTreeMap<String, String>> {
    Some(object.metadata.labels.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use kube::api::TypeMeta;
    use serde_json::json;

    use super::*;

    fn object(spec: &serde_json::Value) -> DynamicObject {
        DynamicObject {
            types: Some(TypeMeta::resource::<McpServer>()),
            metadata: ObjectMeta { name: Some("s".to_owned()), ..ObjectMeta::default() },
            data: json!({ "spec": spec }),
        }
    }

    #[test]
    fn an_object_of_a_later_version_is_kept_unread() {
        let read = kept::<McpServer>(object(&json!({"remote": {"url": "https://a.example"}})));
        assert!(matches!(read, Some(Kept::Read(_))));
        let later = kept::<McpServer>(object(&json!({"remote": {"url": "https://a.example"}, "later": 1})));
        let Some(Kept::Unread(unread)) = later else { panic!("it was read") };
        assert_eq!(unread.metadata.name.as_deref(), Some("s"));
        assert!(unread.why.contains("later"), "{}", unread.why);
    }
}
