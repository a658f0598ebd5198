//! A cluster that is not there: what its operator would know besides the files, for `mcpmesh check --cluster`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use mcpmesh_compiler::{
    Cluster, ClusterIssuer, ConfigMap, Diagnostic, Inputs, ObjectKind, ObjectRef, Reason, Secret, Service,
    Severity,
};
use mcpmesh_crds::{EnvFromSource, EnvReference, EnvVar, McpServerSpec};
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

/// Puts the Services that objects name, and the Secrets and ConfigMaps that are not in the files, where the cluster would
/// have them. A note for each: a repository mostly has no Secrets. Those in the files stay as they are.
pub(super) fn assume(inputs: &mut Inputs) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    let mut wanted: BTreeMap<Missing, BTreeSet<String>> = BTreeMap::new();
    let (servers, gateways): (Vec<_>, Vec<_>) = (copied(inputs.servers()), copied(inputs.gateways()));
    for (id, server) in &servers {
        let object = ObjectRef::new(ObjectKind::McpServer, &id.namespace, &id.name);
        for Named { path, holds, name, key } in named(&server.spec) {
            let missing = Missing { namespace: id.namespace.clone(), holds, name };
            if missing.is_in(inputs) {
                continue;
            }
            notes.push(note(object.clone(), path, missing.reason(), missing.to_string()));
            wanted.entry(missing).or_default().extend(key);
        }
        let Some(service) = &server.spec.service else { continue };
        let known = inputs.of_mut(&id.namespace).services.entry(service.name.clone()).or_default();
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
            let (namespace, name) = (id.namespace.clone(), tls.secret_ref.name.clone());
            let missing = Missing { namespace, holds: Holds::Secrets, name };
            if missing.is_in(inputs) {
                continue;
            }
            let object = ObjectRef::new(ObjectKind::McpGateway, &id.namespace, &id.name);
            let path = format!("spec.listeners[{index}].tls.secretRef");
            notes.push(note(object, path, missing.reason(), missing.to_string()));
            wanted.entry(missing).or_default().extend(["tls.crt", "tls.key"].map(str::to_owned));
        }
    }
    wanted.into_iter().for_each(|(missing, keys)| missing.put(keys, inputs));
    notes.sort();
    notes.dedup();
    notes
}

/// What kind of object holds values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Secrets,
    Configuration,
}

/// An object with values that is named, and is not in the files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Missing {
    namespace: String,
    holds: Holds,
    name: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.holds {
            Holds::Secrets => ObjectKind::Secret,
            Holds::Configuration => ObjectKind::ConfigMap,
        };
        let object = ObjectRef::new(kind, &self.namespace, &self.name);
        write!(f, "{object} is not in these files: it is taken to be in the cluster")
    }
}

impl Missing {
    fn is_in(&self, inputs: &Inputs) -> bool {
        let objects = inputs.of(&self.namespace);
        match self.holds {
            Holds::Secrets => objects.secrets.contains_key(&self.secret()),
            Holds::Configuration => objects.config_maps.contains_key(&self.name),
        }
    }

    fn secret(&self) -> SecretId {
        SecretId::new(&self.namespace, &self.name)
    }

    fn reason(&self) -> Reason {
        match self.holds {
            Holds::Secrets => Reason::SecretNotFound,
            Holds::Configuration => Reason::ConfigMapNotFound,
        }
    }

    /// Puts it there with these keys.
    fn put(self, keys: BTreeSet<String>, inputs: &mut Inputs) {
        let id = self.secret();
        let objects = inputs.of_mut(&self.namespace);
        match self.holds {
            Holds::Secrets => {
                let data = keys.into_iter().map(|key| (key, UNKNOWN.to_vec())).collect();
                objects.secrets.insert(id, Arc::new(Secret { data, ..Secret::default() }));
            }
            Holds::Configuration => {
                let data = keys.into_iter().map(|key| (key, String::new())).collect();
                objects.config_maps.insert(self.name, Arc::new(ConfigMap { data, ..ConfigMap::default() }));
            }
        }
    }
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

/// A reference to an object with values.
struct Named {
    /// The field.
    path: String,
    holds: Holds,
    name: String,
    /// None: all of them.
    key: Option<String>,
}

/// What a server names of Secrets and ConfigMaps.
fn named(spec: &McpServerSpec) -> Vec<Named> {
    let mut found = Vec::new();
    for (index, header) in spec.credentials.iter().flat_map(|given| &given.headers).enumerate() {
        let path = format!("spec.credentials.headers[{index}].secretKeyRef");
        let key = &header.secret_key_ref;
        let (name, key) = (key.name.clone(), Some(key.key.clone()));
        found.push(Named { path, holds: Holds::Secrets, name, key });
    }
    let none: (&[EnvVar], &[EnvFromSource]) = (&[], &[]);
    let package = spec.package.as_ref().map_or(none, |given| (&given.env, &given.env_from));
    let container = spec.container.as_ref().map_or(none, |given| (&given.env, &given.env_from));
    for (source, (env, env_from)) in [("package", package), ("container", container)] {
        let variables = env.iter().enumerate().filter_map(|(index, variable)| {
            let path = format!("spec.{source}.env[{index}].valueFrom");
            let (holds, field, of) = match variable.value_from.as_ref()?.reference()? {
                EnvReference::Secret(of) => (Holds::Secrets, "secretKeyRef", of),
                EnvReference::ConfigMap(of) => (Holds::Configuration, "configMapKeyRef", of),
            };
            let (name, key) = (of.name.clone(), Some(of.key.clone()));
            Some(Named { path: format!("{path}.{field}"), holds, name, key })
        });
        found.extend(variables);
        let whole = env_from.iter().enumerate().filter_map(|(index, from)| {
            let (holds, field, of) = match from.reference()? {
                EnvReference::Secret(of) => (Holds::Secrets, "secretRef", of),
                EnvReference::ConfigMap(of) => (Holds::Configuration, "configMapRef", of),
            };
            let path = format!("spec.{source}.envFrom[{index}].{field}");
            Some(Named { path, holds, name: of.name.clone(), key: None })
        });
        found.extend(whole);
    }
    found
}
