//! Installing, without nodes: what `mcpmesh install --dry-run` prints, what its rights suffice for, and the chart by real
//! helm, from an older version to this one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use mcpmesh_crds::{McpGateway, McpPolicy};
use mcpmesh_e2e::cluster::{Cluster, Namespace, Sandbox, Tier};
use mcpmesh_e2e::mesh::built;
use mcpmesh_e2e::operator::{NAMESPACE, Operator};
use mcpmesh_e2e::process::eventually_within;
use mcpmesh_e2e::tools::{Tools, crate_folder};
use serde_json::{Value, json};
use tokio::process::Command;

/// How long the operator may take until it has looked at everything (the machine may be busy).
const SEEN: Duration = Duration::from_secs(90);

const NAMED: &str = "
apiVersion: mcpmesh.io/v1alpha1
kind: McpGateway
metadata: {name: named}
spec: {naming: {prefix: OnConflict}}
";

fn chart() -> PathBuf {
    crate_folder().join("../charts/mcpmesh")
}

/// Exit code zero or not, and all that was printed.
async fn said(command: &mut Command) -> anyhow::Result<(bool, String)> {
    let output = command.output().await?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.success(), text.concat()))
}

async fn succeeds(command: &mut Command) -> anyhow::Result<String> {
    let (good, text) = said(command).await?;
    ensure!(good, "{:?}: {text}", command.as_std());
    Ok(text)
}

fn helm(cluster: Option<&Cluster>, words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Tools::installed()?.command("helm");
    command.args(words);
    if let Some(cluster) = cluster {
        command.env("KUBECONFIG", cluster.kubeconfig()).args(["--namespace", NAMESPACE]);
    }
    Ok(command)
}

fn mesh(cluster: &Cluster, words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(built("mcpmesh")?);
    command.args(words).env("KUBECONFIG", cluster.kubeconfig()).env("NO_COLOR", "1");
    Ok(command)
}

#[test]
fn what_install_prints_is_all_that_the_operator_needs() -> anyhow::Result<()> {
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let cluster = sandbox.cluster;
        let folder = tempfile::tempdir()?;
        let manifest = folder.path().join("install.yaml");
        let printed = mesh(cluster, &["install", "--dry-run"])?.env_remove("KUBECONFIG").output().await?;
        ensure!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
        std::fs::write(&manifest, &printed.stdout)?;
        let words = ["apply", "--server-side", "-f"].map(AsRef::as_ref);
        let applied = cluster.kubectl(words.into_iter().chain([manifest.as_os_str()])).await?;
        let documents = String::from_utf8(printed.stdout)?.matches("\nkind: ").count();
        ensure!(
            applied.matches(" serverside-applied").count() == documents,
            "{documents} objects: {applied}"
        );

        Operator::start(cluster, "operator").await?;
        let namespace = sandbox.namespace().await?;
        quickstart(sandbox, &namespace).await?;
        shown(sandbox, &namespace).await?;
        let log = cluster.log("operator")?;
        ensure!(!log.contains("forbidden"), "a right is missing: {log}");
        taken_over_by_helm(cluster).await
    })
}

/// Everything that the quickstart asks for is made, as far as it can be without a node.
async fn quickstart(sandbox: &Sandbox<'_>, namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let folder = crate_folder().join("../manifests/quickstart");
    let words = ["apply", "--namespace", namespace.name(), "--filename"].map(std::ffi::OsString::from);
    sandbox.cluster.kubectl(words.into_iter().chain([folder.into_os_string()])).await?;
    eventually_within(SEEN, "the operator has looked at everything and made the pods", || async {
        let policy = namespace.api::<McpPolicy>().get("visitors").await?.status.context("no status")?;
        ensure!(
            policy.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
            "{policy:?}"
        );
        let gateway = namespace.api::<McpGateway>().get("main").await?.status.context("no status")?;
        let ready = gateway.conditions.iter().find(|one| one.type_ == "Ready").context("no Ready")?;
        let attached = gateway.servers.as_ref().map(|servers| servers.attached);
        ensure!(ready.reason == "NoProxies" && attached == Some(2), "{ready:?}, servers: {attached:?}");
        for name in ["main-mcpgateway", "everything-mcpserver", "time-mcpserver"] {
            namespace.api::<Deployment>().get(name).await?;
            namespace.api::<Service>().get(name).await?;
        }
        Ok(())
    })
    .await
}

/// `kubectl get mcpmesh` and `mcpmesh status` of the same objects.
async fn shown(sandbox: &Sandbox<'_>, namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let shown = sandbox.cluster.kubectl(["get", "mcpmesh", "--all-namespaces"]).await?;
    let rows: Vec<String> =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let starts = |kind: &str, rest: &str| {
        let start = format!("{} {kind} {rest}", namespace.name());
        rows.iter().any(|row| row.starts_with(&start))
    };
    let gateway = format!("False NoProxies 2 0 0 0 http://main-mcpgateway.{}.svc:8080/mcp", namespace.name());
    ensure!(starts("mcpgateway.mcpmesh.io/main", &gateway), "{shown}");
    ensure!(starts("mcpserver.mcpmesh.io/time", "False "), "{shown}");
    ensure!(starts("mcppolicy.mcpmesh.io/visitors", "True Ready "), "{shown}");

    let (good, text) =
        said(&mut mesh(sandbox.cluster, &["status", "--namespace", namespace.name()])?).await?;
    ensure!(!good && text.contains("no proxy is connected"), "{text}");
    let output = mesh(sandbox.cluster, &["status", "--all-namespaces", "--output", "json"])?.output().await?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let all: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let kinds: Vec<_> = all.iter().map(|row| (row["kind"].as_str(), row["ready"].as_str())).collect();
    let expected =
        [("McpGateway", "False"), ("McpServer", "False"), ("McpServer", "False"), ("McpPolicy", "True")]
            .map(|(kind, ready)| (Some(kind), Some(ready)));
    ensure!(kinds == expected, "{all:?}");
    let mut elsewhere = mesh(sandbox.cluster, &["status", "--namespace", "default"])?;
    let text = succeeds(&mut elsewhere).await?;
    ensure!(text.contains("there is no server, gateway or policy in namespace default"), "{text}");
    Ok(())
}

/// As docs/upgrade.md says of definitions that were applied without helm.
async fn taken_over_by_helm(cluster: &Cluster) -> anyhow::Result<()> {
    let chart = chart();
    let chart = chart.to_str().context("no text")?;
    let (good, text) = said(&mut helm(Some(cluster), &["install", "mcpmesh", chart])?).await?;
    ensure!(!good && text.contains("invalid ownership metadata"), "{text}");
    succeeds(&mut helm(
        Some(cluster),
        &["install", "mcpmesh", chart, "--take-ownership", "--force-conflicts"],
    )?)
    .await?;
    let (good, text) = said(&mut mesh(cluster, &["install"])?).await?;
    let told = text.contains("--force-conflicts") && text.contains("conflicts with \"helm\"");
    ensure!(!good && told && !text.contains("Status {"), "{text}");
    Ok(())
}

/// A copy of the chart whose gateways know no `naming` yet.
fn older(folder: &Path) -> anyhow::Result<PathBuf> {
    let older = folder.join("mcpmesh");
    let status = std::process::Command::new("cp").arg("-r").arg(chart()).arg(&older).status()?;
    ensure!(status.success(), "cp failed");
    let file = older.join("files/crds/mcpgateways.yaml");
    let mut definition: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    let spec = definition
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .and_then(Value::as_object_mut)
        .context("the definition has no spec")?;
    spec.remove("naming").context("gateways have no naming")?;
    std::fs::write(&file, serde_saphyr::to_string(&definition)?)?;
    Ok(older)
}

#[test]
fn helm_upgrades_the_definitions_and_leaves_them_and_their_objects_when_it_goes() -> anyhow::Result<()> {
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let cluster = sandbox.cluster;
        let folder = tempfile::tempdir()?;
        let (older, now) = (older(folder.path())?, chart());
        let [older, now] = [&older, &now].map(|path| path.to_str().unwrap_or_default());
        succeeds(&mut helm(Some(cluster), &["install", "mcpmesh", older, "--create-namespace"])?).await?;
        let namespace = sandbox.namespace().await?;
        eventually_within(SEEN, "the older definitions are served", || {
            namespace.apply(
                "{apiVersion: mcpmesh.io/v1alpha1, kind: McpGateway, metadata: {name: plain}, spec: {}}",
            )
        })
        .await?;
        let refused = namespace.apply(NAMED).await.err().context("an older definition took a new field")?;
        ensure!(format!("{refused:#}").contains("naming"), "{refused:#}");

        let upgrade = ["upgrade", "mcpmesh", now, "--reset-then-reuse-values"];
        succeeds(&mut helm(Some(cluster), &upgrade)?).await?;
        eventually_within(SEEN, "the new field is taken", || namespace.apply(NAMED)).await?;

        succeeds(&mut helm(Some(cluster), &["uninstall", "mcpmesh"])?).await?;
        let gateways = namespace.api::<McpGateway>().list(&ListParams::default()).await?;
        ensure!(gateways.items.len() == 2, "objects went with the chart: {gateways:?}");
        let left: Api<Deployment> = Api::namespaced(sandbox.client(), NAMESPACE);
        ensure!(left.get_opt("mcpmesh-operator").await?.is_none(), "the operator is still there");
        Ok(())
    })
}

#[tokio::test]
async fn helm_refuses_a_value_that_does_not_exist_or_has_the_wrong_type() -> anyhow::Result<()> {
    let chart = chart();
    let chart = chart.to_str().context("no text")?;
    for (value, word) in [
        ("replica=3", "replica"),
        ("image.tags=1", "tags"),
        ("tenantRoles.creat=false", "creat"),
        ("replicas=many", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("remotes.allowedRanges={10.20.0.1}", "allowedRanges"),
    ] {
        let (good, text) = said(&mut helm(None, &["template", "mcpmesh", chart, "--set", value])?).await?;
        ensure!(!good && text.contains(word) && text.contains("schema"), "{value}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn helm_tells_the_operator_which_ranges_remote_servers_may_be_in() -> anyhow::Result<()> {
    let chart = chart();
    let words = ["template", "mcpmesh", chart.to_str().context("no text")?];
    ensure!(
        !succeeds(&mut helm(None, &words)?).await?.contains("remote-ranges"),
        "by default there are none"
    );
    let value = ["--set", "remotes.allowedRanges={10.20.0.0/16,fd12::/48}"];
    let text = succeeds(helm(None, &words)?.args(value)).await?;
    ensure!(text.contains("- --remote-ranges=10.20.0.0/16,fd12::/48\n"), "{text}");
    Ok(())
}

#[tokio::test]
async fn helm_makes_the_tenants_roles_unless_told_otherwise() -> anyhow::Result<()> {
    let chart = chart();
    let chart = chart.to_str().context("no text")?;
    let roles = async |values: &[&str]| -> anyhow::Result<Vec<Value>> {
        let mut command = helm(None, &["template", "mcpmesh", chart])?;
        for value in values {
            command.args(["--set", value]);
        }
        let all: Vec<Value> = serde_saphyr::from_multiple(&succeeds(&mut command).await?)?;
        Ok(all.into_iter().filter(|one| one["kind"] == "ClusterRole").collect())
    };
    let name = |role: &Value| role["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let all = roles(&[]).await?;
    let mut names: Vec<_> = all.iter().map(name).collect();
    names.sort();
    ensure!(names == ["mcpmesh-admin", "mcpmesh-editor", "mcpmesh-operator", "mcpmesh-viewer"], "{names:?}");
    for (role, joins, writes) in [
        ("mcpmesh-viewer", "view", json!(null)),
        ("mcpmesh-editor", "edit", json!(["mcpservers", "mcpgateways"])),
        ("mcpmesh-admin", "admin", json!(["mcpservers", "mcpgateways", "mcppolicies"])),
    ] {
        let role = all.iter().find(|one| name(one) == role).context("no such role")?;
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{joins}");
        ensure!(role["metadata"]["labels"][label] == "true", "{role}");
        ensure!(role["rules"][0]["verbs"] == json!(["get", "list", "watch"]), "{role}");
        ensure!(
            role["rules"][1]["resources"] == writes
                && role["rules"].as_array().is_some_and(|all| all.len() < 3),
            "{role}"
        );
    }
    let names: Vec<_> = roles(&["tenantRoles.create=false"]).await?.iter().map(name).collect();
    ensure!(names == ["mcpmesh-operator"], "{names:?}");
    let apart = roles(&["tenantRoles.aggregate=false", "watchNamespaces={team-a}"]).await?;
    ensure!(
        apart.len() == 3 && apart.iter().all(|role| !role.to_string().contains("aggregate-to")),
        "{apart:?}"
    );
    Ok(())
}
