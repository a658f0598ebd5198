//! The kinds of object that we make, and what is known of those that are there.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};

/// The labels of what we make.
pub(crate) const MANAGED: &str = "app.kubernetes.io/managed-by=mcpmesh-operator";

/// A kind that we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChildKind {
    group: &'static str,
    version: &'static str,
    pub(crate) kind: &'static str,
    plural: &'static str,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> ChildKind {
    ChildKind { group, version, kind, plural }
}

/// All of them, in the order in which they are applied.
pub(crate) const KINDS: [ChildKind; 8] = [
    kind("", "v1", "ConfigMap", "configmaps"),
    kind("", "v1", "ServiceAccount", "serviceaccounts"),
    kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    kind("", "v1", "Service", "services"),
    kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    kind("apps", "v1", "Deployment", "deployments"),
    kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
];

/// Written, and watched with all Secrets.
const SECRET: ChildKind = kind("", "v1", "Secret", "secrets");

impl ChildKind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        KINDS.into_iter().chain([SECRET]).find(|kind| kind.kind == name)
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub(crate) fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// An object that we made.
#[derive(Debug, Clone)]
pub(crate) struct LiveChild {
    /// With managed fields: they tell what of it is still as we said.
    pub(crate) metadata: ObjectMeta,
    /// Of a Deployment.
    pub(crate) rollout: Option<Rollout>,
}

/// How far a Deployment is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rollout {
    /// Its controller has seen the latest generation.
    pub(crate) observed: bool,
    pub(crate) wanted: i32,
    /// Of the latest generation.
    pub(crate) updated: i32,
    pub(crate) ready: i32,
    /// The controller has given up: `Progressing=False`.
    pub(crate) stuck: bool,
}

impl LiveChild {
    pub(crate) fn read(object: DynamicObject) -> Option<Self> {
        let metadata = object.metadata.clone();
        let rollout = object.data.get("status").is_some().then(|| rollout(object)).flatten();
        Some(Self { metadata, rollout })
    }
}

fn rollout(object: DynamicObject) -> Option<Rollout> {
    let deployment: Deployment = object.try_parse().ok()?;
    let status = deployment.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    Some(Rollout {
        observed: status.observed_generation == deployment.metadata.generation,
        wanted: deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1),
        updated: status.updated_replicas.unwrap_or_default(),
        ready: status.ready_replicas.unwrap_or_default(),
        stuck: conditions.iter().any(|one| one.type_ == "Progressing" && one.status == "False"),
    })
}
