//! What one test has of a cluster: a client, namespaces that end with it, and what the cluster says of them when it fails.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Namespace as KubeNamespace, Pod, Service};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, PostParams};
use kube::config::Kubeconfig;
use kube::core::ApiResource;
use kube::{Client, Resource, ResourceExt as _};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::Cluster;
use crate::process::eventually;

/// The label of a test's namespaces; its value is the test's name.
const LABEL: &str = "mcpmesh.io/e2e-test";

/// One test's part of a cluster.
#[derive(Debug)]
pub struct Sandbox<'c> {
    /// The cluster itself.
    pub cluster: &'c Cluster,
    test: String,
    namespaces: Mutex<Vec<String>>,
    client: Shown,
}

/// A client has nothing to show.
struct Shown(Client);

impl std::fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Client")
    }
}

impl<'c> Sandbox<'c> {
    pub(super) fn new(cluster: &'c Cluster, test: &str, client: Client) -> Self {
        Self { cluster, test: label(test), namespaces: Mutex::default(), client: Shown(client) }
    }

    /// A client with all rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// A namespace of the test's own, with a name that no other has.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self) -> anyhow::Result<Namespace<'c>> {
        self.namespace_with([]).await
    }

    /// A namespace of the test's own with further labels.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace_with<const N: usize>(
        &self,
        labels: [(&str, &str); N],
    ) -> anyhow::Result<Namespace<'c>> {
        let mut all = BTreeMap::from([(LABEL.to_owned(), self.test.clone())]);
        all.extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let metadata =
            ObjectMeta { generate_name: Some("e2e-".to_owned()), labels: Some(all), ..ObjectMeta::default() };
        let made: KubeNamespace = Api::all(self.client())
            .create(&PostParams::default(), &KubeNamespace { metadata, ..KubeNamespace::default() })
            .await?;
        let name = made.name_any();
        self.namespaces.lock().await.push(name.clone());
        Ok(self.enter(name))
    }

    fn enter(&self, name: String) -> Namespace<'c> {
        Namespace { cluster: self.cluster, name, client: Shown(self.client()) }
    }

    /// Installs `manifests/crds` as their users do, and waits until the API server serves them. Many tests may.
    ///
    /// # Errors
    /// When kubectl fails or they are not served in time.
    pub async fn install_crds(&self) -> anyhow::Result<()> {
        self.cluster.install("manifests/crds").await
    }

    /// The ClusterIP of a Service that leads somewhere: the test is in the cluster's network, but not behind its DNS. That
    /// a pod is ready is known a moment before connections to its Service get there.
    ///
    /// # Errors
    /// When there is no such Service, it is headless, or nothing answers at its first port in time.
    pub async fn service_ip(&self, namespace: &Namespace<'_>, name: &str) -> anyhow::Result<IpAddr> {
        let service: Service = namespace.api().get(name).await?;
        let spec = service.spec.context("no spec")?;
        let address: IpAddr = spec.cluster_ip.context("no ClusterIP")?.parse().context("headless")?;
        let port = spec.ports.unwrap_or_default().first().context("no port")?.port;
        let to = SocketAddr::new(address, u16::try_from(port)?);
        eventually(&format!("the Service {name} leads somewhere"), || async {
            TcpStream::connect(to).await?;
            Ok(())
        })
        .await?;
        Ok(address)
    }

    /// What the cluster says of the test's namespaces: conditions, waiting containers, events.
    pub(super) async fn report(&self) -> String {
        let mut report = format!("the test {} failed", self.test);
        for name in self.namespaces.lock().await.iter() {
            let _ = write!(report, "\n=== namespace {name}\n{}", self.enter(name.clone()).report().await);
        }
        let _ = write!(report, "\n{}", self.cluster.last_words());
        report
    }

    /// Deletes what the test made; nobody waits for the end of it.
    pub(super) async fn clean_up(&self) {
        let namespaces: Api<KubeNamespace> = Api::all(self.client());
        for name in self.namespaces.lock().await.iter() {
            // The cluster may be broken, or about to go.
            let _ = namespaces.delete(name, &DeleteParams::background()).await;
        }
    }
}

/// A namespace of one test.
#[derive(Debug)]
pub struct Namespace<'c> {
    pub(super) cluster: &'c Cluster,
    name: String,
    client: Shown,
}

impl Namespace<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its objects of one kind.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.0.clone(), &self.name)
    }

    /// Its objects of one kind, untyped: so that a test can write what no type allows.
    #[must_use]
    pub fn untyped<K: Resource<DynamicType = ()>>(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.0.clone(), &self.name, &ApiResource::erase::<K>(&()))
    }

    /// Applies YAML (`kubectl apply --server-side`) in this namespace, but for objects that name another; returns what
    /// kubectl printed.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        std::fs::write(file.path(), yaml)?;
        // The namespace of the kubeconfig's context, unlike --namespace, lets objects name another.
        let mut kubeconfig = Kubeconfig::read_from(self.cluster.kubeconfig())?;
        for context in kubeconfig.contexts.iter_mut().filter_map(|named| named.context.as_mut()) {
            context.namespace = Some(self.name.clone());
        }
        let ours = tempfile::NamedTempFile::new()?;
        std::fs::write(ours.path(), serde_json::to_vec(&kubeconfig)?)?;
        let words = [
            OsStr::new("apply"),
            OsStr::new("--server-side"),
            OsStr::new("--kubeconfig"),
            ours.path().as_ref(),
        ];
        self.cluster.kubectl(words.into_iter().chain([OsStr::new("-f"), file.path().as_ref()])).await
    }

    async fn report(&self) -> String {
        let mut lines = Vec::new();
        lines.extend(self.conditions::<McpGateway>().await);
        lines.extend(self.conditions::<McpServer>().await);
        lines.extend(self.conditions::<McpPolicy>().await);
        lines.extend(self.conditions::<Deployment>().await);
        lines.extend(self.conditions::<Pod>().await);
        let events: Api<Event> = self.api();
        let events = events.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        lines.extend(events.iter().map(|event| {
            let object = &event.involved_object;
            let [kind, name, reason, message] = [&object.kind, &object.name, &event.reason, &event.message]
                .map(|word| word.as_deref().unwrap_or("-"));
            format!("event {kind}/{name} {reason}: {message}")
        }));
        lines.join("\n")
    }

    /// One line for each condition that holds of the objects of a kind, and each container that waits.
    async fn conditions<K: Resource<DynamicType = ()>>(&self) -> Vec<String> {
        let objects = self.untyped::<K>().list(&ListParams::default()).await;
        let objects = objects.map(|list| list.items).unwrap_or_default();
        let kind = K::kind(&());
        objects.iter().flat_map(|object| said(&kind, object)).collect()
    }
}

fn said(kind: &str, object: &DynamicObject) -> Vec<String> {
    let name = object.name_any();
    let status = &object.data["status"];
    let words = |value: &Value, keys: &[&str]| {
        keys.iter().filter_map(|key| value[*key].as_str()).collect::<Vec<_>>().join(" ")
    };
    let each = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let conditions = each("conditions").into_iter();
    let conditions = conditions
        .map(|one| format!("{kind}/{name} {}", words(&one, &["type", "status", "reason", "message"])));
    let containers = each("initContainerStatuses").into_iter().chain(each("containerStatuses"));
    let containers = containers.filter(|one| one["ready"] != true);
    let containers =
        containers.map(|one| format!("{kind}/{name} container {}: {}", one["name"], one["state"]));
    conditions.chain(containers).collect()
}

/// A test's name as a label's value: at most 63 of a-z, A-Z, 0-9, '-', '_' and '.'.
fn label(test: &str) -> String {
    let whole = test.replace("::", ".");
    let own = whole.rsplit('.').next().unwrap_or(&whole);
    let fitting = if whole.len() <= 63 { &whole } else { own };
    let cut: String = fitting.chars().filter(char::is_ascii).take(63).collect();
    cut.trim_matches(|letter: char| !letter.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn a_label_is_the_tests_name_as_far_as_it_fits() {
        assert_eq!(label("crds::each_is_established"), "crds.each_is_established");
        let own = "a".repeat(60);
        assert_eq!(label(&format!("module::{own}")), own);
        assert_eq!(label(&format!("module::b_{}", "_".repeat(90))), "b");
    }
}
