//! Where remote servers may lead: into ranges that the installation allows, and never to the API server.

use anyhow::{Context as _, ensure};
use kube::config::Kubeconfig;
use mcpmesh_crds::{McpServer, condition};
use mcpmesh_e2e::cluster::{Cluster, Namespace};
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::eventually;
use serde_json::{Value, json};

use crate::tenant::{Tenant, apply, said};

/// Waits until a condition of a server has this answer, and returns its message.
async fn says(namespace: &Namespace<'_>, server: &str, kind: &str, answer: &str) -> anyhow::Result<String> {
    eventually(&format!("{server} says {kind}={answer}"), || async {
        let conditions =
            namespace.api::<McpServer>().get(server).await?.status.context("no status")?.conditions;
        ensure!(said(&conditions, kind) == answer, "{conditions:?}");
        let one = conditions.into_iter().find(|one| one.type_ == kind).context("no such condition")?;
        Ok(one.message)
    })
    .await
}

fn remote(url: &str) -> Value {
    json!({"remote": {"url": url}})
}

/// The operator of these tests allows 127.0.0.0/8, where this cluster has its API server.
#[test]
fn a_remote_in_an_allowed_range_is_reached_and_the_api_server_there_is_not() -> anyhow::Result<()> {
    let cluster = Cluster::operated()?;
    let config = Kubeconfig::read_from(cluster.kubeconfig())?;
    let named = config.clusters.into_iter().next().and_then(|named| named.cluster?.server);
    let by_number = format!("{}/mcp", named.context("the kubeconfig names no API server")?);
    ensure!(by_number.starts_with("https://127.0.0.1:"), "{by_number}");
    let by_name = by_number.replace("127.0.0.1", "localhost");
    cluster.test(async |sandbox| {
        let operator = Operator::shared().await?;
        let tenant = Tenant::start(sandbox, operator).await?;
        let namespace = &tenant.namespace;
        // A name, too, leads into the range.
        let fixture = namespace.api::<McpServer>().get("fixture").await?.spec.remote.context("no remote")?;
        let named = fixture.url.replace("127.0.0.1", "localhost");
        ensure!(named != fixture.url, "{named}");
        apply::<McpServer>(namespace, "named", remote(&named)).await?;
        says(namespace, "named", condition::VERIFIED, "True Handshake").await?;

        // What a name resolves to, the proxy sees when it connects.
        apply::<McpServer>(namespace, "api-by-name", remote(&by_name)).await?;
        let why = says(namespace, "api-by-name", condition::VERIFIED, "False HandshakeFailed").await?;
        ensure!(why.contains("the address is not allowed by the egress rule"), "{why}");

        // A number is seen before that.
        apply::<McpServer>(namespace, "api-by-number", remote(&by_number)).await?;
        let why = says(namespace, "api-by-number", condition::ACCEPTED, "False InvalidUrl").await?;
        ensure!(why.contains("is the cluster's API server"), "{why}");
        apply::<McpServer>(namespace, "private", remote("https://10.0.0.1/mcp")).await?;
        let why = says(namespace, "private", condition::ACCEPTED, "False InvalidUrl").await?;
        ensure!(why.contains("--remote-ranges"), "{why}");
        Ok(())
    })
}
