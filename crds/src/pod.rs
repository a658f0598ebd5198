//! What a user may say of the pods that the installation makes: metadata, resources and where they run.
//!
//! The types have the shape of their core/v1 namesakes, closed: a field that is not here is an error. Security contexts,
//! service accounts, host namespaces and hostPath are deliberately absent (decisions.md 20).

mod quantity;
mod scheduling;

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, transform::transform_subschemas};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use quantity::{InvalidQuantity, Quantity};
pub use scheduling::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm,
    PodAffinity, PodAffinityTerm, PreferredSchedulingTerm, TaintEffect, Toleration, TolerationOperator,
    TopologySpreadConstraint, WeightedPodAffinityTerm, WhenUnsatisfiable,
};

/// Pods: their metadata, resources and scheduling.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pod {
    /// More labels. Those of the mesh stay.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// More annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What the main container asks for and may use (core/v1 ResourceRequirements).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bare)]
    pub resources: Option<Resources>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated (core/v1 Toleration).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = bare)]
    pub tolerations: Vec<Toleration>,
    /// Where pods go or don't (core/v1 Affinity).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bare)]
    pub affinity: Option<Affinity>,
    /// How pods spread (core/v1 TopologySpreadConstraint); a constraint without labelSelector counts the pods of this
    /// object. Left out: over hosts, where possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(transform = bare)]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// A PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets of the namespace with credentials for image registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), transform = bare)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// An object of the same namespace (core/v1 LocalObjectReference).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalObjectReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a container asks for and may use (core/v1 ResourceRequirements, without claims).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// What it asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// Leaves out what a core type's schema can do without, since it would make most of the file: descriptions (the
/// Kubernetes reference has them), formats, and leave to write null. The field's own description is added afterwards.
pub(crate) fn bare(schema: &mut Schema) {
    if let Some(present) = without_null(schema) {
        *schema = present;
    }
    transform_subschemas(&mut |inner: &mut Schema| bare(inner), schema);
    for keyword in ["description", "format"] {
        // A property may have such a name; its value is a schema then.
        if schema.get(keyword).is_some_and(Value::is_string) {
            schema.remove(keyword);
        }
    }
}

/// The schema of a value that is there, of a schema that also takes null.
fn without_null(schema: &Schema) -> Option<Schema> {
    let not_null =
        |value: &&Value| **value != json!("null") && **value != json!({ "type": "null" }) && !value.is_null();
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        return choices.iter().find(not_null).cloned()?.try_into().ok();
    }
    let mut present = schema.clone();
    let kind = schema.get("type")?.as_array()?.iter().find(not_null)?.clone();
    present.insert("type".to_owned(), kind);
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        present.insert("enum".to_owned(), values.iter().filter(not_null).cloned().collect());
    }
    Some(present)
}
