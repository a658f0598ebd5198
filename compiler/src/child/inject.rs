//! Puts the proxy of a server beside a server that speaks HTTP in a Deployment which somebody else makes.
//!
//! On the plain value, so that a field which this version does not know stays as it is.

use std::fmt;

use k8s_openapi::api::core::v1::Volume;
use mcpmesh_ir::{FleetId, ServerId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::name::{SERVER_LABEL, base_name, label_value};
use super::proxy;
use super::server::sidecar;
use crate::inputs::Cluster;
use crate::sidecar::RESERVED_PORTS;

/// The pod of a Deployment.
const POD: &str = "spec.template.spec";

/// Whose proxy it is, and where the server in the pod listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Injection<'c> {
    /// The McpServer, of the Deployment's namespace.
    pub(crate) server: ServerId,
    /// The port of the server, on 127.0.0.1.
    pub(crate) port: u16,
    /// The path of its MCP endpoint, such as `/mcp`.
    pub(crate) path: String,
    /// The installation: of it the proxy's image and the operator's address.
    pub(crate) cluster: &'c Cluster,
}

/// Why a Deployment cannot have a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotInjected {
    /// It has no pod template.
    NoPod,
    /// Its pods have a service account of their own; a proxy is known by its server's.
    OtherAccount { name: String, needed: String },
    /// Its pods share the node's network: the proxy's ports would be the node's.
    HostNetwork,
    /// A container of its own is called like the proxy's.
    NameTaken(usize),
    /// A container of its own has a port of the proxy's.
    PortTaken { container: usize, port: u16 },
}

impl NotInjected {
    /// Where in the Deployment.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::NoPod => "spec".to_owned(),
            Self::OtherAccount { .. } => format!("{POD}.serviceAccountName"),
            Self::HostNetwork => format!("{POD}.hostNetwork"),
            Self::NameTaken(container) => format!("{POD}.containers[{container}].name"),
            Self::PortTaken { container, .. } => format!("{POD}.containers[{container}].ports"),
        }
    }

    /// What to do.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::NoPod => "add spec.template.spec".to_owned(),
            Self::OtherAccount { needed, .. } => {
                format!(
                    "remove it, or give what the server needs of the API to {needed}, which the operator makes"
                )
            }
            Self::HostNetwork => "remove it".to_owned(),
            Self::NameTaken(_) => "give it another name".to_owned(),
            Self::PortTaken { .. } => "let the container listen on another".to_owned(),
        }
    }
}

impl fmt::Display for NotInjected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPod => f.write_str("there is no pod template"),
            Self::OtherAccount { name, needed } => {
                write!(f, "the pods run as service account {name}, and a proxy is known by {needed}")
            }
            Self::HostNetwork => f.write_str("the pods share the node's network"),
            Self::NameTaken(_) => f.write_str("the container is called like the proxy's"),
            Self::PortTaken { port, .. } => write!(f, "port {port} is that of the proxy beside it"),
        }
    }
}

/// The Deployment with the proxy beside its containers: sidecar, volumes, the label by which gateways may come, and the
/// service account. What was injected before is replaced, so twice is once.
pub(crate) fn inject(deployment: &Value, how: &Injection<'_>) -> Result<Value, NotInjected> {
    let fleet = FleetId::Server(how.server.clone());
    let mut made = deployment.clone();
    let template = made.pointer_mut("/spec/template").and_then(Value::as_object_mut);
    let template = template.ok_or(NotInjected::NoPod)?;
    let spec = template.get_mut("spec").and_then(Value::as_object_mut).ok_or(NotInjected::NoPod)?;
    check(spec, &fleet)?;
    add_proxy(spec, &fleet, how);
    within(template, "metadata", |metadata| {
        within(metadata, "labels", |labels| {
            labels.insert(SERVER_LABEL.to_owned(), label_value(&how.server.name).into());
        });
    });
    Ok(made)
}

fn check(spec: &Map<String, Value>, fleet: &FleetId) -> Result<(), NotInjected> {
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        return Err(NotInjected::HostNetwork);
    }
    let needed = base_name(fleet);
    // The second is the first's older name.
    let account = ["serviceAccountName", "serviceAccount"].iter().find_map(|key| spec.get(*key)?.as_str());
    if let Some(name) = account.filter(|name| !["", "default", &needed].contains(name)) {
        return Err(NotInjected::OtherAccount { name: name.to_owned(), needed });
    }
    for (container, given) in list(spec, "containers").iter().enumerate() {
        if given.get("name").and_then(Value::as_str) == Some(proxy::BESIDE) {
            return Err(NotInjected::NameTaken(container));
        }
        let ports = given.get("ports").and_then(Value::as_array).into_iter().flatten();
        let numbers = ports.filter_map(|port| port.get("containerPort")?.as_u64()?.try_into().ok());
        if let Some(port) = numbers.into_iter().find(|port| RESERVED_PORTS.contains(port)) {
            return Err(NotInjected::PortTaken { container, port });
        }
    }
    Ok(())
}

fn add_proxy(spec: &mut Map<String, Value>, fleet: &FleetId, how: &Injection<'_>) {
    let upstream = format!("http://127.0.0.1:{}{}", how.port, how.path);
    let sidecar = sidecar(fleet, &upstream, how.cluster);
    let is = |value: &Value, name: &str| value.get("name").and_then(Value::as_str) == Some(name);
    let mut before = vec![plain(&sidecar)];
    // First, so that the containers after it can already reach it.
    before.extend(list(spec, "initContainers").into_iter().filter(|one| !is(one, &sidecar.name)));
    let ours: Vec<Volume> = proxy::volumes(fleet);
    let mut volumes = list(spec, "volumes");
    volumes.retain(|volume| ours.iter().all(|one| !is(volume, &one.name)));
    volumes.extend(ours.iter().map(plain));
    spec.insert("initContainers".to_owned(), before.into());
    spec.insert("volumes".to_owned(), volumes.into());
    spec.remove("serviceAccount");
    spec.insert("serviceAccountName".to_owned(), base_name(fleet).into());
    // Who asks for the API's token keeps it; nobody gets one unasked.
    spec.entry("automountServiceAccountToken").or_insert(Value::Bool(false));
    // The proxy reads its volumes by their group; who has set one keeps it.
    within(spec, "securityContext", |context| {
        if context.get("fsGroup").is_none_or(Value::is_null) {
            context.insert("fsGroup".to_owned(), json!(proxy::USER));
        }
    });
}

/// Changes a mapping in a mapping, made where it is absent or null.
fn within(map: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut inner = match map.remove(key) {
        Some(Value::Object(inner)) => inner,
        _ => Map::new(),
    };
    change(&mut inner);
    map.insert(key.to_owned(), Value::Object(inner));
}

fn list(map: &Map<String, Value>, key: &str) -> Vec<Value> {
    map.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Objects of Kubernetes always have a JSON form.
fn plain(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(spec: &Value) -> Result<Value, NotInjected> {
        let text = str::to_owned;
        let cluster = Cluster {
            operator_address: text("mcpmesh-operator.mcpmesh-system.svc:9443"),
            proxy_image: text("proxy:1"),
            ..Cluster::default()
        };
        let server = ServerId::new("a", "search");
        let how = Injection { server, port: 9000, path: "/mcp".to_owned(), cluster: &cluster };
        let deployment =
            json!({ "spec": { "template": { "metadata": { "labels": { "app": "d" } }, "spec": spec } } });
        let once = inject(&deployment, &how)?;
        assert_eq!(inject(&once, &how).as_ref(), Ok(&once), "twice is once");
        Ok(once)
    }

    #[test]
    fn a_deployment_gets_the_proxy_and_keeps_the_rest() {
        let made = injected(&json!({
            "containers": [{ "name": "app", "image": "app:1", "fieldOfTomorrow": 1 }],
            "initContainers": [{ "name": "prepare" }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "securityContext": { "fsGroup": 1000 },
            "automountServiceAccountToken": true,
        }))
        .unwrap();
        let template = &made["spec"]["template"];
        assert_eq!(template["metadata"]["labels"], json!({ "app": "d", "mcpmesh.io/server": "search" }));
        let spec = &template["spec"];
        assert_eq!(spec["initContainers"][0]["name"], "mcpmesh-proxy");
        assert_eq!(spec["initContainers"][0]["restartPolicy"], "Always");
        assert_eq!(spec["initContainers"][1]["name"], "prepare");
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 5);
        assert_eq!(spec["containers"][0]["fieldOfTomorrow"], 1);
        assert_eq!(spec["securityContext"]["fsGroup"], 1000);
        assert_eq!(spec["automountServiceAccountToken"], true);
        assert_eq!(spec["serviceAccountName"], "search-mcpserver");
    }

    #[test]
    fn nulls_are_as_good_as_nothing() {
        let made =
            injected(&json!({ "containers": [], "initContainers": null, "securityContext": null })).unwrap();
        let spec = &made["spec"]["template"]["spec"];
        assert_eq!(spec["securityContext"]["fsGroup"], 65532);
        assert_eq!(spec["automountServiceAccountToken"], false);
    }

    #[test]
    fn what_cannot_be_the_servers_is_refused() {
        let refused = [
            (json!({ "serviceAccountName": "team" }), "serviceAccountName"),
            (json!({ "serviceAccount": "team" }), "serviceAccountName"),
            (json!({ "hostNetwork": true }), "hostNetwork"),
            (json!({ "containers": [{}, { "name": "mcpmesh-proxy" }] }), "containers[1].name"),
            (json!({ "containers": [{ "ports": [{ "containerPort": 17080 }] }] }), "containers[0].ports"),
        ];
        for (spec, path) in refused {
            assert_eq!(injected(&spec).unwrap_err().path(), format!("spec.template.spec.{path}"));
        }
        assert_eq!(injected(&Value::Null), Err(NotInjected::NoPod));
    }
}
