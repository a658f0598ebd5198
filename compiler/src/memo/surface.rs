//! What gateways of other namespaces see of one: they are compiled again when it changes.

use std::collections::BTreeMap;

use mcpmesh_crds::ExportTo;
use mcpmesh_ir::gateway::Level;
use mcpmesh_ir::{ServerId, Version};

use crate::compile::Namespace;

/// The exported servers of a namespace.
#[derive(Default, PartialEq)]
pub(super) struct Surface(Vec<Exported>);

#[derive(PartialEq)]
struct Exported {
    server: ServerId,
    version: Version,
    labels: BTreeMap<String, String>,
    to: ExportTo,
    /// The policies that may be judged at such a gateway, with their content.
    levels: Vec<Level>,
    policies: Vec<Option<Version>>,
}

impl Surface {
    pub(super) fn of(namespace: &Namespace) -> Self {
        let exported = namespace.usable().filter_map(|server| {
            let to = server.exports.clone()?;
            let levels = namespace.server_levels(&server.id);
            let policies = levels.iter().flat_map(|level| &level.policies).map(|id| {
                let policy = namespace.policies.get(id)?;
                policy.resource.as_ref().map(|resource| resource.version.clone())
            });
            Some(Exported {
                to,
                server: server.id.clone(),
                version: server.outside.version.clone(),
                labels: server.labels.clone(),
                policies: policies.collect(),
                levels,
            })
        });
        Self(exported.collect())
    }
}
