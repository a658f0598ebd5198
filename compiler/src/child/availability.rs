//! How many pods there are, and how many may be gone at a time.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mcpmesh_crds::{Autoscaling, ProxyFleet};
use mcpmesh_ir::FleetId;

use super::Child;
use super::name::{base_name, metadata, selector};

/// Proxies of a gateway that says nothing: one may be gone.
pub(super) const PROXIES: i32 = 2;

/// Percent of the requested CPU.
const TARGET_CPU: i32 = 80;

/// The replicas of a gateway's Deployment; none where an autoscaler owns the field, so that nobody fights it.
pub(super) fn replicas(fleet: &ProxyFleet) -> Option<i32> {
    if fleet.autoscaling.is_some() { None } else { Some(fleet.replicas.unwrap_or(PROXIES)) }
}

/// One pod at a time may be evicted; a pod that is not ready anyway may always be. `pods` is none when they vary.
pub(super) fn disruption_budget(fleet: &FleetId, pods: Option<i32>) -> Option<Child> {
    if pods.is_some_and(|pods| pods < 2) {
        return None;
    }
    Some(Child::PodDisruptionBudget(Box::new(PodDisruptionBudget {
        metadata: metadata(fleet, &Default::default()),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(fleet)),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })))
}

pub(super) fn autoscaler(fleet: &FleetId, given: &Autoscaling) -> Child {
    let Autoscaling { min_replicas, max_replicas, target_cpu_utilization } = given;
    let cpu = MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(target_cpu_utilization.unwrap_or(TARGET_CPU)),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    };
    Child::HorizontalPodAutoscaler(Box::new(HorizontalPodAutoscaler {
        metadata: metadata(fleet, &Default::default()),
        spec: Some(HorizontalPodAutoscalerSpec {
            min_replicas: Some(min_replicas.unwrap_or(PROXIES.min(*max_replicas))),
            max_replicas: *max_replicas,
            metrics: Some(vec![cpu]),
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: base_name(fleet),
            },
            ..HorizontalPodAutoscalerSpec::default()
        }),
        status: None,
    }))
}
