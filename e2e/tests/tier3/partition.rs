//! A node with all pods of a gateway is cut off from the operator: what is in force there stays in force.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams, Patch, PatchParams};
use mcpmesh_crds::McpPolicy;
use mcpmesh_e2e::cluster::{Cluster, Place, Tier};
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::process::eventually_within;
use mcpmesh_e2e::traffic::{Plan, Traffic, echoes};
use serde_json::{Value, json};

/// A dead line is noticed after 25 s, and found again in 15; the machine may be busy.
const NOTICED: Duration = Duration::from_secs(120);

/// Stays where it is however long the node is away.
const ON_NODE2: &str =
    "{nodeSelector: {kubernetes.io/hostname: node2}, tolerations: [{operator: Exists, effect: NoExecute}]}";

/// A metric of a pod, asked for on its own node.
async fn metric(place: &Place, pod: String, name: &'static str) -> anyhow::Result<f64> {
    place
        .run(async move {
            let reply =
                Client::new(&format!("http://{pod}:17020/metrics"))?.send(Method::GET, &[], "").await?;
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            value.with_context(|| format!("no {name} in {text}"))
        })
        .await
}

/// The tools that a client on the node sees.
async fn tools(place: &Place, endpoint: String) -> anyhow::Result<Vec<String>> {
    place
        .run(async move {
            let answer = Client::new(&endpoint)?.modern("tools/list", json!({})).await?.response()?;
            let tools = answer["result"]["tools"].as_array().cloned().unwrap_or_default();
            Ok(tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect())
        })
        .await
}

async fn pods(api: &Api<Pod>) -> anyhow::Result<Vec<(String, String)>> {
    let pods = api.list(&ListParams::default().labels("mcpmesh.io/gateway=main")).await?.items;
    let of = |pod: Pod| Some((pod.metadata.name?, pod.status?.pod_ip?));
    let pods: Vec<_> = pods.into_iter().filter_map(of).collect();
    ensure!(pods.len() == 2, "{pods:?}");
    Ok(pods)
}

/// What a pod was sent when it came back, by its own log: the first update of its last stream.
fn on_return(log: &str) -> anyhow::Result<Value> {
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut updates = lines.filter(|line| line["fields"]["message"] == "configured");
    let found = updates.find(|line| line["fields"]["sequence"] == 1);
    Ok(found.context("never configured")?["fields"].clone())
}

#[test]
fn a_gateway_cut_off_from_the_operator_serves_on_and_gets_what_it_missed_and_no_more() -> anyhow::Result<()> {
    Cluster::own(Tier::Three)?.test(async |sandbox| {
        let cluster = sandbox.cluster;
        cluster.install_mesh_with(&["nodeSelector.kubernetes\\.io/hostname=node1"]).await?;
        let namespace = sandbox.namespace().await?;
        namespace.apply(&echoes(ON_NODE2)).await?;
        namespace.gateway_ready("main", 2).await?;
        let plan = Plan::echoes(sandbox.service_ip(&namespace, "main-mcpgateway").await?);
        let (endpoint, pods_api) = (plan.endpoint.clone(), namespace.api::<Pod>());
        let gateways = pods(&pods_api).await?;
        let place = cluster.place(2)?;
        let traffic = place.run(Traffic::start(plan)).await?;
        let denied = "piped_test_simple_text".to_owned();
        ensure!(tools(&place, endpoint.clone()).await?.contains(&denied), "no {denied} to be taken away");

        let cut = cluster.partition(2)?;
        eventually_within(NOTICED, "every proxy says how old its configuration is", || async {
            for (_, ip) in &gateways {
                let age = metric(&place, ip.clone(), "mcpmesh_proxy_config_age_seconds ").await?;
                let connected = metric(&place, ip.clone(), "mcpmesh_proxy_operator_connected ").await?;
                ensure!(age > 0.0 && connected == 0.0, "{ip}: age {age}, connected {connected}");
            }
            Ok(())
        })
        .await?;
        let access = json!([
            {"name": "everyone", "effect": "Allow", "from": [{"anyone": {}}]},
            {"name": "not-this", "effect": "Deny", "from": [{"anyone": {}}], "to": {"tools": ["test_simple_text"]}},
        ]);
        let patch = Patch::Merge(json!({"spec": {"access": access}}));
        namespace.api::<McpPolicy>().patch("main", &PatchParams::default(), &patch).await?;
        traffic.goes_on(200).await?;
        ensure!(tools(&place, endpoint.clone()).await?.contains(&denied), "the operator was not cut off");
        // Only until the link is back: then Kubernetes itself takes the addresses of a node that it had given up from
        // every Service, until the node's kubelet has reported.
        traffic.stop().await?.lost_nothing(500)?;
        cut.mend()?;

        eventually_within(NOTICED, "the change is in force on every proxy", || async {
            for (_, ip) in &gateways {
                let seen = tools(&place, format!("http://{ip}:8080/mcp")).await?;
                ensure!(!seen.contains(&denied) && seen.contains(&"piped_echo".to_owned()), "{ip}: {seen:?}");
                let age = metric(&place, ip.clone(), "mcpmesh_proxy_config_age_seconds ").await?;
                ensure!(age == 0.0, "{ip}: age {age}");
            }
            Ok(())
        })
        .await?;
        for (pod, _) in &gateways {
            let update = on_return(&pods_api.logs(pod, &LogParams::default()).await?)?;
            // The policy, and the servers where their addresses changed; the gateway itself it had.
            let changed = update["changed"].as_u64().context("no count")?;
            ensure!((1..=3).contains(&changed), "{pod} was sent more than it lacked: {update}");
        }
        Ok(())
    })
}
