//! A real Prometheus scrapes the pods of the mesh: what dashboards and rules ask for is there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::ensure;
use http::Method;
use kube::api::{Patch, PatchParams};
use mcpmesh_crds::McpPolicy;
use mcpmesh_e2e::cluster::{Cluster, FIXTURE, Namespace, Tier};
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::monitoring::{MESH, Prometheus, chart, drive, files, filled, metrics};
use mcpmesh_e2e::process::eventually_within;
use serde_json::json;

/// Rates need a minute of samples at the most; the machine may be busy.
const SHOWN: Duration = Duration::from_secs(180);

/// Another change each time, so that the operator has something to compile, push and write.
async fn change(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    static CHANGES: AtomicU32 = AtomicU32::new(0);
    let name = format!("tool-{}", CHANGES.fetch_add(1, Ordering::Relaxed));
    let access =
        json!([{"name": "no-echo", "effect": "Deny", "from": [{"anyone": {}}], "to": {"tools": [name]}}]);
    let patch = Patch::Merge(json!({"spec": {"access": access}}));
    namespace.api::<McpPolicy>().patch("tomorrow", &PatchParams::default(), &patch).await?;
    Ok(())
}

#[test]
fn every_panel_and_every_rule_finds_what_it_asks_for_in_the_metrics_of_real_pods() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        let server = format!("{{container: {{image: {FIXTURE}, command: [/fixture-rmcp, --stdio]}}}}");
        namespace.apply(&MESH.replace("SERVER", &server)).await?;
        namespace.gateway_ready("main", 1).await?;
        let prometheus = Prometheus::in_cluster(sandbox.cluster).await?;
        let address = sandbox.service_ip(&namespace, "main-mcpgateway").await?;
        let client = Client::new(&format!("http://{address}:8080/mcp"))?;
        let session = client.legacy("2025-11-25", json!({})).await?;
        let _stream = session.open(Method::GET, "").await?;

        let mut wanted = filled(&["fleet.json", "gateway.json", "server.json", "tenant.json"])?;
        let rules = files(&chart().join("rules"), "yaml")?;
        let rules = rules.iter().map(std::fs::read_to_string).collect::<Result<String, _>>()?;
        let named = metrics(&rules).into_iter().map(|metric| (format!("rules: {metric}"), metric.to_owned()));
        wanted.extend(named.collect::<BTreeMap<_, _>>());
        eventually_within(SHOWN, "everything has data", || async {
            drive(&client).await?;
            change(&namespace).await?;
            let empty = prometheus.empty(&wanted).await?;
            ensure!(empty.is_empty(), "nothing in\n{}", empty.join("\n"));
            Ok(())
        })
        .await
    })
}
