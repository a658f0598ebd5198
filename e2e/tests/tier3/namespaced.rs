//! An operator that may read some namespaces only, without any right in the rest of the cluster.

use anyhow::ensure;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, ListParams};
use mcpmesh_crds::McpGateway;
use mcpmesh_e2e::cluster::{Cluster, Tier};
use mcpmesh_e2e::traffic::{Plan, Traffic, echoes};

/// As whom the operator speaks to the API server.
const OPERATOR: &str = "--as=system:serviceaccount:mcpmesh-system:mcpmesh-operator";

#[test]
fn an_operator_of_one_namespace_serves_it_and_has_no_right_beyond() -> anyhow::Result<()> {
    Cluster::own(Tier::Two)?.test(async |sandbox| {
        let (own, other) = (sandbox.namespace().await?, sandbox.namespace().await?);
        let watched = format!("watchNamespaces={{{}}}", own.name());
        sandbox.cluster.install_mesh_with(&[&watched]).await?;
        other.apply(&echoes("{}")).await?;
        own.apply(&echoes("{}")).await?;
        own.gateway_ready("main", 2).await?;
        let address = sandbox.service_ip(&own, "main-mcpgateway").await?;
        let traffic = Traffic::start(Plan::echoes(address)).await?;
        traffic.goes_on(50).await?;
        traffic.stop().await?.lost_nothing(50)?;
        // As the API server made it.
        let ignored = other.api::<McpGateway>().get("main").await?.status.unwrap_or_default();
        let untouched = ignored.conditions.iter().all(|one| one.reason == "Pending");
        ensure!(untouched && ignored.observed_generation.is_none(), "{ignored:?}");

        let bindings: Api<ClusterRoleBinding> = Api::all(sandbox.client());
        for binding in bindings.list(&ListParams::default()).await? {
            let subjects = binding.subjects.unwrap_or_default();
            let ours = subjects.iter().any(|subject| subject.namespace.as_deref() == Some("mcpmesh-system"));
            ensure!(!ours, "{:?} binds the operator", binding.metadata.name);
        }
        let roles: Api<ClusterRole> = Api::all(sandbox.client());
        ensure!(roles.get_opt("mcpmesh-operator").await?.is_none(), "there is a ClusterRole");
        for (namespace, expected) in [(own.name(), "yes"), (other.name(), "no"), ("kube-system", "no")] {
            let words = ["auth", "can-i", "patch", "deployments.apps", OPERATOR, "--namespace", namespace];
            // It exits with 1 to say no.
            let answer = sandbox.cluster.kubectl(words).await.unwrap_or_else(|_| "no".to_owned());
            ensure!(answer.trim() == expected, "in {namespace}: {answer}");
        }
        Ok(())
    })
}
