//! `mcpmesh-proxy`: the data plane, as a cluster runs it.

mod args;
mod copy;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use mcpmesh_ir::{FleetId, ServerId, Snapshot};
use mcpmesh_proxy::bridge::{Beside, Bridge};
use mcpmesh_proxy::process::{Children, shim};
use mcpmesh_proxy::push::{LastGood, Operator, Settings, Store, Subscriber};
use mcpmesh_proxy::routes::Routing;
use mcpmesh_proxy::workers::Workers;
use mcpmesh_proxy::{Options, Proxy, access_log, bypass, ring};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use args::{Address, Arguments, Command, Folders, Member, Process, Serve};

/// Where the last good configuration is kept when nobody says.
const STATE: &str = "/var/run/mcpmesh/state";
/// How long a proxy of a fleet serves on after SIGTERM when nobody says: endpoints take so long to be forgotten.
const DELAY: Duration = Duration::from_secs(5);

/// How long a pod with an empty disk waits for an operator before it serves the operator's copy.
const PATIENCE: Duration = Duration::from_secs(5);

/// Threads for what is not a request: configuration, the servers' lists, processes.
const BESIDE: usize = 2;

/// What one thread allocates another frees: with the C library's they wait for each other, a fifth of a call's time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == shim::SUBCOMMAND) {
        return ExitCode::from(shim::run(words));
    }
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::Copy { dest }) => {
            copy::to(&dest).with_context(|| format!("cannot copy this program to {}", dest.display()))
        }
        Some(Command::Bridge(bridge)) => in_runtime(sidecar(bridge.member, Beside::Process(bridge.argv))),
        Some(Command::Sidecar(one)) => in_runtime(sidecar(one.member, Beside::Http(one.upstream))),
        None => in_runtime(serve(arguments.serve)),
    }
}

fn in_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(BESIDE).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(work)
}

/// A gateway's proxy, or one of a file.
async fn serve(serve: Serve) -> anyhow::Result<()> {
    let Serve { config, operator, fleet, listen, address, folders, process } = serve;
    if let (Some(operator), Some(fleet)) = (operator, fleet) {
        let member = Fleet { operator, fleet, address, folders, process };
        return member.serve(None).await;
    }
    let path = config.context("neither --config nor --operator")?;
    // From before anything is served: who serves is ended in an orderly way, never just killed.
    let signals = (End::listen()?, signal(SignalKind::hangup())?);
    let snapshots = read(&path)?;
    let mut options = Options::new(listen);
    options.ring = folders.state.map_or(ring::Source::Process, ring::Source::Folder);
    let proxy = start(options, &process).await?;
    proxy.apply(snapshots);
    reload_until_end(&proxy, &path, signals).await;
    drain(&proxy, &process, Duration::ZERO).await;
    Ok(())
}

/// A server's sidecar.
async fn sidecar(member: Member, beside: Beside) -> anyhow::Result<()> {
    let Member { operator, fleet: server, address, folders, process } = member;
    let fleet = FleetId::Server(server.clone());
    Fleet { operator, fleet, address, folders, process }.serve(Some((server, beside))).await
}

/// A proxy that an operator configures.
struct Fleet {
    operator: String,
    fleet: FleetId,
    address: Address,
    folders: Folders,
    process: Process,
}

impl Fleet {
    async fn serve(self, beside: Option<(ServerId, Beside)>) -> anyhow::Result<()> {
        let Self { operator, fleet, address, folders, process } = self;
        let Folders { identity, keys, last_good, state } = folders;
        let state = state.unwrap_or_else(|| PathBuf::from(STATE));
        let children = Children::default();
        let mut options = Options::listeners(address.listen_address);
        options.ring = ring::Source::File(keys.join("ring"));
        let stop = CancellationToken::new();
        let bypass = own_address(beside.as_ref().map(|(_, beside)| beside));
        let bypass = bypass.map_or_else(|| watch::channel(false).1, |at| bypass::follow(at, stop.clone()));
        if let Some((server, beside)) = beside {
            options.connector = Some(Arc::new(Bridge::new(server, beside, children.clone())));
        }
        let settings = Settings {
            operator: Operator::new(&operator, identity)?,
            last_good: LastGood { folder: last_good, patience: PATIENCE },
            store: Store::open(state, &keys.join("state"), fleet.clone())?,
            pod: std::env::var("POD_NAME").unwrap_or_default(),
            bypass,
            mesh: options.mesh.clone(),
            fleet,
        };
        // As where a file is served: before anything is.
        let mut end = End::listen()?;
        let proxy = start(options, &process).await?;
        let subscriber = Subscriber::boot(Arc::clone(&proxy), settings).await;
        let subscribed = tokio::spawn(subscriber.run(stop.clone()));
        end.comes().await;
        drain(&proxy, &process, DELAY).await;
        stop.cancel();
        subscribed.await.context("the subscription failed")?;
        children.end().await;
        Ok(())
    }
}

/// Where a server that speaks HTTP beside us must not answer: its port at the pod's own address.
fn own_address(beside: Option<&Beside>) -> Option<SocketAddr> {
    let Some(Beside::Http(url)) = beside else { return None };
    let ip = std::env::var("POD_IP").ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, url.port_or_known_default()?))
}

async fn start(options: Options, process: &Process) -> anyhow::Result<Arc<Proxy>> {
    let access_log = process.access_log.as_deref().map(sink).transpose()?;
    let (metrics, admin, routing) = (process.metrics, process.admin, Routing::Listeners);
    let workers = Workers::for_processors()?;
    let proxy = Proxy::start(Options { metrics, admin, access_log, routing, workers, ..options }).await?;
    tracing::info!(
        data = %proxy.data_addr(), metrics = %proxy.metrics_addr(), admin = %proxy.admin_addr(), "serving"
    );
    Ok(proxy)
}

/// SIGTERM or Ctrl-C, heard from when it is made.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn listen() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    async fn comes(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reads the file again at each SIGHUP, until the end.
async fn reload_until_end(proxy: &Proxy, path: &Path, (mut end, mut reload): (End, Signal)) {
    loop {
        tokio::select! {
            () = end.comes() => return,
            _ = reload.recv() => match read(path) {
                Ok(snapshots) => { proxy.apply(snapshots); }
                Err(error) => tracing::error!("kept the configuration in force: {error:#}"),
            },
        }
    }
}

/// Unready at once; serves on while others still send requests here; then ends what is in flight.
async fn drain(proxy: &Proxy, process: &Process, delay: Duration) {
    let delay = process.drain_delay.map_or(delay, Duration::from_secs);
    tracing::info!(?delay, "draining");
    proxy.leave();
    tokio::time::sleep(delay).await;
    proxy.drain(Duration::from_secs(process.drain)).await;
}

fn read(path: &Path) -> anyhow::Result<Vec<Snapshot>> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no array of snapshots", path.display()))
}

fn sink(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdout()));
    }
    access_log::file(path).with_context(|| format!("cannot open {}", path.display()))
}
