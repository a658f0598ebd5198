//! Pods are replaced while clients call, and nobody notices.

use anyhow::Context as _;
use mcpmesh_e2e::cluster::{Cluster, Namespace, Sandbox, Tier};
use mcpmesh_e2e::traffic::{Plan, Traffic, echoes};

async fn traffic(sandbox: &Sandbox<'_>, namespace: &Namespace<'_>) -> anyhow::Result<Traffic> {
    sandbox.cluster.install_mesh().await?;
    namespace.apply(&echoes("{}")).await?;
    namespace.gateway_ready("main", 2).await?;
    let address = sandbox.service_ip(namespace, "main-mcpgateway").await?;
    Traffic::start(Plan::echoes(address)).await
}

#[test]
fn a_rolling_restart_of_gateway_servers_and_operator_fails_no_request() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        let namespace = sandbox.namespace().await?;
        let traffic = traffic(sandbox, &namespace).await?;
        traffic.goes_on(100).await?;
        for deployment in ["main-mcpgateway", "piped-mcpserver", "web-mcpserver"] {
            sandbox.cluster.roll(namespace.name(), deployment).await?;
            traffic.goes_on(100).await?;
            // Says which of them it was.
            traffic.tally().lost_nothing(100).context(deployment)?;
        }
        sandbox.cluster.roll_operator().await?;
        traffic.goes_on(100).await?;
        traffic.stop().await?.lost_nothing(500)
    })
}
