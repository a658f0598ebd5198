//! What the operator says of an object: conditions as Gateway API and kstatus read them, and what it knows.
//!
//! Every kind has `Accepted` (the object means something), `Ready` (what it asks for is there) and, whenever only the
//! user can mend it, `Stalled=True`: kstatus then reads Failed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Types of conditions.
pub mod condition {
    /// The object means something: no errors in it.
    pub const ACCEPTED: &str = "Accepted";
    /// Everything that it names is there and may be used.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// What it asks for is there.
    pub const READY: &str = "Ready";
    /// True only: only the user can mend it.
    pub const STALLED: &str = "Stalled";
    /// Gateways: every proxy has acknowledged this generation.
    pub const PROGRAMMED: &str = "Programmed";
    /// Servers: a proxy has done the handshake.
    pub const VERIFIED: &str = "Verified";
    /// Gateways and servers that take API keys: every Secret that is meant to be one is.
    pub const KEYS_USABLE: &str = "KeysUsable";
    /// Servers with a lock: the definitions are the pinned ones.
    pub const LOCK_HOLDS: &str = "LockHolds";
}

/// What is known of an McpServer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpServerStatus {
    /// The generation that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Ready, Verified, LockHolds, KeysUsable, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<ProtocolStatus>,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_info: Option<ServerInfo>,
    /// What it offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<CatalogStatus>,
    /// Where callers reach its Service; without spec.authentication, where gateways do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How many gateways of namespaces that may know of it have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub gateways: Option<u32>,
}

/// What a server speaks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ProtocolStatus {
    /// MCP revisions, newest first.
    pub versions: Vec<String>,
}

/// What a server calls itself: its own word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct ServerInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// How much a server offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct CatalogStatus {
    /// Tools, before include and exclude.
    #[schemars(extend("format" = "int32"))]
    pub tools: u32,
    /// Prompts.
    #[schemars(extend("format" = "int32"))]
    pub prompts: u32,
    /// Resources and templates.
    #[schemars(extend("format" = "int32"))]
    pub resources: u32,
    /// Hex SHA-256 over all tool definitions.
    pub digest: String,
}

/// What is known of an McpGateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpGatewayStatus {
    /// The generation that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, KeysUsable, Ready, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Where clients find it, of the first listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The servers behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServersStatus>,
    /// How many tools these servers have together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int32"))]
    pub tools: Option<u32>,
    /// Names the configuration that its proxies are to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The proxies that are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<ProxiesStatus>,
}

/// The servers behind a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ServersStatus {
    /// Attached.
    #[schemars(extend("format" = "int32"))]
    pub attached: u32,
    /// Of these, ready.
    #[schemars(extend("format" = "int32"))]
    pub ready: u32,
}

/// The proxies of a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxiesStatus {
    /// Those that have acknowledged the revision without rejecting any of it.
    #[schemars(extend("format" = "int32"))]
    pub in_sync: u32,
    /// All.
    #[schemars(extend("format" = "int32"))]
    pub total: u32,
}

/// What is known of an McpPolicy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpPolicyStatus {
    /// The generation that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Ready, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Its own targets (GEP-713), never what imports them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ancestors: Vec<PolicyAncestor>,
}

/// One target of a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestor {
    /// The target.
    pub ancestor_ref: AncestorRef,
    /// Who says so: `mcpmesh.io/operator`.
    pub controller_name: String,
    /// Accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A target by kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct AncestorRef {
    /// Empty for a Namespace.
    pub group: String,
    /// McpGateway, McpServer or Namespace.
    pub kind: String,
    /// Its name.
    pub name: String,
}
