//! McpGateway: one endpoint in front of many servers.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fleet::ProxyFleet;
use crate::selector::{LabelSelector, NamespaceSelection};
use crate::status::McpGatewayStatus;

/// One MCP endpoint in front of many servers: a team's front door.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "mcpmesh.io",
    version = "v1alpha1",
    kind = "McpGateway",
    plural = "mcpgateways",
    namespaced,
    category = "mcpmesh",
    shortname = "mmg",
    status = "McpGatewayStatus",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Servers","type":"integer","jsonPath":".status.servers.attached"}"#,
    printcolumn = r#"{"name":"Tools","type":"integer","jsonPath":".status.tools"}"#,
    printcolumn = r#"{"name":"In Sync","type":"integer","jsonPath":".status.proxies.inSync"}"#,
    printcolumn = r#"{"name":"Proxies","type":"integer","jsonPath":".status.proxies.total"}"#,
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".status.url"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    derive = "PartialEq",
    doc = "One MCP endpoint in front of many servers: a team's front door."
)]
#[serde(deny_unknown_fields)]
pub struct McpGatewaySpec {
    /// Where it is reached. Left out: one, named mcp, on port 8080 at /mcp.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub listeners: Vec<Listener>,
    /// Which servers stand behind it. Left out: all of its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServerSelection>,
    /// How names are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub naming: Option<Naming>,
    /// Whom it lets in. What they may do is a policy's matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<GatewayAuthentication>,
    /// The proxies that serve it in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyFleet>,
}

/// Where a gateway is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Listener {
    /// Unique in the gateway.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The TCP port. On one machine, `mcpmesh up --listen` stands for it. Left out: 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub port: Option<u16>,
    /// The host that requests must name. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub hostname: Option<String>,
    /// The exact path. Left out: /mcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub path: Option<String>,
    /// Origins that browsers may come from, besides the same host and loopback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_origins: Vec<String>,
    /// TLS. Left out: none, for a listener behind something that ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListenerTls {
    /// A Secret of the gateway's namespace with the keys tls.crt and tls.key (type kubernetes.io/tls).
    pub secret_ref: SecretRef,
}

/// A Secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Which servers stand behind a gateway: those that `namespaces` and `selector` choose, and those that `refs` name.
/// With `refs` alone, only those. A server of another namespace must also export itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerSelection {
    /// Where servers are chosen from. Left out: the gateway's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceSelection>,
    /// Chooses among them by labels. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Servers by name, where needed with a prefix of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    pub refs: Vec<ServerRef>,
}

/// A server by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerRef {
    /// The McpServer's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Left out: the gateway's.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// The prefix of its names. Left out: the McpServer's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9-]+$"))]
    pub prefix: Option<String>,
}

/// How a gateway's names are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Naming {
    /// When names carry their server's prefix: `<prefix>_<name>`.
    #[serde(default)]
    pub prefix: Prefixing,
}

/// When names carry their server's prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Prefixing {
    /// Always.
    #[default]
    Always,
    /// Only where two servers have the name.
    OnConflict,
}

/// Whom a gateway, or the proxies beside a server, let in. Left out: nobody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GatewayAuthentication {
    /// What a caller without credentials gets. A wrong credential is always refused.
    #[serde(default)]
    pub anonymous: Anonymous,
    /// Lets in the owners of API keys: Secrets of its namespace with the label `mcpmesh.io/api-key: "true"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_keys: Option<ApiKeys>,
    /// Lets in the cluster's service accounts, by tokens for this audience. Only in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccounts>,
}

/// Which tokens of service accounts a gateway takes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccounts {
    /// A token must have one of these audiences. Left out: `<name>.<namespace>.mcpgateway`, of a server
    /// `<name>.<namespace>.mcpserver`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
}

/// What a caller without credentials gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Anonymous {
    /// 401.
    #[default]
    Deny,
    /// Judged as an unauthenticated caller, whom only `anyone` speaks of.
    Allow,
}

/// Which API keys a gateway knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    /// Chooses among the labelled Secrets. Left out: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}
