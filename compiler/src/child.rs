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

pub use inject::{Injection, NotInjected, inject};
pub use name::{base_name, keys_name, labels};

pub(crate) use check::{check_gateway, check_server};
pub(crate) use gateway::{GatewayPlan, gateway};
pub(crate) use server::{ServerPlan, server};

/// Where a sidecar serves.
pub const SIDECAR_PORT: u16 = 17080;

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
