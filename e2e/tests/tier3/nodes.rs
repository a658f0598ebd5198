//! Losing a node, as the tests of rollouts cause it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use mcpmesh_e2e::cluster::{Cluster, Tier};
use mcpmesh_e2e::process::eventually_within;

/// The controller manager waits 12 s before it gives a node up.
const NOTICED: Duration = Duration::from_secs(60);

#[test]
fn a_node_behind_a_cut_link_is_given_up_and_comes_back() -> anyhow::Result<()> {
    Cluster::own(Tier::Three)?.test(async |sandbox| {
        let nodes: Api<Node> = Api::all(sandbox.client());
        let nodes = &nodes;
        let is = async move |name: &str, expected: &str| {
            let status = nodes.get(name).await?.status.context("no status")?;
            let ready = status.conditions.into_iter().flatten().find(|one| one.type_ == "Ready");
            let ready = ready.context("no condition Ready")?.status;
            ensure!(ready == expected, "{name}: Ready={ready}");
            Ok(())
        };
        let cut = sandbox.cluster.partition(2)?;
        eventually_within(NOTICED, "node2 is given up", || is("node2", "Unknown")).await?;
        is("node1", "True").await?;
        cut.mend()?;
        eventually_within(NOTICED, "node2 is back", || is("node2", "True")).await
    })
}
