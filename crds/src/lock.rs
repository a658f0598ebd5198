//! What a server's tools must be: a definition that changes after somebody approved it is a rug pull.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The tool definitions that were approved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// What becomes of a tool that is not as pinned.
    #[serde(default)]
    pub mode: LockMode,
    /// The pinned tools. `mcpmesh lock` writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub tools: Vec<LockedTool>,
}

/// What becomes of a tool whose definition is not the pinned one, or that is not pinned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LockMode {
    /// Nothing.
    #[default]
    Off,
    /// The server's status says so.
    Warn,
    /// It is not there for anybody. The other tools stay.
    Enforce,
}

/// A tool as it was approved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedTool {
    /// The tool, by the server's own name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Hex SHA-256 of its canonical definition.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub digest: String,
}
