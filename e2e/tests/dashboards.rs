//! Rules, alerts and dashboards of the chart, over real promtool, a real Prometheus and a real proxy that it scrapes.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use http::Method;
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::mesh::{Manifests, Mesh};
use mcpmesh_e2e::monitoring::{MESH, Prometheus, chart, drive, every_query, files, filled, metrics};
use mcpmesh_e2e::process::eventually;
use mcpmesh_e2e::tools::{Tools, crate_folder};
use serde_json::json;

async fn promtool(arguments: &[&str], files: &[PathBuf]) -> anyhow::Result<()> {
    let output = Tools::installed()?.command("promtool").args(arguments).args(files).output().await?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn rules_are_well_formed_and_alert_when_their_tests_say() -> anyhow::Result<()> {
    let rules = chart().join("rules");
    promtool(&["check", "rules"], &files(&rules, "yaml")?).await?;
    promtool(&["test", "rules"], &files(&rules.join("tests"), "yaml")?).await
}

#[test]
fn every_alert_is_tested_and_explained() -> anyhow::Result<()> {
    let rules = chart().join("rules");
    let read = |paths: Vec<PathBuf>| {
        paths.iter().map(std::fs::read_to_string).collect::<Result<String, _>>().context("reading rules")
    };
    let (alerts, tests) = (read(files(&rules, "yaml")?)?, read(files(&rules.join("tests"), "yaml")?)?);
    let operations = std::fs::read_to_string(crate_folder().join("../docs/operations.md"))?;
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(names.len() > 10, "only {names:?}");
    for name in names {
        // Fires in its test: an expectation of nothing proves nothing.
        let fires =
            tests.split("- alertname: ").any(|part| part.starts_with(name) && part.contains("exp_alerts"));
        assert!(fires, "no test in which {name} fires");
        assert!(operations.contains(&format!("### {name}\n")), "docs/operations.md does not explain {name}");
    }
    Ok(())
}

#[tokio::test]
async fn every_query_parses_and_asks_for_metrics_that_are_documented() -> anyhow::Result<()> {
    let queries = every_query()?;
    let documents = ["../docs/metrics.md", "../docs/operations.md"].map(|path| crate_folder().join(path));
    let documented = documents.iter().map(std::fs::read_to_string).collect::<Result<String, _>>()?;
    let mut rules = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        rules.push(json!({"record": format!("panel:{number}"), "expr": query.filled()}));
        for metric in metrics(&query.text) {
            let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end));
            let family = format!("`{}`", family.unwrap_or(metric));
            assert!(documented.contains(&family), "{}: {family} is not documented", query.panel);
        }
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("panels.yaml");
    std::fs::write(&file, json!({"groups": [{"name": "panels", "rules": rules}]}).to_string())?;
    promtool(&["check", "rules"], &[file]).await
}

#[tokio::test]
async fn every_panel_about_gateways_servers_and_tenants_shows_what_a_proxy_did() -> anyhow::Result<()> {
    let (_fixture, url) = Fixture::Rmcp.start().await?;
    let manifests = Manifests::new()?;
    manifests.write("mesh.yaml", &MESH.replace("SERVER", &format!("{{remote: {{url: \"{url}\"}}}}")))?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    let prometheus = Prometheus::scraping(&mesh.metrics).await?;
    let client = Client::new(&mesh.endpoint)?;
    let session = client.legacy("2025-11-25", json!({})).await?;
    let _stream = session.open(Method::GET, "").await?;
    let panels = filled(&["gateway.json", "server.json", "tenant.json"])?;
    eventually("every panel has data", || async {
        drive(&client).await?;
        let empty = prometheus.empty(&panels).await?;
        ensure!(empty.is_empty(), "nothing in\n{}", empty.join("\n"));
        Ok(())
    })
    .await
    .with_context(|| mesh.process.output())
}
