//! What the operator makes: its fields come back, others' stay, and all of it goes with its owner.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as KubeNamespace, Service};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use mcpmesh_crds::{McpGateway, McpServer, condition};
use mcpmesh_e2e::cluster::{Cluster, Namespace, Tier};
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::eventually;
use serde_json::{Value, json};

use crate::sentinel::Sentinel;
use crate::tenant::{apply, open_gateway, said};

const BASE: &str = "main-mcpgateway";

async fn deployment(namespace: &Namespace<'_>) -> anyhow::Result<Deployment> {
    eventually("the Deployment is there", || async { Ok(namespace.api().get(BASE).await?) }).await
}

fn image(deployment: &Deployment) -> Option<&str> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers.first()?.image.as_deref()
}

/// Changes a Deployment as somebody with another field manager.
async fn meddle(namespace: &Namespace<'_>, change: &Value) -> anyhow::Result<Deployment> {
    let params = PatchParams { field_manager: Some("somebody".to_owned()), ..PatchParams::default() };
    Ok(namespace.api::<Deployment>().patch(BASE, &params, &Patch::Strategic(change)).await?)
}

#[test]
fn a_field_of_the_operator_comes_back_and_a_field_of_somebody_else_stays() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        apply::<McpGateway>(&namespace, "main", open_gateway()).await?;
        let made = deployment(&namespace).await?;
        let (wanted, name) = (image(&made).context("no image")?.to_owned(), "mcpmesh-proxy");
        let name = made.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).map_or(name, |pod| &pod.containers[0].name);
        let theirs = json!({
            "metadata": {"labels": {"team": "blue", "app.kubernetes.io/name": "another"}, "annotations": {"note": "kept"}},
            "spec": {"template": {"spec": {"containers": [{"name": name, "image": "evil.example.com/proxy:1"}]}}},
        });
        let changed = meddle(&namespace, &theirs).await?;
        ensure!(image(&changed) == Some("evil.example.com/proxy:1"), "{changed:?}");
        eventually("what is the operator's comes back", || async {
            let now = deployment(&namespace).await?;
            ensure!(image(&now) == Some(wanted.as_str()), "{:?}", image(&now));
            let labels = now.labels();
            ensure!(labels.get("app.kubernetes.io/name").is_some_and(|name| name == "mcpmesh-proxy"), "{labels:?}");
            ensure!(labels.get("team").is_some_and(|team| team == "blue"), "{labels:?}");
            ensure!(now.annotations().get("note").is_some_and(|note| note == "kept"), "{:?}", now.annotations());
            Ok(())
        })
        .await?;

        let services: Api<Service> = namespace.api();
        let old = services.get(BASE).await?.uid();
        services.delete(BASE, &DeleteParams::background()).await?;
        eventually("a deleted Service is made again", || async {
            let new = services.get(BASE).await?.uid();
            ensure!(new.is_some() && new != old, "{new:?}");
            Ok(())
        })
        .await
    })
}

#[test]
fn how_many_proxies_there_are_is_the_autoscalers_to_say() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        let mut spec = open_gateway();
        spec["proxy"] = json!({"autoscaling": {"minReplicas": 2, "maxReplicas": 5}});
        apply::<McpGateway>(&namespace, "main", spec.clone()).await?;
        deployment(&namespace).await?;
        eventually("the autoscaler is there", || async {
            Ok(namespace.api::<HorizontalPodAutoscaler>().get(BASE).await?)
        })
        .await?;
        let four = json!({"spec": {"replicas": 4}});
        let api = namespace.api::<Deployment>();
        api.patch_scale(BASE, &PatchParams::default(), &Patch::Merge(&four)).await?;

        // The operator writes this Deployment again, for a reason of its own.
        spec["proxy"]["pod"] = json!({"labels": {"round": "two"}});
        apply::<McpGateway>(&namespace, "main", spec).await?;
        eventually("the Deployment has the new label and the autoscaler's replicas", || async {
            let spec = deployment(&namespace).await?.spec.context("no spec")?;
            let labels = spec.template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
            ensure!(labels.contains_key("round"), "{labels:?}");
            ensure!(spec.replicas == Some(4), "{:?} replicas", spec.replicas);
            Ok(())
        })
        .await?;
        let mut sentinel = Sentinel::new(sandbox).await?;
        sentinel.gets_through().await?;
        let replicas = deployment(&namespace).await?.spec.and_then(|spec| spec.replicas);
        ensure!(replicas == Some(4), "{replicas:?} replicas");
        Ok(())
    })
}

/// What the pods of a server are made from, as their annotation tells.
async fn digest(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let made = namespace.api::<Deployment>().get("run-mcpserver").await?;
    let annotations = made.spec.and_then(|spec| spec.template.metadata?.annotations).unwrap_or_default();
    Ok(annotations.get("mcpmesh.io/workload-digest").context("no digest")?.clone())
}

async fn write_map(namespace: &Namespace<'_>, content: &Value) -> anyhow::Result<()> {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}});
    map.as_object_mut().context("no object")?.extend(content.as_object().cloned().unwrap_or_default());
    let params = PatchParams::apply("e2e").force();
    namespace.api::<ConfigMap>().patch("settings", &params, &Patch::Apply(&map)).await?;
    Ok(())
}

/// Waits for what the server's status says of the objects that it names.
async fn references_are(namespace: &Namespace<'_>, wanted: &str) -> anyhow::Result<()> {
    eventually(&format!("ResolvedRefs is {wanted}"), || async {
        let status = namespace.api::<McpServer>().get("run").await?.status.context("no status")?;
        let found = said(&status.conditions, condition::RESOLVED_REFS);
        ensure!(found == wanted, "{:?}", status.conditions);
        Ok(())
    })
    .await
}

#[test]
fn the_pods_of_a_server_follow_the_config_map_that_they_take_variables_from() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        let env = json!([{"name": "UNITS", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "units"}}}]);
        let package = json!({"registry": "Npm", "name": "a", "version": "1.0.0", "env": env});
        apply::<McpServer>(&namespace, "run", json!({"package": package})).await?;
        references_are(&namespace, "False ConfigMapNotFound").await?;
        write_map(&namespace, &json!({"binaryData": {"units": "AAEC"}})).await?;
        references_are(&namespace, "False InvalidConfigMap").await?;
        ensure!(namespace.api::<Deployment>().get_opt("run-mcpserver").await?.is_none(), "pods that cannot start");
        write_map(&namespace, &json!({"data": {"units": "metric"}})).await?;
        references_are(&namespace, "True ResolvedRefs").await?;
        let before = eventually("the server has its Deployment", || digest(&namespace)).await?;
        write_map(&namespace, &json!({"data": {"units": "imperial"}})).await?;
        let after = eventually("the pods are made anew", || async {
            let now = digest(&namespace).await?;
            ensure!(now != before, "still {now}");
            Ok(now)
        })
        .await?;
        // What no variable is made of makes no difference.
        write_map(&namespace, &json!({"data": {"units": "imperial", "other": "x"}})).await?;
        let mut sentinel = Sentinel::new(sandbox).await?;
        sentinel.gets_through().await?;
        let now = digest(&namespace).await?;
        ensure!(now == after, "{now} is not {after}");
        Ok(())
    })
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it_though_the_operator_is_gone() -> anyhow::Result<()> {
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let operator = Operator::install(sandbox.cluster, "operator").await?;
        let namespace = sandbox.namespace().await?;
        apply::<McpGateway>(&namespace, "main", open_gateway()).await?;
        let package = json!({"package": {"registry": "Npm", "name": "a", "version": "1.0.0"}});
        apply::<McpServer>(&namespace, "run", package).await?;
        deployment(&namespace).await?;
        eventually("the server has its Deployment", || async {
            Ok(namespace.api::<Deployment>().get("run-mcpserver").await?)
        })
        .await?;

        let gone = operator.fault()?.kill()?;
        // Without a namespace around it: the garbage collector alone.
        namespace.api::<McpServer>().delete("run", &DeleteParams::background()).await?;
        eventually("a deleted server's Deployment is gone", || async {
            let left = namespace.api::<Deployment>().get_opt("run-mcpserver").await?;
            ensure!(left.is_none(), "still there");
            Ok(())
        })
        .await?;
        let namespaces: Api<KubeNamespace> = Api::all(sandbox.client());
        namespaces.delete(namespace.name(), &DeleteParams::background()).await?;
        eventually("the namespace is gone", || async {
            let left = namespaces.get_opt(namespace.name()).await?;
            ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
            Ok(())
        })
        .await?;
        gone.mend()?;
        operator.becomes_ready().await
    })
}
