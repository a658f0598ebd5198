//! Gateways whose inputs did not change are not compiled again (decisions.md 9).
//!
//! Nothing crosses a namespace but exports, so a gateway's inputs are its own namespace, those that export servers,
//! the namespaces' labels and the installation. The memo is a cache: without it the output is the same, to the byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcpmesh_crds::From as Namespaces;
use mcpmesh_ir::GatewayId;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::compile::{Compiled, GatewayOutcome, compile_with};
use crate::gateway;
use crate::inputs::{Cluster, Inputs, Secret};

type Hash = [u8; 32];

/// Remembers each gateway's last compile by the hash of its inputs.
#[derive(Default)]
pub struct Memo {
    gateways: BTreeMap<GatewayId, (Hash, GatewayOutcome)>,
}

impl fmt::Debug for Memo {
    /// Snapshots hold Secrets: only the gateways' names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.gateways.keys().map(ToString::to_string)).finish()
    }
}

impl Memo {
    /// As [`crate::compile()`], with the unchanged gateways from memory.
    pub fn compile(&mut self, inputs: &Inputs) -> Compiled {
        let keys = Keys::new(inputs);
        let mut kept = BTreeMap::new();
        let compiled = compile_with(inputs, |front, parts| {
            let key = keys.of(&front.id, front.object.is_none());
            let outcome = match self.gateways.remove(&front.id) {
                Some((old, outcome)) if old == key => outcome,
                _ => gateway::compile(front, inputs, parts),
            };
            kept.insert(front.id.clone(), (key, outcome.clone()));
            outcome
        });
        self.gateways = kept;
        compiled
    }
}

/// The hashes of the parts that gateways' inputs are made of.
struct Keys<'i> {
    namespaces: BTreeMap<&'i str, Hash>,
    exporting: BTreeSet<&'i str>,
    /// Labels of namespaces, and the installation.
    rest: Hash,
}

impl<'i> Keys<'i> {
    fn new(inputs: &'i Inputs) -> Self {
        let Inputs { servers, gateways, policies, secrets, namespaces, services, install } = inputs;
        let mut hashes: BTreeMap<&str, Feed> = BTreeMap::new();
        for (id, server) in servers {
            hashes.entry(&id.namespace).or_default().object(
                "server",
                &id.name,
                &server.metadata,
                &server.spec,
            );
        }
        for (id, gateway) in gateways {
            hashes.entry(&id.namespace).or_default().object(
                "gateway",
                &id.name,
                &gateway.metadata,
                &gateway.spec,
            );
        }
        for (id, policy) in policies {
            hashes.entry(&id.namespace).or_default().object(
                "policy",
                &id.name,
                &policy.metadata,
                &policy.spec,
            );
        }
        for (id, secret) in secrets {
            hashes.entry(&id.namespace).or_default().secret(&id.name, secret);
        }
        let exporting = servers.iter().filter(|(_, server)| {
            server.spec.export_to.as_ref().is_some_and(|exports| exports.namespaces.from != Namespaces::Same)
        });
        for ((namespace, name), service) in services {
            let ports: Vec<_> = service.ports.iter().collect();
            hashes.entry(namespace).or_default().value(&("service", name, ports));
        }
        let mut rest = Feed::default();
        rest.value(namespaces);
        rest.value(&(install.implied_gateway, install.allow_private, install.version_key));
        if let Some(cluster) = &install.cluster {
            let Cluster {
                operator_namespace,
                operator_address,
                proxy_image,
                npm_image,
                pypi_image,
                token_issuer,
            } = cluster;
            rest.value(&(operator_namespace, operator_address, proxy_image, npm_image, pypi_image));
            rest.value(&token_issuer.as_ref().map(|known| (&known.issuer, &known.keys)));
        }
        Self {
            exporting: exporting.map(|(id, _)| id.namespace.as_str()).collect(),
            namespaces: hashes.into_iter().map(|(namespace, feed)| (namespace, feed.finish())).collect(),
            rest: rest.finish(),
        }
    }

    /// The implied gateway has the servers of all namespaces.
    fn of(&self, gateway: &GatewayId, implied: bool) -> Hash {
        let mut feed = Feed::default();
        feed.value(&(implied, self.rest));
        for (namespace, hash) in &self.namespaces {
            if implied || *namespace == gateway.namespace || self.exporting.contains(namespace) {
                feed.value(&(namespace, hash));
            }
        }
        feed.finish()
    }
}

/// A hash under way. Every piece carries its length, so that no two sequences of pieces run into one.
#[derive(Default)]
struct Feed(Sha256);

impl Feed {
    fn piece(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn value(&mut self, value: &impl Serialize) {
        // Maps with text keys, numbers and texts always have a JSON form; without one the piece would be empty.
        self.piece(&serde_json::to_vec(value).unwrap_or_default());
    }

    fn object(&mut self, kind: &str, name: &str, metadata: &ObjectMeta, spec: &impl Serialize) {
        self.value(&(kind, name, &metadata.uid, &metadata.labels, spec));
    }

    fn secret(&mut self, name: &str, secret: &Secret) {
        let Secret { labels, annotations, data } = secret;
        self.value(&("secret", name, labels, annotations, data.len()));
        for (key, value) in data {
            self.piece(key.as_bytes());
            self.piece(value);
        }
    }

    fn finish(self) -> Hash {
        self.0.finalize().into()
    }
}
