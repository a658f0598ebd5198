//! The operator goes away, with all replicas, and comes back; in between proxies start.

use anyhow::ensure;
use http::StatusCode;
use mcpmesh_e2e::caller::Caller;
use mcpmesh_e2e::cluster::{Cluster, Component, Tier};
use mcpmesh_e2e::gateway_pod::GatewayPod;
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::eventually;

use crate::tenant::{TOOL, Tenant, answers};

const STALE: &str = "mcpmesh_proxy_config_stale";

async fn is_stale(pod: &GatewayPod) -> anyhow::Result<()> {
    let (status, said) = pod.readiness().await?;
    ensure!(status == StatusCode::OK && said.contains("stale"), "{status}: {said}");
    let stale = pod.metrics().await?.value(STALE)?;
    ensure!(stale == 1.0, "{STALE} {stale}");
    Ok(())
}

async fn has_nothing(pod: &GatewayPod) -> anyhow::Result<()> {
    let (status, said) = pod.readiness().await?;
    ensure!(
        status == StatusCode::SERVICE_UNAVAILABLE && said.contains("no configuration"),
        "{status}: {said}"
    );
    Ok(())
}

#[test]
fn without_an_operator_proxies_answer_and_start_from_disk_and_one_that_knows_nothing_yet_changes_nothing()
-> anyhow::Result<()> {
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let operator = Operator::install(sandbox.cluster, "operator").await?;
        let mut tenant = Tenant::start(sandbox, &operator).await?;
        let revision = tenant.pod.revision().await?;

        let caller = Caller::start(&tenant.pod.endpoint(), TOOL)?;
        let gone = operator.fault()?.kill()?;
        ensure!(operator.page("livez").await.is_err(), "a killed operator answers");
        answers(&tenant.pod.client()?).await?;
        ensure!(caller.end()? > 0, "nobody called");

        tenant.pod.restart().await?;
        eventually("a restarted proxy says that it is stale", || is_stale(&tenant.pod)).await?;
        ensure!(tenant.pod.revision().await? == revision, "it starts with something else than it had");
        answers(&tenant.pod.client()?).await?;
        let new = GatewayPod::start(&tenant.namespace, "main", &operator).await?;
        eventually("a new proxy is up", || has_nothing(&new)).await?;

        // It runs and answers, but cannot have read anything.
        let paused = sandbox.cluster.fault(Component::ApiServer)?.pause()?;
        let caller = Caller::start(&tenant.pod.endpoint(), TOOL)?;
        gone.mend()?;
        eventually("the operator is alive and not ready", || async {
            let alive = operator.page("livez").await?.0;
            let (ready, said) = operator.page("readyz").await?;
            ensure!(alive == StatusCode::OK && ready == StatusCode::SERVICE_UNAVAILABLE, "{alive} {said}");
            Ok(())
        })
        .await?;
        is_stale(&tenant.pod).await?;
        has_nothing(&new).await?;

        paused.mend()?;
        operator.becomes_ready().await?;
        tenant.pod.becomes_fresh().await?;
        new.becomes_fresh().await?;
        ensure!(caller.end()? > 0, "nobody called");
        ensure!(tenant.pod.revision().await? == revision, "something travelled though nothing changed");
        ensure!(new.revision().await? == revision, "two proxies of a fleet differ");
        ensure!(tenant.pod.metrics().await?.value(STALE)? == 0.0, "still stale");
        answers(&new.client()?).await
    })
}
