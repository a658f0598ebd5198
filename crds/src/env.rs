//! Environment variables in the shape of core/v1, as far as they are implemented: values, Secrets and ConfigMaps.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::pod::bare;

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.value) && has(self.valueFrom))").message("give value or valueFrom, not both"))]
pub struct EnvVar {
    /// The variable's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its value. Secrets belong in valueFrom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where its value comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretKeyRef) != has(self.configMapKeyRef)").message("give exactly one of secretKeyRef and configMapKeyRef"))]
pub struct EnvVarSource {
    /// A key of a Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bare)]
    pub secret_key_ref: Option<EnvKeySelector>,
    /// A key under `data` of a ConfigMap in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bare)]
    pub config_map_key_ref: Option<EnvKeySelector>,
}

/// A key of a Secret or ConfigMap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvKeySelector {
    /// The object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// When true, a missing object or key leaves the variable out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// All keys of a Secret or ConfigMap as environment variables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.configMapRef)").message("give exactly one of secretRef and configMapRef"))]
pub struct EnvFromSource {
    /// Put before each key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bare)]
    pub secret_ref: Option<EnvSource>,
    /// A ConfigMap in the same namespace: its `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = bare)]
    pub config_map_ref: Option<EnvSource>,
}

/// A Secret or ConfigMap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvSource {
    /// The object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// When true, a missing object adds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// What variables come from, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvReference<'e, R> {
    /// A Secret, or a key of one.
    Secret(&'e R),
    /// A ConfigMap, or a key of one.
    ConfigMap(&'e R),
}

impl EnvVarSource {
    /// The one reference. None where none is given, or both are.
    #[must_use]
    pub fn reference(&self) -> Option<EnvReference<'_, EnvKeySelector>> {
        one(self.secret_key_ref.as_ref(), self.config_map_key_ref.as_ref())
    }
}

impl EnvFromSource {
    /// The one reference. None where none is given, or both are.
    #[must_use]
    pub fn reference(&self) -> Option<EnvReference<'_, EnvSource>> {
        one(self.secret_ref.as_ref(), self.config_map_ref.as_ref())
    }
}

fn one<'e, R>(secret: Option<&'e R>, config_map: Option<&'e R>) -> Option<EnvReference<'e, R>> {
    match (secret, config_map) {
        (Some(secret), None) => Some(EnvReference::Secret(secret)),
        (None, Some(config_map)) => Some(EnvReference::ConfigMap(config_map)),
        _ => None,
    }
}
