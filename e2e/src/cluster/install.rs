//! The mesh in a cluster with nodes, as its users install it: the chart by real helm, images without a registry.

use anyhow::{Context as _, ensure};

use super::Cluster;
use crate::mesh::built;
use crate::tools::crate_folder;

impl Cluster {
    /// Installs this build by `cluster/mesh` and returns when the operator is ready.
    ///
    /// # Errors
    /// When the programs are not built or helm fails, with its own words.
    pub async fn install_mesh(&self) -> anyhow::Result<()> {
        let programs = built("mcpmesh-operator")?;
        let folder = programs.parent().context("the operator lies in no folder")?;
        for program in ["mcpmesh-proxy", "mcpmesh"] {
            built(program)?;
        }
        let mut command = self.command(crate_folder().join("cluster/mesh"))?;
        let output = command.arg("install").arg(folder).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
