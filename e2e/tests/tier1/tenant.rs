//! A namespace with one of everything that runs: a server, a gateway over it, a proxy of that.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer, condition};
use mcpmesh_e2e::caller::call;
use mcpmesh_e2e::cluster::{Namespace, Sandbox};
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::gateway_pod::GatewayPod;
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::{Process, eventually};
use serde_json::{Value, json};

/// A tool of the server.
pub(crate) const TOOL: &str = "test_simple_text";

/// See the file.
pub(crate) struct Tenant<'c> {
    pub(crate) namespace: Namespace<'c>,
    pub(crate) pod: GatewayPod,
    _upstream: Process,
}

impl<'c> Tenant<'c> {
    /// Starts all of it and waits until every status has said its last word.
    pub(crate) async fn start(sandbox: &Sandbox<'c>, operator: &Operator<'_>) -> anyhow::Result<Self> {
        let namespace = sandbox.namespace().await?;
        let (upstream, url) = Fixture::Rmcp.start().await?;
        apply::<McpServer>(&namespace, "fixture", json!({"remote": {"url": url}})).await?;
        apply::<McpGateway>(&namespace, "main", open_gateway()).await?;
        apply::<McpPolicy>(&namespace, "open", open_policy("main")).await?;
        let pod = GatewayPod::start(&namespace, "main", operator).await?;
        pod.becomes_fresh().await?;
        answers(&pod.client()?).await?;
        let tenant = Self { namespace, pod, _upstream: upstream };
        tenant.settled().await?;
        Ok(tenant)
    }

    /// Waits until the statuses are what they will be: all that follows comes of a change.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        eventually("every status has said its last word", || async {
            let server = self.namespace.api::<McpServer>().get("fixture").await?;
            let status = server.status.context("no status")?;
            ensure!(said(&status.conditions, condition::READY) == "True Ready", "{:?}", status.conditions);
            ensure!(status.catalog.is_some() && status.gateways == Some(1), "{status:?}");
            let gateway = self.namespace.api::<McpGateway>().get("main").await?;
            let status = gateway.status.context("no status")?;
            let programmed = said(&status.conditions, condition::PROGRAMMED);
            ensure!(programmed == "True Programmed", "{:?}", status.conditions);
            let (proxies, servers) = (status.proxies.unwrap_or_default(), status.servers.unwrap_or_default());
            ensure!((proxies.in_sync, proxies.total, servers.ready) == (1, 1, 1), "{proxies:?} {servers:?}");
            ensure!(status.tools.is_some_and(|tools| tools > 0), "no tools");
            let revision = status.revision.context("no revision")?;
            ensure!(self.pod.revision().await?.contains(&revision), "{revision}");
            // Its pods have no node: they stay away, and that is told once their Deployment is known.
            let deployment: Api<k8s_openapi::api::apps::v1::Deployment> = self.namespace.api();
            let deployment = deployment.get("main-mcpgateway").await?;
            let observed = deployment.status.and_then(|status| status.observed_generation);
            ensure!(observed == deployment.metadata.generation, "the Deployment is new");
            Ok(())
        })
        .await
    }
}

/// Waits until the copy that new pods of each gateway would boot from is of the gateway's revision: the operator writes
/// it after a change, at most once in half a minute.
pub(crate) async fn copies_are_current(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let (gateways, secrets): (Api<McpGateway>, Api<Secret>) = (namespace.api(), namespace.api());
    eventually("the copies are those of the gateways' revisions", || async {
        for gateway in gateways.list(&ListParams::default()).await? {
            let name = format!("{}-mcpgateway-last-good", gateway.name_any());
            let secret = secrets.get_opt(&name).await?;
            let copied = secret.as_ref().and_then(|secret| secret.annotations().get("mcpmesh.io/revision"));
            let revision = gateway.status.as_ref().and_then(|status| status.revision.as_ref());
            ensure!(revision.is_some() && copied == revision, "{name}: {copied:?}, and not {revision:?}");
        }
        Ok(())
    })
    .await
}

/// A gateway that lets anybody in, with one replica.
pub(crate) fn open_gateway() -> Value {
    json!({"authentication": {"anonymous": "Allow"}, "naming": {"prefix": "OnConflict"}})
}

/// A policy of a gateway that allows everything.
pub(crate) fn open_policy(gateway: &str) -> Value {
    json!({
        "targetRefs": [{"kind": "McpGateway", "name": gateway}],
        "access": [{"name": "all", "effect": "Allow", "from": [{"anyone": {}}]}],
    })
}

/// Applies an object as its users do.
pub(crate) async fn apply<K>(namespace: &Namespace<'_>, name: &str, spec: Value) -> anyhow::Result<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let (version, kind) = (K::api_version(&()), K::kind(&()));
    let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    let params = PatchParams::apply("e2e").force();
    Ok(namespace.api::<K>().patch(name, &params, &Patch::Apply(&object)).await?)
}

/// Waits until the tool answers.
pub(crate) async fn answers(client: &Client) -> anyhow::Result<()> {
    eventually("the tool answers", || call(client, TOOL)).await
}

/// Waits until the tool is refused as if there were none.
pub(crate) async fn refuses(client: &Client) -> anyhow::Result<()> {
    eventually("the tool is refused", || async {
        let reply = client.modern("tools/call", json!({"name": TOOL, "arguments": {}})).await?;
        let answer = reply.response()?;
        ensure!(answer["error"]["code"] == -32602, "{answer}");
        Ok(())
    })
    .await
}

/// What a condition says: status and reason.
pub(crate) fn said(
    conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    kind: &str,
) -> String {
    let found = conditions.iter().find(|one| one.type_ == kind);
    found.map(|one| format!("{} {}", one.status, one.reason)).unwrap_or_default()
}

/// Makes many servers at once, and waits until the operator has said of each that it is well.
pub(crate) async fn many_servers(namespace: &Namespace<'_>, count: usize, url: &str) -> anyhow::Result<()> {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let made = (0..count).map(|index| async move {
        let spec = json!({"remote": {"url": url}});
        apply::<McpServer>(namespace, &format!("server-{index}"), spec).await
    });
    futures_util::stream::iter(made).buffer_unordered(8).try_for_each(|_| async { Ok(()) }).await
}

/// Waits until each server's status speaks of its newest generation and says Ready.
pub(crate) async fn all_servers_are_told(namespace: &Namespace<'_>, count: usize) -> anyhow::Result<()> {
    let api = namespace.api::<McpServer>();
    eventually("each server has its status", || async {
        let list = api.list(&ListParams::default()).await?.items;
        let told = list.iter().filter(|server| {
            server.status.as_ref().is_some_and(|status| {
                status.observed_generation == server.metadata.generation
                    && said(&status.conditions, condition::READY) == "True NotAttached"
            })
        });
        let (told, all) = (told.count(), list.len());
        ensure!(
            told == count && all == count,
            "{told} of {all}, first {:?}",
            list.first().map(ResourceExt::name_any)
        );
        Ok(())
    })
    .await
}
