//! The objects that the operator makes for a gateway or a server, built here and applied there.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

/// One object, without its owner: whoever applies it adds the ownerReference. In the fleet's namespace.
#[derive(Debug, Clone, PartialEq)]
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
