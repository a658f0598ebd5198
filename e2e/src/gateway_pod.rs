//! A gateway's proxy as its pod runs it, but on loopback: the token, roots and keys that the pod would mount, a disk that
//! outlives the process.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::time::Duration;

use ::http::StatusCode;
use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::cluster::Namespace;
use crate::http::{self, Client};
use crate::loopback;
use crate::mesh::built;
use crate::metrics::Metrics;
use crate::operator::{AUDIENCE, Operator, token};
use crate::process::{Process, eventually};

/// How long a process may take to end after SIGKILL.
const END: Duration = Duration::from_secs(20);

/// One proxy. Its listeners stand at the ports of the McpGateway on an address of its own.
#[derive(Debug)]
pub struct GatewayPod {
    name: String,
    words: Vec<OsString>,
    host: Ipv4Addr,
    process: Process,
    _folder: TempDir,
}

impl GatewayPod {
    /// Waits for what the operator makes for the gateway, then starts a proxy of it.
    ///
    /// # Errors
    /// When the operator does not make it in time.
    pub async fn start(
        namespace: &Namespace<'_>,
        gateway: &str,
        operator: &Operator<'_>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mcpmesh-pod-").tempdir()?;
        mounts(namespace, gateway, folder.path()).await?;
        let host = loopback::address();
        let fleet = format!("gateway/{}/{gateway}", namespace.name());
        let at = |port: u16| format!("{host}:{port}");
        let inside = |name: &str| folder.path().join(name).into_os_string();
        let options: [(&str, OsString); 8] = [
            ("--operator", operator.push().into()),
            ("--fleet", fleet.into()),
            ("--identity", inside("identity")),
            ("--keys", inside("keys")),
            ("--state", inside("state")),
            ("--listen-address", host.to_string().into()),
            ("--metrics", at(17020).into()),
            ("--admin", at(17000).into()),
        ];
        let words: Vec<_> = options.into_iter().flat_map(|(flag, value)| [flag.into(), value]).collect();
        let name = format!("{gateway}-{host}");
        let process = run(&name, &words)?;
        Ok(Self { name, words, host, process, _folder: folder })
    }

    /// SIGKILL, and a new process over the same disk.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.exited(END).await?;
        self.process = run(&self.name, &self.words)?;
        Ok(())
    }

    /// As [`Self::restart`], but asks for the configuration of another fleet than its token is of.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn restart_as(&mut self, fleet: &str) -> anyhow::Result<()> {
        let word = self.words.iter().position(|word| word == "--fleet").context("no --fleet")?;
        self.words[word + 1] = fleet.into();
        self.restart().await
    }

    /// What it has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The pod's name, as it tells the operator.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients come, of a gateway with the default listener.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}:8080/mcp", self.host)
    }

    /// A client of it.
    ///
    /// # Errors
    /// Never.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.endpoint())
    }

    /// What `/readyz` says.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn readiness(&self) -> anyhow::Result<(StatusCode, String)> {
        let reply = http::get(&format!("http://{}:17020/readyz", self.host)).await?;
        Ok((reply.status, String::from_utf8_lossy(&reply.body).trim_end().to_owned()))
    }

    /// Waits until `/readyz` says "ok" and nothing more: the operator has confirmed what is in force.
    ///
    /// # Errors
    /// When it does not in time, with what the process wrote.
    pub async fn becomes_fresh(&self) -> anyhow::Result<()> {
        let fresh = eventually("the proxy has what the operator has", || async {
            let (status, said) = self.readiness().await?;
            ensure!(status == StatusCode::OK && said == "ok", "{status}: {said}");
            Ok(())
        });
        fresh.await.map_err(|error| error.context(self.process.output()))
    }

    /// Its metrics now.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::scrape(&format!("{}:17020", self.host)).await
    }

    /// The revision in force.
    ///
    /// # Errors
    /// When there is none yet.
    pub async fn revision(&self) -> anyhow::Result<String> {
        let metrics = self.metrics().await?;
        let labels = metrics.labels("mcpmesh_proxy_config_revision_info").context("no revision yet")?;
        Ok(labels.to_owned())
    }

    /// All that it has, without secrets.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn config_dump(&self) -> anyhow::Result<Value> {
        let reply = http::get(&format!("http://{}:17000/config_dump", self.host)).await?;
        ensure!(reply.status == StatusCode::OK, "{}", reply.status);
        Ok(serde_json::from_slice(&reply.body)?)
    }
}

fn run(name: &str, words: &[OsString]) -> anyhow::Result<Process> {
    let mut command = Command::new(built("mcpmesh-proxy")?);
    Process::start(name, command.args(words).env("POD_NAME", name))
}

/// What the pod would mount.
async fn mounts(namespace: &Namespace<'_>, gateway: &str, folder: &std::path::Path) -> anyhow::Result<()> {
    let base = format!("{gateway}-mcpgateway");
    let (identity, keys) = (folder.join("identity"), folder.join("keys"));
    for folder in [&identity, &keys] {
        std::fs::create_dir(folder)?;
    }
    eventually("the operator makes what its pods mount", || async {
        let token = token(&namespace.api::<ServiceAccount>(), &base, Some(AUDIENCE)).await?;
        std::fs::write(identity.join("token"), token)?;
        let roots = namespace.api::<ConfigMap>().get("mcpmesh-roots").await?.data.unwrap_or_default();
        std::fs::write(identity.join("ca.crt"), roots.get("ca.crt").context("no ca.crt")?)?;
        let secret = namespace.api::<Secret>().get(&format!("{base}-keys")).await?;
        for (name, value) in secret.data.unwrap_or_default() {
            std::fs::write(keys.join(name), value.0)?;
        }
        Ok(())
    })
    .await
}
