//! While every operator is away, a gateway's pod is replaced: the new one has an empty disk and starts from the operator's
//! copy. And a container is started anew: it has its pod's disk.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use mcpmesh_crds::{McpGateway, McpPolicy};
use mcpmesh_e2e::cluster::{Cluster, FIXTURE, Namespace, Tier};
use mcpmesh_e2e::http::{self, Client};
use mcpmesh_e2e::metrics::Metrics;
use mcpmesh_e2e::process::eventually_within;
use mcpmesh_e2e::traffic::{Plan, Traffic, open_gateway};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A copy is written at most once in 30 s, an operator is found again in 15; the machine may be busy.
const SOON: Duration = Duration::from_secs(120);

/// What the chart starts.
const OPERATORS: u32 = 2;

/// Two gateways' pods over a Service of the cluster, which needs nothing of the mesh, and over a server of the mesh.
fn mesh() -> String {
    let gateway = open_gateway("proxy: {replicas: 2}");
    format!(
        "{gateway}---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: web}}
spec: {{service: {{name: web, port: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 9000}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers: [{{name: web, image: {FIXTURE}, args: [--port, '9000', --address, 0.0.0.0]}}]
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: piped}}
spec: {{container: {{image: {FIXTURE}, command: [/fixture-rmcp, --stdio]}}}}
"
    )
}

/// Waits until the copy is of what the gateway's proxies are to have.
async fn copied(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    eventually_within(SOON, "the copy is of the present revision", || async {
        let status = namespace.api::<McpGateway>().get("main").await?.status;
        let revision = status.and_then(|status| status.revision).context("no revision")?;
        let secret = namespace.api::<Secret>().get("main-mcpgateway-last-good").await?;
        let copied = secret.metadata.annotations.unwrap_or_default().remove("mcpmesh.io/revision");
        ensure!(copied.as_ref() == Some(&revision), "{copied:?}, not {revision}");
        Ok(())
    })
    .await
}

async fn gateways(namespace: &Namespace<'_>) -> anyhow::Result<BTreeMap<String, IpAddr>> {
    namespace.pods("mcpmesh.io/gateway=main").await
}

/// Deletes one pod, and waits for the one in its place.
async fn replaced(namespace: &Namespace<'_>) -> anyhow::Result<IpAddr> {
    let before = gateways(namespace).await?;
    let gone = before.keys().next().context("no pod")?;
    namespace.api::<Pod>().delete(gone, &DeleteParams::default()).await?;
    eventually_within(SOON, "there is a new pod, and it is ready", || async {
        let now = gateways(namespace).await?;
        let new = now.iter().find(|(name, _)| !before.contains_key(*name));
        new.map(|(_, address)| *address).with_context(|| format!("{now:?}, before {before:?}"))
    })
    .await
}

/// What a pod says of its readiness, whether it says that it is stale, and the tools that it shows.
async fn shown(pod: IpAddr) -> anyhow::Result<(String, bool, Vec<String>)> {
    let reply = http::get(&format!("http://{pod}:17020/readyz")).await?;
    let said = String::from_utf8_lossy(&reply.body).trim_end().to_owned();
    let stale = Metrics::scrape(&format!("{pod}:17020")).await?.value("mcpmesh_proxy_config_stale")?;
    let client = Client::new(&format!("http://{pod}:8080/mcp"))?;
    let answer = client.modern("tools/list", json!({})).await?.response()?;
    let tools = answer["result"]["tools"].as_array().cloned().unwrap_or_default();
    let names = tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned));
    Ok((said, stale == 1.0, names.collect()))
}

async fn echo(pod: IpAddr, tool: &str) -> anyhow::Result<()> {
    let call = json!({"name": tool, "arguments": {"text": "hello"}});
    let client = Client::new(&format!("http://{pod}:8080/mcp"))?;
    let answer: Value = client.modern("tools/call", call).await?.response()?;
    ensure!(answer["result"]["content"][0]["text"] == "hello", "{answer}");
    Ok(())
}

/// Everybody may use everything but one tool.
async fn forbid(namespace: &Namespace<'_>, tool: &str) -> anyhow::Result<()> {
    let access = json!([
        {"name": "everyone", "effect": "Allow", "from": [{"anyone": {}}]},
        {"name": "not-this", "effect": "Deny", "from": [{"anyone": {}}], "to": {"tools": [tool]}},
    ]);
    let patch = Patch::Merge(json!({"spec": {"access": access}}));
    namespace.api::<McpPolicy>().patch("main", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// SIGKILL to the server's container, and waits for its next start: in the same pod, with the same disk.
async fn restarted(namespace: &Namespace<'_>, server: &str) -> anyhow::Result<()> {
    let (fleet, mut found) = (format!("server/{}/{server}", namespace.name()), 0);
    for process in std::fs::read_dir("/proc")?.flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_of_it = words.split(|byte| *byte == 0).any(|word| word == fleet.as_bytes());
        let number = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(process) = number.filter(|_| is_of_it) {
            kill_process(process, Signal::KILL)?;
            found += 1;
        }
    }
    ensure!(found > 0, "no process of {fleet}");
    let labels = ListParams::default().labels(&format!("mcpmesh.io/server={server}"));
    eventually_within(SOON, "the container runs again, and is ready", || async {
        let pods = namespace.api::<Pod>().list(&labels).await?.items;
        let statuses =
            pods.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| &status.container_statuses);
        let back = statuses.flatten().any(|container| container.ready && container.restart_count > 0);
        ensure!(back, "{:?}", pods.iter().map(|pod| &pod.status).collect::<Vec<_>>());
        Ok(())
    })
    .await
}

#[test]
fn a_new_pod_starts_from_the_copy_while_no_operator_is_there_and_is_told_the_rest_once_one_is()
-> anyhow::Result<()> {
    Cluster::own(Tier::Two)?.test(async |sandbox| {
        let cluster = sandbox.cluster;
        cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        namespace.apply(&mesh()).await?;
        namespace.gateway_ready("main", 2).await?;
        copied(&namespace).await?;
        let address = sandbox.service_ip(&namespace, "main-mcpgateway").await?;
        let plan = Plan { tools: vec!["web_echo"], ..Plan::echoes(address) };
        let traffic = Traffic::start(plan).await?;

        cluster.scale_operator(0).await?;
        forbid(&namespace, "test_simple_text").await?;
        let new = replaced(&namespace).await?;
        let (said, stale, tools) = shown(new).await?;
        ensure!(stale && said.starts_with("ok") && said.contains("stale"), "{stale}: {said}");
        ensure!(tools.iter().any(|tool| tool == "web_test_simple_text"), "the copy is older: {tools:?}");
        echo(new, "web_echo").await?;
        traffic.goes_on(200).await?;
        // What is only started anew has its certificate on the disk, and so has the gateway's older pod.
        restarted(&namespace, "piped").await?;
        let older =
            gateways(&namespace).await?.into_values().find(|pod| *pod != new).context("no older pod")?;
        eventually_within(SOON, "the server is reached again", || echo(older, "piped_echo")).await?;

        cluster.scale_operator(OPERATORS).await?;
        eventually_within(SOON, "it has what it missed", || async {
            let (said, stale, tools) = shown(new).await?;
            ensure!(said == "ok" && !stale, "{stale}: {said}");
            ensure!(!tools.iter().any(|tool| tool.ends_with("_test_simple_text")), "{tools:?}");
            echo(new, "web_echo").await?;
            echo(new, "piped_echo").await
        })
        .await?;
        namespace.gateway_ready("main", 2).await?;
        let pods = gateways(&namespace).await?;
        ensure!(pods.len() == 2 && pods.values().any(|pod| *pod == new), "{new} did not stay: {pods:?}");
        traffic.goes_on(100).await?;
        traffic.stop().await?.lost_nothing(300)
    })
}
