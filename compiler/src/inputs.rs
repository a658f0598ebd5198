//! What a compile reads: the objects by identity, and what the installation settles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use mcpmesh_crds::{McpGateway, McpPolicy, McpServer};
use mcpmesh_ir::{EgressRule, GatewayId, PolicyId, SecretId, ServerId};

/// Everything that a compile depends on. What did not change should stay the same `Arc`, an object as well as a
/// namespace: a [`crate::Memo`] then sees at a glance that there is nothing to do for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// The objects, by namespace.
    pub namespaces: BTreeMap<String, Arc<Objects>>,
    /// Labels of the namespaces that are known. `kubernetes.io/metadata.name` need not be among them.
    pub labels: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    /// What the installation settles.
    pub install: Install,
}

/// The objects of one namespace, by their ids, which all are of that namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Servers.
    pub servers: BTreeMap<ServerId, Arc<McpServer>>,
    /// Gateways.
    pub gateways: BTreeMap<GatewayId, Arc<McpGateway>>,
    /// Policies.
    pub policies: BTreeMap<PolicyId, Arc<McpPolicy>>,
    /// Secrets. `${env:NAME}` in a value is resolved before; here a value is only bytes.
    pub secrets: BTreeMap<SecretId, Arc<Secret>>,
    /// ConfigMaps that servers name, by name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Services of the cluster that servers name or that are made for them, by name.
    pub services: BTreeMap<String, Arc<Service>>,
}

static NOTHING: Objects = Objects {
    servers: BTreeMap::new(),
    gateways: BTreeMap::new(),
    policies: BTreeMap::new(),
    secrets: BTreeMap::new(),
    config_maps: BTreeMap::new(),
    services: BTreeMap::new(),
};

/// A core/v1 Service with the addresses behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// By port of the Service: the addresses (with target ports) that are ready. A port without any has an empty list.
    pub ports: BTreeMap<u16, Vec<SocketAddr>>,
}

impl Inputs {
    /// The objects of a namespace; without any, empty ones.
    #[must_use]
    pub fn of(&self, namespace: &str) -> &Objects {
        self.namespaces.get(namespace).map_or(&NOTHING, Arc::as_ref)
    }

    /// The objects of a namespace, to be changed.
    pub fn of_mut(&mut self, namespace: &str) -> &mut Objects {
        Arc::make_mut(self.namespaces.entry(namespace.to_owned()).or_default())
    }

    /// The servers of all namespaces, in order.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerId, &Arc<McpServer>)> {
        self.namespaces.values().flat_map(|objects| &objects.servers)
    }

    /// The gateways of all namespaces, in order.
    pub fn gateways(&self) -> impl Iterator<Item = (&GatewayId, &Arc<McpGateway>)> {
        self.namespaces.values().flat_map(|objects| &objects.gateways)
    }

    /// The policies of all namespaces, in order.
    pub fn policies(&self) -> impl Iterator<Item = (&PolicyId, &Arc<McpPolicy>)> {
        self.namespaces.values().flat_map(|objects| &objects.policies)
    }

    /// A Secret.
    pub(crate) fn secret(&self, id: &SecretId) -> Option<&Secret> {
        self.of(&id.namespace).secrets.get(id).map(Arc::as_ref)
    }

    /// A ConfigMap, by namespace and name.
    pub(crate) fn config_map(&self, (namespace, name): (&str, &str)) -> Option<&ConfigMap> {
        self.of(namespace).config_maps.get(name).map(Arc::as_ref)
    }

    /// Whether the one gateway is the implied one.
    #[must_use]
    pub fn has_implied_gateway(&self) -> bool {
        self.install.implied_gateway && self.gateways().next().is_none()
    }

    /// Whether this is the operator's namespace, whose policies can make the mesh level.
    pub(crate) fn is_operators(&self, namespace: &str) -> bool {
        self.install.cluster.as_ref().is_some_and(|cluster| cluster.operator_namespace == namespace)
    }

    /// The issuer of the cluster's service accounts.
    pub(crate) fn cluster_issuer(&self) -> Option<&ClusterIssuer> {
        self.install.cluster.as_ref()?.token_issuer.as_ref()
    }

    /// The labels of a namespace, with the one that Kubernetes gives every namespace.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut labels = self.labels.get(namespace).cloned().unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
        labels
    }
}

/// What the installation settles, never an object.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Install {
    /// Without any McpGateway there is an implied one over all servers (`mcpmesh up`; decisions.md 3).
    pub implied_gateway: bool,
    /// A Secret could not be read, which may have been an API key: the implied gateway lets nobody in without one.
    pub unread_secret: bool,
    /// Policies that cannot be read now: of what stands for them only the targets count, which they close.
    pub unread_policies: BTreeSet<PolicyId>,
    /// Where remote servers may be (decisions.md 22).
    pub remotes: EgressRule,
    /// The key of the hashes that version Secrets.
    pub version_key: [u8; 32],
    /// Set in a cluster: there are fleets and children of objects then.
    pub cluster: Option<Cluster>,
}

/// What an installation in a cluster settles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The operator's namespace: its policies make the mesh level.
    pub operator_namespace: String,
    /// Where proxies find the operator, such as `mcpmesh-operator.mcpmesh-system.svc:9443`.
    pub operator_address: String,
    /// The image that holds `mcpmesh-proxy`.
    pub proxy_image: String,
    /// The image with npx in which npm packages run.
    pub npm_image: String,
    /// The image with uvx in which PyPI packages run.
    pub pypi_image: String,
    /// Where npm packages come from, a URL. None: the public registry.
    pub npm_registry: Option<String>,
    /// Where PyPI packages come from, the URL of a simple index. None: the public one.
    pub pypi_index: Option<String>,
    /// The issuer of service-account tokens and its keys; none when it cannot be read.
    pub token_issuer: Option<ClusterIssuer>,
}

/// The cluster's issuer of service-account tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterIssuer {
    /// `iss`
    pub issuer: String,
    /// The JSON text of its key set.
    pub keys: String,
}

impl fmt::Debug for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Install")
            .field("implied_gateway", &self.implied_gateway)
            .field("unread_secret", &self.unread_secret)
            .field("unread_policies", &self.unread_policies)
            .field("remotes", &self.remotes)
            .finish_non_exhaustive()
    }
}

/// A core/v1 Secret. Its Debug output names the keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
    /// `data` decoded, and `stringData` over it.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

/// A core/v1 ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// `data`
    pub data: BTreeMap<String, String>,
    /// The keys of `binaryData`: nothing here takes their bytes.
    pub binary: BTreeSet<String>,
}
