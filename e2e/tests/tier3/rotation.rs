//! Certificates of the mesh, and the root that signs them, are replaced while clients call.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams, LogParams};
use mcpmesh_e2e::cluster::{Cluster, Namespace, Sandbox, Tier};
use mcpmesh_e2e::process::eventually_within;
use mcpmesh_e2e::traffic::{Plan, Traffic, echoes};

/// A root of six minutes is replaced after three or four.
const ROTATED: Duration = Duration::from_secs(480);

/// What signs at present, in PEM.
async fn root(sandbox: &Sandbox<'_>) -> anyhow::Result<ByteString> {
    let secrets: Api<Secret> = Api::namespaced(sandbox.client(), "mcpmesh-system");
    let data = secrets.get("mcpmesh-ca").await?.data.context("no data")?;
    data.get("tls.crt").cloned().context("no tls.crt")
}

/// How many certificates the gateway's pods have had, the one with the fewest.
async fn renewals(namespace: &Namespace<'_>) -> anyhow::Result<usize> {
    let pods = namespace.api::<Pod>();
    let mut fewest = usize::MAX;
    for pod in pods.list(&ListParams::default().labels("mcpmesh.io/gateway=main")).await? {
        let log = pods.logs(pod.metadata.name.as_deref().unwrap_or_default(), &LogParams::default()).await?;
        fewest = fewest.min(log.matches("a certificate of the mesh is in force").count());
    }
    Ok(fewest)
}

#[test]
fn certificates_and_their_root_are_replaced_under_traffic_and_no_request_fails() -> anyhow::Result<()> {
    Cluster::own(Tier::Two)?.test(async |sandbox| {
        let short = ["certificates.lifetime=30s", "certificates.rootLifetime=6m"];
        sandbox.cluster.install_mesh_with(&short).await?;
        let first = root(sandbox).await?;
        let namespace = sandbox.namespace().await?;
        namespace.apply(&echoes("{}")).await?;
        namespace.gateway_ready("main", 2).await?;
        let address = sandbox.service_ip(&namespace, "main-mcpgateway").await?;
        let traffic = Traffic::start(Plan::echoes(address)).await?;
        eventually_within(ROTATED, "another root signs", || async {
            ensure!(root(sandbox).await? != first, "it is the first: {}", traffic.tally());
            Ok(())
        })
        .await?;
        // Their certificates are of the second root; some of the gateways' are still of the first.
        for server in ["piped-mcpserver", "web-mcpserver"] {
            sandbox.cluster.roll(namespace.name(), server).await?;
            traffic.goes_on(100).await?;
        }
        // And these get theirs from the second.
        sandbox.cluster.roll(namespace.name(), "main-mcpgateway").await?;
        traffic.goes_on(100).await?;
        eventually_within(ROTATED, "the new pods renew, too", || async {
            let fewest = renewals(&namespace).await?;
            ensure!(fewest >= 3, "{fewest}");
            Ok(())
        })
        .await?;
        traffic.stop().await?.lost_nothing(1000)
    })
}
