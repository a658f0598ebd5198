//! McpServer: an MCP server behind a gateway, somebody else's or one that the installation runs.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::env::{EnvFromSource, EnvVar};
use crate::gateway::GatewayAuthentication;
use crate::lock::Lock;
use crate::selector::NamespaceSelection;
use crate::status::McpServerStatus;
use crate::workload::Workload;

/// An MCP server: where it is or how it is run, which of its tools exist, and who may use it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "mcpmesh.io",
    version = "v1alpha1",
    kind = "McpServer",
    plural = "mcpservers",
    namespaced,
    category = "mcpmesh",
    shortname = "mms",
    status = "McpServerStatus",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Tools","type":"integer","jsonPath":".status.catalog.tools"}"#,
    printcolumn = r#"{"name":"Gateways","type":"integer","jsonPath":".status.gateways"}"#,
    printcolumn = r#"{"name":"Protocol","type":"string","jsonPath":".status.protocol.versions[0]","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    derive = "PartialEq",
    doc = "An MCP server: where it is or how it is run, which of its tools exist, and who may use it."
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
// `package` is a reserved word of CEL, so Kubernetes escapes it.
#[x_kube(validation = Rule::new("[has(self.remote), has(self.service), has(self.__package__), has(self.container)].filter(source, source).size() == 1").message("give exactly one of remote, service, package and container"))]
#[x_kube(validation = Rule::new("!has(self.credentials) || has(self.remote) || has(self.service)").message("credentials are for remote servers and services; a package or container takes env"))]
#[x_kube(validation = Rule::new("!has(self.workload) || has(self.__package__) || has(self.container)").message("workload is for package and container servers"))]
#[x_kube(validation = Rule::new("!(has(self.credentials) && has(self.service) && self.service.sidecar == 'Injected')").message("credentials are not presented to an injected sidecar, which knows gateways by their certificates"))]
#[x_kube(validation = Rule::new("!has(self.authentication) || has(self.__package__) || has(self.container) || (has(self.service) && self.service.sidecar == 'Injected')").message("authentication is for servers with a proxy beside them: package, container, and a service with an injected sidecar"))]
pub struct McpServerSpec {
    /// An MCP endpoint at a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// A Service of the same namespace. Only in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// A package from a registry, run for you, spoken to over stdio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// A container image, run for you.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// What is presented to a remote server or a Service. The caller's own credentials never are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Which of its tools exist, and what they are shown as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Tools>,
    /// Pins the tools' definitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// Whose gateways may use it. Left out: those of its own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export_to: Option<ExportTo>,
    /// Whom its own proxies let in who come past the gateways, at port 17081. What they may do is a policy's matter.
    /// Left out: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<GatewayAuthentication>,
    /// Disabled takes it out of every gateway and stops what is run for it.
    #[serde(default)]
    pub state: State,
    /// Deadlines of a request to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// How a package or container is run in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

/// An MCP endpoint at a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// http or https, without user information and fragment. Not a Service of the cluster.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// How MCP is spoken there.
    #[serde(default)]
    pub transport: RemoteTransport,
}

/// How MCP is spoken over HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RemoteTransport {
    /// Found out by asking.
    #[default]
    Auto,
    /// Streamable HTTP, revisions 2025-03-26 and later.
    StreamableHttp,
    /// HTTP+SSE, revision 2024-11-05.
    Sse,
}

/// A Service of the server's namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The Service's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The Service's port, by number.
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub port: u16,
    /// The path of its MCP endpoint. Left out: /mcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
    /// How MCP is spoken there.
    #[serde(default)]
    pub transport: RemoteTransport,
    /// Whether its pods have a proxy of this McpServer beside the server.
    #[serde(default)]
    pub sidecar: ServiceSidecar,
}

/// Whether the pods behind a Service have a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceSidecar {
    /// They have none: gateways go to the Service's port.
    #[default]
    None,
    /// `mcpmesh inject` has put it there: gateways go to it, and to nothing else of the pods.
    Injected,
}

/// A package from a registry, spoken to over stdio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Package {
    /// Npm runs through npx, PyPI through uvx.
    pub registry: Registry,
    /// The package's name, such as `@modelcontextprotocol/server-everything`.
    #[schemars(length(min = 1, max = 214))]
    pub name: String,
    /// The exact version. Left out: whatever the registry calls the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub version: Option<String>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Secrets and ConfigMaps whose keys become environment variables. env wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
}

/// A package registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Registry {
    /// registry.npmjs.org, or what npm is configured to use.
    Npm,
    /// pypi.org, or what uv is configured to use.
    PyPI,
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.port) == (has(self.transport) && self.transport == 'StreamableHttp')").message("port is needed with transport: StreamableHttp, and only there"))]
#[x_kube(validation = Rule::new("!has(self.path) || (has(self.transport) && self.transport == 'StreamableHttp')").message("path is for transport: StreamableHttp"))]
pub struct Container {
    /// The image's reference.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Secrets and ConfigMaps whose keys become environment variables. env wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
    /// How MCP is spoken with it.
    #[serde(default)]
    pub transport: ContainerTransport,
    /// Where it listens for Streamable HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub port: Option<u16>,
    /// The path of its MCP endpoint. Left out: /mcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: Option<String>,
}

/// How MCP is spoken with a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ContainerTransport {
    /// Its standard input and output.
    #[default]
    Stdio,
    /// HTTP on its port.
    StreamableHttp,
}

/// What is presented to a remote server or a Service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Headers that every request to it carries.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<CredentialHeader>,
}

/// A header whose value comes from a Secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CredentialHeader {
    /// The header's name, such as `Authorization`.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Put before the Secret's value, such as `"Bearer "`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub prefix: Option<String>,
    /// A key of a Secret in the same namespace.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret in the same namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKeyRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Which of a server's tools exist, and what they are shown as. All patterns and names are the server's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// Globs of the tools that exist. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub include: Vec<String>,
    /// Globs of the tools that don't, included or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude: Vec<String>,
    /// What single tools are shown as. Policies still speak of the server's own names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub overrides: Vec<ToolOverride>,
}

/// What a tool is shown as.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolOverride {
    /// The tool, by the server's own name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Another name.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    pub rename: Option<String>,
    /// Another title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub title: Option<String>,
    /// Another description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub description: Option<String>,
    /// Hints that hold whatever the server says. An Allow rule trusts only these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<ToolAnnotations>,
}

/// A tool's behaviour hints (MCP schema, ToolAnnotations).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ToolAnnotations {
    /// The tool changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_hint: Option<bool>,
    /// The tool may destroy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive_hint: Option<bool>,
    /// Calling the tool again with the same arguments changes nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent_hint: Option<bool>,
    /// The tool reaches an open world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world_hint: Option<bool>,
}

/// Whose gateways may use a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportTo {
    /// The namespaces of those gateways. The server's own is always among them.
    #[serde(default)]
    pub namespaces: NamespaceSelection,
}

/// Whether a server is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// In use.
    #[default]
    Enabled,
    /// In no gateway, and not run.
    Disabled,
}

/// Deadlines of a request to a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Timeouts {
    /// For the connection, TLS included. Left out: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// Until the first byte of the answer. Left out: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Duration>,
    /// Until the end of the answer, whatever its progress. Left out: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,
}
