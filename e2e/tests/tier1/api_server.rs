//! The API server goes away and comes back.

use std::time::Duration;

use anyhow::ensure;
use http::StatusCode;
use mcpmesh_crds::McpPolicy;
use mcpmesh_e2e::audit::Audit;
use mcpmesh_e2e::caller::Caller;
use mcpmesh_e2e::cluster::{Cluster, Component, Tier};
use mcpmesh_e2e::operator::Operator;
use mcpmesh_e2e::process::{eventually, eventually_within};
use serde_json::json;

use crate::sentinel::Sentinel;
use crate::tenant::{TOOL, Tenant, apply, copies_are_current, refuses};

const AGE: &str = "mcpmesh_operator_config_age_seconds";

/// Longer than the operator backs off.
const BACK: Duration = Duration::from_secs(90);

#[test]
fn without_an_api_server_proxies_answer_and_when_it_is_back_only_changes_are_written() -> anyhow::Result<()> {
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let operator = Operator::install(sandbox.cluster, "operator").await?;
        let tenant = Tenant::start(sandbox, &operator).await?;
        copies_are_current(&tenant.namespace).await?;
        let mut sentinel = Sentinel::new(sandbox).await?;
        let watched = [tenant.namespace.name()];
        let before = Audit::of(&sandbox.client(), &watched).await?;
        let writes = operator.writes(None).await?;
        let caller = Caller::start(&tenant.pod.endpoint(), TOOL)?;

        let fault = sandbox.cluster.fault(Component::ApiServer)?.kill()?;
        let age = eventually("the operator notices", || async {
            let age = operator.metrics().await?.value(AGE)?;
            ensure!(age > 0.0, "{age}");
            Ok(age)
        });
        let age = age.await?;
        eventually("the age of its configuration grows", || async {
            let now = operator.metrics().await?.value(AGE)?;
            ensure!(now > age, "{now} after {age}");
            Ok(())
        })
        .await?;
        for page in ["livez", "readyz"] {
            let (status, text) = operator.page(page).await?;
            ensure!(status == StatusCode::OK, "{page} without an API server: {status} {text}");
        }
        let (status, said) = tenant.pod.readiness().await?;
        ensure!(status == StatusCode::OK && said == "ok", "the proxy: {status} {said}");

        fault.mend()?;
        eventually_within(BACK, "the operator follows everything again", || async {
            let age = operator.metrics().await?.value(AGE)?;
            ensure!(age == 0.0, "{age}");
            Ok(())
        })
        .await?;
        for _ in 0..2 {
            sentinel.gets_through().await?;
        }
        ensure!(caller.end()? > 0, "nobody called");
        before.is_still(&Audit::of(&sandbox.client(), &watched).await?)?;
        // One is seen before the operator has its answer, and counts it.
        let counted = eventually("both writes are counted", || async {
            let more = operator.writes(None).await? - writes;
            ensure!(more >= 2.0, "{more}");
            Ok(more)
        });
        let more = counted.await?;
        ensure!(
            more == 2.0,
            "{more} writes where two changed: {} {}",
            operator.counted_writes().await?,
            operator.log()?
        );

        let deny = json!({
            "targetRefs": [{"kind": "McpGateway", "name": "main"}],
            "access": [{"name": "none", "effect": "Deny", "from": [{"anyone": {}}]}],
        });
        apply::<McpPolicy>(&tenant.namespace, "closed", deny).await?;
        refuses(&tenant.pod.client()?).await
    })
}
