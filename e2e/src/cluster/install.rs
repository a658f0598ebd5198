//! Manifests of ours in a cluster, as their users install them.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;

use super::Cluster;
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
}
