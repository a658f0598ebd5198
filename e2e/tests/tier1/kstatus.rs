//! What GitOps tools read of each kind through its whole life.

use std::pin::pin;

use anyhow::ensure;
use futures_util::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer, condition};
use mcpmesh_e2e::cluster::{Cluster, Namespace};
use mcpmesh_e2e::gateway_pod::GatewayPod;
use mcpmesh_e2e::kstatus::{Health, health};
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::eventually;
use serde_json::{Value, json};

use crate::tenant::{many_servers, open_gateway, open_policy};

const FINALIZER: &str = "e2e.mcpmesh.io/hold";

/// One object on its way.
struct Life<'n, 'c, K> {
    namespace: &'n Namespace<'c>,
    kind: std::marker::PhantomData<K>,
}

impl<'n, 'c, K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>> Life<'n, 'c, K> {
    fn of(namespace: &'n Namespace<'c>) -> Self {
        Self { namespace, kind: std::marker::PhantomData }
    }

    /// Applies a spec; right away nobody may take it for done.
    async fn changes(&self, spec: Value) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": "life", "finalizers": [FINALIZER]}, "spec": spec,
        });
        let params = PatchParams::apply("e2e").force();
        let applied = self.namespace.untyped::<K>().patch("life", &params, &Patch::Apply(&object)).await?;
        ensure!(
            health(Some(&applied)) == Health::InProgress,
            "{:?}: {}",
            health(Some(&applied)),
            applied.data
        );
        Ok(())
    }

    async fn now(&self) -> anyhow::Result<Option<DynamicObject>> {
        Ok(self.namespace.untyped::<K>().get_opt("life").await?)
    }

    async fn becomes(&self, wanted: Health) -> anyhow::Result<()> {
        eventually(&format!("the {} is {wanted:?}", K::kind(&())), || async {
            let object = self.now().await?;
            let found = health(object.as_ref());
            ensure!(found == wanted, "{found:?}: {:?}", object.map(|object| object.data["status"].clone()));
            Ok(())
        })
        .await
    }

    /// Deletes it; it is there until its finalizer is gone.
    async fn ends(&self) -> anyhow::Result<()> {
        let api = self.namespace.untyped::<K>();
        api.delete("life", &DeleteParams::background()).await?;
        self.becomes(Health::Terminating).await?;
        let free = json!({"metadata": {"finalizers": null}});
        api.patch("life", &PatchParams::default(), &Patch::Merge(&free)).await?;
        self.becomes(Health::NotFound).await
    }
}

/// Does for all pods of a namespace what a kubelet does: says that they are ready.
async fn pods_become_ready(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let pods = namespace.api::<Pod>();
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for pod in pods.list(&ListParams::default()).await?.items {
        let name = pod.metadata.name.unwrap_or_default();
        // It may be on its way out: of the next ones there will be a next time.
        let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&ready)).await;
    }
    Ok(())
}

#[test]
fn a_server_is_current_failed_current_and_gone() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        let life = Life::<McpServer>::of(&namespace);
        life.becomes(Health::NotFound).await?;
        life.changes(json!({"remote": {"url": "https://mcp.example.com/mcp"}})).await?;
        life.becomes(Health::Current).await?;
        life.changes(json!({"remote": {"url": "https://user@mcp.example.com/mcp"}})).await?;
        life.becomes(Health::Failed).await?;
        life.changes(json!({"remote": {"url": "https://mcp.example.com/other"}})).await?;
        life.becomes(Health::Current).await?;
        life.ends().await
    })
}

#[test]
fn no_status_claims_a_generation_that_the_operator_has_not_read() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        let api = namespace.api::<McpServer>();
        let since = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
        let life = Life::<McpServer>::of(&namespace);
        // Others change meanwhile, so that the operator has a reason to write at any moment.
        let noise = async {
            for round in 0..10 {
                many_servers(&namespace, 20, &format!("https://mcp.example.com/{round}")).await?;
            }
            anyhow::Ok(())
        };
        let flips = async {
            for _ in 0..15 {
                life.changes(json!({"remote": {"url": "https://user@mcp.example.com/mcp"}})).await?;
                life.becomes(Health::Failed).await?;
                life.changes(json!({"remote": {"url": "https://mcp.example.com/mcp"}})).await?;
                life.becomes(Health::Current).await?;
            }
            anyhow::Ok(())
        };
        let (noise, flips) = tokio::join!(noise, flips);
        noise?;
        flips?;

        let only = WatchParams::default().fields("metadata.name=life").timeout(1);
        let mut events = pin!(api.watch(&only, &since).await?);
        let mut seen = 0;
        while let Some(event) = events.next().await {
            let (WatchEvent::Added(server) | WatchEvent::Modified(server)) = event? else { continue };
            let Some(status) = &server.status else { continue };
            if status.observed_generation == server.metadata.generation {
                seen += 1;
                let bad = server.spec.remote.as_ref().is_some_and(|remote| remote.url.contains('@'));
                let stalled = status.conditions.iter().any(|one| one.type_ == condition::STALLED);
                ensure!(bad == stalled, "of {:?} it says {:?}", server.spec.remote, status.conditions);
            }
        }
        ensure!(seen >= 30, "only {seen} statuses");
        life.ends().await
    })
}

#[test]
fn a_policy_is_current_failed_current_and_gone() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        let life = Life::<McpPolicy>::of(&namespace);
        let of_namespace = |tool: &str| {
            json!({
                "targetRefs": [{"kind": "Namespace", "name": namespace.name()}],
                "access": [{"name": "a", "effect": "Deny", "from": [{"anyone": {}}], "to": {"tools": [tool]}}],
            })
        };
        life.changes(of_namespace("one")).await?;
        life.becomes(Health::Current).await?;
        life.changes(of_namespace("[")).await?;
        life.becomes(Health::Failed).await?;
        life.changes(open_policy("there-is-none")).await?;
        life.becomes(Health::Failed).await?;
        life.changes(of_namespace("two")).await?;
        life.becomes(Health::Current).await?;
        life.ends().await
    })
}

#[test]
fn a_gateway_is_in_progress_until_its_pods_and_proxies_are_there() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        let operator = Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        let life = Life::<McpGateway>::of(&namespace);
        life.changes(open_gateway()).await?;
        let pod = GatewayPod::start(&namespace, "life", operator).await?;
        pod.becomes_fresh().await?;
        // The proxy has its configuration, but the Deployment has no ready pod.
        life.becomes(Health::InProgress).await?;
        let becomes_current = async || {
            eventually("the gateway is current", || async {
                pods_become_ready(&namespace).await?;
                let object = life.now().await?;
                ensure!(
                    health(object.as_ref()) == Health::Current,
                    "{:?}",
                    object.map(|one| one.data["status"].clone())
                );
                Ok(())
            })
            .await
        };
        becomes_current().await?;
        let mut wrong = open_gateway();
        wrong["servers"] = json!({"refs": [{"name": "there-is-none"}]});
        life.changes(wrong).await?;
        life.becomes(Health::Failed).await?;
        let mut other = open_gateway();
        other["naming"] = json!({"prefix": "Always"});
        life.changes(other).await?;
        becomes_current().await?;
        life.ends().await
    })
}
