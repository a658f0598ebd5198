//! The mesh in a cluster as its users install it: manifests of the repository, or the chart by real helm with images that
//! need no registry.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;

use super::rollout::FIXTURE;
use super::{Cluster, Image};
use crate::mesh::built;
use crate::process::eventually_within;
use crate::tools::crate_folder;

/// How long a CRD may take until it is served.
const ESTABLISHED: Duration = Duration::from_secs(30);

impl Cluster {
    /// Applies a file or folder of the repository, and waits until the API server serves the three kinds.
    ///
    /// # Errors
    /// When kubectl fails or they are not served in time.
    pub async fn install(&self, path: &str) -> anyhow::Result<()> {
        let path = crate_folder().join("..").join(path);
        let words = ["apply", "--server-side", "--field-manager=e2e-install", "-f"].map(AsRef::as_ref);
        self.kubectl(words.into_iter().chain([path.as_os_str()])).await?;
        let crds: Api<CustomResourceDefinition> = Api::all(self.client().await?);
        eventually_within(ESTABLISHED, "every CRD is established", || async {
            for name in ["mcpgateways.mcpmesh.io", "mcppolicies.mcpmesh.io", "mcpservers.mcpmesh.io"] {
                let crd = crds.get(name).await?;
                let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
                let established =
                    conditions.iter().any(|one| one.type_ == "Established" && one.status == "True");
                ensure!(established, "{name}: {conditions:?}");
            }
            Ok(())
        })
        .await
    }

    /// Installs the mesh with the chart's defaults, once: for all tests of a shared cluster.
    ///
    /// # Errors
    /// When helm fails, each time with the same reason.
    pub async fn install_mesh(&self) -> anyhow::Result<()> {
        self.install_mesh_with(&[]).await
    }

    /// Installs the mesh with other values of the chart (`--set`): in a cluster of the test's own.
    ///
    /// # Errors
    /// As [`Self::install_mesh`].
    pub async fn install_mesh_with(&self, values: &[&str]) -> anyhow::Result<()> {
        let installed = self
            .mesh
            .get_or_init(|| async { self.install_chart(values).await.map_err(|error| format!("{error:#}")) });
        installed.await.as_ref().copied().map_err(|reason| anyhow!("{reason}"))
    }

    async fn install_chart(&self, values: &[&str]) -> anyhow::Result<()> {
        let programs = built("mcpmesh-operator")?;
        let folder = programs.parent().context("the operator lies in no folder")?;
        for program in ["mcpmesh-proxy", "mcpmesh", "fixture-rmcp"] {
            built(program)?;
        }
        self.load(&Image { reference: FIXTURE, content: &built("fixture-rmcp")?, entry_point: &[] })?;
        let mut install = self.command(crate_folder().join("cluster/mesh"))?;
        let values = values.iter().flat_map(|value| ["--set", *value]);
        let output = install.arg("install").arg(folder).args(values).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
