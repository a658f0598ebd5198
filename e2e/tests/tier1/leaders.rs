//! Two replicas, of which the leader is paused and killed.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mcpmesh_crds::McpServer;
use mcpmesh_e2e::audit::Audit;
use mcpmesh_e2e::cluster::{Cluster, Namespace, Tier};
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::{eventually, eventually_within};

use crate::sentinel::Sentinel;
use crate::tenant::{all_servers_are_told, many_servers};

/// Longer than a Lease stands for a leader that is gone.
const TAKE_OVER: Duration = Duration::from_secs(60);

async fn leads(operator: &Operator<'_>) -> anyhow::Result<()> {
    eventually_within(TAKE_OVER, "it leads", || async {
        let leader = operator.metrics().await?.value("mcpmesh_operator_leader")?;
        ensure!(leader == 1.0, "{leader}");
        Ok(())
    })
    .await
}

/// Waits until this new server has a status, while others are still being made.
async fn some_are_told(namespace: &Namespace<'_>, name: &str) -> anyhow::Result<()> {
    let api = namespace.api::<McpServer>();
    eventually("some are told, and some are not", || async {
        let status = api.get(name).await?.status.context("no status yet")?;
        ensure!(status.observed_generation.is_some(), "it waits for the operator");
        Ok(())
    })
    .await
}

#[test]
fn a_paused_leader_writes_nothing_that_is_old_and_a_killed_one_leaves_nothing_undone() -> anyhow::Result<()> {
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let first = Operator::install(sandbox.cluster, "operator-a").await?;
        leads(&first).await?;
        let second = first.replica("operator-b").await?;
        let namespace = sandbox.namespace().await?;
        many_servers(&namespace, 100, "https://one.example.com/mcp").await?;
        all_servers_are_told(&namespace, 100).await?;
        let mut sentinel = Sentinel::new(sandbox).await?;
        sentinel.gets_through().await?;
        let (written, seconds) = (first.writes(None).await?, second.writes(None).await?);
        ensure!(written >= 100.0, "the leader wrote only {written} times");
        ensure!(seconds == 0.0, "a replica that does not lead wrote {seconds} times");

        // With writes before it that are due, and that another will have done when it wakes up.
        let many = many_servers(&namespace, 300, "https://two.example.com/mcp");
        let broken = async {
            some_are_told(&namespace, "server-120").await?;
            first.fault()?.pause()
        };
        let (made, paused) = tokio::join!(many, broken);
        made?;
        let paused = paused?;
        leads(&second).await?;
        all_servers_are_told(&namespace, 300).await?;
        sentinel.gets_through().await?;
        let audit = Audit::of(&sandbox.client(), &[namespace.name()]).await?;
        paused.mend()?;
        eventually("the first leads no more", || async {
            let leader = first.metrics().await?.value("mcpmesh_operator_leader")?;
            ensure!(leader == 0.0, "{leader}");
            Ok(())
        })
        .await?;
        sentinel.gets_through().await?;
        sentinel.gets_through().await?;
        // A request that it was about to send when it was stopped goes out when it wakes up: a write conflicts, an event
        // about what it had written overwrites nothing.
        let now = Audit::of(&sandbox.client(), &[namespace.name()]).await?;
        let late = audit.changed(&now);
        ensure!(
            late.len() <= 1 && late.iter().all(|key| key.starts_with("Event/")),
            "written late: {late:?}"
        );

        let many = many_servers(&namespace, 600, "https://three.example.com/mcp");
        let killed = async {
            some_are_told(&namespace, "server-320").await?;
            second.fault()?.kill()
        };
        let (made, killed) = tokio::join!(many, killed);
        made?;
        let killed = killed?;
        leads(&first).await?;
        all_servers_are_told(&namespace, 600).await?;
        let failed = first.metrics().await?.sum("mcpmesh_operator_writes_total", "result=\"error\"");
        ensure!(failed.unwrap_or_default() == 0.0, "writes failed: {}", first.log()?);
        killed.mend()
    })
}
