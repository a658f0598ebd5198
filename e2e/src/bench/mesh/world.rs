//! The cluster, the operator, the real proxy and the subscribers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use tempfile::TempDir;

use super::Size;
use super::objects::{self, namespace};
use super::scrape::Scrape;
use super::subscriber::{Identity, Log, Subscriber};
use crate::bench::running::{Running, free};
use crate::cluster::{Cluster, Tier};
use crate::tools::crate_folder;

/// Where the MCP server listens: what a pod's address is to a proxy (`e2e/bench/run.sh` adds it).
const POD: &str = "10.20.0.1:0";

/// How long everything may take until it is as it should be.
const PATIENCE: Duration = Duration::from_secs(600);

/// All of it. It ends with this.
pub(super) struct World {
    pub(super) size: Size,
    pub(super) client: Client,
    pub(super) log: Log,
    operator: Option<Running>,
    proxy: Option<Running>,
    pub(super) push: SocketAddr,
    pub(super) metrics: SocketAddr,
    _upstream: Running,
    cluster: &'static Cluster,
    folder: TempDir,
}

impl World {
    /// With all objects, the operator at rest, and no proxies.
    pub(super) async fn start(size: Size) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mcpmesh-bench-").tempdir()?;
        let pod = free_pod()?;
        let own = std::env::current_exe()?;
        let mut command = Command::new(&own);
        command.args(["upstream", &pod.to_string()]);
        let upstream = Running::start("pod", &mut command, pod, folder.path())?;
        let cluster = Cluster::shared(Tier::One)?;
        let crds = crate_folder().join("../manifests/crds");
        let words = ["apply", "--server-side", "-f"].map(AsRef::as_ref);
        cluster.kubectl(words.into_iter().chain([crds.as_os_str()])).await?;
        let client = cluster.client().await?;
        served(&client).await?;
        let metadata = serde_json::json!({"metadata": {"name": "mcpmesh-system"}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(metadata)?).await?;
        objects::create(&client, size, pod).await?;
        tracing::info!("{} objects are created", size.objects());
        let (push, metrics) = (free()?, free()?);
        let mut world = Self {
            size,
            client,
            log: Log::default(),
            operator: None,
            proxy: None,
            push,
            metrics,
            _upstream: upstream,
            cluster,
            folder,
        };
        world.start_operator()?;
        world.settle().await?;
        Ok(world)
    }

    pub(super) fn start_operator(&mut self) -> anyhow::Result<()> {
        // The port is free again once the old one is gone.
        self.operator = None;
        let mut command = Command::new(beside("mcpmesh-operator")?);
        command.args(["--namespace", "mcpmesh-system", "--proxy-image", "bench"]);
        command.args(["--listen", &self.push.to_string(), "--operator-address", &self.push.to_string()]);
        command.args(["--metrics", &self.metrics.to_string()]);
        command.env("KUBECONFIG", self.cluster.kubeconfig()).env("RUST_LOG", "warn");
        let at = self.metrics;
        self.operator = Some(Running::start("operator", &mut command, at, self.folder.path())?);
        Ok(())
    }

    pub(super) fn stop_operator(&mut self) {
        self.operator = None;
    }

    /// Until the operator has written nothing for some seconds and has no work left.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let wrote = self.writes_within(Duration::from_secs(8)).await?;
            let scrape = self.scrape().await?;
            let worked = scrape.sum("mcpmesh_operator_reconcile_duration_seconds_count") > 0.0;
            if wrote == 0.0 && worked {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "the operator goes on writing");
        }
    }

    /// Writes of the operator within a time.
    pub(super) async fn writes_within(&self, time: Duration) -> anyhow::Result<f64> {
        let before = self.scrape().await?.sum("mcpmesh_operator_writes_total");
        tokio::time::sleep(time).await;
        Ok(self.scrape().await?.sum("mcpmesh_operator_writes_total") - before)
    }

    pub(super) async fn scrape(&self) -> anyhow::Result<Scrape> {
        Scrape::of(self.metrics).await
    }

    /// KiB of the operator and of the real proxy.
    pub(super) fn memory(&self) -> (u64, u64) {
        let of = |running: &Option<Running>| running.as_ref().map_or(0, Running::rss);
        (of(&self.operator), of(&self.proxy))
    }

    /// Starts 99 subscribers at once; `one_fleet`: all of the real proxy's. Returns how long until each has everything.
    pub(super) async fn subscribe(&self, one_fleet: bool) -> anyhow::Result<(Vec<Subscriber>, Duration)> {
        let numbers = 1..self.size.proxies;
        let identities = stream::iter(numbers.clone())
            .map(|number| self.identity(if one_fleet { 0 } else { number % self.size.namespaces }, number));
        let identities: Vec<Identity> = identities.buffered(8).try_collect().await?;
        let configured = || self.log.lock().map_or(0, |record| record.configured);
        let before = configured();
        let began = Instant::now();
        let started =
            identities.into_iter().map(|identity| Subscriber::start(identity, self.log.clone())).collect();
        while configured() < before + numbers.len() {
            ensure!(began.elapsed() < PATIENCE, "not every subscriber has its configuration");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok((started, began.elapsed()))
    }

    async fn identity(&self, team: usize, pod: usize) -> anyhow::Result<Identity> {
        let namespace = namespace(team);
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        let spec = TokenRequestSpec {
            audiences: vec![mcpmesh_ir::push::AUDIENCE.to_owned()],
            expiration_seconds: Some(86_400),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = accounts.create_token_request("main-mcpgateway", &PostParams::default(), &request).await?;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
        let roots = maps.get("mcpmesh-roots").await?.data.unwrap_or_default().remove("ca.crt");
        Ok(Identity {
            operator: self.push.to_string(),
            roots: roots.context("no ca.crt")?,
            token: made.status.context("no token")?.token,
            fleet: format!("gateway/{namespace}/main"),
            pod: format!("pod-{pod}"),
        })
    }

    /// Writes what is mounted into a gateway's pod.
    async fn mounts(&self) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join("proxy");
        for name in ["identity", "keys", "state"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let identity = self.identity(0, 0).await?;
        std::fs::write(folder.join("identity/ca.crt"), identity.roots)?;
        std::fs::write(folder.join("identity/token"), identity.token)?;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &namespace(0));
        for (name, value) in secrets.get("main-mcpgateway-keys").await?.data.unwrap_or_default() {
            std::fs::write(folder.join("keys").join(name), value.0)?;
        }
        Ok(folder)
    }

    /// Starts the real proxy anew and returns where it serves. What it keeps on its disk stays.
    pub(super) async fn start_proxy(&mut self) -> anyhow::Result<SocketAddr> {
        let folder = self.mounts().await?;
        self.launch_proxy(&folder)
    }

    /// As it was started before: what is mounted is as it was.
    pub(super) fn restart_proxy(&mut self) -> anyhow::Result<SocketAddr> {
        self.launch_proxy(&self.folder.path().join("proxy"))
    }

    pub(super) fn stop_proxy(&mut self) {
        self.proxy = None;
    }

    fn launch_proxy(&mut self, folder: &std::path::Path) -> anyhow::Result<SocketAddr> {
        self.proxy = None;
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let mut command = Command::new(beside("mcpmesh-proxy")?);
        command.args(["--operator", &self.push.to_string(), "--fleet", "gateway/t0/main"]);
        for name in ["identity", "keys", "state"] {
            command.arg(format!("--{name}")).arg(folder.join(name));
        }
        command.args(["--listen-address", "127.0.0.1", "--metrics", PROXY_METRICS, "--admin", "127.0.0.1:0"]);
        command.env("POD_NAME", "pod-0").env("POD_IP", "127.0.0.1").env("RUST_LOG", "warn");
        self.proxy = Some(Running::start("mesh-proxy", &mut command, address, self.folder.path())?);
        Ok(address)
    }
}

/// Metrics and readiness of the real proxy.
pub(super) const PROXY_METRICS: &str = "127.0.0.1:17020";

/// A program that lies beside this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(program.is_file(), "{} is not built", program.display());
    Ok(program)
}

/// A free port of the pod's address.
fn free_pod() -> anyhow::Result<SocketAddr> {
    let bound = std::net::TcpListener::bind(POD);
    let bound =
        bound.context("W7 and W8 run in a network namespace with 10.20.0.1: e2e/bench/run.sh makes it")?;
    Ok(bound.local_addr()?)
}

/// Until the API server serves our kinds.
async fn served(client: &Client) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let found = client.list_api_group_resources("mcpmesh.io/v1alpha1").await;
        if found
            .as_ref()
            .is_ok_and(|list| list.resources.iter().filter(|one| !one.name.contains('/')).count() == 3)
        {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(60) {
            bail!("the CRDs are not served: {found:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
