//! Manifests for the mesh: one gateway open to anyone, and servers behind it.

use crate::mesh::Manifests;
use crate::process::Process;
use crate::servers::Server;

/// A gateway that lets anyone do anything; `prefix` is `Always` or `OnConflict`.
#[must_use]
pub fn open_gateway(prefix: &str) -> String {
    format!(
        "apiVersion: mcpmesh.io/v1alpha1
kind: McpGateway
metadata: {{name: main}}
spec:
  naming: {{prefix: {prefix}}}
  authentication: {{anonymous: Allow}}
---
apiVersion: mcpmesh.io/v1alpha1
kind: McpPolicy
metadata: {{name: open}}
spec:
  targetRefs: [{{kind: McpGateway, name: main}}]
  access:
    - {{name: anyone, effect: Allow, from: [{{anyone: {{}}}}]}}
"
    )
}

/// A server at a URL.
#[must_use]
pub fn remote(name: &str, url: &str) -> String {
    format!(
        "---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: {name}}}
spec:
  remote: {{url: \"{url}\"}}
"
    )
}

/// A server of a registry (`Npm` or `PyPI`), `package` as in `name@version` or `name==version`.
#[must_use]
pub fn package(name: &str, registry: &str, package: &str, arguments: &[&str]) -> String {
    let (package, version) =
        package.split_once("==").or_else(|| package.rsplit_once('@')).unwrap_or((package, "latest"));
    format!(
        "---
apiVersion: mcpmesh.io/v1alpha1
kind: McpServer
metadata: {{name: {name}}}
spec:
  package: {{registry: {registry}, name: \"{package}\", version: \"{version}\", args: {arguments:?}}}
"
    )
}

/// Real servers of every transport and revision, and what they work on.
#[derive(Debug)]
pub struct Federation {
    /// The manifests, complete.
    pub manifests: Manifests,
    /// A git repository and, for the filesystem server, a folder.
    pub folder: tempfile::TempDir,
    _processes: Vec<Process>,
}

impl Federation {
    /// Starts those that are reached by URL and writes manifests for all.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mcpmesh-served-").tempdir()?;
        let path = folder.path().to_string_lossy().into_owned();
        let git = tokio::process::Command::new("git").args(["init", "--quiet", &path]).status().await?;
        anyhow::ensure!(git.success(), "git init failed");
        let manifests = Manifests::new()?;
        let mut text = open_gateway("Always");
        let mut processes = Vec::new();
        for server in Server::ALL {
            let (process, url) = server.start().await?;
            text += &remote(server.name(), &url);
            processes.push(process);
        }
        // The versions are those that setup.sh has warmed: packages.txt.
        let npm = |name, version| format!("@modelcontextprotocol/server-{name}@{version}");
        text += &package("everything", "Npm", &npm("everything", "2026.8.31"), &[]);
        text += &package("memory", "Npm", &npm("memory", "2026.8.31"), &[]);
        text += &package("filesystem", "Npm", &npm("filesystem", "2026.8.31"), &[&path]);
        text += &package("time", "PyPI", "mcp-server-time==2026.10.19", &["--local-timezone", "UTC"]);
        text += &package("git", "PyPI", "mcp-server-git==2026.10.19", &["--repository", &path]);
        manifests.write("mesh.yaml", &text)?;
        Ok(Self { manifests, folder, _processes: processes })
    }
}
