//! From snapshots to what requests are judged by: decode, reject one by one, build, swap.

use std::collections::BTreeMap;
use std::fmt;

use mcpmesh_ir::policy::Prepared;
use mcpmesh_ir::resource::Body;
use mcpmesh_ir::{
    ApiKey, Gateway, Policy, PolicyId, Resource, ResourceKind, Secret, SecretId, Server, ServerId, Snapshot,
    TokenIssuer,
};

use crate::catalog::{Attached, Config};
use crate::certificate::{Security, Served};
use crate::identity::KeyTable;
use crate::limit::Registry;
use crate::upstreams::Upstreams;

/// A resource that this process could not put in force, and why. Goes back to the object that caused it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of the resource.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub reason: String,
}

impl Rejection {
    /// Tells the log, too.
    pub(crate) fn new(kind: ResourceKind, name: &str, reason: &str) -> Self {
        let rejection = Self { kind, name: name.to_owned(), reason: reason.to_owned() };
        tracing::error!(%rejection, "rejected");
        rejection
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.reason)
    }
}

/// Builds one gateway's configuration. Without its Gateway resource there is none; anything else that is rejected
/// takes away the smallest thing that contains it: a key, a server, and for a policy what it guards.
pub fn prepare(
    snapshot: &Snapshot,
    limits: &Registry,
    upstreams: &mut Upstreams,
    rejected: &mut Vec<Rejection>,
) -> Option<Config> {
    let mut decode = Decode { snapshot, rejected };
    let gateway: Gateway = decode.all().into_iter().map(|(_, gateway)| gateway).next()?;
    let policies: BTreeMap<PolicyId, Policy> =
        decode.all().into_iter().map(|(_, policy): (_, Policy)| (policy.id.clone(), policy)).collect();
    let keys: BTreeMap<String, ApiKey> = decode.all().into_iter().collect();
    let servers: BTreeMap<ServerId, Server> =
        decode.all().into_iter().map(|(_, server): (_, Server)| (server.id.clone(), server)).collect();
    let secrets: BTreeMap<SecretId, Secret> =
        decode.all().into_iter().filter_map(|(name, secret)| Some((name.parse().ok()?, secret))).collect();

    let keys: Vec<ApiKey> = gateway.api_keys.iter().filter_map(|name| keys.get(name).cloned()).collect();
    let (mut table, bad_keys) = KeyTable::new(&gateway, &keys);
    for key in bad_keys {
        decode.reject(ResourceKind::ApiKey, &key.secret.to_string(), "its hash is no SHA-256");
    }
    let issuers: BTreeMap<String, TokenIssuer> = decode.all().into_iter().collect();
    for name in &gateway.token_issuers {
        let Some(issuer) = issuers.get(name) else { continue };
        if let Err(reason) = table.trust(issuer) {
            decode.reject(ResourceKind::TokenIssuer, name, &reason);
        }
    }
    let listeners = decode.listeners(&gateway, &secrets);
    let (policy, bad_policies) = Prepared::new(&gateway, &policies);
    for (id, invalid) in bad_policies {
        decode.reject(ResourceKind::Policy, &id.to_string(), &invalid.to_string());
    }
    let mut attached = Vec::with_capacity(gateway.servers.len());
    for attachment in &gateway.servers {
        let Some(server) = servers.get(&attachment.server) else { continue };
        match attach(server, &attachment.prefix, &secrets, upstreams) {
            Ok(one) => attached.push(one),
            Err(reason) => decode.reject(ResourceKind::Server, &server.id.to_string(), &reason),
        }
    }
    let limiter = limits.limiter(&policy);
    Some(Config { gateway, listeners, keys: table, policy, limiter, attached })
}

fn attach(
    server: &Server,
    prefix: &str,
    secrets: &BTreeMap<SecretId, Secret>,
    upstreams: &mut Upstreams,
) -> Result<Attached, String> {
    let client = upstreams.get(server, secrets).map_err(|error| error.to_string())?;
    Attached::new(server, prefix.to_owned(), client).map_err(|invalid| invalid.to_string())
}

struct Decode<'a> {
    snapshot: &'a Snapshot,
    rejected: &'a mut Vec<Rejection>,
}

impl Decode<'_> {
    /// The listeners that can be served: one without its certificate is not there, and never plain.
    fn listeners(&mut self, gateway: &Gateway, secrets: &BTreeMap<SecretId, Secret>) -> Vec<Served> {
        let mut served = Vec::with_capacity(gateway.listeners.len());
        for listener in &gateway.listeners {
            match Security::of(listener, |id| secrets.get(id)) {
                Ok(security) => served.push(Served { listener: listener.clone(), security }),
                Err((secret, error)) => {
                    let reason = format!("listener {} is not served: {error}", listener.name);
                    self.reject(ResourceKind::Secret, &secret.to_string(), &reason);
                }
            }
        }
        served
    }

    fn all<B: Body>(&mut self) -> Vec<(String, B)> {
        let mut decoded = Vec::new();
        for resource in self.snapshot.of_kind(B::KIND) {
            match resource.decode() {
                Ok(body) => decoded.push((resource.name.clone(), body)),
                Err(error) => self.rejected_resource(resource, &error),
            }
        }
        decoded
    }

    fn rejected_resource(&mut self, resource: &Resource, error: &mcpmesh_ir::resource::Error) {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        self.reject(resource.kind, &resource.name, &format!("{error}{cause}"));
    }

    fn reject(&mut self, kind: ResourceKind, name: &str, reason: &str) {
        self.rejected.push(Rejection::new(kind, name, reason));
    }
}
