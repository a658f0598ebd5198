//! A change that concerns nobody: once it has got through, the operator has ended all rounds that began before it.

use anyhow::{Context as _, ensure};
use kube::api::{Patch, PatchParams};
use mcpmesh_crds::McpPolicy;
use mcpmesh_e2e::cluster::{Namespace, Sandbox};
use mcpmesh_e2e::process::eventually;
use serde_json::json;

/// A policy over a namespace of its own.
pub(crate) struct Sentinel<'c> {
    namespace: Namespace<'c>,
    times: usize,
}

impl<'c> Sentinel<'c> {
    /// It has got through once.
    pub(crate) async fn new(sandbox: &Sandbox<'c>) -> anyhow::Result<Self> {
        let mut sentinel = Self { namespace: sandbox.namespace().await?, times: 0 };
        sentinel.gets_through().await?;
        Ok(sentinel)
    }

    /// Changes it and waits for its status: one write of the operator's.
    pub(crate) async fn gets_through(&mut self) -> anyhow::Result<()> {
        self.times += 1;
        let target = json!({"kind": "Namespace", "name": self.namespace.name()});
        let rule = json!({"name": format!("n{}", self.times), "effect": "Deny", "from": [{"anyone": {}}]});
        let policy = json!({
            "apiVersion": "mcpmesh.io/v1alpha1", "kind": "McpPolicy", "metadata": {"name": "sentinel"},
            "spec": {"targetRefs": [target], "access": [rule]},
        });
        let api = self.namespace.api::<McpPolicy>();
        let params = PatchParams::apply("e2e");
        let changed = eventually("the API server takes it", || async {
            Ok(api.patch("sentinel", &params, &Patch::Apply(&policy)).await?)
        });
        let generation = changed.await?.metadata.generation;
        eventually("the operator has seen the sentinel's change", || async {
            let status = api.get("sentinel").await?.status.context("no status")?;
            ensure!(status.observed_generation == generation, "{status:?}");
            Ok(())
        })
        .await
    }
}
