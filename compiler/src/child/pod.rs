//! A hardened pod, and in it what a user may say.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Container, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    TopologySpreadConstraint, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mcpmesh_crds::{Pod, Resources};
use mcpmesh_ir::FleetId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::name::{base_name, labels, metadata, selector, with_ours};
use super::proxy::USER;

/// Longer than a proxy takes to leave: it serves on while its address disappears from Services, then gives what is in
/// flight 30 s.
const GRACE_SECONDS: i64 = 60;

/// What a pod has besides its hardening.
pub(super) struct Parts {
    pub(super) init_containers: Vec<Container>,
    pub(super) containers: Vec<Container>,
    pub(super) volumes: Vec<Volume>,
    /// On the template: a change rolls the pods.
    pub(super) annotations: BTreeMap<String, String>,
}

/// How a Deployment moves its pods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rollout {
    /// A new pod is ready before an old one ends.
    Surge,
    /// The old pods end first: two would wait for one volume for ever.
    Recreate,
}

/// A fleet's Deployment. `replicas` is none when somebody else counts.
pub(super) fn deployment(
    fleet: &FleetId,
    (replicas, rollout): (Option<i32>, Rollout),
    given: Option<&Pod>,
    parts: Parts,
) -> Deployment {
    let strategy = match rollout {
        Rollout::Recreate => DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None },
        Rollout::Surge => DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::String("25%".to_owned())),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        },
    };
    Deployment {
        metadata: metadata(fleet, &BTreeMap::new()),
        spec: Some(DeploymentSpec {
            replicas,
            selector: selector(fleet),
            strategy: Some(strategy),
            template: template(fleet, given.unwrap_or(&Pod::default()), parts),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn template(fleet: &FleetId, given: &Pod, parts: Parts) -> PodTemplateSpec {
    let annotations = with_ours(&given.annotations, parts.annotations.clone());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(with_ours(&given.labels, labels(fleet))),
            annotations: some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(fleet, given, parts)),
    }
}

fn spec(fleet: &FleetId, given: &Pod, parts: Parts) -> PodSpec {
    // All fields: what is added there must be thought of here. The main container has the resources.
    let Pod {
        labels: _,
        annotations: _,
        resources: _,
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints: _,
        priority_class_name,
        image_pull_secrets,
    } = given;
    PodSpec {
        service_account_name: Some(base_name(fleet)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(security_context()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        init_containers: some(parts.init_containers),
        containers: parts.containers,
        volumes: some(parts.volumes),
        node_selector: some(node_selector.clone()),
        tolerations: some(core(tolerations)),
        affinity: affinity.as_ref().map(core),
        topology_spread_constraints: Some(spread(fleet, given)),
        priority_class_name: priority_class_name.clone(),
        image_pull_secrets: some(core(image_pull_secrets)),
        ..PodSpec::default()
    }
}

pub(super) fn security_context() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// The user's constraints, each with the pods that count; without any, over hosts where possible.
fn spread(fleet: &FleetId, given: &Pod) -> Vec<TopologySpreadConstraint> {
    let mut constraints: Vec<TopologySpreadConstraint> = core(&given.topology_spread_constraints);
    if constraints.is_empty() {
        constraints.push(TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            ..TopologySpreadConstraint::default()
        });
    }
    for constraint in &mut constraints {
        // Without one, Kubernetes counts no pods at all.
        constraint.label_selector.get_or_insert_with(|| selector(fleet));
    }
    constraints
}

/// What a container asks for: what the user says, and the defaults for what the user says nothing of.
pub(super) fn resources(given: Option<&Resources>, defaults: &[(&str, &str)]) -> ResourceRequirements {
    let given = given.cloned().unwrap_or_default();
    let amounts = |map: &BTreeMap<String, mcpmesh_crds::Quantity>| -> BTreeMap<String, Quantity> {
        map.iter().map(|(name, amount)| (name.clone(), Quantity(amount.as_str().to_owned()))).collect()
    };
    let (mut requests, limits) = (amounts(&given.requests), amounts(&given.limits));
    for &(name, amount) in defaults {
        // A request that is left out is the limit.
        if !limits.contains_key(name) {
            requests.entry(name.to_owned()).or_insert_with(|| Quantity(amount.to_owned()));
        }
    }
    ResourceRequirements { claims: None, limits: some(limits), requests: some(requests) }
}

/// A type of ours as the Kubernetes one of the same shape. Of everything that our closed types can hold this is true
/// (tests/children.rs compares whole specs), so nothing is ever lost here.
pub(super) fn core<T: DeserializeOwned + Default>(ours: &impl Serialize) -> T {
    serde_json::to_value(ours).and_then(serde_json::from_value).unwrap_or_default()
}

/// None for what is empty: an empty map or list and none are different bytes.
pub(super) fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}
