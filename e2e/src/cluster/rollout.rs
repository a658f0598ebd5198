//! Pods of the mesh come and go: what their users wait for, and what they cause.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use mcpmesh_crds::McpGateway;

use super::{Cluster, Namespace};
use crate::process::eventually_within;
use crate::tools::crate_folder;

/// The image of `fixture-rmcp`: an MCP server that is one static program.
pub const FIXTURE: &str = "mcpmesh.test/fixture:e2e";

/// The namespace of the operator.
const SYSTEM: &str = "mcpmesh-system";

/// How long pods may take until they are there: seconds, and npm's minutes where the machine is busy.
const READY: Duration = Duration::from_secs(420);

impl Cluster {
    /// Replaces every pod of a Deployment (`kubectl rollout restart`) and waits until the last old one is gone.
    ///
    /// # Errors
    /// When kubectl fails or a new pod does not become ready.
    pub async fn roll(&self, namespace: &str, deployment: &str) -> anyhow::Result<()> {
        let of = ["--namespace", namespace];
        let what = format!("deployment/{deployment}");
        self.kubectl(["rollout", "restart", &what].into_iter().chain(of)).await?;
        let patience = format!("--timeout={}s", READY.as_secs());
        self.kubectl(["rollout", "status", &what, &patience].into_iter().chain(of)).await?;
        let client = self.client().await?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        eventually_within(READY, "the old pods are gone", || async {
            let selector = deployments.get(deployment).await?.spec.context("no spec")?.selector;
            let labels: Vec<_> = selector.match_labels.into_iter().flatten().collect();
            let labels = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
            let pods = pods.list(&ListParams::default().labels(&labels.join(","))).await?.items;
            let leaving = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
            ensure!(leaving == 0, "{leaving} of {} pods are still leaving", pods.len());
            Ok(())
        })
        .await
    }

    /// Ends every pod of the operator, or starts as many again, and returns once that is so.
    ///
    /// # Errors
    /// When kubectl fails, or that takes too long.
    pub async fn scale_operator(&self, replicas: u32) -> anyhow::Result<()> {
        let count = format!("--replicas={replicas}");
        self.kubectl(["scale", "deployment/mcpmesh-operator", &count, "--namespace", SYSTEM]).await?;
        let client = self.client().await?;
        let pods: Api<Pod> = Api::namespaced(client, SYSTEM);
        eventually_within(READY, "so many pods of the operator are ready, and no other is there", || async {
            let labels = ListParams::default().labels("app.kubernetes.io/name=mcpmesh-operator");
            let pods = pods.list(&labels).await?.items;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let wanted = usize::try_from(replicas)?;
            ensure!((pods.len(), ready) == (wanted, wanted), "{ready} of {} are ready", pods.len());
            Ok(())
        })
        .await
    }

    /// Replaces every pod of the operator, as [`Self::roll`].
    ///
    /// # Errors
    /// As [`Self::roll`].
    pub async fn roll_operator(&self) -> anyhow::Result<()> {
        self.roll(SYSTEM, "mcpmesh-operator").await
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    { conditions }.any(|one| one.type_ == "Ready" && one.status == "True")
}

impl Namespace<'_> {
    /// The pods with these labels that are ready and stay, by name, with their addresses.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn pods(&self, labels: &str) -> anyhow::Result<BTreeMap<String, IpAddr>> {
        let pods = self.api::<Pod>().list(&ListParams::default().labels(labels)).await?;
        let stay = |pod: &Pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        let address = |pod: Pod| Some((pod.metadata.name?, pod.status?.pod_ip?.parse().ok()?));
        Ok(pods.items.into_iter().filter(stay).filter_map(address).collect())
    }

    /// Applies the files of a folder of the repository, as a user does.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn apply_folder(&self, folder: &str) -> anyhow::Result<()> {
        let folder = crate_folder().join("..").join(folder);
        let words = ["apply", "--namespace", self.name(), "--filename"].map(OsStr::new);
        self.cluster.kubectl(words.into_iter().chain([folder.as_os_str()])).await.map(drop)
    }

    /// Waits until a gateway is ready: every proxy has its configuration, `servers` of its servers answer.
    ///
    /// # Errors
    /// When that takes too long, with the gateway's conditions.
    pub async fn gateway_ready(&self, name: &str, servers: u32) -> anyhow::Result<()> {
        eventually_within(
            READY,
            "the gateway has its servers and all proxies their configuration",
            || async {
                let gateway = self.api::<McpGateway>().get(name).await?;
                let generation = gateway.metadata.generation;
                let status = gateway.status.context("no status")?;
                let ready = status.conditions.iter().any(|one| {
                    one.type_ == "Ready" && one.status == "True" && one.observed_generation == generation
                });
                let proxies = status.proxies.unwrap_or_default();
                let answering = status.servers.unwrap_or_default();
                ensure!(
                    ready && proxies.total > 0 && proxies.in_sync == proxies.total,
                    "{:?}",
                    status.conditions
                );
                ensure!(answering.ready == servers, "{answering:?}");
                Ok(())
            },
        )
        .await
    }
}
