//! When nothing changes, nothing is written.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as KubeNamespace, Secret, Service};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use mcpmesh_crds::{McpGateway, McpPolicy};
use mcpmesh_e2e::audit::Audit;
use mcpmesh_e2e::cluster::{Cluster, Component, Namespace, Tier};
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::eventually;
use serde_json::{Value, json};

use crate::sentinel::Sentinel;
use crate::tenant::{
    all_servers_are_told, apply, copies_are_current, many_servers, open_gateway, open_policy,
};

const GATEWAYS: usize = 20;
const POLICIES: usize = 280;
const SERVERS: usize = 700;

/// Applies an object that has nothing to do with the mesh.
async fn unrelated<K>(namespace: &Namespace<'_>, label: &str, more: &Value) -> anyhow::Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let mut object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": "unrelated", "labels": {"touched": label}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    let params = PatchParams::apply("e2e").force();
    namespace.api::<K>().patch("unrelated", &params, &Patch::Apply(&object)).await?;
    Ok(())
}

async fn touch(namespace: &Namespace<'_>, label: &str) -> anyhow::Result<()> {
    let nothing = json!({});
    unrelated::<ConfigMap>(namespace, label, &nothing).await?;
    unrelated::<Secret>(namespace, label, &nothing).await?;
    unrelated::<Service>(namespace, label, &json!({"spec": {"ports": [{"port": 80}]}})).await
}

/// Gateways without proxies: each has its children, and says once that nobody is connected.
async fn gateways_are_told(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let (gateways, policies) = (namespace.api::<McpGateway>(), namespace.api::<McpPolicy>());
    eventually("each gateway and policy has its status", || async {
        let told = |generation: Option<i64>, observed: Option<i64>| generation == observed;
        let all = gateways.list(&kube::api::ListParams::default()).await?.items;
        let told_gateways = all.iter().filter(|gateway| {
            let status = gateway.status.as_ref();
            told(gateway.metadata.generation, status.and_then(|status| status.observed_generation))
        });
        let told_gateways = told_gateways.count();
        let all = policies.list(&kube::api::ListParams::default()).await?.items;
        let told_policies = all.iter().filter(|policy| {
            let status = policy.status.as_ref();
            told(policy.metadata.generation, status.and_then(|status| status.observed_generation))
        });
        let told_policies = told_policies.count();
        ensure!((told_gateways, told_policies) == (GATEWAYS, POLICIES), "{told_gateways} {told_policies}");
        Ok(())
    })
    .await
}

#[test]
fn a_thousand_objects_cost_no_write_neither_for_foreign_changes_nor_for_lists_read_anew() -> anyhow::Result<()>
{
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let operator = Operator::install(sandbox.cluster, "operator").await?;
        let (gateways, servers) = (sandbox.namespace().await?, sandbox.namespace().await?);
        for index in 0..GATEWAYS {
            apply::<McpGateway>(&gateways, &format!("gateway-{index}"), open_gateway()).await?;
        }
        for index in 0..POLICIES {
            let policy = open_policy(&format!("gateway-{}", index % GATEWAYS));
            apply::<McpPolicy>(&gateways, &format!("policy-{index}"), policy).await?;
        }
        many_servers(&servers, SERVERS, "https://mcp.example.com/mcp").await?;
        touch(&servers, "before").await?;
        all_servers_are_told(&servers, SERVERS).await?;
        gateways_are_told(&gateways).await?;
        copies_are_current(&gateways).await?;
        let mut sentinel = Sentinel::new(sandbox).await?;
        sentinel.gets_through().await?;
        let watched = [gateways.name(), servers.name()];
        let mut before = Audit::of(&sandbox.client(), &watched).await?;
        ensure!(before.len() > GATEWAYS * 6 + POLICIES + SERVERS, "only {} objects", before.len());
        let writes = operator.writes(None).await?;

        touch(&servers, "after").await?;
        let label = json!({"metadata": {"labels": {"touched": "after"}}});
        let namespaces: Api<KubeNamespace> = Api::all(sandbox.client());
        namespaces.patch(servers.name(), &PatchParams::default(), &Patch::Merge(&label)).await?;
        sentinel.gets_through().await?;
        let touched = Audit::of(&sandbox.client(), &watched).await?;
        let changed = before.changed(&touched);
        ensure!(changed.iter().all(|key| key.ends_with("/unrelated")), "written besides: {changed:?}");
        before = touched;

        for _ in 0..2 {
            sandbox.cluster.fault(Component::ApiServer)?.kill()?.mend()?;
            eventually("the operator follows everything again", || async {
                let age = operator.metrics().await?.value("mcpmesh_operator_config_age_seconds")?;
                ensure!(age == 0.0, "{age}");
                Ok(())
            })
            .await?;
            sentinel.gets_through().await?;
        }
        before.is_still(&Audit::of(&sandbox.client(), &watched).await?)?;
        let more = operator.writes(None).await? - writes;
        ensure!(more == 3.0, "{more} writes where the sentinel changed three times: {}", operator.log()?);
        Ok(())
    })
}
