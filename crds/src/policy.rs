//! McpPolicy: who may use what, and how often.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::selector::LabelSelector;
use crate::server::ToolAnnotations;
use crate::status::McpPolicyStatus;

/// Who may use what, and how often, at the gateways and servers of its own namespace that it targets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "mcpmesh.io",
    version = "v1alpha1",
    kind = "McpPolicy",
    plural = "mcppolicies",
    namespaced,
    category = "mcpmesh",
    shortname = "mmp",
    status = "McpPolicyStatus",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    derive = "PartialEq",
    doc = "Who may use what, and how often, at the gateways and servers of its own namespace that it targets."
)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.targetRefs) != has(self.namespaceSelector)").message("give exactly one of targetRefs and namespaceSelector"))]
pub struct McpPolicySpec {
    /// What it holds for. Its own namespace is said by kind Namespace: every gateway and server there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// In the operator's namespace only, instead of targetRefs: it holds for every gateway of these namespaces, above
    /// that gateway's own policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Audit decides, records and counts, but never denies.
    #[serde(default)]
    pub mode: Mode,
    /// Rules. A Deny wins; a gateway needs a matching Allow; a server with Allow rules needs one of those too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub access: Vec<AccessRule>,
    /// Rates. All that match apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub limits: Vec<Limit>,
}

/// An object of the policy's namespace, or that namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.group) || self.group == (self.kind == 'Namespace' ? '' : 'mcpmesh.io')").message("the group of McpGateway and McpServer is mcpmesh.io, that of Namespace is empty"))]
pub struct TargetRef {
    /// The kind's API group. Left out: the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// The kind.
    pub kind: TargetKind,
    /// The name. With kind Namespace: the policy's own.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a policy can hold for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// A gateway.
    McpGateway,
    /// A server, behind whatever gateway.
    McpServer,
    /// Every gateway and server of the policy's namespace: an Allow is needed at both.
    Namespace,
}

/// Whether a policy answers or only watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Its rules and limits hold.
    #[default]
    Enforce,
    /// What it would have said is recorded; it never denies.
    Audit,
}

/// Allow or Deny, for whom, to what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// Unique in the policy. Logs and `mcpmesh can-i` name it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Allow or Deny.
    pub effect: Effect,
    /// Whom it speaks of: a caller that one of these matches.
    #[schemars(length(min = 1, max = 64))]
    pub from: Vec<Subject>,
    /// What it speaks of. Left out: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<To>,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Effect {
    /// Lets a call pass.
    Allow,
    /// Ends it, whatever any Allow says.
    Deny,
}

/// Whom a rule speaks of. Without issuer and gateway: callers whom a gateway of the policy's namespace let in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.user), has(self.group), has(self.serviceAccount), has(self.authenticated), has(self.anyone)].filter(kind, kind).size() == 1").message("give exactly one of user, group, serviceAccount, authenticated and anyone"))]
#[x_kube(validation = Rule::new("!(has(self.serviceAccount) && has(self.issuer))").message("a serviceAccount has no issuer: the cluster vouches for it"))]
#[x_kube(validation = Rule::new("!has(self.anyone) || !(has(self.issuer) || has(self.gateway))").message("anyone has no issuer and no gateway; use authenticated"))]
pub struct Subject {
    /// One user: an API key's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub user: Option<String>,
    /// The members of one group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub group: Option<String>,
    /// One service account of the cluster. Without `gateway`: whichever gateway let it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountRef>,
    /// Everyone with credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authenticated: Option<Empty>,
    /// Everyone, with credentials or without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anyone: Option<Empty>,
    /// Only callers with a token of this issuer. Without `gateway`: whichever gateway has verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: Option<String>,
    /// Only callers with an API key of this gateway; with issuer or serviceAccount, with a token that it has verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRef>,
}

/// `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

impl JsonSchema for Empty {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Empty".into()
    }

    fn inline_schema() -> bool {
        true
    }

    // Derived, it would say `additionalProperties: false`, which a structural schema must not.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "maxProperties": 0 })
    }
}

/// A service account by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccountRef {
    /// The ServiceAccount's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Left out: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A gateway by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayRef {
    /// The McpGateway's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Left out: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What a rule or limit speaks of: servers AND (tools OR prompts OR resources; none given means all three) AND methods
/// AND annotations. All names are the servers' own, whatever a gateway shows. `*` and `?` are wildcards.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// Globs: `name` is a server of the policy's namespace, `namespace/name` any. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub servers: Vec<String>,
    /// Globs on tool names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Vec<String>,
    /// Globs on prompt names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub prompts: Vec<String>,
    /// Globs on resource URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub resources: Vec<String>,
    /// MCP methods. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Vec<Method>,
    /// Only tools with these hints. An Allow trusts only what the McpServer's overrides say; a Deny or limit also
    /// believes the server. A hint that nobody gives has the cautious value: destructive, not read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<ToolAnnotations>,
}

/// A method that rules can speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Method {
    /// Calls a tool.
    #[serde(rename = "tools/call")]
    ToolsCall,
    /// Gets a prompt.
    #[serde(rename = "prompts/get")]
    PromptsGet,
    /// Reads a resource.
    #[serde(rename = "resources/read")]
    ResourcesRead,
    /// Completes an argument.
    #[serde(rename = "completion/complete")]
    CompletionComplete,
}

/// How often something may be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.per) || !('Group' in self.per) || (has(self.from) && self.from.exists(subject, has(subject.group)))").message("per Group counts the groups that from names: name one there"))]
pub struct Limit {
    /// Unique in the policy. Logs and metrics name it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Whom it counts. Left out: everyone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub from: Vec<Subject>,
    /// What it counts. Left out: every call, get, read and completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<To>,
    /// What is counted apart. Left out: nothing, all share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub per: Vec<Dimension>,
    /// How many in which time.
    pub requests: Requests,
}

/// What a limit counts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Dimension {
    /// Each authenticated caller; all unauthenticated callers share.
    Principal,
    /// Each group that `from` names; all others whom it means share.
    Group,
    /// Each tool, prompt or resource.
    Tool,
    /// Each server.
    Server,
}

/// A rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// How many.
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int32"))]
    pub count: u32,
    /// In which time, such as `1m`.
    pub window: Duration,
    /// How many of them may come at once. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int32"))]
    pub burst: Option<u32>,
}
