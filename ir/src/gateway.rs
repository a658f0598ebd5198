//! A gateway: where it listens, whom it knows, which servers stand behind it and what is judged for each.

use serde::{Deserialize, Serialize};

use crate::id::{GatewayId, PolicyId, SecretId, ServerId};
use crate::policy::Identity;
use crate::resource::{Body, ResourceKind};

/// One McpGateway with everything that was resolved for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Its stable identity.
    pub id: GatewayId,
    /// The object's uid (on one machine: the id's text); handles are bound to it.
    pub uid: String,
    /// At least one.
    pub listeners: Vec<Listener>,
    /// In order of attachment: the order of lists.
    pub servers: Vec<Attachment>,
    /// How names are made.
    pub naming: Naming,
    /// Whether callers without credentials are let in as `anyone`.
    pub anonymous: Anonymous,
    /// Names of [`crate::ApiKey`] resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_keys: Vec<String>,
    /// Names of [`crate::TokenIssuer`] resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_issuers: Vec<String>,
    /// Gateways that may come with their certificates and assert a caller ([`Assertion`]): the callers of a sidecar.
    /// Where it is not empty, nobody without such a certificate is let in by [`ListenerTls::Mesh`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<GatewayId>,
    /// The levels above the servers' own: mesh (when there is one), then gateway. All must pass.
    pub levels: Vec<Level>,
}

/// Where a gateway is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Unique in the gateway.
    pub name: String,
    /// TCP port. On one machine `--listen` stands for it.
    pub port: u16,
    /// The host that requests must name; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Exact path, such as `/mcp`.
    pub path: String,
    /// Origins that browsers may come from, besides the same host and loopback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// TLS; plain when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

/// Whose certificate a listener shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenerTls {
    /// That of a Secret, by its keys `tls.crt` and `tls.key`.
    Secret(SecretId),
    /// The proxy's own of the mesh; clients must show one of the mesh, too.
    Mesh {},
}

/// Header by which a gateway tells a sidecar for whom it calls: base64url of the JSON of an [`Assertion`]. Believed
/// from a peer's certificate only, stripped from everybody else's requests.
pub const ASSERTION_HEADER: &str = "mcpmesh-principal";

/// A caller as a gateway authenticated it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// Who it is.
    pub identity: Identity,
    /// Nobody calls: the gateway itself asks what there is. It is told everything, whoever may use it, since its
    /// catalogue cannot depend on one caller; a call is never answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observer: bool,
}

/// A server behind a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The [`crate::Server`] resource.
    pub server: ServerId,
    /// Unique in the gateway; no underscore.
    pub prefix: String,
    /// The levels below the gateway's: bundles, then the server's own. All must pass.
    pub levels: Vec<Level>,
}

/// When advertised names carry the server's prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Naming {
    /// Always `<prefix>_<name>`.
    #[default]
    Always,
    /// Only where two servers have the name; the prefixed form always resolves.
    OnConflict,
}

/// What a caller without credentials gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anonymous {
    /// 401.
    #[default]
    Deny,
    /// Judged as an unauthenticated caller.
    Allow,
}

/// The policies that one party attached. A call passes a level or it does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Whose level it is.
    pub kind: LevelKind,
    /// Names of [`crate::Policy`] resources, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyId>,
    /// A policy of this level could not be compiled: nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<PolicyId>,
}

/// Whose policies a level holds. Ordered from the outermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LevelKind {
    /// The platform team's, from the operator's namespace.
    Mesh,
    /// The gateway's: the only one that must have a matching Allow.
    Gateway,
    /// A bundle's.
    Bundle,
    /// The server's.
    Server,
}

impl Body for Gateway {
    const KIND: ResourceKind = ResourceKind::Gateway;
}
