//! The shipped Dockerfile, built without a registry, in real pods.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use mcpmesh_e2e::cluster::{Cluster, Tier};
use mcpmesh_e2e::mesh::built;
use mcpmesh_e2e::process::eventually_within;
use mcpmesh_e2e::tools::{Tools, crate_folder};
use tokio::process::Command;

/// How long a pod may take to its end (the machine may be busy).
const ENDED: Duration = Duration::from_secs(120);

/// What each image says when it is asked for its version: how it begins.
const IMAGES: [(&str, &str); 4] = [
    ("mcpmesh-proxy", concat!("mcpmesh-proxy ", env!("CARGO_PKG_VERSION"))),
    ("mcpmesh-operator", concat!("mcpmesh-operator ", env!("CARGO_PKG_VERSION"))),
    ("npm-runner", "1"),
    ("pypi-runner", "uvx "),
];

/// A pod that must not be root and names no user: the image has to.
fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  automountServiceAccountToken: false
  restartPolicy: Never
  containers:
    - name: version
      image: mcpmesh.test/{name}:dockerfile
      args: [--version]
      securityContext: {{runAsNonRoot: true, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true,
        capabilities: {{drop: [ALL]}}, seccompProfile: {{type: RuntimeDefault}}}}
      volumeMounts: [{{name: tmp, mountPath: /tmp}}]
  volumes: [{{name: tmp, emptyDir: {{}}}}]
"
    )
}

async fn succeeds(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The archives of all images, in this folder.
async fn build(out: &Path) -> anyhow::Result<()> {
    let runners = Tools::installed()?.cache().join("runners");
    succeeds(Command::new(crate_folder().join("cluster/packages/runners")).arg(&runners)).await?;
    let programs = built("mcpmesh-operator")?;
    built("mcpmesh-proxy")?;
    let mut command = Command::new(crate_folder().join("../.ci/images.sh"));
    command.arg(out).arg(programs.parent().context("the operator lies in no folder")?).arg(&runners);
    succeeds(command.env("IMAGES_PREFIX", "mcpmesh.test/").env("IMAGES_TAG", "dockerfile")).await
}

/// The files of an image, by name.
async fn files(archive: &Path) -> anyhow::Result<String> {
    let layers = tempfile::tempdir()?;
    succeeds(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(layers.path())).await?;
    let mut names = String::new();
    for file in std::fs::read_dir(layers.path())? {
        let path = file?.path();
        if path.extension().is_some_and(|end| end == "tar") {
            let listed = Command::new("tar").arg("-tf").arg(&path).output().await?;
            names.push_str(&String::from_utf8_lossy(&listed.stdout));
        }
    }
    Ok(names)
}

#[test]
fn every_image_of_the_dockerfile_runs_from_a_read_only_root_as_a_user_of_its_own() -> anyhow::Result<()> {
    Cluster::shared(Tier::Two)?.test(async |sandbox| {
        let folder = tempfile::tempdir()?;
        build(folder.path()).await?;
        // Or no server behind an https URL would be trusted.
        let inside = files(&folder.path().join("mcpmesh-proxy.tar")).await?;
        ensure!(inside.contains("etc/ssl/certs/ca-certificates.crt"), "the proxy knows no roots: {inside}");
        let namespace = sandbox.namespace().await?;
        for (name, _) in IMAGES {
            sandbox.cluster.load_archive(&folder.path().join(format!("{name}.tar")))?;
            namespace.apply(&pod(name)).await?;
        }
        let pods = namespace.api::<Pod>();
        for (name, version) in IMAGES {
            eventually_within(ENDED, "the pod has ended well", || async {
                let phase = pods.get(name).await?.status.and_then(|status| status.phase);
                ensure!(phase.as_deref() == Some("Succeeded"), "{name}: {phase:?}");
                Ok(())
            })
            .await?;
            let said = pods.logs(name, &LogParams::default()).await?;
            ensure!(said.starts_with(version), "{name}: {said}");
        }
        Ok(())
    })
}
