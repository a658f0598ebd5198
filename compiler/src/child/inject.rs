//! Puts the proxy of a server beside a server that speaks HTTP in a Deployment which somebody else makes.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PodSpec, Volume};
use mcpmesh_ir::{FleetId, ServerId};

use super::name::{SERVER_LABEL, base_name, label_value};
use super::proxy;
use super::server::sidecar;
use crate::inputs::Cluster;

/// Whose proxy it is, and where the server in the pod listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection<'c> {
    /// The McpServer, of the Deployment's namespace.
    pub server: ServerId,
    /// The port of the server, on 127.0.0.1.
    pub port: u16,
    /// The path of its MCP endpoint, such as `/mcp`.
    pub path: String,
    /// The installation.
    pub cluster: &'c Cluster,
}

/// Why a Deployment cannot have a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotInjected {
    /// It has no pod template.
    NoPod,
    /// It is in another namespace than the McpServer.
    OtherNamespace(String),
    /// Its pods have a service account of their own; a proxy is known by its server's.
    OtherAccount(String),
    /// Its pods share the node's network: the proxy's ports would be the node's.
    HostNetwork,
}

impl fmt::Display for NotInjected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPod => f.write_str("the Deployment has no pod template"),
            Self::OtherNamespace(name) => {
                write!(f, "the Deployment is in namespace {name}, and the McpServer is not")
            }
            Self::OtherAccount(name) => {
                write!(f, "its pods run as service account {name}; a proxy is known by that of its McpServer")
            }
            Self::HostNetwork => f.write_str("its pods share the node's network"),
        }
    }
}

impl std::error::Error for NotInjected {}

/// The Deployment with the proxy beside its containers: sidecar, volumes, the label by which gateways may come, and the
/// service account. What was injected before is replaced, so twice is once.
pub fn inject(deployment: &Deployment, how: &Injection<'_>) -> Result<Deployment, NotInjected> {
    let fleet = FleetId::Server(how.server.clone());
    let mut made = deployment.clone();
    let namespace = made.metadata.namespace.get_or_insert_with(|| how.server.namespace.clone());
    if *namespace != how.server.namespace {
        return Err(NotInjected::OtherNamespace(namespace.clone()));
    }
    let template = &mut made.spec.as_mut().ok_or(NotInjected::NoPod)?.template;
    let spec = template.spec.as_mut().ok_or(NotInjected::NoPod)?;
    check(spec, &fleet)?;
    add_proxy(spec, &fleet, how);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_with(BTreeMap::new);
    labels.insert(SERVER_LABEL.to_owned(), label_value(&how.server.name));
    Ok(made)
}

fn check(spec: &PodSpec, fleet: &FleetId) -> Result<(), NotInjected> {
    if spec.host_network == Some(true) {
        return Err(NotInjected::HostNetwork);
    }
    match spec.service_account_name.as_deref() {
        None | Some("" | "default") => Ok(()),
        Some(name) if name == base_name(fleet) => Ok(()),
        Some(name) => Err(NotInjected::OtherAccount(name.to_owned())),
    }
}

fn add_proxy(spec: &mut PodSpec, fleet: &FleetId, how: &Injection<'_>) {
    let upstream = format!("http://127.0.0.1:{}{}", how.port, how.path);
    let sidecar = sidecar(fleet, &upstream, how.cluster);
    let before = spec.init_containers.get_or_insert_default();
    before.retain(|container| container.name != sidecar.name);
    // First, so that the containers after it can already reach it.
    before.insert(0, sidecar);
    let volumes = spec.volumes.get_or_insert_default();
    let ours: Vec<Volume> = proxy::volumes(fleet);
    volumes.retain(|volume| ours.iter().all(|one| one.name != volume.name));
    volumes.extend(ours);
    spec.service_account_name = Some(base_name(fleet));
    spec.automount_service_account_token = Some(false);
    let context = spec.security_context.get_or_insert_default();
    // The proxy reads its volumes by their group; who has set one keeps it.
    context.fs_group.get_or_insert(proxy::USER);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let text = str::to_owned;
        Cluster {
            operator_namespace: text("mcpmesh-system"),
            operator_address: text("mcpmesh-operator.mcpmesh-system.svc:9443"),
            proxy_image: text("proxy:1"),
            npm_image: text("npm:1"),
            pypi_image: text("pypi:1"),
            token_issuer: None,
        }
    }

    fn deployment(spec: &str) -> Deployment {
        let template = format!(
            r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "d", "namespace": "a"}},
                "spec": {{"selector": {{}}, "template": {{"metadata": {{"labels": {{"app": "d"}}}}, "spec": {spec}}}}}}}"#
        );
        serde_json::from_str(&template).unwrap()
    }

    fn injected(spec: &str) -> Result<Deployment, NotInjected> {
        let cluster = cluster();
        let server = ServerId::new("a", "search");
        let how = Injection { server, port: 9000, path: "/mcp".to_owned(), cluster: &cluster };
        let once = inject(&deployment(spec), &how)?;
        assert_eq!(inject(&once, &how).as_ref(), Ok(&once), "twice is once");
        Ok(once)
    }

    #[test]
    fn a_deployment_gets_the_proxy_and_keeps_the_rest() {
        let made = injected(
            r#"{"containers": [{"name": "app", "image": "app:1"}], "initContainers": [{"name": "prepare"}],
                "volumes": [{"name": "data", "emptyDir": {}}], "securityContext": {"fsGroup": 1000}}"#,
        )
        .unwrap();
        let template = made.spec.unwrap().template;
        let spec = template.spec.unwrap();
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels["mcpmesh.io/server"], "search");
        assert_eq!(labels["app"], "d");
        let names: Vec<_> = spec.init_containers.unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["mcpmesh-proxy", "prepare"]);
        assert_eq!(spec.volumes.unwrap().len(), 4);
        assert_eq!(spec.security_context.unwrap().fs_group, Some(1000));
        assert_eq!(spec.service_account_name.as_deref(), Some("search-mcpserver"));
    }

    #[test]
    fn what_cannot_be_the_servers_is_refused() {
        let other = NotInjected::OtherAccount("team".to_owned());
        assert_eq!(injected(r#"{"containers": [], "serviceAccountName": "team"}"#), Err(other));
        assert_eq!(injected(r#"{"containers": [], "hostNetwork": true}"#), Err(NotInjected::HostNetwork));
    }
}
