//! Ranges of remote servers on a cluster whose API server has endpoints and a Service of its own, inside of them.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use mcpmesh_crds::{McpServer, condition};
use mcpmesh_e2e::cluster::{Cluster, FIXTURE, Namespace, Sandbox, Tier};
use mcpmesh_e2e::process::eventually;
use mcpmesh_e2e::traffic::open_gateway;

/// All that the test cluster has: nodes, pods and Services.
const RANGE: &str = "remotes.allowedRanges={10.0.0.0/8}";

/// A server in a pod, which a gateway before it serves to the cluster's addresses.
fn inside() -> String {
    format!(
        "{}---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: fixture}}
spec: {{container: {{image: {FIXTURE}, command: [/fixture-rmcp, --stdio]}}}}
",
        open_gateway("proxy: {replicas: 1}")
    )
}

fn remote(name: &str, url: &str) -> String {
    format!(
        "apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: {name}}}
spec: {{remote: {{url: {url:?}}}}}
"
    )
}

/// Waits until a condition of a server has this answer and reason; what it says then.
async fn says(namespace: &Namespace<'_>, server: &str, wanted: [&str; 3]) -> anyhow::Result<String> {
    let [kind, status, reason] = wanted;
    eventually(&format!("{server} says {wanted:?}"), || async {
        let conditions =
            namespace.api::<McpServer>().get(server).await?.status.context("no status")?.conditions;
        let found = conditions.iter().find(|one| one.type_ == kind).context("no such condition")?;
        ensure!(found.status == status && found.reason == reason, "{conditions:?}");
        Ok(found.message.clone())
    })
    .await
}

/// URLs at the API server: its Service's and its endpoint's.
async fn api_server(sandbox: &Sandbox<'_>) -> anyhow::Result<(String, String)> {
    let services: Api<Service> = Api::namespaced(sandbox.client(), "default");
    let service = services.get("kubernetes").await?.spec.and_then(|spec| spec.cluster_ip);
    let slices: Api<EndpointSlice> = Api::namespaced(sandbox.client(), "default");
    let slice = slices.get("kubernetes").await?;
    let endpoint = slice.endpoints.into_iter().flat_map(|one| one.addresses).next();
    let port = slice.ports.into_iter().flatten().find_map(|one| one.port).context("no port")?;
    let service = format!("https://{}/mcp", service.context("no ClusterIP")?);
    Ok((service, format!("https://{}:{port}/mcp", endpoint.context("no endpoint")?)))
}

#[test]
fn a_range_over_the_whole_cluster_leads_to_its_pods_and_not_to_its_api_server() -> anyhow::Result<()> {
    Cluster::own(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh_with(&[RANGE]).await?;
        let (other, namespace) = (sandbox.namespace().await?, sandbox.namespace().await?);
        other.apply(&inside()).await?;
        other.gateway_ready("main", 1).await?;
        let address = sandbox.service_ip(&other, "main-mcpgateway").await?;
        namespace.apply(&open_gateway("proxy: {replicas: 1}")).await?;
        namespace.apply(&remote("inside", &format!("http://{address}:8080/mcp"))).await?;
        says(&namespace, "inside", [condition::VERIFIED, "True", "Handshake"]).await?;

        // By the name that every pod can resolve; by the address that every pod is given; by that of its endpoint.
        namespace.apply(&remote("by-name", "https://kubernetes.default/mcp")).await?;
        let why = says(&namespace, "by-name", [condition::VERIFIED, "False", "HandshakeFailed"]).await?;
        ensure!(why.contains("the address is not allowed by the egress rule"), "{why}");
        let (service, endpoint) = api_server(sandbox).await?;
        for (name, url) in [("by-service", service), ("by-endpoint", endpoint)] {
            namespace.apply(&remote(name, &url)).await?;
            let why = says(&namespace, name, [condition::ACCEPTED, "False", "InvalidUrl"]).await?;
            ensure!(why.contains("is the cluster's API server"), "{url}: {why}");
        }
        Ok(())
    })
}
