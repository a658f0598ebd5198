//! A cluster that is not there: what its operator would know besides the files, for `mcpmesh check --cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mcpmesh_compiler::{
    Cluster, ClusterIssuer, Diagnostic, Inputs, ObjectKind, ObjectRef, Reason, Secret, Service, Severity,
};
use mcpmesh_crds::{EnvFromSource, EnvVar, McpServerSpec};
use mcpmesh_ir::SecretId;

/// In place of what a Secret of the cluster holds. Long enough for a credential; both kinds of PEM, for a listener.
const UNKNOWN: &[u8] = b"-----BEGIN CERTIFICATE----- -----BEGIN PRIVATE KEY-----";

/// Where something behind a Service would be (RFC 5737: documentation).
const SOMEWHERE: [u8; 4] = [192, 0, 2, 1];

/// An installation like any other: what it settles makes no difference to what is right or wrong.
pub(super) fn installation(operator_namespace: &str) -> Cluster {
    let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
    Cluster {
        operator_namespace: operator_namespace.to_owned(),
        operator_address: format!("mcpmesh-operator.{operator_namespace}.svc:9443"),
        token_issuer: Some(ClusterIssuer { issuer, keys: "{\"keys\":[]}".to_owned() }),
        ..Cluster::default()
    }
}

fn copied<'i, K: Clone + 'i, V: 'i>(all: impl Iterator<Item = (&'i K, &'i Arc<V>)>) -> Vec<(K, Arc<V>)> {
    all.map(|(id, object)| (id.clone(), object.clone())).collect()
}

/// Puts the Services that objects name, and the Secrets that are not in the files, where the cluster would have them. A
/// note for each: a repository mostly has no Secrets. Those in the files stay as they are.
pub(super) fn assume(inputs: &mut Inputs) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    let mut wanted: BTreeMap<SecretId, BTreeSet<String>> = BTreeMap::new();
    let (servers, gateways): (Vec<_>, Vec<_>) = (copied(inputs.servers()), copied(inputs.gateways()));
    for (id, server) in &servers {
        for (path, name, key) in secrets(&server.spec) {
            let secret = SecretId::new(&id.namespace, &name);
            if inputs.of(&secret.namespace).secrets.contains_key(&secret) {
                continue;
            }
            let object = ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name);
            let keys = wanted.entry(secret.clone()).or_default();
            notes.push(note(object, path, Reason::SecretNotFound, not_here(&secret)));
            keys.extend(key);
        }
        let Some(service) = &server.spec.service else { continue };
        let known = inputs.of_mut(&id.namespace).services.entry(service.name.clone()).or_default();
        let object = ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name);
        let (namespace, name, port) = (&id.namespace, &service.name, service.port);
        let message = format!("Service {namespace}/{name} is taken to be in the cluster, with port {port}");
        notes.push(note(object, "spec.service.name".to_owned(), Reason::ServiceNotFound, message));
        let mut ports = Service::clone(known);
        ports.ports.insert(service.port, vec![SocketAddr::from((SOMEWHERE, service.port))]);
        *known = Arc::new(ports);
    }
    for (id, gateway) in &gateways {
        for (index, listener) in gateway.spec.listeners.iter().enumerate() {
            let Some(tls) = &listener.tls else { continue };
            let secret = SecretId::new(&id.namespace, &tls.secret_ref.name);
            if inputs.of(&secret.namespace).secrets.contains_key(&secret) {
                continue;
            }
            let object = ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name);
            let path = format!("spec.listeners[{index}].tls.secretRef");
            notes.push(note(object, path, Reason::SecretNotFound, not_here(&secret)));
            wanted.entry(secret).or_default().extend(["tls.crt", "tls.key"].map(str::to_owned));
        }
    }
    for (id, keys) in wanted {
        let data = keys.into_iter().map(|key| (key, UNKNOWN.to_vec())).collect();
        let secret = Arc::new(Secret { data, ..Secret::default() });
        inputs.of_mut(&id.namespace).secrets.insert(id, secret);
    }
    notes.sort();
    notes.dedup();
    notes
}

fn not_here(secret: &SecretId) -> String {
    format!("Secret {secret} is not in these files: it is taken to be in the cluster")
}

fn note(object: ObjectRef, path: String, reason: Reason, message: String) -> Diagnostic {
    Diagnostic {
        object: Some(object),
        path,
        severity: Severity::Note,
        reason,
        message,
        help: None,
        location: None,
    }
}

/// Each key of a Secret that a server names, and where: field, Secret, key. Without a key: all of the Secret.
fn secrets(spec: &McpServerSpec) -> Vec<(String, String, Option<String>)> {
    let mut found = Vec::new();
    for (index, header) in spec.credentials.iter().flat_map(|given| &given.headers).enumerate() {
        let path = format!("spec.credentials.headers[{index}].secretKeyRef");
        let key = &header.secret_key_ref;
        found.push((path, key.name.clone(), Some(key.key.clone())));
    }
    let none: (&[EnvVar], &[EnvFromSource]) = (&[], &[]);
    let package = spec.package.as_ref().map_or(none, |given| (&given.env, &given.env_from));
    let container = spec.container.as_ref().map_or(none, |given| (&given.env, &given.env_from));
    for (source, (env, env_from)) in [("package", package), ("container", container)] {
        for (index, variable) in env.iter().enumerate() {
            let Some(from) = &variable.value_from else { continue };
            let key = &from.secret_key_ref;
            let path = format!("spec.{source}.env[{index}].valueFrom.secretKeyRef");
            found.push((path, key.name.clone(), Some(key.key.clone())));
        }
        for (index, from) in env_from.iter().enumerate() {
            let path = format!("spec.{source}.envFrom[{index}].secretRef");
            found.push((path, from.secret_ref.name.clone(), None));
        }
    }
    found
}
