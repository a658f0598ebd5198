//! Configurations built in code.

use std::collections::BTreeMap;

use mcpmesh_ir::gateway::{Anonymous, Attachment, Gateway, Level, LevelKind, Listener, Naming};
use mcpmesh_ir::policy::{
    AccessRule, Dimension, Effect, IssuerMatch, Limit, Mode, Policy, Rate, Subject, To,
};
use mcpmesh_ir::server::{CredentialHeader, Endpoint, Server, Timeouts, ToolRules, Transport};
use mcpmesh_ir::{ApiKey, EgressRule, GatewayId, PolicyId, Resource, Secret, SecretId, ServerId, Snapshot};
use sha2::{Digest, Sha256};

use super::fake::Fake;

/// A configuration in the making.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) naming: Naming,
    pub(crate) anonymous: Anonymous,
    pub(crate) keys: Vec<ApiKey>,
    pub(crate) servers: Vec<Server>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// At the gateway's level.
    pub(crate) policies: Vec<Policy>,
    /// At the mesh's level.
    pub(crate) mesh: Vec<Policy>,
    /// What `server_levels` name.
    pub(crate) elsewhere: Vec<Policy>,
    pub(crate) server_levels: BTreeMap<String, Vec<Level>>,
    pub(crate) allowed_origins: Vec<String>,
    /// Replaces the body of a policy's resource by what no proxy understands.
    pub(crate) spoiled: Option<PolicyId>,
}

pub(crate) fn gateway_id() -> GatewayId {
    GatewayId::new("a", "gw")
}

pub(crate) fn anyone() -> Vec<Subject> {
    vec![Subject::Anyone {}]
}

pub(crate) fn user(name: &str) -> Vec<Subject> {
    vec![Subject::User { name: name.into(), issuer: IssuerMatch::Gateway(gateway_id()) }]
}

pub(crate) fn rule(name: &str, effect: Effect, from: Vec<Subject>, to: To) -> AccessRule {
    AccessRule { name: name.into(), effect, from, to }
}

pub(crate) fn tools(globs: &[&str]) -> To {
    To { tools: globs.iter().map(|glob| (*glob).to_owned()).collect(), ..To::default() }
}

pub(crate) fn policy(name: &str, access: Vec<AccessRule>) -> Policy {
    Policy { id: PolicyId::new("a", name), mode: Mode::Enforce, access, limits: vec![] }
}

pub(crate) fn level(kind: LevelKind, policies: &[Policy]) -> Level {
    Level { kind, policies: policies.iter().map(|policy| policy.id.clone()).collect(), closed: None }
}

pub(crate) fn limit(name: &str, per: Vec<Dimension>, count: u32) -> Limit {
    Limit {
        name: name.into(),
        from: vec![],
        to: To::default(),
        per,
        requests: Rate { count, window_ms: 3_600_000, burst: count },
    }
}

pub(crate) fn key(secret: &str, owner: &str) -> ApiKey {
    ApiKey {
        secret: SecretId::new("a", owner),
        sha256: hex::encode(Sha256::digest(secret.as_bytes())),
        owner: owner.to_owned(),
        groups: vec![],
        expires: None,
    }
}

impl Setup {
    /// Everyone may use everything of these servers, named `s0`, `s1`...
    pub(crate) fn open(fakes: &[&Fake]) -> Self {
        let servers = fakes.iter().enumerate().map(|(index, fake)| server(&format!("s{index}"), &fake.url()));
        Self {
            naming: Naming::Always,
            anonymous: Anonymous::Allow,
            keys: vec![],
            servers: servers.collect(),
            secrets: BTreeMap::new(),
            policies: vec![policy("open", vec![rule("all", Effect::Allow, anyone(), To::default())])],
            mesh: vec![],
            elsewhere: vec![],
            server_levels: BTreeMap::new(),
            allowed_origins: vec![],
            spoiled: None,
        }
    }

    pub(crate) fn keys(mut self, owners: &[&str]) -> Self {
        self.keys = owners.iter().map(|owner| key(&format!("key-{owner}"), owner)).collect();
        self
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.policies.push(policy);
        self
    }

    pub(crate) fn naming(mut self, naming: Naming) -> Self {
        self.naming = naming;
        self
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let gateway = Gateway {
            id: gateway_id(),
            uid: "uid-gw".into(),
            listeners: vec![Listener {
                name: "mcp".into(),
                port: 8080,
                hostname: None,
                path: "/mcp".into(),
                allowed_origins: self.allowed_origins.clone(),
                tls: None,
            }],
            servers: self.servers.iter().map(|server| self.attachment(server)).collect(),
            naming: self.naming,
            anonymous: self.anonymous,
            api_keys: self.keys.iter().map(|key| key.secret.to_string()).collect(),
            token_issuers: Vec::new(),
            peers: Vec::new(),
            levels: [(LevelKind::Mesh, &self.mesh), (LevelKind::Gateway, &self.policies)]
                .into_iter()
                .filter(|(kind, policies)| *kind == LevelKind::Gateway || !policies.is_empty())
                .map(|(kind, policies)| level(kind, policies))
                .collect(),
        };
        let mut resources = vec![Resource::new(gateway_id().to_string(), &gateway).unwrap()];
        resources.extend(self.servers.iter().map(|one| Resource::new(one.id.to_string(), one).unwrap()));
        resources.extend(self.keys.iter().map(|one| Resource::new(one.secret.to_string(), one).unwrap()));
        resources.extend(self.secrets.iter().map(|(name, one)| Resource::new(name.clone(), one).unwrap()));
        for policy in self.policies.iter().chain(&self.mesh).chain(&self.elsewhere) {
            let mut resource = Resource::new(policy.id.to_string(), policy).unwrap();
            if self.spoiled.as_ref() == Some(&policy.id) {
                resource.requires.push("a-feature-of-tomorrow".into());
            }
            resources.push(resource);
        }
        Snapshot::new(gateway_id(), resources)
    }

    fn attachment(&self, server: &Server) -> Attachment {
        Attachment {
            server: server.id.clone(),
            prefix: server.id.name.clone(),
            levels: self.server_levels.get(&server.id.name).cloned().unwrap_or_default(),
        }
    }
}

pub(crate) fn server(name: &str, url: &str) -> Server {
    Server {
        id: ServerId::new("a", name),
        endpoint: Endpoint::Remote {
            url: url.into(),
            transport: Transport::Auto,
            egress: EgressRule::private(),
        },
        headers: vec![],
        tools: ToolRules::default(),
        timeouts: Timeouts::default(),
        lock: None,
    }
}

pub(crate) fn bearer(secret: &str) -> CredentialHeader {
    CredentialHeader {
        name: "authorization".into(),
        prefix: "Bearer ".into(),
        secret: secret.parse().unwrap(),
        key: "token".into(),
    }
}
