//! Our own programs as container images: from scratch, without a registry, loaded on every node.

use std::ffi::OsString;
use std::path::Path;

use super::{Cluster, script};

/// An image of one static program, or of a folder.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its reference, with a tag that is not `latest`: the kubelet would ask a registry.
    pub reference: &'a str,
    /// The program, or the folder that becomes the root.
    pub content: &'a Path,
    /// What runs; for one program, it is that one when empty.
    pub entry_point: &'a [&'a str],
}

impl Cluster {
    /// Makes the image and loads it on every node.
    ///
    /// # Errors
    /// When it cannot be made, or the cluster has no nodes.
    pub fn load(&self, image: &Image<'_>) -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("image.tar");
        let words = [OsString::from(image.reference), file.clone().into(), image.content.into()];
        let script = self.script()?;
        script::output(script.command("image").args(words).args(image.entry_point))?;
        self.load_archive(&file)
    }

    /// Loads an image on every node that another program has made: a docker or OCI archive.
    ///
    /// # Errors
    /// When it is none, or the cluster has no nodes.
    pub fn load_archive(&self, file: &Path) -> anyhow::Result<()> {
        script::output(self.script()?.command("load-image").arg(file)).map(drop)
    }
}
