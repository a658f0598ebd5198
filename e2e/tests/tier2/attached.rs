//! What a gateway and a server ask of the cluster besides their own pods: an autoscaler, a route of the Gateway API, a
//! proxy in a Deployment that a team makes itself.

use std::process::Stdio;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use mcpmesh_e2e::cluster::{Cluster, FIXTURE, Namespace, Tier};
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::mesh::built;
use mcpmesh_e2e::process::eventually;
use mcpmesh_e2e::tools::Tools;
use mcpmesh_e2e::traffic::open_gateway;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// As a team writes it; what is injected is the mesh's to say.
fn team() -> String {
    format!(
        "apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: stock}}
spec:
  service: {{name: stock, port: 80, path: /mcp, sidecar: Injected}}
  authentication: {{anonymous: Allow}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {{name: stock}}
spec:
  targetRefs: [{{kind: McpServer, name: stock}}]
  access: [{{name: words, effect: Allow, from: [{{anyone: {{}}}}], to: {{tools: [echo]}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: stock}}
spec: {{selector: {{app: stock}}, ports: [{{name: mcp, port: 80, targetPort: 9000}}, {{name: direct, port: 17081}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: stock
  annotations: {{mcpmesh.io/server: stock}}
spec:
  selector: {{matchLabels: {{app: stock}}}}
  template:
    metadata: {{labels: {{app: stock}}}}
    spec:
      containers:
        - {{name: stock, image: {FIXTURE}, args: [--port, '9000'], ports: [{{containerPort: 9000}}]}}
"
    )
}

/// `mcpmesh inject` over standard input.
async fn injected(namespace: &str, yaml: &str) -> anyhow::Result<String> {
    let words = ["inject", "-f", "-", "-n", namespace, "--proxy-image", "mcpmesh.test/proxy:e2e"];
    let mut command = Command::new(built("mcpmesh")?);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no stdin")?.write_all(yaml.as_bytes()).await?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn is_of_the_gateway(owners: Option<&Vec<OwnerReference>>) -> anyhow::Result<()> {
    let owned = owners
        .into_iter()
        .flatten()
        .any(|owner| owner.kind == "McpGateway" && owner.name == "main" && owner.controller == Some(true));
    ensure!(owned, "owners: {owners:?}");
    Ok(())
}

#[test]
fn a_deployment_with_an_injected_proxy_is_reached_through_a_gateway_and_past_it_as_it_says()
-> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        namespace.apply(&open_gateway("proxy: {replicas: 1}")).await?;
        namespace.apply(&injected(namespace.name(), &team()).await?).await?;
        namespace.gateway_ready("main", 1).await?;
        let address = sandbox.service_ip(&namespace, "main-mcpgateway").await?;
        // The Service's other port leads to the server itself, which listens on loopback only.
        let past = namespace.api::<Service>().get("stock").await?.spec.and_then(|spec| spec.cluster_ip);
        let past = past.context("the team's Service has no address")?;
        let ways = [(format!("{address}:8080"), "stock_echo"), (format!("{past}:17081"), "echo")];
        for (address, tool) in ways {
            let client = Client::new(&format!("http://{address}/mcp"))?;
            let call = json!({"name": tool, "arguments": {"text": "through the sidecar"}});
            let answer = client.modern("tools/call", call).await?.response()?;
            ensure!(answer["result"]["content"][0]["text"] == "through the sidecar", "{address}: {answer}");
        }
        Ok(())
    })
}

#[test]
fn an_autoscaler_and_a_route_are_made_where_a_gateway_asks_for_them_and_belong_to_it() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        // The real definitions of the Gateway API's standard channel, as e2e/cluster/setup.sh keeps them.
        let definitions = Tools::installed()?.cache().join("gateway-api");
        let words = ["apply", "--server-side", "--filename"].map(std::ffi::OsStr::new);
        sandbox.cluster.kubectl(words.into_iter().chain([definitions.as_os_str()])).await?;
        let namespace = sandbox.namespace().await?;
        let route = "{parentRefs: [{name: edge, namespace: ingress, sectionName: https}], hostnames: [mcp.example.com]}";
        let scaled = "{minReplicas: 1, maxReplicas: 3}";
        namespace.apply(&open_gateway(&format!("proxy: {{autoscaling: {scaled}, route: {route}}}"))).await?;
        autoscaler(&namespace).await?;
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
        let routes: Api<DynamicObject> = Api::namespaced_with(sandbox.client(), namespace.name(), &kind);
        eventually("the route is made", || async {
            let route = routes.get("main-mcpgateway").await?;
            is_of_the_gateway(route.metadata.owner_references.as_ref())?;
            let spec = &route.data["spec"];
            let backend = &spec["rules"][0]["backendRefs"][0];
            ensure!(spec["parentRefs"][0]["name"] == "edge" && spec["hostnames"] == json!(["mcp.example.com"]));
            ensure!(backend["name"] == "main-mcpgateway" && backend["port"] == 8080, "{backend}");
            Ok(())
        })
        .await
    })
}

/// It counts the pods: the operator does not.
async fn autoscaler(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    eventually("the autoscaler is made", || async {
        let scaler = namespace.api::<HorizontalPodAutoscaler>().get("main-mcpgateway").await?;
        is_of_the_gateway(scaler.metadata.owner_references.as_ref())?;
        let spec = scaler.spec.context("no spec")?;
        ensure!((spec.min_replicas, spec.max_replicas) == (Some(1), 3), "{spec:?}");
        ensure!(spec.scale_target_ref.name == "main-mcpgateway", "{spec:?}");
        let deployment = namespace.api::<Deployment>().get("main-mcpgateway").await?;
        let fields = deployment.metadata.managed_fields.unwrap_or_default();
        let ours = fields.iter().filter(|one| one.manager.as_deref() == Some("mcpmesh.io/operator"));
        let counts = |fields: &Value| fields["f:spec"].get("f:replicas").is_some();
        let counting = ours.filter_map(|one| one.fields_v1.as_ref()).any(|fields| counts(&fields.0));
        ensure!(!counting, "the operator owns the number of pods, too");
        Ok(())
    })
    .await
}
