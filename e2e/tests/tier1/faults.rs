//! The control plane's own faults, as the tests of our components cause them.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ObjectMeta, PostParams};
use mcpmesh_e2e::cluster::{Cluster, Component, Tier};
use mcpmesh_e2e::process::eventually;
use tokio::time::timeout;

#[test]
fn objects_outlive_a_killed_api_server_and_a_killed_store() -> anyhow::Result<()> {
    Cluster::own(Tier::One)?.test(async |sandbox| {
        let namespace = sandbox.namespace().await?;
        let maps: Api<ConfigMap> = namespace.api();
        let metadata = ObjectMeta { name: Some("kept".to_owned()), ..ObjectMeta::default() };
        maps.create(&PostParams::default(), &ConfigMap { metadata, ..ConfigMap::default() }).await?;

        let fault = sandbox.cluster.fault(Component::ApiServer)?.kill()?;
        ensure!(maps.get("kept").await.is_err(), "a killed API server answers");
        fault.mend()?;
        maps.get("kept").await?;

        let fault = sandbox.cluster.fault(Component::Etcd)?.kill()?;
        fault.mend()?;
        eventually("the store answers", || async { Ok(maps.get("kept").await?) }).await?;

        let fault = sandbox.cluster.fault(Component::ApiServer)?.pause()?;
        let held = timeout(Duration::from_millis(300), maps.get("kept")).await;
        ensure!(held.is_err(), "a paused API server answers: {held:?}");
        fault.mend()?;
        maps.get("kept").await?;
        Ok(())
    })
}

#[test]
fn a_shared_cluster_cannot_be_broken() -> anyhow::Result<()> {
    let error = Cluster::shared(Tier::One)?.fault(Component::ApiServer).err();
    ensure!(error.is_some(), "one test could break all others");
    Ok(())
}
