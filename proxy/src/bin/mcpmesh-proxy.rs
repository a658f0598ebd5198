//! `mcpmesh-proxy`: the data plane over a compiled configuration, as a cluster runs it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use mcpmesh_ir::Snapshot;
use mcpmesh_proxy::routes::Routing;
use mcpmesh_proxy::{Options, Proxy, access_log};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Serves MCP gateways from a compiled configuration.
///
/// The file holds a JSON array of snapshots, the unit that a control plane pushes. SIGHUP reads
/// it again; a file that cannot be read changes nothing. SIGTERM drains.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The compiled configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where clients come.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Metrics and health: /metrics, /readyz, /livez.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:17020")]
    metrics: SocketAddr,
    /// The configuration in force, without secrets: /config_dump. Loopback only.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:17000")]
    admin: SocketAddr,
    /// Keeps the keys of sealed handles, so that cursors survive a restart.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// One JSON line a request: a file, or - for standard output.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// How long requests in flight may take to finish after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let snapshots = read(&arguments.config)?;
    let options = Options {
        metrics: arguments.metrics,
        admin: arguments.admin,
        state: arguments.state,
        access_log: arguments.access_log.as_deref().map(sink).transpose()?,
        routing: Routing::Listeners,
        ..Options::new(arguments.listen)
    };
    let proxy = Proxy::start(options).await?;
    proxy.apply(snapshots);
    tracing::info!(
        data = %proxy.data_addr(), metrics = %proxy.metrics_addr(), admin = %proxy.admin_addr(), "serving"
    );
    let mut end = signal(SignalKind::terminate())?;
    let mut reload = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = end.recv() => break,
            interrupted = tokio::signal::ctrl_c() => { interrupted?; break }
            _ = reload.recv() => match read(&arguments.config) {
                Ok(snapshots) => { proxy.apply(snapshots); }
                Err(error) => tracing::error!("kept the configuration in force: {error:#}"),
            },
        }
    }
    tracing::info!("draining");
    proxy.drain(Duration::from_secs(arguments.drain)).await;
    Ok(())
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
