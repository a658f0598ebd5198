//! `mcpmesh up`: the compiler and the proxy in one process, from a folder of the YAML that a cluster takes.

mod data_plane;
mod screen;
mod status;
mod watch;

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mcpmesh_compiler::Diagnostic;
use mcpmesh_proxy::access_log;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::UpArgs;
use crate::check;
use crate::exit::{Failure, Outcome};
use crate::source::{self, Loaded, Source};
use crate::workloads::Workloads;
use data_plane::{DataPlane, Place};
use screen::Screen;
use watch::Watch;

/// How long requests in flight may take at the end.
const DRAIN: Duration = Duration::from_secs(20);

/// How long processes may take to end after that; the shims end them even without us.
const CHILDREN: Duration = Duration::from_secs(8);

/// Exit code after a second signal, as shells have it for SIGINT.
const INTERRUPTED: i32 = 130;

/// What is logged unless `MCPMESH_LOG` says otherwise. What the watching library says of a folder that is gone, the watch
/// says in words.
const LOGGED: &str = "info,notify=error,notify_debouncer_full=error";

/// Runs `mcpmesh up`.
pub(crate) fn run(args: &UpArgs) -> Outcome {
    if !args.admin.ip().is_loopback() {
        return Err(Failure::usage(format!("--admin {}: the admin port is for loopback only", args.admin)));
    }
    let home = std::env::current_dir().context("the current folder is gone")?;
    // Whole paths: another folder of this name, as `git checkout` makes it, is meant then as well.
    let paths: Vec<PathBuf> = args.paths.iter().map(|path| source::whole(&home, path)).collect();
    let source = source::pick(&paths, args.listen.port())?;
    let source = source.map_err(|nothing| Failure::failed(how_to_start(&nothing)))?;
    let version_key = random_key()?;
    let (watch, loaded) =
        watch_and_read(&source, !args.no_watch, |source| source::load(source, version_key))?;
    check::say(&loaded.diagnostics);
    judge_start(&loaded, &source, args.listen)?;
    let up = Up {
        source,
        home,
        version_key,
        listen: args.listen,
        screen: Screen::new(),
        workloads: Workloads::default(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env(crate::LOG).unwrap_or_else(|_| EnvFilter::new(LOGGED)))
        .with_target(false)
        .with_writer(up.screen.clone())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    let outcome = runtime.block_on(up.serve(args, watch, loaded));
    runtime.shutdown_timeout(Duration::from_millis(200));
    outcome
}

/// Watches before the first look, so that no change falls between.
fn watch_and_read(
    source: &Source,
    watch: bool,
    read: impl FnOnce(&Source) -> anyhow::Result<Loaded>,
) -> anyhow::Result<(Option<Watch>, Loaded)> {
    let watch = watch.then(|| Watch::start(source)).transpose()?;
    Ok((watch, read(source)?))
}

fn how_to_start(reason: impl Display) -> String {
    format!("there is nothing to serve: {reason}\n\n{HOW_TO_START}")
}

const HOW_TO_START: &str = "To start, write a file such as everything.yaml and run `mcpmesh up` again:

  apiVersion: mcpmesh.io/v1alpha1
  kind: McpServer
  metadata:
    name: everything
  spec:
    package:
      registry: Npm
      name: \"@modelcontextprotocol/server-everything\"

or translate what a client has: `mcpmesh import ~/.cursor/mcp.json --out .`";

/// What cannot be served at all. A bad object among good ones is no reason.
fn judge_start(loaded: &Loaded, source: &Source, listen: SocketAddr) -> Outcome {
    if loaded.unreadable {
        return Err(Failure::failed("not all objects can be read: mend what is reported above"));
    }
    if loaded.is_empty() {
        let reported = "mend what is reported above".to_owned();
        return Err(Failure::failed(if loaded.has_errors() { reported } else { no_server(source, listen) }));
    }
    if is_exposed(loaded, listen) {
        return Err(Failure::usage(format!("--listen {listen}: {EXPOSED}")));
    }
    if loaded.compiled.snapshots.is_empty() {
        return Err(Failure::failed("the objects make no gateway: mend what is reported above"));
    }
    Ok(())
}

/// What to do where objects are, and none that serves.
fn no_server(source: &Source, listen: SocketAddr) -> String {
    let Source::Manifests(paths) = source else {
        return how_to_start("the client's configuration has no server but mcpmesh itself");
    };
    let beside = source::clients_own(paths, listen.port()).map(|file| {
        let file = source::display(&file);
        format!(
            ". {file} is left aside where there is YAML: `mcpmesh import {file} --out DIR` makes YAML of it"
        )
    });
    let beside = beside.unwrap_or_default();
    how_to_start(format_args!("there is no McpServer and no McpGateway among the objects{beside}"))
}

const EXPOSED: &str = "without an McpGateway and without a key the endpoint is open to anyone, so it is served on \
    loopback only. Make a key (mcpmesh key create --owner NAME --out NAME.yaml): then only callers with a key are let \
    in. Or write an McpGateway and an McpPolicy that say who may do what";

const OPENED: &str = "THE ENDPOINT IS NOW OPEN TO ANYONE ON THIS MACHINE: the last API key or McpGateway is gone from \
    the files. Put it back, or make a key (mcpmesh key create), to close it";

fn is_exposed(loaded: &Loaded, listen: SocketAddr) -> bool {
    loaded.is_open() && !listen.ip().is_loopback()
}

/// To keep what is in force would keep the keys in force that are taken away.
fn shut_if_exposed(loaded: &mut Loaded, listen: SocketAddr) -> bool {
    let exposed = is_exposed(loaded, listen);
    if exposed {
        loaded.shut();
    }
    exposed
}

fn random_key() -> Result<[u8; 32], Failure> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Failure::failed("the system gave no random bytes"))?;
    Ok(key)
}

struct Up {
    source: Source,
    /// The folder in which we were started, and in which servers are.
    home: PathBuf,
    version_key: [u8; 32],
    listen: SocketAddr,
    screen: Screen,
    workloads: Workloads,
}

impl Up {
    async fn serve(mut self, args: &UpArgs, mut watch: Option<Watch>, loaded: Loaded) -> Outcome {
        let mut signals = Signals::new().context("cannot listen for signals")?;
        self.workloads.set(&loaded.compiled, &loaded.inputs);
        let place = Place {
            data: args.listen,
            metrics: args.metrics,
            admin: args.admin,
            state: self.state_dir(args)?,
            access_log: self.access_log(args)?,
        };
        let plane = DataPlane::start(place, self.workloads.clone()).await?;
        for rejection in plane.apply(&loaded.compiled) {
            tracing::error!("{rejection}");
        }
        if let Source::Client { own, .. } = &mut self.source {
            *own = plane.port();
        }
        self.announce(&plane);
        let mut files = Files { applied: Arc::new(loaded), said: Vec::new() };
        files.said.clone_from(&files.applied.diagnostics);
        let mut status = plane.status();
        loop {
            tokio::select! {
                () = signals.next() => break,
                rows = status.next() => self.screen.servers(rows),
                () = changed(&mut watch) => {
                    let source = self.source.clone();
                    let version_key = self.version_key;
                    // The folder of this name may be another one now.
                    let _ = std::env::set_current_dir(&self.home);
                    let last = files.applied.clone();
                    let read = tokio::task::spawn_blocking(move || source::reload(&source, version_key, &last));
                    self.reload(&plane, read.await.context("reading the files failed")?, &mut files);
                }
            }
        }
        self.end(plane, signals).await;
        Ok(())
    }

    fn access_log(&self, args: &UpArgs) -> anyhow::Result<Option<Box<dyn Write + Send>>> {
        match args.access_log.as_deref() {
            None => Ok(None),
            Some(path) if path == Path::new("-") => Ok(Some(Box::new(self.screen.sink()))),
            Some(path) => access_log::file(path)
                .map(Some)
                .with_context(|| format!("--access-log {}: cannot be opened", path.display())),
        }
    }

    /// Puts a new reading of the files in force, or says why it is not.
    fn reload(&self, plane: &DataPlane, read: anyhow::Result<Loaded>, files: &mut Files) {
        let mut loaded = match read {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("{error:#}; the last good configuration stays in force");
                return;
            }
        };
        let news = loaded.diagnostics.iter().filter(|diagnostic| !files.said.contains(diagnostic));
        news.for_each(check::log);
        files.said.clone_from(&loaded.diagnostics);
        loaded.held().for_each(|held| tracing::warn!("{held}"));
        if shut_if_exposed(&mut loaded, self.listen) {
            tracing::error!("nobody is let in until that is mended: {EXPOSED}");
        }
        if loaded.is_same(&files.applied) {
            if loaded.has_errors() {
                tracing::info!("what is in force stays as it is");
            } else {
                tracing::info!("the files say what is in force");
            }
            files.applied = Arc::new(loaded);
            return;
        }
        if loaded.is_open() && !files.applied.is_open() {
            tracing::warn!("{OPENED}");
        }
        self.workloads.set(&loaded.compiled, &loaded.inputs);
        let before = plane.endpoints();
        for rejection in plane.apply(&loaded.compiled) {
            tracing::error!("{rejection}");
        }
        files.applied = Arc::new(loaded);
        tracing::info!("the changed configuration is in force");
        let endpoints = plane.endpoints();
        if endpoints != before && !before.is_empty() && !endpoints.is_empty() {
            tracing::warn!("clients must be told: {} is now {}", before.join(", "), endpoints.join(", "));
        }
    }

    fn announce(&self, plane: &DataPlane) {
        let mut addresses: Vec<(&str, String)> =
            plane.endpoints().into_iter().map(|url| ("endpoint", url)).collect();
        let endpoint = addresses.first().map_or_else(String::new, |(_, url)| url.clone());
        addresses.push(("metrics", plane.metrics_url()));
        addresses.push(("admin", plane.admin_url()));
        let url = if endpoint == "http://127.0.0.1:8080/mcp" {
            String::new()
        } else {
            format!(" --url {endpoint}")
        };
        let clients = "cursor|claude-code|claude-desktop|vscode|windsurf";
        self.screen.opened(&addresses, &format!("mcpmesh connect {clients}{url}"));
    }

    /// Lets requests in flight finish. A second signal ends everything at once: the shims see to the processes.
    async fn end(&self, plane: DataPlane, mut signals: Signals) {
        self.screen.close();
        tracing::info!("ending: waits for requests in flight; Ctrl-C again ends at once");
        let orderly = async {
            plane.drain(DRAIN).await;
            let _ = tokio::time::timeout(CHILDREN, self.workloads.end()).await;
        };
        tokio::select! {
            () = orderly => {}
            () = signals.next() => std::process::exit(INTERRUPTED),
        }
    }

    /// A folder of its own for each source, so that two of them share no keys.
    fn state_dir(&self, args: &UpArgs) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &args.state_dir {
            return Ok(folder.clone());
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        let state =
            state.context("neither XDG_STATE_HOME nor HOME is set: name a folder with --state-dir")?;
        let mut hash = Sha256::new();
        let paths = match &self.source {
            Source::Manifests(paths) => paths.as_slice(),
            Source::Client { file, .. } => std::slice::from_ref(file),
        };
        for path in paths {
            hash.update(std::path::absolute(path)?.as_os_str().as_encoded_bytes());
            hash.update([0]);
        }
        let name: String = hex::encode(hash.finalize()).chars().take(16).collect();
        Ok(state.join("mcpmesh").join(name))
    }
}

/// What was read last, and what was said of it.
struct Files {
    /// In force.
    applied: Arc<Loaded>,
    said: Vec<Diagnostic>,
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// The signals that end us.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
