//! `cluster/cluster`, the one implementation of starting, breaking and removing clusters, as a command.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, bail, ensure};

use super::Tier;
use crate::tools::crate_folder;

/// How much of a component's log a failed test shows.
const LAST_LINES: usize = 40;

/// Brings a cluster up, says so, and takes it down when its input ends: when we let go of it, or when we die, even while it
/// starts.
const LIFELINE: &str =
    r#"if "$0" up --tier "$1" 2>&1; then echo ready; cat >/dev/null; fi; "$0" down >/dev/null 2>&1"#;

/// The script, for one cluster.
#[derive(Debug, Clone)]
pub(super) struct Script {
    name: String,
    root: PathBuf,
}

impl Script {
    /// For the cluster of this name (at most 20 of a-z, 0-9 and '-').
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        Ok(Self { name: name.to_owned(), root: root()? })
    }

    /// Waits until few enough other tests on this machine have a cluster of their own: two may of tier 1, as theirs mostly
    /// wait, one of those with nodes. Holds until the file is closed.
    pub(super) fn turn(tier: Tier) -> anyhow::Result<File> {
        let root = root()?;
        std::fs::create_dir_all(&root)?;
        let (first, last) = match tier {
            Tier::One => (Some("own-1.lock"), "own-2.lock"),
            Tier::Two | Tier::Three => (None, "own.lock"),
        };
        if let Some(first) = first {
            let file = File::create(root.join(first))?;
            if file.try_lock().is_ok() {
                return Ok(file);
            }
        }
        let file = File::create(root.join(last))?;
        file.lock()?;
        Ok(file)
    }

    fn bare() -> Command {
        Command::new(crate_folder().join("cluster/cluster"))
    }

    /// One of its commands.
    pub(super) fn command(&self, word: &str) -> Command {
        let mut command = Self::bare();
        command.env("CLUSTER_NAME", &self.name).env("CLUSTER_DIR", &self.root).arg(word);
        command
    }

    /// The built kubectl, for a cluster that is not ours.
    pub(super) fn kubectl() -> anyhow::Result<Command> {
        let folder = output(Self::bare().arg("build"))?;
        let mut command = Command::new(PathBuf::from(folder.trim()).join("kube"));
        command.arg("kubectl");
        Ok(command)
    }

    pub(super) fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        Ok(PathBuf::from(output(&mut self.command("kubeconfig"))?.trim()))
    }

    /// The network namespace of tiers 2 and 3.
    pub(super) fn network(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/mcpmesh-{}", self.name))
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs").join(&self.name)
    }

    /// The last lines of each component's log.
    pub(super) fn last_words(&self) -> String {
        let mut words = String::new();
        let files = std::fs::read_dir(self.logs()).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
        paths.sort();
        for path in paths {
            let text = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            let _ = writeln!(words, "--- {}\n{}", path.display(), last.join("\n"));
        }
        words
    }
}

/// Where the script keeps binaries, state and logs.
fn root() -> anyhow::Result<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let cache = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let chosen = std::env::var_os("CLUSTER_DIR").map(PathBuf::from);
    chosen.or_else(|| Some(cache()?.join("mcpmesh-e2e"))).context("neither CLUSTER_DIR nor HOME is set")
}

/// A cluster that is up, for as long as this lives.
#[derive(Debug)]
pub(super) struct Running {
    script: Script,
    lifeline: Child,
}

impl Running {
    /// Starts it and waits until it is ready.
    pub(super) fn up(script: Script, tier: Tier) -> anyhow::Result<Self> {
        let mut command = Command::new("bash");
        command.args(["-c", LIFELINE]).arg(crate_folder().join("cluster/cluster")).arg(tier.number());
        command.env("CLUSTER_NAME", &script.name).env("CLUSTER_DIR", &script.root);
        // A group of its own: Ctrl-C at a terminal must not reach it before its input ends.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut lifeline = command.spawn().context("starting bash")?;
        let mut said = BufReader::new(lifeline.stdout.take().context("no stdout")?);
        let running = Self { script, lifeline };
        let mut lines = String::new();
        let mut line = String::new();
        while said.read_line(&mut line)? > 0 {
            if line == "ready\n" {
                return Ok(running);
            }
            lines.push_str(&line);
            line.clear();
        }
        bail!("no cluster of tier {}: {}", tier.number(), lines.trim_end())
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.lifeline.stdin.take());
        let _ = self.lifeline.wait();
    }
}

/// Runs a command to its end and returns what it printed.
pub(super) fn output(command: &mut Command) -> anyhow::Result<String> {
    // Files instead of pipes: a component that stays would hold a pipe open.
    let mut errors = tempfile::tempfile()?;
    let output = command.stdin(Stdio::null()).stderr(errors.try_clone()?).output();
    let mut output = output.with_context(|| format!("starting {command:?}"))?;
    std::io::Seek::rewind(&mut errors)?;
    errors.read_to_end(&mut output.stderr)?;
    printed(command.get_args().collect::<Vec<_>>().join(OsStr::new(" ")), &output)
}

/// What a command that succeeded has printed.
pub(super) fn printed(what: impl AsRef<OsStr>, output: &Output) -> anyhow::Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", what.as_ref().display(), output.status, errors.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
