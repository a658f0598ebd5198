//! Whether anybody has written: the versions of all objects of some namespaces.

use std::collections::BTreeMap;

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use mcpmesh_crds::{CONTROLLER, McpGateway, McpPolicy, McpServer};

/// Versions by `Kind/namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit(BTreeMap<String, String>);

impl Audit {
    /// Of these namespaces: our three kinds, what the operator makes of them, and its events.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn of(client: &Client, namespaces: &[&str]) -> anyhow::Result<Self> {
        let mut seen = BTreeMap::new();
        for namespace in namespaces {
            let mut take = async |resource: ApiResource| -> anyhow::Result<()> {
                let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
                let list = api.list(&ListParams::default()).await?;
                let ours = list.items.iter().filter(|object| is_of_interest(&resource.kind, object));
                seen.extend(ours.map(|object| {
                    let key = format!("{}/{namespace}/{}", resource.kind, object.name_any());
                    (key, version(&resource.kind, object))
                }));
                Ok(())
            };
            take(of::<McpServer>()).await?;
            take(of::<McpGateway>()).await?;
            take(of::<McpPolicy>()).await?;
            take(of::<ServiceAccount>()).await?;
            take(of::<Deployment>()).await?;
            take(of::<Service>()).await?;
            take(of::<PodDisruptionBudget>()).await?;
            take(of::<NetworkPolicy>()).await?;
            take(of::<HorizontalPodAutoscaler>()).await?;
            take(of::<ConfigMap>()).await?;
            take(of::<Secret>()).await?;
            take(of::<Event>()).await?;
        }
        Ok(Self(seen))
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing was written, made or removed since.
    ///
    /// # Errors
    /// With what was.
    pub fn is_still(&self, now: &Self) -> anyhow::Result<()> {
        let changed = self.changed(now);
        ensure!(changed.is_empty(), "written meanwhile: {changed:?}");
        Ok(())
    }

    /// The objects that differ.
    #[must_use]
    pub fn changed<'a>(&'a self, now: &'a Self) -> Vec<&'a str> {
        let mut keys: Vec<&str> = self.0.keys().chain(now.0.keys()).map(String::as_str).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.0.get(*key) != now.0.get(*key));
        keys
    }
}

fn of<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// Events are of all controllers; those of ours count.
fn is_of_interest(kind: &str, object: &DynamicObject) -> bool {
    kind != "Event" || object.data["reportingComponent"] == CONTROLLER
}

/// Of most kinds nobody but their owner writes. The status of some is Kubernetes' own: there, when we wrote last.
fn version(kind: &str, object: &DynamicObject) -> String {
    if !matches!(kind, "Deployment" | "PodDisruptionBudget" | "HorizontalPodAutoscaler" | "Service") {
        return object.resource_version().unwrap_or_default();
    }
    let entries = object.metadata.managed_fields.as_deref().unwrap_or_default();
    let ours = entries.iter().find(|entry| entry.manager.as_deref() == Some(CONTROLLER));
    let written = ours.and_then(|entry| entry.time.as_ref()).map(|time| time.0.to_string());
    format!("generation {:?}, written {written:?}", object.metadata.generation)
}
