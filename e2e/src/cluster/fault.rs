//! What a test breaks in a cluster of its own, as guards: what is broken is mended when the guard goes.

use std::borrow::Cow;
use std::process::Command;

use anyhow::ensure;

use super::{Cluster, script};

/// A part of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controller manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// CoreDNS.
    Dns,
    /// The kubelet of a node (1 or 2).
    Kubelet(u8),
    /// The container runtime of a node (1 or 2).
    Containerd(u8),
    /// What [`Cluster::run`] has started under this name.
    Program(&'static str),
}

impl Component {
    fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Etcd => "etcd".into(),
            Self::ApiServer => "kube-apiserver".into(),
            Self::ControllerManager => "kube-controller-manager".into(),
            Self::Scheduler => "kube-scheduler".into(),
            Self::Dns => "coredns".into(),
            Self::Kubelet(node) => format!("kubelet-node{node}").into(),
            Self::Containerd(node) => format!("containerd-node{node}").into(),
            Self::Program(name) => (*name).into(),
        }
    }
}

impl Cluster {
    /// A component to be broken.
    ///
    /// # Errors
    /// When other tests use the cluster too.
    pub fn fault(&self, component: Component) -> anyhow::Result<Faulty<'_>> {
        self.is_own()?;
        Ok(Faulty { cluster: self, component })
    }

    /// Cuts the link of a tier 3 node.
    ///
    /// # Errors
    /// When other tests use the cluster too, or it has no such node.
    pub fn partition(&self, node: u8) -> anyhow::Result<Fault<'_>> {
        self.is_own()?;
        let node = format!("node{node}");
        script::output(self.script()?.command("partition").arg(&node))?;
        Ok(Fault { cluster: self, mend: Some(vec!["heal".into(), node.into()]) })
    }

    fn is_own(&self) -> anyhow::Result<()> {
        ensure!(self.alone.is_some(), "only a cluster of the test's own may be broken");
        Ok(())
    }
}

/// A component that a test is about to break.
#[derive(Debug)]
pub struct Faulty<'c> {
    cluster: &'c Cluster,
    component: Component,
}

impl<'c> Faulty<'c> {
    /// SIGKILL; when the guard goes, it is started again.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn kill(self) -> anyhow::Result<Fault<'c>> {
        self.breaks(&["kill"], &["start"])
    }

    /// SIGTERM, and SIGKILL for what does not end in 5 s; when the guard goes, it is started again.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop(self) -> anyhow::Result<Fault<'c>> {
        self.breaks(&["stop"], &["start"])
    }

    /// SIGSTOP: it holds its connections and answers nothing until the guard goes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(self) -> anyhow::Result<Fault<'c>> {
        self.breaks(&["kill", "-STOP"], &["kill", "-CONT"])
    }

    fn breaks(self, how: &[&'static str], back: &[&'static str]) -> anyhow::Result<Fault<'c>> {
        let name = self.component.name();
        let mut command = self.cluster.script()?.command(how[0]);
        script::output(command.args(&how[1..]).arg(name.as_ref()))?;
        let mend = back.iter().map(|word| Cow::Borrowed(*word)).chain([name]).collect();
        Ok(Fault { cluster: self.cluster, mend: Some(mend) })
    }
}

/// Something broken.
#[derive(Debug)]
#[must_use = "it is mended when this goes"]
pub struct Fault<'c> {
    cluster: &'c Cluster,
    mend: Option<Vec<Cow<'static, str>>>,
}

impl Fault<'_> {
    /// Mends it now. A control plane's component is then ready; for others, poll.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn mend(mut self) -> anyhow::Result<()> {
        self.command().map_or(Ok(()), |mut command| script::output(&mut command).map(drop))
    }

    fn command(&mut self) -> Option<Command> {
        let words = self.mend.take()?;
        let mut command = self.cluster.script().ok()?.command(&words[0]);
        command.args(words[1..].iter().map(AsRef::as_ref));
        Some(command)
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        // Only after a failure: its own message tells more than that of a cluster that does not come back.
        let _ = self.command().map(|mut command| script::output(&mut command));
    }
}
