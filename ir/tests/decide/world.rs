//! A small world to judge in: builders of policies, gateways and callers.

use std::collections::BTreeMap;

use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::gateway::{Anonymous, Attachment, Gateway, Level, LevelKind, Naming};
use mcpmesh_ir::policy::{
    AccessRule, Effect, Identity, Issuer, IssuerMatch, Mode, Object, Policy, Prepared, Subject, Target, To,
    Verdict, decide,
};
use mcpmesh_ir::{GatewayId, PolicyId, ServerId};

pub(crate) fn gateway_id() -> GatewayId {
    GatewayId::new("team", "main")
}

pub(crate) fn policy_id(name: &str) -> PolicyId {
    PolicyId::new("team", name)
}

pub(crate) fn server(text: &str) -> ServerId {
    let (namespace, name) = text.split_once('/').unwrap_or(("team", text));
    ServerId::new(namespace, name)
}

/// A rule for everyone on everything; change what matters.
pub(crate) fn rule(effect: Effect) -> AccessRule {
    AccessRule { name: "rule".to_owned(), effect, from: vec![Subject::Anyone {}], to: To::default() }
}

pub(crate) fn policy(name: &str, mode: Mode, access: Vec<AccessRule>) -> Policy {
    Policy { id: policy_id(name), mode, access, limits: Vec::new() }
}

pub(crate) fn level(kind: LevelKind, policies: &[&str]) -> Level {
    Level { kind, policies: policies.iter().map(|name| policy_id(name)).collect(), closed: None }
}

/// A gateway with its policies, of which each server has those at its own level that are given.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) policies: BTreeMap<PolicyId, Policy>,
}

impl World {
    pub(crate) fn new(gateway: &[&str], server_level: &[&str], policies: Vec<Policy>) -> Self {
        let levels =
            if server_level.is_empty() { vec![] } else { vec![level(LevelKind::Server, server_level)] };
        let servers = ["team/a", "team/b", "other/a"].map(|id| Attachment {
            server: server(id),
            prefix: id.replace('/', "-"),
            levels: levels.clone(),
        });
        let gateway = Gateway {
            id: gateway_id(),
            uid: "uid".to_owned(),
            listeners: Vec::new(),
            servers: servers.into(),
            naming: Naming::Always,
            anonymous: Anonymous::Allow,
            api_keys: Vec::new(),
            token_issuers: Vec::new(),
            peers: Vec::new(),
            levels: vec![level(LevelKind::Gateway, gateway)],
        };
        Self { gateway, policies: policies.into_iter().map(|policy| (policy.id.clone(), policy)).collect() }
    }

    pub(crate) fn prepare(&self) -> Prepared {
        Prepared::new(&self.gateway, &self.policies).0
    }

    /// Whether an identity may call a tool that says nothing of itself.
    pub(crate) fn may(&self, identity: &Identity, server_name: &str, tool: &str) -> bool {
        let object = Object::Tool { name: tool, pinned: Hints::default(), claimed: Hints::default() };
        self.may_use(identity, server_name, "tools/call", object)
    }

    pub(crate) fn may_use(&self, identity: &Identity, id: &str, method: &str, object: Object<'_>) -> bool {
        let prepared = self.prepare();
        let caller = prepared.caller(identity.clone());
        let target = Target { server: &server(id), method, object };
        decide(&prepared, &caller, &target).verdict == Verdict::Allow
    }
}

pub(crate) fn key_holder(gateway: GatewayId, user: &str, groups: &[&str]) -> Identity {
    Identity {
        gateway,
        issuer: Issuer::ApiKey,
        user: Some(user.to_owned()),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
    }
}

pub(crate) fn token_holder(issuer: &str, user: &str, groups: &[&str]) -> Identity {
    Identity { issuer: Issuer::Token(issuer.to_owned()), ..key_holder(gateway_id(), user, groups) }
}

pub(crate) fn anonymous() -> Identity {
    Identity::anonymous(gateway_id())
}

pub(crate) fn own_namespace() -> IssuerMatch {
    IssuerMatch::Namespace("team".to_owned())
}
