//! The operator as a process on loopback, with the rights that the installation gives it, over a cluster of tier 1.
//!
//! It runs as a component of the cluster: it ends with that, and a test breaks it like any other.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::StatusCode;
use anyhow::{Context as _, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, Component, Faulty};
use crate::http;
use crate::loopback;
use crate::mesh::built;
use crate::metrics::Metrics;
use crate::process::eventually_within;

/// The operator's namespace.
pub const NAMESPACE: &str = "mcpmesh-system";

/// Its service account there.
const ACCOUNT: &str = "mcpmesh-operator";

/// How long it may take until it is ready (a second; the machine may be busy).
const READY: Duration = Duration::from_secs(60);

/// One replica.
#[derive(Debug)]
pub struct Operator<'c> {
    cluster: &'c Cluster,
    component: &'static str,
    host: Ipv4Addr,
    /// Of this replica among those at the same address.
    index: u16,
}

impl Operator<'static> {
    /// That of [`Cluster::operated`].
    ///
    /// # Errors
    /// When it does not start.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<Operator<'static>> = OnceCell::const_new();
        SHARED.get_or_try_init(|| async { Self::install(Cluster::operated()?, "operator").await }).await
    }
}

impl<'c> Operator<'c> {
    /// Applies `manifests/install.yaml` and starts a replica under this name; its pods of the manifest wait for a node for
    /// ever.
    ///
    /// # Errors
    /// When it is not ready in time, with what it wrote.
    pub async fn install(cluster: &'c Cluster, component: &'static str) -> anyhow::Result<Self> {
        cluster.install("manifests/install.yaml").await?;
        Self::start(cluster, component).await
    }

    /// Starts a replica under this name in a cluster that has `manifests/install.yaml`, or what
    /// `mcpmesh install --dry-run` prints.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn start(cluster: &'c Cluster, component: &'static str) -> anyhow::Result<Self> {
        let api: Api<ServiceAccount> = Api::namespaced(cluster.client().await?, NAMESPACE);
        let folder = cluster.kubeconfig().parent().context("the kubeconfig lies in no folder")?;
        let token = token(&api, ACCOUNT, None).await?;
        std::fs::write(kubeconfig(folder), with_token(cluster.kubeconfig(), &token)?)?;
        std::fs::write(folder.join("operator.token"), self::token(&api, ACCOUNT, Some(AUDIENCE)).await?)?;
        let operator = Self { cluster, component, host: loopback::address(), index: 0 };
        operator.run()?;
        operator.becomes_ready().await?;
        Ok(operator)
    }

    /// Starts another replica at the same address.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub async fn replica(&self, component: &'static str) -> anyhow::Result<Self> {
        let replica = Self { cluster: self.cluster, component, host: self.host, index: self.index + 1 };
        replica.run()?;
        replica.becomes_ready().await?;
        Ok(replica)
    }

    fn run(&self) -> anyhow::Result<()> {
        let folder = self.cluster.kubeconfig().parent().context("the kubeconfig lies in no folder")?;
        let mut words: Vec<OsString> = vec!["env".into()];
        words.push(variable("KUBECONFIG", &kubeconfig(folder)));
        words.push(built("mcpmesh-operator")?.into());
        let token = folder.join("operator.token");
        // Alike for all replicas: it stands in the pods that they make.
        let told = format!("{}:9443", self.host);
        let options = [
            ("--namespace", NAMESPACE.into()),
            ("--replica", self.component.into()),
            ("--token", token.into()),
            ("--listen", self.push().into()),
            ("--metrics", self.observability().into()),
            ("--operator-address", OsString::from(told)),
        ];
        words.extend(options.into_iter().flat_map(|(flag, value)| [flag.into(), value]));
        // The servers of tests are on loopback.
        words.push("--remote-ranges=127.0.0.0/8".into());
        self.cluster.run(self.component, words)
    }

    /// Waits until it serves a configuration.
    ///
    /// # Errors
    /// When it does not in time, with the end of its log.
    pub async fn becomes_ready(&self) -> anyhow::Result<()> {
        let ready = eventually_within(READY, "the operator is ready", || async {
            let (status, text) = self.page("readyz").await?;
            ensure!(status == StatusCode::OK, "{status}: {text}");
            Ok(())
        });
        ready.await.map_err(|error| match self.cluster.log(self.component) {
            Ok(log) => error.context(log),
            Err(_) => error,
        })
    }

    /// Where proxies come: `ADDRESS:PORT`.
    #[must_use]
    pub fn push(&self) -> String {
        format!("{}:{}", self.host, 9443 + self.index)
    }

    fn observability(&self) -> String {
        format!("{}:{}", self.host, 17020 + self.index)
    }

    /// One of `readyz` and `livez`.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn page(&self, name: &str) -> anyhow::Result<(StatusCode, String)> {
        let reply = http::get(&format!("http://{}/{name}", self.observability())).await?;
        Ok((reply.status, String::from_utf8_lossy(&reply.body).into_owned()))
    }

    /// Its metrics now.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn metrics(&self) -> anyhow::Result<Metrics> {
        Metrics::scrape(&self.observability()).await
    }

    /// Its writes to the API server so far: all of them, or those of one kind.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn writes(&self, kind: Option<&str>) -> anyhow::Result<f64> {
        let labels = kind.map(|kind| format!("kind=\"{kind}\"")).unwrap_or_default();
        Ok(self.metrics().await?.sum("mcpmesh_operator_writes_total", &labels).unwrap_or_default())
    }

    /// All that it counts of its writes, for messages.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn counted_writes(&self) -> anyhow::Result<String> {
        let (_, text) = self.page("metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with("mcpmesh_operator_writes_total"));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// This process, to be broken.
    ///
    /// # Errors
    /// When other tests use the cluster too.
    pub fn fault(&self) -> anyhow::Result<Faulty<'c>> {
        self.cluster.fault(Component::Program(self.component))
    }

    /// What it wrote.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        self.cluster.log(self.component)
    }
}

/// The audience of tokens that the operator takes.
pub const AUDIENCE: &str = mcpmesh_ir::push::AUDIENCE;

/// A token of a service account, for an hour; without an audience, for the API server.
///
/// # Errors
/// When there is no such account.
pub async fn token(
    api: &Api<ServiceAccount>,
    account: &str,
    audience: Option<&str>,
) -> anyhow::Result<String> {
    let spec = TokenRequestSpec {
        audiences: audience.map(str::to_owned).into_iter().collect(),
        expiration_seconds: Some(3600),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("no token")?.token)
}

fn kubeconfig(folder: &Path) -> PathBuf {
    folder.join("operator.kubeconfig")
}

fn variable(name: &str, value: &Path) -> OsString {
    let mut word = OsString::from(format!("{name}="));
    word.push(value);
    word
}

/// The admin's kubeconfig with a token in place of the admin's certificate.
fn with_token(admin: &Path, token: &str) -> anyhow::Result<Vec<u8>> {
    let mut config = serde_json::to_value(Kubeconfig::read_from(admin)?)?;
    let users = config["users"].as_array_mut().context("no users")?;
    for user in users {
        user["user"] = json!({ "token": token });
    }
    Ok(serde_json::to_vec(&config)?)
}
