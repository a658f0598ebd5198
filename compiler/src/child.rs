//! The objects that the operator makes for a gateway or a server, built here and applied there.
//!
//! Pure, and nobody's deputy (decisions.md 20): what a user may say of pods is copied from closed types, everything that
//! security rests on is written here. Equal inputs give equal bytes.

mod availability;
mod check;
mod gateway;
mod inject;
mod name;
mod network;
mod pod;
mod proxy;
mod route;
mod server;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use mcpmesh_crds::{McpGatewaySpec, McpServerSpec};
use mcpmesh_ir::{Fleet, FleetId, Gateway, ResourceKind, Server, ServerId};

use crate::inputs::{Cluster, Inputs};
use crate::secret;
use crate::workload::Workload;

pub use name::{base_name, keys_name, labels, last_good_name};

pub(crate) use check::{check_gateway, check_server};
pub(crate) use inject::{Injection, inject};

/// Where a sidecar serves.
pub const SIDECAR_PORT: u16 = 17080;

/// Where a sidecar serves callers that come past the gateways, if it serves any.
pub const DIRECT_PORT: u16 = 17081;

/// Metrics, readiness and liveness of every proxy.
pub const OBSERVABILITY_PORT: u16 = 17020;

/// Where the operator pushes.
pub const PUSH_PORT: u16 = 9443;

/// On the pods of a server: the keyed hash of what is run, its Secrets included. Another one means other pods.
pub const DIGEST_ANNOTATION: &str = "mcpmesh.io/workload-digest";

/// One object, without its owner: whoever applies it adds the ownerReference. In the fleet's namespace.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Child {
    /// core/v1
    ServiceAccount(Box<ServiceAccount>),
    /// apps/v1
    Deployment(Box<Deployment>),
    /// core/v1
    Service(Box<Service>),
    /// policy/v1
    PodDisruptionBudget(Box<PodDisruptionBudget>),
    /// networking.k8s.io/v1
    NetworkPolicy(Box<NetworkPolicy>),
    /// autoscaling/v2
    HorizontalPodAutoscaler(Box<HorizontalPodAutoscaler>),
    /// gateway.networking.k8s.io/v1 HTTPRoute: the Gateway API has no types here.
    HttpRoute(Box<serde_json::Value>),
}

/// The children of a gateway with the configuration that its proxies get. In the order in which they are applied.
pub(crate) fn of_gateway(spec: &McpGatewaySpec, fleet: &Fleet, cluster: &Cluster) -> Vec<Child> {
    let FleetId::Gateway(id) = &fleet.id else { return Vec::new() };
    let of_kind = |kind| fleet.resources.iter().filter(move |resource| resource.kind == kind);
    let bodies = of_kind(ResourceKind::Gateway).filter_map(|resource| resource.decode::<Gateway>().ok());
    let listeners: Vec<_> = bodies.flat_map(|body| body.listeners).collect();
    let servers: Vec<Server> = of_kind(ResourceKind::Server).filter_map(|one| one.decode().ok()).collect();
    let proxy = spec.proxy.clone().unwrap_or_default();
    gateway::gateway(&gateway::GatewayPlan {
        id,
        proxy: &proxy,
        listeners: &listeners,
        upstreams: servers.iter().map(|one| (one.id.namespace.as_str(), &one.endpoint)).collect(),
        cluster,
    })
}

/// The children of a server whose pods a team makes, with a proxy injected: what that proxy is known by, and the rule
/// that only it is reached. In the order in which they are applied.
pub(crate) fn of_injected(id: &ServerId, direct: bool) -> Vec<Child> {
    let fleet = FleetId::Server(id.clone());
    vec![gateway::account(&fleet), network::of_injected(&fleet, direct)]
}

/// The children of a server that is run. In the order in which they are applied.
pub(crate) fn of_server(
    spec: &McpServerSpec,
    workload: &Workload,
    inputs: &Inputs,
    cluster: &Cluster,
) -> Vec<Child> {
    let environment = workload.environment(&inputs.of(&workload.server.namespace).secrets);
    let digest = secret::digest(&inputs.install.version_key, &(workload, &environment.0)).unwrap_or_default();
    let variables = environment.0.iter().map(|(name, _)| name.as_str()).collect();
    server::server(&server::ServerPlan {
        id: &workload.server,
        spec,
        launch: &workload.launch,
        digest: &digest,
        variables: &variables,
        cluster,
    })
}
