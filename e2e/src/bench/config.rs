//! Compiled configurations for `mcpmesh-proxy --config`, written as the compiler would.

use std::net::SocketAddr;

use mcpmesh_ir::gateway::{Anonymous, Attachment, Level, LevelKind, Listener, Naming};
use mcpmesh_ir::policy::{
    AccessRule, Dimension, Effect, IssuerMatch, Limit, Mode, Policy, Rate, Subject, To,
};
use mcpmesh_ir::server::{Endpoint, Server, ToolRules, Transport};
use mcpmesh_ir::{ApiKey, EgressRule, Gateway, GatewayId, PolicyId, Resource, SecretId, ServerId, Snapshot};
use sha2::{Digest as _, Sha256};

const NAMESPACE: &str = "bench";

/// One gateway to be.
pub(super) struct Draft {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    /// Numbers of the upstream's servers.
    pub(super) servers: Vec<usize>,
    /// One user with one group of the same name for each.
    pub(super) users: usize,
    pub(super) access: Vec<AccessRule>,
    pub(super) limits: Vec<Limit>,
}

impl Draft {
    /// Open to anyone, limited by nothing.
    pub(super) fn open(name: &'static str, path: &'static str, servers: std::ops::Range<usize>) -> Self {
        let all = rule("all", Effect::Allow, vec![Subject::Anyone {}], To::default());
        Self { name, path, servers: servers.collect(), users: 0, access: vec![all], limits: Vec::new() }
    }

    pub(super) fn snapshot(&self, upstream: SocketAddr) -> anyhow::Result<Snapshot> {
        let policy = PolicyId::new(NAMESPACE, self.name);
        let id = GatewayId::new(NAMESPACE, self.name);
        let servers: Vec<_> = self.servers.iter().map(|&number| server(number, upstream)).collect();
        let keys: Vec<_> = (0..self.users).map(|number| (user(number), api_key(number))).collect();
        let gateway = Gateway {
            id: id.clone(),
            uid: id.to_string(),
            listeners: vec![Listener {
                name: "mcp".to_owned(),
                port: 8080,
                hostname: None,
                path: self.path.to_owned(),
                allowed_origins: Vec::new(),
                tls: None,
            }],
            servers: servers.iter().map(attachment).collect(),
            naming: if self.servers.len() == 1 { Naming::OnConflict } else { Naming::Always },
            anonymous: if self.users == 0 { Anonymous::Allow } else { Anonymous::Deny },
            api_keys: keys.iter().map(|(name, _)| name.clone()).collect(),
            token_issuers: Vec::new(),
            peers: Vec::new(),
            levels: vec![Level { kind: LevelKind::Gateway, policies: vec![policy.clone()], closed: None }],
        };
        let access = self.access.clone();
        let body = Policy { id: policy.clone(), mode: Mode::Enforce, access, limits: self.limits.clone() };
        let mut resources =
            vec![Resource::new(id.to_string(), &gateway)?, Resource::new(policy.to_string(), &body)?];
        for server in &servers {
            resources.push(Resource::new(server.id.to_string(), server)?);
        }
        for (name, key) in &keys {
            resources.push(Resource::new(name.clone(), key)?);
        }
        Ok(Snapshot::new(id, resources))
    }
}

fn server(number: usize, upstream: SocketAddr) -> Server {
    let endpoint = Endpoint::Remote {
        url: format!("http://{upstream}/mcp/{number}"),
        transport: Transport::StreamableHttp,
        egress: EgressRule::private(),
    };
    Server {
        id: ServerId::new(NAMESPACE, format!("server-{number}")),
        endpoint,
        headers: Vec::new(),
        tools: ToolRules::default(),
        timeouts: mcpmesh_ir::server::Timeouts::default(),
        lock: None,
    }
}

fn attachment(server: &Server) -> Attachment {
    let prefix = server.id.name.replace("server-", "s");
    Attachment { server: server.id.clone(), prefix, levels: Vec::new() }
}

/// The name of a user, of its group and of its key.
pub(super) fn user(number: usize) -> String {
    format!("user-{number}")
}

/// What that user sends.
pub(super) fn key_of(number: usize) -> String {
    format!("mcpmesh_bench_0123456789abcdef_{number:06}")
}

fn api_key(number: usize) -> ApiKey {
    ApiKey {
        secret: SecretId::new(NAMESPACE, user(number)),
        sha256: hex::encode(Sha256::digest(key_of(number))),
        owner: user(number),
        groups: vec![user(number), "staff".to_owned()],
        expires: None,
    }
}

/// A group of this namespace's gateways.
pub(super) fn group(name: impl Into<String>) -> Subject {
    Subject::Group { name: name.into(), issuer: IssuerMatch::Namespace(NAMESPACE.to_owned()) }
}

/// A rule.
pub(super) fn rule(name: &str, effect: Effect, from: Vec<Subject>, to: To) -> AccessRule {
    AccessRule { name: name.to_owned(), effect, from, to }
}

/// These tools of any server.
pub(super) fn tools(globs: &[&str]) -> To {
    To { tools: globs.iter().map(|glob| (*glob).to_owned()).collect(), ..To::default() }
}

/// These servers.
pub(super) fn servers(numbers: impl Iterator<Item = usize>) -> To {
    To { servers: numbers.map(|number| format!("{NAMESPACE}/server-{number}")).collect(), ..To::default() }
}

/// A limit on everyone and everything.
pub(super) fn limit(name: &str, per: &[Dimension], requests: Rate) -> Limit {
    Limit { name: name.to_owned(), from: Vec::new(), to: To::default(), per: per.to_vec(), requests }
}

/// A rate that no bench comes near.
pub(super) fn endless() -> Rate {
    Rate { count: 1_000_000_000, window_ms: 1_000, burst: 1_000_000_000 }
}
