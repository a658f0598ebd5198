//! An object whose schema is right and whose meaning is not.

use anyhow::{Context as _, ensure};
use mcpmesh_crds::{McpGateway, McpPolicy, McpServer, condition};
use mcpmesh_e2e::audit::Audit;
use mcpmesh_e2e::cluster::Cluster;
use mcpmesh_e2e::gateway_pod::GatewayPod;
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::eventually;
use serde_json::json;

use crate::sentinel::Sentinel;
use crate::tenant::{
    Tenant, all_servers_are_told, answers, apply, many_servers, open_gateway, open_policy, refuses, said,
};

#[test]
fn one_among_five_hundred_is_told_what_to_do_and_no_other_is_written() -> anyhow::Result<()> {
    Cluster::operated()?.test(async |sandbox| {
        Operator::shared().await?;
        let namespace = sandbox.namespace().await?;
        many_servers(&namespace, 500, "https://mcp.example.com/mcp").await?;
        all_servers_are_told(&namespace, 500).await?;
        let mut sentinel = Sentinel::new(sandbox).await?;
        let before = Audit::of(&sandbox.client(), &[namespace.name()]).await?;

        let spec = json!({"remote": {"url": "https://user:word@mcp.example.com/mcp"}});
        apply::<McpServer>(&namespace, "bad", spec).await?;
        let api = namespace.api::<McpServer>();
        let bad = eventually("the bad one is told", || async {
            let status = api.get("bad").await?.status.context("no status")?;
            ensure!(status.observed_generation.is_some(), "it waits for the operator");
            Ok(status)
        });
        let conditions = bad.await?.conditions;
        ensure!(said(&conditions, condition::ACCEPTED) == "False InvalidUrl", "{conditions:?}");
        ensure!(said(&conditions, condition::STALLED) == "True InvalidUrl", "{conditions:?}");
        ensure!(said(&conditions, condition::READY) == "False InvalidUrl", "{conditions:?}");
        let stalled = conditions.iter().find(|one| one.type_ == condition::STALLED).context("no Stalled")?;
        for part in ["spec.remote.url", "user information", "put it into a Secret"] {
            ensure!(stalled.message.contains(part), "{}", stalled.message);
        }
        ensure!(!stalled.message.contains("word"), "the message shows the password: {}", stalled.message);

        sentinel.gets_through().await?;
        let after = Audit::of(&sandbox.client(), &[namespace.name()]).await?;
        let changed = before.changed(&after);
        ensure!(changed.iter().all(|key| key.contains("/bad")), "written besides: {changed:?}");
        Ok(())
    })
}

#[test]
fn a_policy_that_cannot_compile_closes_its_target_and_nothing_else_until_it_is_mended() -> anyhow::Result<()>
{
    Cluster::operated()?.test(async |sandbox| {
        let operator = Operator::shared().await?;
        let tenant = Tenant::start(sandbox, operator).await?;
        apply::<McpGateway>(&tenant.namespace, "other", open_gateway()).await?;
        apply::<McpPolicy>(&tenant.namespace, "other", open_policy("other")).await?;
        let other = GatewayPod::start(&tenant.namespace, "other", operator).await?;
        answers(&other.client()?).await?;

        let policy = |tool: &str| {
            let rule =
                json!({"name": "some", "effect": "Deny", "from": [{"anyone": {}}], "to": {"tools": [tool]}});
            json!({"targetRefs": [{"kind": "McpGateway", "name": "main"}], "access": [rule]})
        };
        apply::<McpPolicy>(&tenant.namespace, "broken", policy("[")).await?;
        refuses(&tenant.pod.client()?).await?;
        answers(&other.client()?).await?;
        let api = tenant.namespace.api::<McpPolicy>();
        eventually("the policy says so", || async {
            let conditions = api.get("broken").await?.status.context("no status")?.conditions;
            for (kind, answer) in
                [(condition::ACCEPTED, "False"), (condition::STALLED, "True"), (condition::READY, "False")]
            {
                ensure!(said(&conditions, kind).starts_with(answer), "{conditions:?}");
            }
            Ok(())
        })
        .await?;

        apply::<McpPolicy>(&tenant.namespace, "broken", policy("no_such_*")).await?;
        answers(&tenant.pod.client()?).await?;
        eventually("the policy is well", || async {
            let conditions = api.get("broken").await?.status.context("no status")?.conditions;
            ensure!(said(&conditions, condition::ACCEPTED) == "True Accepted", "{conditions:?}");
            ensure!(said(&conditions, condition::STALLED).is_empty(), "{conditions:?}");
            Ok(())
        })
        .await
    })
}
