//! A real Kubernetes cluster under a test, started by `cluster/cluster`: one that a test binary's tests share, or one
//! that a test may break. Each test gets a [`Sandbox`], inside the cluster's network.
//!
//! `E2E_KUBECONFIG` names an existing cluster for the shared tests of tier 1.

mod fault;
mod image;
mod install;
mod sandbox;
mod script;

use std::ffi::OsStr;
use std::fs::File;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, anyhow};
use futures_util::FutureExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::Command;

pub use fault::{Component, Fault, Faulty};
pub use image::Image;
pub use sandbox::{Namespace, Sandbox};

use script::{Running, Script};

/// Names an existing cluster's kubeconfig.
const KUBECONFIG: &str = "E2E_KUBECONFIG";

/// How much of a cluster runs; each tier holds the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// etcd, the API server and the controller manager on loopback. Needs no root.
    One,
    /// A scheduler, DNS and `node1`, which runs pods, in namespaces of their own. Needs root.
    Two,
    /// `node2` behind a link that can be cut.
    Three,
}

impl Tier {
    fn number(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
            Self::Three => "3",
        }
    }
}

/// One cluster. Dropping it removes it with all that runs in it.
#[derive(Debug)]
pub struct Cluster {
    tier: Tier,
    kubeconfig: PathBuf,
    /// None: it was there before (`E2E_KUBECONFIG`).
    running: Option<Running>,
    /// Of a cluster of the test's own: the lock that lets only few run on the machine.
    alone: Option<File>,
}

impl Cluster {
    /// The cluster that all tests of this binary share, started by whichever asks first. It ends with the process, however
    /// that ends.
    ///
    /// # Errors
    /// When it cannot start, each time with the same reason.
    pub fn shared(tier: Tier) -> anyhow::Result<&'static Self> {
        static SHARED: [OnceLock<Result<Cluster, String>>; 3] = [const { OnceLock::new() }; 3];
        let start = || match std::env::var_os(KUBECONFIG) {
            Some(path) if tier == Tier::One => Ok(Self::existing(PathBuf::from(path))),
            _ => Self::start("t", tier, None).map_err(|error| format!("{error:#}")),
        };
        SHARED[tier as usize].get_or_init(start).as_ref().map_err(|reason| anyhow!("{reason}"))
    }

    /// A further cluster of tier 1 that all tests of this binary share: for those with an operator, which writes into the
    /// objects of all namespaces.
    ///
    /// # Errors
    /// When it cannot start, each time with the same reason.
    pub fn operated() -> anyhow::Result<&'static Self> {
        static OPERATED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let start = || Self::start("op", Tier::One, None).map_err(|error| format!("{error:#}"));
        OPERATED.get_or_init(start).as_ref().map_err(|reason| anyhow!("{reason}"))
    }

    /// A cluster for one test, which may break it. Waits while other tests on this machine have too many.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn own(tier: Tier) -> anyhow::Result<Self> {
        Self::start("own", tier, Some(Script::turn(tier)?))
    }

    fn start(kind: &str, tier: Tier, alone: Option<File>) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let script = Script::new(&format!("{kind}{}-{}-{count}", tier.number(), std::process::id()))?;
        let running = Running::up(script, tier)?;
        Ok(Self { tier, kubeconfig: running.script().kubeconfig()?, running: Some(running), alone })
    }

    fn existing(kubeconfig: PathBuf) -> Self {
        Self { tier: Tier::One, kubeconfig, running: None, alone: None }
    }

    /// Runs one test in the cluster's network, with a client, on a thread and a runtime of its own. Namespaces that it made
    /// are deleted afterwards, and a failure tells what the cluster says of them.
    ///
    /// Only the network is the cluster's, not its DNS: a name is resolved by [`Sandbox::service_ip`], or by a program that
    /// [`Cluster::command`] starts.
    ///
    /// # Errors
    /// With the test's own, or that of a panic in it.
    pub fn test<F>(&self, body: F) -> anyhow::Result<()>
    where
        F: AsyncFnOnce(&Sandbox<'_>) -> anyhow::Result<()> + Send,
    {
        let name = thread::current().name().unwrap_or("main").to_owned();
        thread::scope(|scope| {
            // Entering a network is for ever: the thread must be the test's own.
            let test = thread::Builder::new().name(name.clone()).spawn_scoped(scope, || {
                self.enter_network()?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(self.judge(&name, body))
            })?;
            test.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    async fn judge<F>(&self, name: &str, body: F) -> anyhow::Result<()>
    where
        F: AsyncFnOnce(&Sandbox<'_>) -> anyhow::Result<()>,
    {
        let sandbox = Sandbox::new(self, name, self.client().await?);
        let outcome = AssertUnwindSafe(body(&sandbox)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked, as told above")));
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(sandbox.report().await)),
        };
        sandbox.clean_up().await;
        outcome
    }

    fn enter_network(&self) -> anyhow::Result<()> {
        let Some(running) = self.running.as_ref().filter(|_| self.tier > Tier::One) else {
            return Ok(());
        };
        let path = running.script().network();
        let network = File::open(&path).with_context(|| path.display().to_string())?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .context("entering the cluster's network")
    }

    /// A client with all rights, for the runtime that calls.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// A client with the rights of a user, by impersonation.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client_as(&self, user: &str) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.auth_info.impersonate = Some(user.to_owned());
        Ok(Client::try_from(config)?)
    }

    /// The admin's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A program inside the cluster's network, with its DNS, `KUBECONFIG` set.
    ///
    /// # Errors
    /// When an existing cluster is used: its network is out of reach.
    pub fn command(&self, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
        let mut command = self.script()?.command("exec");
        command.arg("--").arg(program);
        Ok(command.into())
    }

    /// Runs the matching kubectl as admin and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it wrote to stderr.
    pub async fn kubectl<I: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = I>,
    ) -> anyhow::Result<String> {
        let mut command = match &self.running {
            Some(running) => running.script().command("kubectl"),
            None => {
                let mut command = Script::kubectl()?;
                command.env("KUBECONFIG", &self.kubeconfig);
                command
            }
        };
        command.args(arguments);
        let output = Command::from(command).output().await.context("starting kubectl")?;
        script::printed("kubectl", &output)
    }

    /// Starts a program of ours as one more component, with the cluster's network, DNS and `KUBECONFIG`. It ends with the
    /// cluster; faults and [`Cluster::log`] apply to it.
    ///
    /// # Errors
    /// When it cannot start, or this name runs already.
    pub fn run<I: AsRef<OsStr>>(&self, name: &str, words: impl IntoIterator<Item = I>) -> anyhow::Result<()> {
        let mut command = self.script()?.command("run");
        command.arg(name).arg("--").args(words);
        script::output(&mut command).map(drop)
    }

    /// What a component has written so far.
    ///
    /// # Errors
    /// When there is no such component.
    pub fn log(&self, component: &str) -> anyhow::Result<String> {
        let path = self.script()?.logs().join(format!("{component}.log"));
        Ok(String::from_utf8_lossy(&std::fs::read(&path).with_context(|| path.display().to_string())?)
            .into_owned())
    }

    fn script(&self) -> anyhow::Result<&Script> {
        let running =
            self.running.as_ref().context("this needs a cluster of ours, not that of E2E_KUBECONFIG")?;
        Ok(running.script())
    }

    /// The last lines of each component's log: of a cluster of the test's own, as others' tests fill those of a shared one.
    fn last_words(&self) -> String {
        match &self.running {
            Some(running) if self.alone.is_some() => running.script().last_words(),
            Some(running) => format!("logs: {}", running.script().logs().display()),
            None => String::new(),
        }
    }
}
