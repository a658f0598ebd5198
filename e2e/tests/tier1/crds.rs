//! The definitions install, take every manifest that the documentation shows, and answer kubectl.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use mcpmesh_crds::{CONTROLLER, McpGateway, McpGatewayStatus, McpServer, ProxiesStatus, condition};
use mcpmesh_e2e::cluster::{Cluster, Namespace, Tier};
use mcpmesh_e2e::tools::crate_folder;
use serde_json::json;

/// Applies a manifest there as its users do.
async fn apply(namespace: &Namespace<'_>, name: &str, spec: serde_json::Value) -> anyhow::Result<McpGateway> {
    let gateway = json!({"apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpGateway", "metadata": {"name": name}, "spec": spec});
    let params = PatchParams::apply("e2e");
    Ok(namespace.api().patch(name, &params, &Patch::Apply(&gateway)).await?)
}

fn ready(generation: Option<i64>) -> Condition {
    Condition {
        type_: condition::READY.to_owned(),
        status: "True".to_owned(),
        reason: "AllInSync".to_owned(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// The YAML files of a folder below `manifests`.
fn manifests(folder: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(crate_folder().join("../manifests").join(folder))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

#[test]
fn applying_the_definitions_again_changes_nothing() -> anyhow::Result<()> {
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        let crds: Api<CustomResourceDefinition> = Api::all(sandbox.client());
        for name in ["mcpgateways.mcpmesh.io", "mcppolicies.mcpmesh.io", "mcpservers.mcpmesh.io"] {
            let before = crds.get(name).await?;
            sandbox.install_crds().await?;
            assert_eq!(crds.get(name).await?.resource_version(), before.resource_version(), "{name}");
        }
        Ok(())
    })
}

#[test]
fn every_manifest_that_we_show_is_accepted() -> anyhow::Result<()> {
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        let files: Vec<PathBuf> = [manifests("samples")?, manifests("quickstart")?].concat();
        ensure!(files.len() > 10, "only {files:?}");
        for file in files {
            let home = sandbox.namespace().await?;
            let mut text = std::fs::read_to_string(&file)?;
            // Some show several namespaces; each becomes one of the test's.
            for shown in ["shop", "shared", "team-a"] {
                if text.contains(&format!("namespace: {shown}")) {
                    let own = sandbox.namespace().await?;
                    text =
                        text.replace(&format!("namespace: {shown}"), &format!("namespace: {}", own.name()));
                    text = text.replace(&format!("  name: {shown}\n"), &format!("  name: {}\n", own.name()));
                }
            }
            let said = home.apply(&text).await.with_context(|| file.display().to_string())?;
            ensure!(said.contains("serverside-applied"), "{}: {said}", file.display());
        }
        Ok(())
    })
}

#[test]
fn a_written_status_leaves_the_spec_alone_and_the_other_way_round() -> anyhow::Result<()> {
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        let namespace = sandbox.namespace().await?;
        let made = apply(&namespace, "main", json!({"naming": {"prefix": "OnConflict"}})).await?;
        let status = McpGatewayStatus {
            observed_generation: made.metadata.generation,
            conditions: vec![ready(made.metadata.generation)],
            proxies: Some(ProxiesStatus { in_sync: 2, total: 3 }),
            ..McpGatewayStatus::default()
        };
        let patch = json!({"apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpGateway", "status": status, "spec": {"naming": {"prefix": "Always"}}});
        let gateways: Api<McpGateway> = namespace.api();
        let written = gateways.patch_status("main", &PatchParams::apply(CONTROLLER), &Patch::Apply(&patch)).await?;
        assert_eq!(written.status.as_ref(), Some(&status));
        assert_eq!(written.spec, made.spec, "the status endpoint must not touch the spec");
        assert_eq!(written.metadata.generation, made.metadata.generation);

        let again = apply(&namespace, "main", json!({"naming": {"prefix": "Always"}})).await?;
        assert_eq!(again.status.as_ref(), Some(&status), "the spec's writers must not touch the status");
        assert_eq!(again.metadata.generation, Some(2));
        Ok(())
    })
}

#[test]
fn an_object_that_no_operator_has_seen_is_on_its_way() -> anyhow::Result<()> {
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        let namespace = sandbox.namespace().await?;
        let made = apply(&namespace, "main", json!({})).await?;
        let seen = namespace.api::<McpGateway>().get("main").await?;
        assert_eq!(made.status, seen.status);
        let conditions = seen.status.context("no status")?.conditions;
        let words: Vec<_> =
            conditions.iter().map(|one| [&one.type_, &one.status, &one.reason].map(String::as_str)).collect();
        assert_eq!(words, [[condition::READY, "Unknown", "Pending"]]);
        Ok(())
    })
}

#[test]
fn kubectl_get_mcpmesh_shows_all_kinds_with_their_columns() -> anyhow::Result<()> {
    Cluster::shared(Tier::One)?.test(async |sandbox| {
        sandbox.install_crds().await?;
        let namespace = sandbox.namespace().await?;
        let text = "apiVersion: mcpmesh.io/v1alpha1\nkind: McpServer\nmetadata: {name: tickets}\nspec: {remote: {url: 'https://mcp.example.com/mcp'}}\n---\n\
            apiVersion: mcpmesh.io/v1alpha1\nkind: McpPolicy\nmetadata: {name: rules}\nspec: {mode: Audit, targetRefs: [{kind: McpServer, name: tickets}]}\n";
        namespace.apply(text).await?;
        let made = apply(&namespace, "main", json!({})).await?;
        let status = json!({"status": {"conditions": [ready(made.metadata.generation)], "tools": 17, "url": "http://main.test:8080/mcp",
            "servers": {"attached": 4, "ready": 3}, "proxies": {"inSync": 1, "total": 2}}});
        let gateways: Api<McpGateway> = namespace.api();
        gateways.patch_status("main", &PatchParams::default(), &Patch::Merge(&status)).await?;
        let status = json!({"status": {"catalog": {"tools": 5, "prompts": 0, "resources": 0, "digest": "ab"}, "gateways": 1}});
        let servers: Api<McpServer> = namespace.api();
        servers.patch_status("tickets", &PatchParams::default(), &Patch::Merge(&status)).await?;

        let shown = sandbox.cluster.kubectl(["get", "mcpmesh", "--all-namespaces"]).await?;
        let mut rows = shown.lines().filter(|line| line.contains(namespace.name()));
        let mut row = || rows.next().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>()).unwrap_or_default();
        let gateway = row();
        let expected = ["mcpgateway.mcpmesh.io/main", "True", "AllInSync", "4", "17", "1", "2", "http://main.test:8080/mcp"];
        assert_eq!(gateway.get(..8), Some(expected.as_slice()), "{shown}");
        let policy = row();
        assert_eq!(policy.get(..4), Some(["mcppolicy.mcpmesh.io/rules", "Unknown", "Pending", "Audit"].as_slice()), "{shown}");
        let server = row();
        assert_eq!(server.get(..5), Some(["mcpserver.mcpmesh.io/tickets", "Unknown", "Pending", "5", "1"].as_slice()), "{shown}");
        let header = shown.lines().find(|line| line.contains("IN SYNC")).with_context(|| shown.clone())?;
        let columns = "NAMESPACE NAME READY REASON SERVERS TOOLS IN SYNC PROXIES URL AGE";
        assert_eq!(header.split_whitespace().collect::<Vec<_>>().join(" "), columns);
        Ok(())
    })
}
