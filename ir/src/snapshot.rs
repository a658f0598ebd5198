//! What one gateway's proxies get: the resources, and where in the objects' history they were compiled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::GatewayId;
use crate::resource::{Resource, ResourceKind};

/// A complete configuration of one gateway, in canonical order (kind, then name).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The gateway that it configures.
    pub gateway: GatewayId,
    /// What makes watermarks comparable: the uid of the cluster, empty on one machine (decisions.md 11).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
    /// The highest resourceVersion that was seen, by kind of object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub watermark: BTreeMap<String, u64>,
    /// The resources, ordered by kind and name, each name once in its kind.
    pub resources: Vec<Resource>,
}

impl Snapshot {
    /// Sorts the resources into canonical order.
    #[must_use]
    pub fn new(gateway: GatewayId, mut resources: Vec<Resource>) -> Self {
        resources.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Self { gateway, epoch: String::new(), watermark: BTreeMap::new(), resources }
    }

    /// The resources of one kind, in order of their names.
    pub fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &Resource> {
        self.resources.iter().filter(move |resource| resource.kind == kind)
    }
}
