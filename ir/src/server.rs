//! An upstream MCP server as the proxy sees it: where it is, what it is given, which of its tools exist.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::catalog::Hints;
use crate::egress::EgressRule;
use crate::id::{SecretId, ServerId};
use crate::resource::{Body, ResourceKind};

/// One McpServer. Ids and times are in the units that their names say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its stable identity.
    pub id: ServerId,
    /// How it is reached.
    pub endpoint: Endpoint,
    /// Headers that every request to it carries; the caller's own credentials never do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<CredentialHeader>,
    /// Which of its tools exist, and under which names.
    #[serde(default)]
    pub tools: ToolRules,
    /// Deadlines of a request to it.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Tools that are not there, by the server's own names, because their definitions are not those that a lock pins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
}

/// The tool definitions that a lock with mode Enforce lets through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Digest of the definition by the server's own tool name; any other tool or digest is quarantined.
    pub tools: BTreeMap<String, String>,
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Endpoint {
    /// An MCP endpoint at a URL.
    Remote {
        /// `http` or `https`.
        url: String,
        /// How MCP is spoken there.
        transport: Transport,
        /// Where the installation lets it lead (decisions.md 22).
        #[serde(flatten)]
        egress: EgressRule,
    },
    /// Addresses of one Service, any of which serves any request. A legacy session stays at the one that opened it.
    Service {
        /// `ip:port`, those that are ready; none: the server is unavailable.
        addresses: Vec<SocketAddr>,
        /// The `Host` that requests name, such as `payments.team-a.svc:8080`.
        host: String,
        /// The endpoint's path.
        path: String,
        /// How MCP is spoken there.
        transport: Transport,
        /// Set for the sidecars of this server: TLS with the proxy's own certificate of the mesh, towards a
        /// certificate of that server's, and the caller asserted ([`crate::gateway::Assertion`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mesh: Option<ServerId>,
    },
    /// A process that the installation runs under the server's own id. What it runs is not in a snapshot.
    Workload {
        /// Hex keyed hash of what is run, its Secrets included: another one means another process.
        digest: String,
    },
}

/// The transports of a remote server (MCP basic/transports).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Found out by asking.
    Auto,
    /// Streamable HTTP, revisions 2025-03-26 and later.
    StreamableHttp,
    /// HTTP+SSE, revision 2024-11-05.
    Sse,
}

/// A header whose value is `prefix` followed by a Secret's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialHeader {
    /// Header name, lower case.
    pub name: String,
    /// Put before the value, such as `Bearer `.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The Secret resource.
    pub secret: SecretId,
    /// Its key.
    pub key: String,
}

/// Which upstream tools exist downstream, matched on the upstream's own names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRules {
    /// Globs; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Globs that take away from `include`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// By the upstream's own tool name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overrides: BTreeMap<String, ToolOverride>,
}

/// What a tool is shown as. The tool's identity stays its upstream name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOverride {
    /// Another name, before the prefix.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub rename: Option<String>,
    /// Another title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Another description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Annotations that hold whatever the upstream says: these alone can satisfy an Allow.
    #[serde(default, skip_serializing_if = "Hints::is_empty")]
    pub annotations: Hints,
}

/// Deadlines in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For the connection, TLS included.
    pub connect_ms: u64,
    /// For a request until the first byte of its answer.
    pub first_byte_ms: u64,
    /// For a request until the end of its answer; progress does not extend it.
    pub total_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_ms: 5_000, first_byte_ms: 60_000, total_ms: 300_000 }
    }
}

impl Body for Server {
    const KIND: ResourceKind = ResourceKind::Server;
}
