//! Rules, alerts and dashboards of the chart, over real promtool, a real Prometheus and a real proxy that it scrapes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::Method;
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::mesh::{Manifests, Mesh};
use mcpmesh_e2e::process::{Process, eventually};
use mcpmesh_e2e::tools::{Tools, crate_folder};
use serde_json::{Value, json};

/// What Prometheus serves; a wrong credential is refused even where anonymous callers are let in.
const MESH: &str = "
apiVersion: mcpmesh.io/v1alpha1
kind: McpGateway
metadata: {name: main}
spec:
  naming: {prefix: OnConflict}
  authentication: {anonymous: Allow, apiKeys: {}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: main}
spec:
  targetRefs: [{kind: McpGateway, name: main}]
  access:
    - {name: everyone, effect: Allow, from: [{anyone: {}}]}
    - {name: never, effect: Deny, from: [{anyone: {}}], to: {tools: [wait]}}
  limits:
    - {name: once, per: [Principal], to: {tools: [test_simple_text]}, requests: {count: 1, window: 1h}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: tomorrow}
spec:
  targetRefs: [{kind: McpGateway, name: main}]
  mode: Audit
  access:
    - {name: no-echo, effect: Deny, from: [{anyone: {}}], to: {tools: [echo]}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {name: fixture}
spec:
  remote: {url: \"URL\"}
";

fn chart() -> PathBuf {
    crate_folder().join("../charts/mcpmesh")
}

fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut found: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    ensure!(!found.is_empty(), "no .{extension} in {}", folder.display());
    Ok(found)
}

async fn promtool(arguments: &[&str], files: &[PathBuf]) -> anyhow::Result<()> {
    let output = Tools::installed()?.command("promtool").args(arguments).args(files).output().await?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    Ok(())
}

/// One panel's query, as it stands in the file.
struct Query {
    panel: String,
    text: String,
}

impl Query {
    /// As Grafana would send it with everything chosen.
    fn filled(&self) -> String {
        let all = ["$gateway", "$server", "$namespace"].iter();
        let text = self.text.replace("$__rate_interval", "1m");
        all.fold(text, |text, variable| text.replace(variable, ".+"))
    }
}

fn queries(dashboard: &str) -> anyhow::Result<Vec<Query>> {
    let path = chart().join("dashboards").join(dashboard);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let board: Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    for panel in board["panels"].as_array().context("no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = target["expr"].as_str().context("a target without a query")?.to_owned();
            found.push(Query { panel: panel["title"].as_str().unwrap_or_default().to_owned(), text });
        }
    }
    ensure!(!found.is_empty(), "{dashboard} asks nothing");
    Ok(found)
}

fn every_query() -> anyhow::Result<Vec<Query>> {
    let mut all = Vec::new();
    for path in files(&chart().join("dashboards"), "json")? {
        let name = path.file_name().and_then(|name| name.to_str()).context("no name")?;
        all.extend(queries(name)?);
    }
    Ok(all)
}

/// The metrics that a query or a rule names.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("mcpmesh_") || word.starts_with("mcp_server_")).collect()
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

/// A Prometheus that scrapes one proxy.
struct Prometheus {
    _process: Process,
    _folder: tempfile::TempDir,
    address: String,
}

impl Prometheus {
    async fn scraping(target: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = target.trim_start_matches("http://").trim_end_matches("/metrics");
        let jobs = json!([{"job_name": "proxy", "static_configs": [{"targets": [address]}]}]);
        let settings = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs});
        std::fs::write(folder.path().join("prometheus.yml"), settings.to_string())?;
        // Its log, on stderr, tells the port.
        let mut command = Tools::installed()?.command("sh");
        let run = "exec prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address=127.0.0.1:0 2>&1";
        let process = Process::start("prometheus", command.args(["-c", run]).current_dir(folder.path()))?;
        let address = process
            .wait_for_line(Duration::from_secs(60), |line| {
                let (_, address) = line.split_once("msg=\"Listening on\" address=")?;
                Some(address.trim().to_owned())
            })
            .await?;
        Ok(Self { _process: process, _folder: folder, address })
    }

    /// How many series answer a query with a number.
    async fn series(&self, query: &str) -> anyhow::Result<usize> {
        let url = format!("http://{}/api/v1/query", self.address);
        let form = ("content-type", "application/x-www-form-urlencoded");
        let body = format!("query={}", encoded(query));
        let reply = Client::new(&url)?.send(Method::POST, &[form], body).await?;
        let answer: Value = serde_json::from_slice(&reply.body)?;
        if answer["status"] != "success" {
            bail!("{query}: {answer}");
        }
        let result = answer["data"]["result"].as_array().context("no result")?;
        Ok(result.iter().filter(|one| one["value"][1].as_str().is_some_and(|value| value != "NaN")).count())
    }
}

/// For a form: every byte but letters and digits as %XX.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}

/// Something of everything that the panels show.
async fn drive(client: &Client) -> anyhow::Result<()> {
    for tool in ["echo", "test_simple_text", "test_simple_text", "test_error_handling", "wait"] {
        let arguments = if tool == "echo" { json!({"text": "hello"}) } else { json!({}) };
        client.modern("tools/call", json!({"name": tool, "arguments": arguments})).await?;
    }
    client.modern("tools/list", json!({})).await?;
    client.post(&[], "{").await?;
    client.clone().with_header("authorization", "Bearer wrong").post(&[], "{}").await?;
    Ok(())
}

#[tokio::test]
async fn every_panel_about_gateways_servers_and_tenants_shows_what_a_proxy_did() -> anyhow::Result<()> {
    let (_fixture, url) = Fixture::Rmcp.start().await?;
    let manifests = Manifests::new()?;
    manifests.write("mesh.yaml", &MESH.replace("URL", &url))?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    let prometheus = Prometheus::scraping(&mesh.metrics).await?;
    let client = Client::new(&mesh.endpoint)?;
    let session = client.legacy("2025-11-25", json!({})).await?;
    let _stream = session.open(Method::GET, "").await?;
    let mut panels = BTreeMap::new();
    for name in ["gateway.json", "server.json", "tenant.json"] {
        for query in queries(name)? {
            panels.insert(format!("{name}: {}: {}", query.panel, query.text), query.filled());
        }
    }
    eventually("every panel has data", || async {
        drive(&client).await?;
        let mut empty = Vec::new();
        for (panel, query) in &panels {
            if prometheus.series(query).await? == 0 {
                empty.push(panel.as_str());
            }
        }
        ensure!(empty.is_empty(), "nothing in\n{}", empty.join("\n"));
        Ok(())
    })
    .await
    .with_context(|| mesh.process.output())
}
