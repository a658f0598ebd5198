//! Policies as compiled: rules and limits over stable identities, and [`decide()`], which alone judges them.
//!
//! Decoded strictly: a proxy that does not understand a part of a policy rejects it and closes its target.

mod decide;
mod matcher;
mod prepared;
mod reading;

use serde::{Deserialize, Serialize};

use crate::id::{GatewayId, PolicyId};
use crate::resource::{Body, ResourceKind};

pub use decide::{AuditNote, Charge, Decision, Reason, RuleRef, Verdict, decide};
pub use matcher::{InvalidGlob, NameGlobs};
pub use prepared::{Caller, Identity, Issuer, Object, Prepared, PreparedLimit, Target};

/// One McpPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its stable identity.
    pub id: PolicyId,
    /// Whether it answers or only watches.
    pub mode: Mode,
    /// Rules, in the object's order (the order never changes a decision).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessRule>,
    /// Limits; all that match apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

/// Whether a policy answers or only watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Its rules and limits hold.
    #[default]
    Enforce,
    /// What it would have said is recorded; it never denies.
    Audit,
}

/// Allow or Deny, for whom, to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessRule {
    /// Unique in the policy.
    pub name: String,
    /// What a match means.
    pub effect: Effect,
    /// A caller matches when one of these does.
    pub from: Vec<Subject>,
    /// What it speaks of.
    #[serde(default)]
    pub to: To,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Lets a call pass this level.
    Allow,
    /// Ends it, whatever any Allow says.
    Deny,
}

/// Whom a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Subject {
    /// Everyone, credentials or not.
    Anyone {},
    /// Everyone who was authenticated by `issuer`.
    Authenticated {
        /// Whose word counts.
        issuer: IssuerMatch,
    },
    /// One user.
    User {
        /// The user's name there.
        name: String,
        /// Whose word counts.
        issuer: IssuerMatch,
    },
    /// The members of one group.
    Group {
        /// The group's name there.
        name: String,
        /// Whose word counts.
        issuer: IssuerMatch,
    },
}

/// Whose word on a caller's identity counts (decisions.md 4).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum IssuerMatch {
    /// Callers whom a gateway of this namespace authenticated, however: what a rule means that names no issuer.
    Namespace(String),
    /// Callers with an API key of this gateway.
    Gateway(GatewayId),
    /// Callers with a token of this issuer, whichever gateway has verified it.
    Issuer(String),
    /// Callers with a token of this issuer that this gateway has verified.
    IssuerAt {
        /// `iss`
        issuer: String,
        /// Whose word counts: a sidecar has only the gateway's.
        gateway: GatewayId,
    },
}

/// What a rule or limit speaks of: servers AND (the union of tools, prompts and resources; none given means all
/// three) AND methods AND annotations (decisions.md 5). An empty list means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// Globs on `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Globs on the upstream's own tool names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Globs on the upstream's own prompt names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// Globs on the upstream's own URIs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Exact methods: tools/call, prompts/get, resources/read, completion/complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Only tools whose hints have these values.
    #[serde(default, skip_serializing_if = "AnnotationMatch::is_empty")]
    pub annotations: AnnotationMatch,
}

/// Hints that a tool must have. In an Allow only pinned hints count; in a Deny the upstream's own words too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AnnotationMatch {
    /// `readOnlyHint` must be this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// `destructiveHint` must be this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destructive: Option<bool>,
    /// `idempotentHint` must be this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// `openWorldHint` must be this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_world: Option<bool>,
}

impl AnnotationMatch {
    /// True when nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A GCRA token bucket for each distinct value of `per`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Unique in the policy.
    pub name: String,
    /// Whom it counts; empty means everyone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Subject>,
    /// What it counts.
    #[serde(default)]
    pub to: To,
    /// What a bucket belongs to; empty means one bucket for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per: Vec<Dimension>,
    /// How much.
    pub requests: Rate,
}

/// What buckets are kept apart by. Sorted, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dimension {
    /// The authenticated caller with its issuer; all unauthenticated callers share one.
    Principal,
    /// Each group of the caller that `from` names; who is in none of them, and meant all the same, shares one bucket.
    Group,
    /// The upstream tool, prompt or resource.
    Tool,
    /// The server.
    Server,
}

/// A rate: `count` in `window`, of which `burst` may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rate {
    /// At least 1.
    pub count: u32,
    /// Milliseconds, at least 1.
    pub window_ms: u64,
    /// At least 1.
    pub burst: u32,
}

impl Body for Policy {
    const KIND: ResourceKind = ResourceKind::Policy;
}
