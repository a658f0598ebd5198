//! The catalogue index: what is known of a server's objects apart from their texts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A tool's behaviour hints (MCP schema, `ToolAnnotations`). Absent hints mean the cautious value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hints {
    /// The tool changes nothing. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_hint: Option<bool>,
    /// The tool may destroy. Absent: true, unless it is read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive_hint: Option<bool>,
    /// Calling again changes nothing more. Absent: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent_hint: Option<bool>,
    /// The tool reaches an open world. Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world_hint: Option<bool>,
}

impl Hints {
    /// True when no hint is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These hints where given, else `other`'s.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            read_only_hint: self.read_only_hint.or(other.read_only_hint),
            destructive_hint: self.destructive_hint.or(other.destructive_hint),
            idempotent_hint: self.idempotent_hint.or(other.idempotent_hint),
            open_world_hint: self.open_world_hint.or(other.open_world_hint),
        }
    }

    /// The tool changes nothing.
    #[must_use]
    pub fn read_only(self) -> bool {
        self.read_only_hint.unwrap_or(false)
    }

    /// The tool may destroy.
    #[must_use]
    pub fn destructive(self) -> bool {
        self.destructive_hint.unwrap_or(!self.read_only())
    }

    /// Calling again changes nothing more.
    #[must_use]
    pub fn idempotent(self) -> bool {
        self.idempotent_hint.unwrap_or(false)
    }

    /// The tool reaches an open world.
    #[must_use]
    pub fn open_world(self) -> bool {
        self.open_world_hint.unwrap_or(true)
    }
}

/// One tool of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedTool {
    /// The upstream's own name.
    pub name: String,
    /// What the upstream says of it.
    #[serde(default, skip_serializing_if = "Hints::is_empty")]
    pub hints: Hints,
    /// Hex SHA-256 of the canonical definition.
    pub digest: String,
    /// Of each member of the definition, the first 16 hex digits of the SHA-256 of its canonical value: what tells
    /// which of them changed. Empty where the definition has no canonical form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<String, String>,
}

/// A server's objects as one observer saw them (decisions.md 15): names, hints and digests, no texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogIndex {
    /// Protocol revisions that the server speaks.
    pub versions: Vec<String>,
    /// Its tools, in its own order.
    pub tools: Vec<IndexedTool>,
    /// Names of its prompts.
    pub prompts: Vec<String>,
    /// URIs of its resources.
    pub resources: Vec<String>,
    /// URI templates of its resources.
    pub resource_templates: Vec<String>,
}

/// What an observer tells of a server: how it is, and what it offers once that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Whether it can be spoken to.
    pub state: ObservedState,
    /// Name and version that the server gives itself; its word only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_info: Option<ServerInfo>,
    /// Absent until it was spoken to once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<CatalogIndex>,
    /// The server beside a sidecar answers at the pod's address, too: callers can come past the proxy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bypassable: bool,
}

/// Whether a server can be spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ObservedState {
    /// Not tried yet, or on the way.
    #[default]
    Connecting,
    /// The handshake is done.
    Ready,
    /// It cannot.
    Failed {
        /// Why, without secrets.
        reason: String,
    },
}

/// Name and version that a server gives itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// MCP `Implementation.name`
    pub name: String,
    /// MCP `Implementation.version`
    pub version: String,
}

impl CatalogIndex {
    /// One digest for all tool definitions: what a lock pins. Hex SHA-256 over the tools' names and digests in order
    /// of their names.
    #[must_use]
    pub fn digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut tools: Vec<_> = self.tools.iter().map(|tool| (&tool.name, &tool.digest)).collect();
        tools.sort_unstable();
        let mut hash = Sha256::new();
        for (name, digest) in tools {
            for part in [name, digest] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        hex::encode(hash.finalize())
    }
}
