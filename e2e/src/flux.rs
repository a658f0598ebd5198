//! GitOps as its users have it: a git repository, and Flux's own controllers that apply it to a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::process::eventually_within;
use crate::tools::crate_folder;

/// How long one reconciliation may take: pods start meanwhile, and Flux itself gives up after [`TIMEOUT`].
const RECONCILED: Duration = Duration::from_secs(240);

/// Of Flux's health checks.
const TIMEOUT: &str = "3m";

/// Long enough that Flux does nothing that a test has not asked for.
const NEVER: &str = "10h";

/// The namespace of Flux's own objects.
const NAMESPACE: &str = "flux-system";

/// A bare repository with one branch, and a work tree beside it.
#[derive(Debug)]
pub struct Repository(TempDir);

impl Repository {
    /// One without a commit.
    ///
    /// # Errors
    /// When git cannot make it.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mcpmesh-git-").tempdir()?;
        let made = Self(folder);
        std::fs::create_dir(made.served())?;
        git(made.0.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "served/mesh.git"])?;
        git(made.0.path(), &["clone", "--quiet", "served/mesh.git", "tree"])?;
        Ok(made)
    }

    /// The folder that the git server serves.
    fn served(&self) -> PathBuf {
        self.0.path().join("served")
    }

    /// Writes (Some) and removes (None) files, commits and pushes.
    ///
    /// # Errors
    /// When a file cannot be written, or git fails.
    pub fn commit(&self, message: &str, files: &[(&str, Option<&str>)]) -> anyhow::Result<()> {
        let tree = self.0.path().join("tree");
        for (name, text) in files {
            match text {
                Some(text) => std::fs::write(tree.join(name), text)?,
                None => std::fs::remove_file(tree.join(name)).with_context(|| (*name).to_owned())?,
            }
        }
        git(&tree, &["add", "--all"])?;
        git(&tree, &["commit", "--quiet", "--message", message])?;
        git(&tree, &["push", "--quiet", "origin", "HEAD:main"]).map(drop)
    }

    /// The newest commit's hash.
    fn head(&self) -> anyhow::Result<String> {
        Ok(git(&self.0.path().join("tree"), &["rev-parse", "HEAD"])?.trim().to_owned())
    }
}

fn git(folder: &Path, words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .args(["-c", "user.name=e2e", "-c", "user.email=e2e@mcpmesh.test"])
        .args(words);
    // Whose repository the test itself runs in is not to matter.
    command.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
    let output = command.output().context("starting git")?;
    ensure!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What Flux says of a reconciliation.
#[derive(Debug)]
pub struct Reconciled {
    /// Everything is applied, and healthy by Flux's own reading.
    pub ready: bool,
    /// Of the condition Ready.
    pub reason: String,
    /// Of the condition Ready.
    pub message: String,
    /// When the condition Ready became what it is.
    pub since: String,
}

/// Flux in a cluster, which follows one repository.
pub struct Flux<'r> {
    repository: &'r Repository,
    client: Client,
    requests: AtomicU64,
}

impl std::fmt::Debug for Flux<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Flux").field("repository", &self.repository).finish_non_exhaustive()
    }
}

impl<'r> Flux<'r> {
    /// Starts the controllers, builds them unless cached, and has them apply the repository into a namespace: with
    /// `prune`, and with `wait`, so that Flux is ready when what it applied is.
    ///
    /// # Errors
    /// When they cannot be built or started, or the API server refuses.
    pub async fn follow(cluster: &Cluster, repository: &'r Repository, target: &str) -> anyhow::Result<Self> {
        let mut command = cluster.command(crate_folder().join("cluster/gitops/flux"))?;
        let output = command.arg(repository.served()).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let flux = Self { repository, client: cluster.client().await?, requests: AtomicU64::default() };
        let source =
            json!({"interval": NEVER, "url": "http://127.0.0.1:18090/mesh.git", "ref": {"branch": "main"}});
        flux.apply(&Kind::GIT_REPOSITORY, &source).await?;
        let applied = json!({
            "interval": NEVER, "retryInterval": NEVER, "timeout": TIMEOUT, "prune": true, "wait": true, "path": "./",
            "sourceRef": {"kind": "GitRepository", "name": "mesh"}, "targetNamespace": target,
        });
        flux.apply(&Kind::KUSTOMIZATION, &applied).await?;
        Ok(flux)
    }

    async fn apply(&self, kind: &Kind, spec: &Value) -> anyhow::Result<()> {
        let object = json!({
            "apiVersion": kind.resource().api_version, "kind": kind.kind, "metadata": {"name": "mesh"}, "spec": spec,
        });
        self.api(kind).patch("mesh", &PatchParams::apply("e2e"), &Patch::Apply(&object)).await?;
        Ok(())
    }

    fn api(&self, kind: &Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), NAMESPACE, &kind.resource())
    }

    /// Has Flux fetch the newest commit and apply it, once from the beginning to the end.
    ///
    /// # Errors
    /// When it does not come to an end in time.
    pub async fn reconcile(&self) -> anyhow::Result<Reconciled> {
        let head = self.repository.head()?;
        let fetched = self.request(&Kind::GIT_REPOSITORY).await?;
        let revision = fetched["artifact"]["revision"].as_str().unwrap_or_default();
        ensure!(revision.ends_with(&head), "Flux fetched {revision}, not {head}: {fetched}");
        let applied = self.request(&Kind::KUSTOMIZATION).await?;
        let attempted = applied["lastAttemptedRevision"].as_str().unwrap_or_default();
        ensure!(attempted.ends_with(&head), "Flux tried {attempted}, not {head}: {applied}");
        let ready = ready(&applied).context("Flux says nothing of Ready")?;
        let word = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        Ok(Reconciled {
            ready: ready["status"] == "True",
            reason: word("reason"),
            message: word("message"),
            since: word("lastTransitionTime"),
        })
    }

    /// Asks for one reconciliation, as `flux reconcile` does, and returns the status that speaks of its end.
    async fn request(&self, kind: &Kind) -> anyhow::Result<Value> {
        let request = format!("e2e-{}", self.requests.fetch_add(1, Ordering::Relaxed));
        let patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": request}}});
        self.api(kind).patch("mesh", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        eventually_within(RECONCILED, &format!("Flux has reconciled its {}", kind.kind), || async {
            let status = self.api(kind).get("mesh").await?.data["status"].take();
            ensure!(status["lastHandledReconcileAt"] == request.as_str(), "{status}");
            let settled = ready(&status).is_some_and(|ready| ready["status"] != "Unknown");
            ensure!(settled, "{status}");
            Ok(status)
        })
        .await
    }
}

fn ready(status: &Value) -> Option<&Value> {
    status["conditions"].as_array()?.iter().find(|one| one["type"] == "Ready")
}

/// One of Flux's kinds.
struct Kind {
    group: &'static str,
    kind: &'static str,
}

impl Kind {
    const GIT_REPOSITORY: Self = Self { group: "source.toolkit.fluxcd.io", kind: "GitRepository" };
    const KUSTOMIZATION: Self = Self { group: "kustomize.toolkit.fluxcd.io", kind: "Kustomization" };

    fn resource(&self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(self.group, "v1", self.kind))
    }
}
