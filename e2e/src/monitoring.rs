//! The chart's dashboards and rules, and a real Prometheus that they are asked of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::http::Client;
use crate::process::Process;
use crate::tools::{Tools, crate_folder};

/// A gateway over one server, which [`drive`] makes show all that panels are about; `SERVER` is to be replaced by the
/// server's spec. A wrong credential is refused even where anonymous callers are let in.
pub const MESH: &str = "
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
spec: SERVER
";

/// The chart's folder.
#[must_use]
pub fn chart() -> PathBuf {
    crate_folder().join("../charts/mcpmesh")
}

/// The files of a folder with this extension, in order.
///
/// # Errors
/// When there is none.
pub fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut found: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    ensure!(!found.is_empty(), "no .{extension} in {}", folder.display());
    Ok(found)
}

/// One panel's query.
#[derive(Debug, Clone)]
pub struct Query {
    /// The panel's title.
    pub panel: String,
    /// As it stands in the file.
    pub text: String,
}

impl Query {
    /// As Grafana would send it with everything chosen.
    #[must_use]
    pub fn filled(&self) -> String {
        let all = ["$gateway", "$server", "$namespace"].iter();
        let text = self.text.replace("$__rate_interval", "1m");
        all.fold(text, |text, variable| text.replace(variable, ".+"))
    }
}

/// Those of one dashboard of the chart.
///
/// # Errors
/// When it asks nothing.
pub fn queries(dashboard: &str) -> anyhow::Result<Vec<Query>> {
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

/// Those of all dashboards.
///
/// # Errors
/// When one asks nothing.
pub fn every_query() -> anyhow::Result<Vec<Query>> {
    let mut all = Vec::new();
    for path in files(&chart().join("dashboards"), "json")? {
        let name = path.file_name().and_then(|name| name.to_str()).context("no name")?;
        all.extend(queries(name)?);
    }
    Ok(all)
}

/// The metrics that a query or a rule names.
#[must_use]
pub fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("mcpmesh_") || word.starts_with("mcp_server_")).collect()
}

/// The queries of some dashboards by a name for messages, as Grafana would send them with everything chosen.
///
/// # Errors
/// When one asks nothing.
pub fn filled(dashboards: &[&str]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut panels = BTreeMap::new();
    for name in dashboards {
        for query in queries(name)? {
            panels.insert(format!("{name}: {}: {}", query.panel, query.text), query.filled());
        }
    }
    Ok(panels)
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    _process: Process,
    _folder: tempfile::TempDir,
    address: String,
}

impl Prometheus {
    /// Scrapes one process of this machine.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn scraping(target: &str) -> anyhow::Result<Self> {
        let address = target.trim_start_matches("http://").trim_end_matches("/metrics");
        let jobs = json!([{"job_name": "proxy", "static_configs": [{"targets": [address]}]}]);
        Self::start(Command::new("sh"), &jobs, &[]).await
    }

    /// Scrapes every pod of the mesh that runs in a cluster now, by the port and the labels that the chart's monitors
    /// name; knows its rules.
    ///
    /// # Errors
    /// When the pods cannot be listed, or it does not start.
    pub async fn in_cluster(cluster: &Cluster) -> anyhow::Result<Self> {
        let pods: Api<Pod> = Api::all(cluster.client().await?);
        let job = async |name: &str, own_labels: bool| {
            let chosen = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
            let targets: Vec<_> = pods.list(&chosen).await?.iter().filter_map(target).collect();
            ensure!(!targets.is_empty(), "no pod of {name}");
            anyhow::Ok(json!({"job_name": name, "honor_labels": own_labels, "static_configs": targets}))
        };
        let jobs = json!([job("mcpmesh-proxy", false).await?, job("mcpmesh-operator", true).await?]);
        Self::start(cluster.command("sh")?, &jobs, &files(&chart().join("rules"), "yaml")?).await
    }

    async fn start(mut command: Command, jobs: &Value, rules: &[PathBuf]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let settings = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": jobs,
        });
        std::fs::write(folder.path().join("prometheus.yml"), settings.to_string())?;
        // Its log, on stderr, tells the port.
        let run = "exec prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address=127.0.0.1:0 2>&1";
        Tools::installed()?.equip(command.args(["-c", run]).current_dir(folder.path()));
        let process = Process::start("prometheus", &mut command)?;
        let address = process
            .wait_for_line(Duration::from_secs(60), |line| {
                let (_, address) = line.split_once("msg=\"Listening on\" address=")?;
                Some(address.trim().to_owned())
            })
            .await?;
        Ok(Self { _process: process, _folder: folder, address })
    }

    /// Those of these queries that have no data.
    ///
    /// # Errors
    /// When Prometheus refuses one.
    pub async fn empty<'q>(&self, queries: &'q BTreeMap<String, String>) -> anyhow::Result<Vec<&'q str>> {
        let mut empty = Vec::new();
        for (name, query) in queries {
            if self.series(query).await? == 0 {
                empty.push(name.as_str());
            }
        }
        Ok(empty)
    }

    /// How many series answer a query with a number.
    ///
    /// # Errors
    /// When Prometheus refuses it.
    pub async fn series(&self, query: &str) -> anyhow::Result<usize> {
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

/// What a PodMonitor makes of a pod.
fn target(pod: &Pod) -> Option<Value> {
    let ip = pod.status.as_ref()?.pod_ip.as_ref()?;
    let labels = json!({"namespace": pod.metadata.namespace.as_ref()?, "pod": pod.metadata.name.as_ref()?});
    Some(json!({"targets": [format!("{ip}:17020")], "labels": labels}))
}

/// For a form: every byte but letters and digits as %XX.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(byte).collect()
}

/// Something of everything that the panels show, of [`MESH`].
///
/// # Errors
/// When the gateway does not answer.
pub async fn drive(client: &Client) -> anyhow::Result<()> {
    for tool in ["echo", "test_simple_text", "test_simple_text", "test_error_handling", "wait"] {
        let arguments = if tool == "echo" { json!({"text": "hello"}) } else { json!({}) };
        client.modern("tools/call", json!({"name": tool, "arguments": arguments})).await?;
    }
    client.modern("tools/list", json!({})).await?;
    client.post(&[], "{").await?;
    client.clone().with_header("authorization", "Bearer wrong").post(&[], "{}").await?;
    Ok(())
}
