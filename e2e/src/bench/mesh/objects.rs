//! The objects of W7 and W8: namespaces with a gateway, a policy, a Service and many servers behind it.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Size;

/// Requests to the API server at a time.
const AT_A_TIME: usize = 24;

/// The name of a namespace.
pub(super) fn namespace(number: usize) -> String {
    format!("t{number}")
}

/// Creates everything. `upstream` is where every Service leads.
pub(super) async fn create(client: &Client, size: Size, upstream: SocketAddr) -> anyhow::Result<()> {
    let one = |number| tenant(client.clone(), number, upstream);
    stream::iter(0..size.namespaces).map(one).buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
    let ids = (0..size.namespaces).flat_map(|team| (0..size.servers).map(move |server| (team, server)));
    let server = |(team, server): (usize, usize)| {
        let client = client.clone();
        async move {
            let spec = json!({"service": {"name": "mcp", "port": 80, "path": format!("/mcp/{server}")}});
            ours::<McpServer>(&client, &namespace(team), &format!("s{server}"), spec).await
        }
    };
    stream::iter(ids).map(server).buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
    Ok(())
}

async fn tenant(client: Client, number: usize, upstream: SocketAddr) -> anyhow::Result<()> {
    let name = namespace(number);
    let metadata = json!({"metadata": {"name": name}});
    let all: Api<Namespace> = Api::all(client.clone());
    all.create(&PostParams::default(), &serde_json::from_value(metadata)?).await.context("a namespace")?;
    let service = json!({"metadata": {"name": "mcp"}, "spec": {"ports": [{"name": "mcp", "port": 80}]}});
    typed::<Service>(&client, &name, service).await?;
    let IpAddr::V4(ip) = upstream.ip() else { anyhow::bail!("{upstream} is not IPv4") };
    let slice = json!({
        "metadata": {"name": "mcp-bench", "labels": {"kubernetes.io/service-name": "mcp"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ip.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "mcp", "port": upstream.port()}],
    });
    typed::<EndpointSlice>(&client, &name, slice).await?;
    let gateway = json!({"authentication": {"anonymous": "Allow"}, "proxy": {"replicas": 1}});
    ours::<McpGateway>(&client, &name, "main", gateway).await?;
    ours::<McpPolicy>(&client, &name, "p", policy(false)).await
}

/// Anyone may call `small`, and perhaps `secret`.
pub(super) fn policy(secret: bool) -> Value {
    let tools = if secret { json!(["small", "secret"]) } else { json!(["small"]) };
    let rule = json!({"name": "all", "effect": "Allow", "from": [{"anyone": {}}], "to": {"tools": tools}});
    json!({"targetRefs": [{"kind": "McpGateway", "name": "main"}], "access": [rule]})
}

async fn typed<K>(client: &Client, namespace: &str, object: Value) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await
        .context(K::kind(&()).into_owned())?;
    Ok(())
}

fn api<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

async fn ours<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    name: &str,
    spec: Value,
) -> anyhow::Result<()> {
    let resource = ApiResource::erase::<K>(&());
    let object = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
    api::<K>(client, namespace)
        .create(&PostParams::default(), &object)
        .await
        .context(K::kind(&()).into_owned())?;
    Ok(())
}

/// Changes a part of an object's spec.
pub(super) async fn patch<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    name: &str,
    spec: Value,
) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    api::<K>(client, namespace).patch_metadata(name, &PatchParams::default(), &patch).await?;
    Ok(())
}
