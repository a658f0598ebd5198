//! A git repository synced into a cluster by Flux's own controllers: applied, changed, pruned, healed, judged by our
//! conditions, and left in peace.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use mcpmesh_crds::{CONTROLLER, McpGateway, McpPolicy, McpServer, condition};
use mcpmesh_e2e::cluster::{Cluster, Namespace, Sandbox, Tier};
use mcpmesh_e2e::flux::{Flux, Repository};
use mcpmesh_e2e::mesh::built;
use mcpmesh_e2e::process::eventually_within;
use mcpmesh_e2e::tools::crate_folder;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long pods and statuses may take (the machine may be busy).
const SETTLED: Duration = Duration::from_secs(120);

/// The field manager of Flux's kustomize-controller.
const FLUX: &str = "kustomize-controller";

/// Added to the quickstart, and taken away again.
const EXTRA: &str = "
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {name: zones}
spec:
  package: {registry: PyPI, name: mcp-server-time, version: 2026.10.19}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: no-sums}
spec:
  targetRefs: [{kind: McpGateway, name: main}]
  access:
    - {name: none, effect: Deny, from: [{anyone: {}}], to: {servers: [everything], tools: [get-sum]}}
";

/// Its schema is right, and it means nothing: no gateway has this name.
const MEANINGLESS: &str = "
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: lost}
spec:
  targetRefs: [{kind: McpGateway, name: nowhere}]
  access: [{name: all, effect: Allow, from: [{anyone: {}}]}]
";

/// Nothing is wrong with it, but for the company it comes in.
const GOOD: &str = "
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: also}
spec:
  targetRefs: [{kind: McpGateway, name: main}]
  access: [{name: none, effect: Deny, from: [{group: nobody}]}]
";

/// The API server refuses it.
const REFUSED: &str = "
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {name: lost}
spec:
  targetRefs: [{kind: McpGateway, name: main}]
  mode: Sometimes
";

fn quickstart(name: &str) -> anyhow::Result<String> {
    let path = crate_folder().join("../manifests/quickstart").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn condition_of<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|one| one.type_ == kind)
}

#[test]
fn flux_syncs_a_repository_reads_our_conditions_and_fights_over_nothing() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        sandbox.cluster.install_mesh().await?;
        let namespace = sandbox.namespace().await?;
        let repository = Repository::new()?;
        let [gateway, policy, servers] = ["gateway.yaml", "policy.yaml", "servers.yaml"].map(quickstart);
        let policy = policy?;
        let files = [("gateway.yaml", gateway?), ("policy.yaml", policy.clone()), ("servers.yaml", servers?)];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, Some(text.as_str()))).collect();
        repository.commit("the quickstart", &files)?;
        let flux = Flux::follow(sandbox.cluster, &repository, namespace.name()).await?;

        applied(sandbox, &flux, &namespace).await?;
        changed_and_pruned(&repository, &flux, &namespace, &policy).await?;
        healed(&flux, &namespace).await?;
        in_peace(sandbox, &flux, &namespace).await?;
        reported(sandbox, &repository, &flux, &namespace).await
    })
}

/// Flux is ready, and not before our objects are.
async fn applied(sandbox: &Sandbox<'_>, flux: &Flux<'_>, namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let done = flux.reconcile().await?;
    ensure!(done.ready, "{done:?}");
    let gateway = namespace.api::<McpGateway>().get("main").await?.status.context("no status")?;
    let mut all = vec![gateway.conditions];
    for server in namespace.api::<McpServer>().list(&ListParams::default()).await? {
        all.push(server.status.context("no status")?.conditions);
    }
    for policy in namespace.api::<McpPolicy>().list(&ListParams::default()).await? {
        all.push(policy.status.context("no status")?.conditions);
    }
    ensure!(all.len() == 4, "{all:?}");
    for conditions in all {
        let ready = condition_of(&conditions, condition::READY).context("no condition Ready")?;
        ensure!(ready.status == "True", "Flux is ready and this is not: {ready:?}");
        // Both in whole seconds, as text of one form.
        let since = ready.last_transition_time.0.to_string();
        ensure!(since <= done.since, "Flux was ready at {} and this at {since}", done.since);
    }
    columns(sandbox, namespace).await?;
    let (code, said) = status(sandbox, namespace).await?;
    ensure!(code == Some(0) && said.matches(" True ").count() == 4, "exit {code:?}: {said}");
    Ok(())
}

/// What `kubectl get mcpmesh` shows of objects that are in use.
async fn columns(sandbox: &Sandbox<'_>, namespace: &Namespace<'_>) -> anyhow::Result<()> {
    // kubectl looks for a category only in what it has seen before.
    let cache = tempfile::tempdir()?;
    let cache = format!("--cache-dir={}", cache.path().display());
    let words = ["get", "mcpmesh", &cache, "--namespace", namespace.name()];
    let shown = sandbox.cluster.kubectl(words).await?;
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |name: &str| rows.iter().find(|row| row.first() == Some(&name)).with_context(|| shown.clone());
    let gateway = row("mcpgateway.mcpmesh.io/main")?;
    let url = format!("http://main-mcpgateway.{}.svc:8080/mcp", namespace.name());
    // Ready, reason, servers, tools, proxies in sync and all, url.
    ensure!(gateway[1..4] == ["True", "Ready", "2"] && gateway[5..8] == ["2", "2", url.as_str()], "{shown}");
    let tools: u32 = gateway[4].parse()?;
    let server = |name| -> anyhow::Result<u32> { Ok(row(name)?[3].parse()?) };
    let sum = server("mcpserver.mcpmesh.io/everything")? + server("mcpserver.mcpmesh.io/time")?;
    ensure!(tools == sum && tools > 10, "{shown}");
    ensure!(row("mcppolicy.mcpmesh.io/visitors")?[1..3] == ["True", "Ready"], "{shown}");
    Ok(())
}

/// The exit code of `mcpmesh status` and what it prints.
async fn status(sandbox: &Sandbox<'_>, namespace: &Namespace<'_>) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = sandbox.cluster.command(built("mcpmesh")?)?;
    let output = command.args(["status", "--namespace", namespace.name()]).output().await?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((output.status.code(), said.concat()))
}

async fn changed_and_pruned(
    repository: &Repository,
    flux: &Flux<'_>,
    namespace: &Namespace<'_>,
    policy: &str,
) -> anyhow::Result<()> {
    let changed = policy.replace("count: 60", "count: 30");
    ensure!(changed != policy, "the quickstart's limit is another one now");
    repository.commit("half as many", &[("policy.yaml", Some(&changed)), ("extra.yaml", Some(EXTRA))])?;
    let done = flux.reconcile().await?;
    ensure!(done.ready, "{done:?}");
    let visitors = namespace.api::<McpPolicy>().get("visitors").await?;
    ensure!(json!(visitors.spec)["limits"][0]["requests"]["count"] == 30, "{:?}", visitors.spec);
    ensure!(namespace.api::<McpPolicy>().get_opt("no-sums").await?.is_some(), "it was not applied");
    let deployments: Api<Deployment> = namespace.api();
    ensure!(deployments.get_opt("zones-mcpserver").await?.is_some(), "the server has no pods");

    repository.commit("without these", &[("extra.yaml", None)])?;
    let done = flux.reconcile().await?;
    ensure!(done.ready, "{done:?}");
    ensure!(namespace.api::<McpServer>().get_opt("zones").await?.is_none(), "it was not pruned");
    ensure!(namespace.api::<McpPolicy>().get_opt("no-sums").await?.is_none(), "it was not pruned");
    eventually_within(SETTLED, "with the server went its pods", || async {
        ensure!(deployments.get_opt("zones-mcpserver").await?.is_none(), "its Deployment is there");
        Ok(())
    })
    .await
}

/// Somebody edits by hand: Flux puts back what is in git, and the operator, without Flux, what it made of it.
async fn healed(flux: &Flux<'_>, namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let by_hand = PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() };
    let policies: Api<McpPolicy> = namespace.api();
    let right = policies.get("visitors").await?.spec;
    let wrong = json!({"spec": {"access": [{"name": "time-and-everything", "effect": "Allow", "from": [{"anyone": {}}]}]}});
    let edited = policies.patch("visitors", &by_hand, &Patch::Merge(&wrong)).await?;
    ensure!(edited.spec != right, "the edit did nothing");
    let done = flux.reconcile().await?;
    ensure!(done.ready, "{done:?}");
    ensure!(policies.get("visitors").await?.spec == right, "Flux has not put the policy back");

    let deployments: Api<Deployment> = namespace.api();
    let image =
        |object: &Deployment| json!(object)["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let right = image(&deployments.get("main-mcpgateway").await?);
    let wrong = json!({"spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "elsewhere.test/proxy:1"}]}}}});
    let edited = deployments.patch("main-mcpgateway", &by_hand, &Patch::Strategic(&wrong)).await?;
    ensure!(image(&edited) == "elsewhere.test/proxy:1", "the edit did nothing: {}", image(&edited));
    eventually_within(SETTLED, "the operator has put its Deployment back", || async {
        let now = image(&deployments.get("main-mcpgateway").await?);
        ensure!(now == right, "{now}");
        Ok(())
    })
    .await
}

/// Once all is settled, no reconciliation writes: neither Flux's own nor ours that it might cause.
async fn in_peace(sandbox: &Sandbox<'_>, flux: &Flux<'_>, namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let words = ["rollout", "status", "deployment/main-mcpgateway", "--timeout=120s", "--namespace"];
    sandbox.cluster.kubectl(words.into_iter().chain([namespace.name()])).await?;
    eventually_within(SETTLED, "everything is settled", || async {
        let before = versions(namespace).await?;
        let done = flux.reconcile().await?;
        let after = versions(namespace).await?;
        ensure!(done.ready && before == after, "{done:?}: {before:?} became {after:?}");
        Ok(())
    })
    .await?;
    let before = versions(namespace).await?;
    ensure!(before.len() > 12, "{before:?}");
    for _ in 0..3 {
        flux.reconcile().await?;
    }
    let after = versions(namespace).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    owners(&namespace.api::<McpGateway>().get("main").await?)?;
    owners(&namespace.api::<McpServer>().get("everything").await?)?;
    owners(&namespace.api::<McpPolicy>().get("visitors").await?)
}

/// The resourceVersion of each of our objects, of their children and of the Secret that Flux applies; of a Deployment, whose
/// status Kubernetes writes when it likes, who wrote what else of it and when.
async fn versions(namespace: &Namespace<'_>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    all.extend(versions_of::<McpGateway>(namespace).await?);
    all.extend(versions_of::<McpServer>(namespace).await?);
    all.extend(versions_of::<McpPolicy>(namespace).await?);
    for deployment in namespace.api::<Deployment>().list(&ListParams::default()).await? {
        let writes = deployment.managed_fields().iter().filter(|entry| entry.subresource.is_none());
        let writes = writes.map(|entry| format!("{:?} {:?}", entry.manager, entry.time)).collect::<Vec<_>>();
        all.insert(format!("Deployment/{}", deployment.name_any()), writes.join(", "));
    }
    all.extend(versions_of::<Service>(namespace).await?);
    all.extend(versions_of::<ServiceAccount>(namespace).await?);
    all.extend(versions_of::<Secret>(namespace).await?);
    all.extend(versions_of::<NetworkPolicy>(namespace).await?);
    all.extend(versions_of::<PodDisruptionBudget>(namespace).await?);
    // Written half a minute after a change, whoever made it.
    all.retain(|name, _| !name.ends_with("-last-good"));
    Ok(all)
}

async fn versions_of<K>(namespace: &Namespace<'_>) -> anyhow::Result<Vec<(String, String)>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let objects = namespace.api::<K>().list(&ListParams::default()).await?;
    let version = |object: &K| {
        let version = object.resource_version().unwrap_or_default();
        (format!("{}/{}", K::kind(&()), object.name_any()), version)
    };
    Ok(objects.iter().map(version).collect())
}

/// Flux owns the spec and nothing of the status; the operator owns the status and nothing of the spec.
fn owners<K: Resource<DynamicType = ()>>(object: &K) -> anyhow::Result<()> {
    let entries = object.managed_fields();
    let fields = |manager: &str| -> Vec<(Option<&str>, Value)> {
        let of = entries.iter().filter(|entry| entry.manager.as_deref() == Some(manager));
        of.map(|entry| (entry.subresource.as_deref(), json!(entry.fields_v1))).collect()
    };
    let (flux, ours) = (fields(FLUX), fields(CONTROLLER));
    ensure!(!flux.is_empty() && !ours.is_empty(), "{entries:?}");
    for (subresource, fields) in flux {
        ensure!(subresource.is_none() && fields.get("f:status").is_none(), "Flux owns {fields}");
    }
    for (subresource, fields) in ours {
        let only_status = fields.as_object().is_some_and(|all| all.keys().all(|key| key == "f:status"));
        ensure!(subresource == Some("status") && only_status, "the operator owns {fields}");
    }
    ensure!(entries.len() == 2, "somebody else owns fields: {entries:?}");
    Ok(())
}

/// A bad object is reported by Flux and by us, and harms nothing else.
async fn reported(
    sandbox: &Sandbox<'_>,
    repository: &Repository,
    flux: &Flux<'_>,
    namespace: &Namespace<'_>,
) -> anyhow::Result<()> {
    repository.commit("a policy for nobody", &[("lost.yaml", Some(MEANINGLESS))])?;
    let done = flux.reconcile().await?;
    let object = format!("McpPolicy/{}/lost status: 'Failed'", namespace.name());
    ensure!(!done.ready && done.reason == "HealthCheckFailed" && done.message.contains(&object), "{done:?}");
    ensure!(!done.message.contains("McpGateway"), "another object is said to fail: {done:?}");
    let lost = namespace.api::<McpPolicy>().get("lost").await?.status.context("no status")?;
    let stalled = condition_of(&lost.conditions, condition::STALLED).context("not Stalled")?;
    ensure!(stalled.reason == "TargetNotFound" && stalled.message.contains("nowhere"), "{stalled:?}");
    let (code, said) = status(sandbox, namespace).await?;
    ensure!(code == Some(1) && said.contains("TargetNotFound"), "exit {code:?}: {said}");

    repository.commit("no such mode", &[("lost.yaml", Some(REFUSED)), ("also.yaml", Some(GOOD))])?;
    let done = flux.reconcile().await?;
    ensure!(
        !done.ready && done.message.contains("spec.mode") && done.message.contains("Sometimes"),
        "{done:?}"
    );

    ensure!(namespace.api::<McpPolicy>().get_opt("also").await?.is_none(), "half a commit is applied");

    repository.commit("without it", &[("lost.yaml", None)])?;
    let done = flux.reconcile().await?;
    ensure!(done.ready, "{done:?}");
    ensure!(namespace.api::<McpPolicy>().get_opt("lost").await?.is_none(), "it was not pruned");
    ensure!(namespace.api::<McpPolicy>().get_opt("also").await?.is_some(), "the rest was not applied");
    Ok(())
}
